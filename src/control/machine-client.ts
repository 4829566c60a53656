/**
 * The application's half of the control protocol, whatever carries it.
 *
 * Every machine ends with exactly one `stopped`, also when what carries it breaks (`lost`), and what a machine said before is delivered
 * before it. After that nothing is sent any more.
 */
import type {
  DrillName,
  FromMachine,
  JitReport,
  LogLevel,
  MachineConfig,
  SerialPort,
  ServicesReport,
  SnapshotOutcome,
  SocketTraffic,
  StopReason,
  ToMachine,
  TraceRequest,
} from "./protocol.ts";

export interface MachineEvents {
  started?(): void;
  output(port: SerialPort, data: Uint8Array): void;
  trace?(lines: string): void;
  jitStats?(report: JitReport | null, retired: number): void;
  profile?(data: string): void;
  log(level: LogLevel, text: string): void;
  stopped(reason: StopReason): void;
}

/** What a connection to the guest tells its user. */
export interface ConnectionEvents {
  opened(): void;
  /** Bytes of the guest's; `taken` says that the next may come. */
  data(bytes: Uint8Array): void;
  /** The guest has taken as many bytes of ours. */
  taken(bytes: number): void;
  /** The guest sends no more. */
  ended(): void;
  /** Over, refused, or gone with the machine; nothing comes after it. */
  closed(): void;
}

/** A connection to a port of the guest's. */
export interface GuestConnection {
  /** No more than SOCKET_WINDOW bytes that are not taken yet. */
  write(bytes: Uint8Array): void;
  taken(bytes: number): void;
  end(): void;
  close(): void;
}

/** Carries a message to the machine; the buffers in `transfer` become the machine's. */
export type Post = (message: ToMachine, transfer: ArrayBuffer[]) => void;

type Answer = ServicesReport | SnapshotOutcome | string | null | undefined;

export class MachineClient {
  readonly #post: Post;
  readonly #events: MachineEvents;
  #stopped = false;
  #asked = 0;
  /** What waits for an answer; undefined: the machine has ended. */
  readonly #waiting = new Map<number, (answer: Answer) => void>();

  readonly #connections = new Map<number, ConnectionEvents>();
  readonly #traces = new Map<number, (lines: string) => void>();

  constructor(post: Post, events: MachineEvents) {
    this.#post = post;
    this.#events = events;
  }

  /** The arrays in `config` become the machine's where they fill their buffers, and must not be used afterwards. */
  start(config: MachineConfig): void {
    const arrays = config.initrd ? [config.kernel, config.initrd] : [config.kernel];
    const buffers = arrays.filter(ownsBuffer).map((array) => array.buffer as ArrayBuffer);
    this.#send({ type: "start", config }, [...new Set(buffers)]);
  }

  /** Asks the guest to give that much memory; needs the configuration's balloon. */
  balloon(bytes: number): void {
    this.#send({ type: "balloon", bytes });
  }

  input(port: SerialPort, data: Uint8Array): void {
    if (data.length > 0) this.#send({ type: "input", port, data });
  }

  pressPowerButton(): void {
    this.#send({ type: "powerButton" });
  }

  pause(): void {
    this.#send({ type: "pause" });
  }

  resume(): void {
    this.#send({ type: "resume" });
  }

  /** Connects to a port that the guest listens on, by vsock. Of a machine without, or one that has ended, it is closed at once. */
  connect(port: number, events: ConnectionEvents): GuestConnection {
    const id = ++this.#asked;
    const send = (message: SocketTraffic): void => {
      if (this.#connections.has(id)) this.#send(message);
    };
    if (this.#stopped) void Promise.resolve().then(() => events.closed());
    else {
      this.#connections.set(id, events);
      this.#send({ type: "connect", id, port });
    }
    return {
      write: (data) => send({ type: "socketData", id, data }),
      taken: (bytes) => send({ type: "socketTaken", id, bytes }),
      end: () => send({ type: "socketEnded", id }),
      close: () => {
        send({ type: "socketClosed", id });
        this.#connections.delete(id);
      },
    };
  }

  /** What its services are and have done; undefined if the machine ends before it answers. */
  services(): Promise<ServicesReport | undefined> {
    return this.#ask((id) => ({ type: "services", id })) as Promise<ServicesReport | undefined>;
  }

  /** Answers why it was not done, or null. */
  async drill(service: string, drill: DrillName): Promise<string | null> {
    const answer = await this.#ask((id) => ({ type: "drill", id, service, drill }));
    return answer === undefined ? "the machine has ended" : (answer as string | null);
  }

  /** Undefined if the machine ends before it answers. */
  snapshot(folder: string, about: string): Promise<SnapshotOutcome | undefined> {
    return this.#ask((id) => ({ type: "snapshot", id, folder, about })) as Promise<
      SnapshotOutcome | undefined
    >;
  }

  /** Traces until the answer is called; then `lines` is called no more, but for the last events, and at last with "". */
  trace(request: TraceRequest, lines: (lines: string) => void): () => void {
    const id = ++this.#asked;
    this.#traces.set(id, lines);
    this.#send({ type: "trace", id, request });
    return () => this.#send({ type: "untrace", id });
  }

  #traced(id: number, lines: string): void {
    const sink = this.#traces.get(id);
    if (lines === "") this.#traces.delete(id);
    sink?.(lines);
  }

  #ask(message: (id: number) => ToMachine): Promise<Answer> {
    if (this.#stopped) return Promise.resolve(undefined);
    const id = ++this.#asked;
    return new Promise((resolve) => {
      this.#waiting.set(id, resolve);
      this.#send(message(id));
    });
  }

  #answered(id: number, answer: Answer): void {
    this.#waiting.get(id)?.(answer);
    this.#waiting.delete(id);
  }

  /** Asks the machine to stop; it may first send what it still has. */
  stop(): void {
    this.#send({ type: "stop" });
  }

  /** For the transport: the machine has said something. */
  receive(message: FromMachine): void {
    if (this.#stopped) return;
    switch (message.type) {
      case "started":
        this.#events.started?.();
        break;
      case "output":
        this.#events.output(message.port, message.data);
        break;
      case "trace":
        this.#events.trace?.(message.data);
        break;
      case "jitStats":
        this.#events.jitStats?.(message.report, message.retired);
        break;
      case "profile":
        this.#events.profile?.(message.data);
        break;
      case "log":
        this.#events.log(message.level, message.text);
        break;
      case "services":
        this.#answered(message.id, message.report);
        break;
      case "snapshotTaken":
        this.#answered(message.id, message.outcome);
        break;
      case "drilled":
        this.#answered(message.id, message.problem);
        break;
      case "traced":
        this.#traced(message.id, message.lines);
        break;
      case "socketOpen":
        this.#connections.get(message.id)?.opened();
        break;
      case "socketData":
      case "socketTaken":
      case "socketEnded":
      case "socketClosed":
        this.#carry(message);
        break;
      case "stopped":
        this.lost(message.reason);
        break;
    }
  }

  #carry(message: SocketTraffic): void {
    const events = this.#connections.get(message.id);
    if (!events) return;
    if (message.type === "socketData") events.data(message.data);
    else if (message.type === "socketTaken") events.taken(message.bytes);
    else if (message.type === "socketEnded") events.ended();
    else {
      this.#connections.delete(message.id);
      events.closed();
    }
  }

  /** For the transport: the machine is gone. Only the first reason counts. */
  lost(reason: StopReason): void {
    if (this.#stopped) return;
    this.#stopped = true;
    for (const resolve of this.#waiting.values()) resolve(undefined);
    this.#waiting.clear();
    for (const sink of this.#traces.values()) sink("");
    this.#traces.clear();
    const connections = [...this.#connections.values()];
    this.#connections.clear();
    for (const { closed } of connections) closed();
    this.#events.stopped(reason);
  }

  #send(message: ToMachine, transfer: ArrayBuffer[] = []): void {
    if (!this.#stopped) this.#post(message, transfer);
  }
}

/** A small Buffer of Node's is a window of a shared pool, which must not be transferred. */
function ownsBuffer(array: Uint8Array): boolean {
  const { buffer } = array;
  return buffer instanceof ArrayBuffer && array.byteLength === buffer.byteLength;
}
