/**
 * What the host and the agent in the guest say to each other on one connection: a request, then frames in both directions.
 *
 * Request: length u32 of all that follows; flags, rows, columns, user id, group id, count of groups, of places, of arguments, of environment
 * strings, all u32; the groups, u32 each; then, each ended by NUL, the folder to start in, the places where the program may be (tried in
 * order, as execvp does), its arguments, its environment.
 * Frame: type u32, length u32, payload. All numbers are little-endian.
 *
 * The host sends no more than STDIN_WINDOW bytes of standard input that the agent has not acknowledged, so that the agent can always read
 * the next frame, be it a signal.
 */
export const AGENT_PORT = 1024;
export const MAX_REQUEST = 1 << 17;
export const STDIN_WINDOW = 1 << 16;
/** Of one frame from the agent; and that the host may send. */
export const MAX_PAYLOAD = 1 << 15;
export const FRAME_HEADER = 8;
export const MAX_GROUPS = 64;
export const MAX_STRINGS = 8192;

export const RequestFlag = {
  /** A terminal of its own, for all three streams. */
  TTY: 1,
  /** There is standard input; without it it is at its end. */
  STDIN: 2,
  /** The program is the agent's busybox, whatever the guest's file system has. */
  BUSYBOX: 4,
  /** It goes on without us: no streams, no exit status. */
  DETACH: 8,
  /**
   * No program: the guest goes on from a snapshot. Its groups are numbers: seconds since 1970, low and high word, nanoseconds, and RESUME_ENTROPY
   * words of randomness. EXITED says that the clock is set, FAILED with step CLOCK that it is not.
   */
  RESUME: 16,
} as const;

export const RESUME_ENTROPY = 8;

export const RequestAt = {
  FLAGS: 0,
  ROWS: 4,
  COLUMNS: 8,
  UID: 12,
  GID: 16,
  GROUPS: 20,
  PLACES: 24,
  ARGUMENTS: 28,
  ENVIRONMENT: 32,
  LIST: 36,
} as const;

/** From the host. */
export const HostFrame = {
  /** Without bytes: the end of standard input. */
  STDIN: 0,
  /** rows u16, columns u16 */
  RESIZE: 1,
  /** number u32, for the process and all that it has started in its session's first group */
  SIGNAL: 2,
} as const;

/** From the agent. */
export const AgentFrame = {
  STDOUT: 1,
  STDERR: 2,
  /** process id u32 */
  STARTED: 3,
  /** status u32, as wait4 has it; the last frame */
  EXITED: 4,
  /** step u32, errno u32; the last frame */
  FAILED: 5,
  /** bytes u32 of standard input that found room */
  TAKEN: 6,
  /** Not of the agent, but of a machine that somebody is attached to: exit code u32; the last frame */
  ENDED: 7,
} as const;

/** What could not be done. */
export const FailedStep = {
  FOLDER: 1,
  USER: 2,
  PROGRAM: 3,
  TERMINAL: 4,
  PROCESS: 5,
  CLOCK: 6,
} as const;

export interface AgentRequest {
  readonly argv: readonly string[];
  /** Paths where the program may be. */
  readonly places: readonly string[];
  readonly environment: Readonly<Record<string, string>>;
  readonly folder: string;
  readonly uid: number;
  readonly gid: number;
  readonly groups: readonly number[];
  readonly flags: number;
  readonly rows: number;
  readonly columns: number;
}

export function encodeRequest(request: AgentRequest): Buffer {
  const { argv, places, environment, folder, groups, flags } = request;
  const variables = Object.entries(environment).map(([name, value]) => `${name}=${value}`);
  const strings = [folder, ...places, ...argv, ...variables];
  const text = Buffer.from(strings.map((string) => `${string}\0`).join(""));
  const listed = groups.slice(0, MAX_GROUPS);
  const head = [
    ...[flags, request.rows, request.columns, request.uid, request.gid],
    ...[listed.length, places.length, argv.length, variables.length, ...listed],
  ];
  const bytes = Buffer.alloc(4 + head.length * 4 + text.length);
  bytes.writeUInt32LE(bytes.length - 4, 0);
  for (const [i, value] of head.entries()) bytes.writeUInt32LE(value, 4 + 4 * i);
  text.copy(bytes, 4 + head.length * 4);
  return bytes;
}

export function encodeFrame(type: number, payload: Uint8Array): Buffer {
  const head = Buffer.alloc(FRAME_HEADER);
  head.writeUInt32LE(type, 0);
  head.writeUInt32LE(payload.length, 4);
  return Buffer.concat([head, payload]);
}

export function numbers(...values: number[]): Buffer {
  const bytes = Buffer.alloc(4 * values.length);
  for (const [i, value] of values.entries()) bytes.writeUInt32LE(value, 4 * i);
  return bytes;
}

/** Takes a stream apart into frames. */
export class FrameDecoder {
  readonly #frame: (type: number, payload: Buffer) => void;
  #rest: Buffer = Buffer.alloc(0);

  constructor(frame: (type: number, payload: Buffer) => void) {
    this.#frame = frame;
  }

  /** Answers whether the bytes made sense; after nonsense nothing does. */
  push(bytes: Uint8Array): boolean {
    this.#rest = this.#rest.length === 0 ? Buffer.from(bytes) : Buffer.concat([this.#rest, bytes]);
    while (this.#rest.length >= FRAME_HEADER) {
      const length = this.#rest.readUInt32LE(4);
      if (length > MAX_PAYLOAD) return false;
      if (this.#rest.length < FRAME_HEADER + length) break;
      const type = this.#rest.readUInt32LE(0);
      const payload = this.#rest.subarray(FRAME_HEADER, FRAME_HEADER + length);
      this.#rest = this.#rest.subarray(FRAME_HEADER + length);
      this.#frame(type, payload);
    }
    return true;
  }
}
