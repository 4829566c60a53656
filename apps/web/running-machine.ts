/** One life of a machine in the page: its serial ports joined to the terminal, and its end explained. */
import {
  type LogLevel,
  type MachineConfig,
  SerialUse,
  type StopReason,
} from "../../src/control/protocol.ts";
import { ConsoleTail } from "../common/console-tail.ts";
import { ControlLine, type WindowSize } from "../common/control-line.ts";
import { type Verdict, verdictOf } from "./verdict.ts";
import { VmClient } from "./vm-client.ts";

export interface RunningMachineEvents {
  started(): void;
  output(data: Uint8Array): void;
  log(level: LogLevel, text: string): void;
  ended(verdict: Verdict): void;
}

/** How long a machine may take to stop. */
const STOP_MS = 1000;

export class RunningMachine {
  readonly #client: VmClient;
  readonly #control: ControlLine;
  readonly #hasSession: boolean;
  readonly #tail = new ConsoleTail();
  readonly #events: RunningMachineEvents;
  #timer: ReturnType<typeof setTimeout> | undefined;

  /** `hasSession`: our initramfs runs in the guest, so the control line has somebody at its end. */
  constructor(hasSession: boolean, events: RunningMachineEvents) {
    this.#events = events;
    this.#hasSession = hasSession;
    this.#client = new VmClient({
      started: () => events.started(),
      output: (port, data) => this.#output(port, data),
      log: (level, text) => events.log(level, text),
      stopped: (reason) => this.#stopped(reason),
    });
    const encoder = new TextEncoder();
    this.#control = new ControlLine(
      (text) => this.#client.input(SerialUse.CONTROL, encoder.encode(text)),
      { ready: () => {}, inputWanted: () => {} },
    );
  }

  start(config: MachineConfig): void {
    this.#client.start(config);
  }

  type(bytes: Uint8Array): void {
    this.#client.input(SerialUse.CONSOLE, bytes);
  }

  resize(size: WindowSize): void {
    if (this.#hasSession) this.#control.resize(size);
  }

  /** Asks the guest to shut down. */
  powerOff(): void {
    if (!this.#control.powerOff()) this.#client.pressPowerButton();
  }

  turnOff(): void {
    this.#client.stop();
    this.#timer ??= setTimeout(() => this.#client.kill(), STOP_MS);
  }

  #output(port: number, data: Uint8Array): void {
    if (port === SerialUse.CONSOLE) {
      this.#tail.add(data);
      this.#events.output(data);
    } else if (port === SerialUse.CONTROL && this.#hasSession) {
      this.#control.receive(data);
    }
  }

  #stopped(reason: StopReason): void {
    clearTimeout(this.#timer);
    this.#client.kill();
    this.#events.ended(verdictOf(reason, this.#tail.panic));
  }
}
