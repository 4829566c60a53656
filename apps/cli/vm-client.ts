/**
 * One machine in a worker thread, seen from the main thread: the client's half of the control protocol.
 *
 * The only file of the command line that names the machine. Every machine ends with exactly one `stopped`, also when its worker
 * breaks, and what a machine said before is delivered before it.
 */
import { fileURLToPath } from "node:url";
import { Worker } from "node:worker_threads";
import type {
  FromMachine,
  LogLevel,
  MachineConfig,
  SerialPort,
  StopReason,
  ToMachine,
} from "../../src/control/protocol.ts";

export interface MachineEvents {
  started?(): void;
  output(port: SerialPort, data: Uint8Array): void;
  trace?(lines: string): void;
  log(level: LogLevel, text: string): void;
  stopped(reason: StopReason): void;
}

/** The same file from a checkout (TypeScript) and from a package (JavaScript). */
export function machineWorkerUrl(env: NodeJS.ProcessEnv = process.env): URL {
  // Tests put another implementation of the protocol in the machine's place.
  const substitute = env.HYPO_MACHINE_WORKER;
  if (substitute) return new URL(substitute, "file:///");
  const extension = import.meta.url.endsWith(".ts") ? "ts" : "js";
  return new URL(`../../src/machine/embedder-node-worker.${extension}`, import.meta.url);
}

export class VmClient {
  readonly #worker: Worker;
  readonly #events: MachineEvents;
  /** Counts what was sent: the worker blocks on it, since it does not use its event loop while the guest runs. */
  readonly #doorbell = new Int32Array(new SharedArrayBuffer(4));
  #stopped = false;
  /** Why the worker is about to be gone, if we know. */
  #failure: StopReason | undefined;

  constructor(url: URL, events: MachineEvents) {
    this.#events = events;
    this.#worker = new Worker(fileURLToPath(url), {
      name: "machine",
      workerData: { doorbell: this.#doorbell },
    });
    this.#worker.on("message", (message: FromMachine) => this.#receive(message));
    this.#worker.on("error", (error: Error) => {
      this.#failure = {
        kind: "error",
        message: `the machine's thread failed: ${error.message}`,
        ...(error.stack === undefined ? {} : { dump: error.stack }),
      };
    });
    this.#worker.on("exit", () => {
      const unexpected: StopReason = { kind: "error", message: "the machine's thread ended" };
      this.#stop(this.#failure ?? unexpected);
    });
  }

  /** The arrays in `config` become the machine's where they fill their buffers, and must not be used afterwards. */
  start(config: MachineConfig): void {
    const arrays = config.initrd ? [config.kernel, config.initrd] : [config.kernel];
    const buffers = arrays.filter(ownsBuffer).map((array) => array.buffer as ArrayBuffer);
    this.#send({ type: "start", config }, [...new Set(buffers)]);
  }

  input(port: SerialPort, data: Uint8Array): void {
    if (data.length > 0) this.#send({ type: "input", port, data });
  }

  pressPowerButton(): void {
    this.#send({ type: "powerButton" });
  }

  /** Asks the machine to stop; it may first send what it still has. */
  stop(): void {
    this.#send({ type: "stop" });
  }

  /** Ends the machine now, whatever it is doing. */
  async kill(): Promise<void> {
    this.#failure ??= { kind: "killed" };
    await this.#worker.terminate();
  }

  #send(message: ToMachine, transfer: ArrayBuffer[] = []): void {
    if (this.#stopped) return;
    this.#worker.postMessage(message, transfer);
    Atomics.add(this.#doorbell, 0, 1);
    Atomics.notify(this.#doorbell, 0);
  }

  #receive(message: FromMachine): void {
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
      case "log":
        this.#events.log(message.level, message.text);
        break;
      case "stopped":
        this.#stop(message.reason);
        break;
    }
  }

  #stop(reason: StopReason): void {
    if (this.#stopped) return;
    this.#stopped = true;
    this.#events.stopped(reason);
  }
}

/** A small Buffer is a window of a shared pool, which must not be transferred. */
function ownsBuffer(array: Uint8Array): boolean {
  const { buffer } = array;
  return buffer instanceof ArrayBuffer && array.byteLength === buffer.byteLength;
}
