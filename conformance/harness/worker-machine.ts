/** Our machine in a worker thread behind the control protocol, as `hypo run` has it. HYPO_MACHINE_WORKER puts another in its place. */
import { readFileSync } from "node:fs";
import { machineWorkerUrl, VmClient } from "../../apps/cli/vm-client.ts";
import { type MachineConfig, SerialUse, type StopReason } from "../../src/control/protocol.ts";
import { chosenEngine } from "./engine.ts";
import type { BootFiles, GuestMachine, TextListener } from "./guest-machine.ts";

export class WorkerMachine implements GuestMachine {
  readonly pid = undefined;
  readonly stopped: Promise<StopReason>;
  /** For what a session does not do: services, drills. */
  readonly client: VmClient;
  readonly #listeners: TextListener[] = [];
  readonly #onConsole: (text: string) => void;
  #console = "";

  /** `changes`: to the configuration that a run has without a word. `onConsole`: what consoleText() grows by. */
  constructor(
    files: BootFiles,
    cpuModel = "x86-64-v2",
    changes: Partial<MachineConfig> = {},
    onConsole: (text: string) => void = () => {},
  ) {
    this.#onConsole = onConsole;
    let stop = (_reason: StopReason): void => {};
    this.stopped = new Promise((resolve) => {
      stop = resolve;
    });
    this.client = new VmClient(machineWorkerUrl(), {
      output: (port, data) => this.#output(port, Buffer.from(data).toString("latin1")),
      log: (_level, text) => this.#say(`[machine] ${text}\n`),
      stopped: (reason) => stop(reason),
    });
    this.client.start({
      kernel: new Uint8Array(readFileSync(files.kernelPath)),
      initrd: new Uint8Array(readFileSync(files.initrdPath)),
      cmdline: files.append,
      memoryBytes: files.memoryMib * 2 ** 20,
      cpuModel,
      clock: "wall",
      engine: chosenEngine(),
      traceExits: false,
      rtcEpochMs: Date.now(),
      ...changes,
    });
  }

  #say(text: string): void {
    this.#console += text;
    this.#onConsole(text);
  }

  #output(port: number, text: string): void {
    if (port === SerialUse.CONSOLE) this.#say(text);
    else if (port === SerialUse.JOB) for (const hear of this.#listeners) hear(text, undefined);
  }

  write(text: string): void {
    this.client.input(SerialUse.JOB, new Uint8Array(Buffer.from(text, "latin1")));
  }

  onText(listener: TextListener): void {
    this.#listeners.push(listener);
  }

  consoleText(): string {
    return this.#console;
  }

  kill(): void {
    this.client.kill();
  }
}
