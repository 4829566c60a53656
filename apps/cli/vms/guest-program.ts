/** Starting programs in a running guest by its agent. */
import { type Duplex, type Readable, Writable } from "node:stream";
import { HypolithError } from "../../../src/base/errors.ts";
import {
  type AgentRequest,
  encodeRequest,
  FailedStep,
  MAX_REQUEST,
  RequestFlag,
} from "../guest/agent/agent-protocol.ts";
import { openStream } from "./door-client.ts";
import { exitCodeOf, StreamClient, type StreamEnds, type StreamOutcome } from "./stream-client.ts";

const CANNOT_RUN = 126;
const NOT_FOUND = 127;
const Errno = { ENOENT: 2, E2BIG: 7, ENOEXEC: 8, EACCES: 13, ENOTDIR: 20, EIO: 5 } as const;

const REASONS: Readonly<Record<number, string>> = {
  [Errno.ENOENT]: "it is not there",
  [Errno.E2BIG]: "the arguments are too long",
  [Errno.ENOEXEC]: "it is no program for this machine",
  [Errno.EACCES]: "permission denied",
  [Errno.ENOTDIR]: "a part of its path is no folder",
  [Errno.EIO]: "there is no terminal for it",
};

/** A program that could not be started, and the exit code that says so. */
export class GuestProgramError extends HypolithError {
  readonly exitCode: number;

  constructor(message: string, exitCode: number) {
    super("guest-program", message);
    this.name = "GuestProgramError";
    this.exitCode = exitCode;
  }
}

/** A machine with an agent: one of another process, by its name, or one of this. */
export type GuestDoor = string | OwnGuest;

export interface OwnGuest {
  readonly name: string;
  openAgent(): Promise<Duplex>;
}

export function nameOfGuest(vm: GuestDoor): string {
  return typeof vm === "string" ? vm : vm.name;
}

/** Connects to the agent of machine `vm` and asks for the program. */
export async function startProgram(
  vm: GuestDoor,
  request: AgentRequest,
  ends: StreamEnds,
): Promise<StreamClient> {
  const bytes = encodeRequest(request);
  if (bytes.length > MAX_REQUEST)
    throw new GuestProgramError("the command and its environment are too long", CANNOT_RUN);
  const socket = await (typeof vm === "string"
    ? openStream(vm, { verb: "agent" })
    : vm.openAgent());
  socket.write(bytes);
  const client = new StreamClient(socket, ends);
  socket.resume();
  return client;
}

/** The exit code of a shell for what became of a program. Throws GuestProgramError, or HypolithError if the machine has gone. */
export function exitCodeFor(
  outcome: StreamOutcome,
  { argv, folder }: Pick<AgentRequest, "argv" | "folder">,
): number {
  switch (outcome.kind) {
    case "exited":
      return exitCodeOf(outcome.status);
    case "ended":
      return outcome.code;
    case "started":
    case "detached":
      return 0;
    case "lost":
      throw new HypolithError("machine-gone", "the machine ended before the command did", {
        hint: "hypo ps -a says how, hypo logs what it said",
      });
    case "failed": {
      const why = REASONS[outcome.errno] ?? `error ${outcome.errno}`;
      if (outcome.step === FailedStep.FOLDER)
        throw new GuestProgramError(`${folder} cannot be the working folder: ${why}`, CANNOT_RUN);
      if (outcome.step === FailedStep.USER)
        throw new GuestProgramError(`the user cannot be changed: ${why}`, CANNOT_RUN);
      if (outcome.step !== FailedStep.PROGRAM)
        throw new GuestProgramError(`${argv[0]} cannot be started: ${why}`, CANNOT_RUN);
      const isAbsent = outcome.errno === Errno.ENOENT || outcome.errno === Errno.ENOTDIR;
      throw new GuestProgramError(
        isAbsent ? `${argv[0]}: no such command in the guest` : `${argv[0]}: ${why}`,
        isAbsent ? NOT_FOUND : CANNOT_RUN,
      );
    }
  }
}

/** Where a command may be, as execvp looks for it. */
export function placesOf(program: string, path: string): string[] {
  if (program.includes("/")) return [program];
  return path.split(":").map((folder) => `${folder || "."}/${program}`);
}

export interface ToolRun {
  readonly code: number;
  readonly stdout: Buffer;
  readonly stderr: string;
}

export interface ToolStreams {
  readonly stdin?: Readable;
  /** Default: kept, up to a megabyte. */
  readonly stdout?: Writable;
}

const MAX_KEPT = 1 << 20;

/** Runs an applet of our busybox, as root, whatever the guest's own file system has. */
export async function runTool(
  vm: GuestDoor,
  argv: readonly string[],
  { stdin, stdout }: ToolStreams = {},
): Promise<ToolRun> {
  const kept = new KeptStream();
  const errors = new KeptStream();
  const request: AgentRequest = {
    ...{ argv, places: [], environment: {}, folder: "/", uid: 0, gid: 0, groups: [] },
    flags: RequestFlag.BUSYBOX | (stdin ? RequestFlag.STDIN : 0),
    ...{ rows: 24, columns: 80 },
  };
  const ends = { stdin, stdout: stdout ?? kept.stream, stderr: errors.stream };
  const client = await startProgram(vm, request, ends);
  const code = exitCodeFor(await client.outcome, request);
  return { code, stdout: kept.bytes(), stderr: errors.bytes().toString() };
}

class KeptStream {
  readonly #parts: Buffer[] = [];
  #length = 0;
  readonly stream = new Writable({
    write: (bytes: Buffer, _, done) => {
      if (this.#length < MAX_KEPT) this.#parts.push(bytes);
      this.#length += bytes.length;
      done();
    },
  });

  bytes(): Buffer {
    return Buffer.concat(this.#parts);
  }
}
