/** Test support: a worker's global scope with its page in one object, for the browser embedder in any JavaScript. */
import type { FromMachine, MachineConfig, StopReason, ToMachine } from "../../control/protocol.ts";
import { DEFAULT_CPU_MODEL } from "../../processor/isa/cpuid.ts";
import type { WorkerScope } from "../embedder-browser-worker.ts";

export function smallConfig(kernel: Uint8Array, more: Partial<MachineConfig> = {}): MachineConfig {
  return {
    kernel,
    cmdline: "",
    memoryBytes: 32 << 20,
    cpuModel: DEFAULT_CPU_MODEL,
    clock: "wall",
    traceExits: false,
    rtcEpochMs: 1_700_000_000_000,
    ...more,
  };
}

export class FakeScope implements WorkerScope {
  readonly heard: FromMachine[] = [];
  /** How often the embedder has asked to be called again. Counted by whoever defers for it. */
  slices = 0;
  #listener: (event: { data: ToMachine }) => void = () => {};
  #changed = (): void => {};

  postMessage(message: FromMachine): void {
    this.heard.push(structuredClone(message));
    this.#changed();
  }

  addEventListener(_type: "message", listener: (event: { data: ToMachine }) => void): void {
    this.#listener = listener;
  }

  /** As the browser does: in a task of its own. */
  say(message: ToMachine): void {
    const data = structuredClone(message);
    setTimeout(() => this.#listener({ data }), 0);
  }

  /** What came out of COM1. */
  get output(): string {
    const bytes = this.heard.flatMap((m) =>
      m.type === "output" && m.port === 0 ? [...m.data] : [],
    );
    return String.fromCharCode(...bytes);
  }

  get types(): string[] {
    return this.heard.map((m) => m.type).filter((type) => type !== "log");
  }

  async until(condition: () => boolean): Promise<void> {
    while (!condition()) {
      await new Promise<void>((resolve) => {
        this.#changed = resolve;
      });
    }
  }

  async stopped(): Promise<StopReason> {
    await this.until(() => this.types.includes("stopped"));
    return this.heard.flatMap((m) => (m.type === "stopped" ? [m.reason] : []))[0]!;
  }
}
