/**
 * One run of a machine, from start to exit code: the serial ports joined to our terminal or streams, requests to stop turned into
 * what the guest understands, and the end explained.
 *
 * Exit codes: the job's own; 0 when the guest turned itself off; 125 when the run ended in any other way before the job did; 128+n
 * when signal n asked us to stop.
 */
import { HypolithError } from "../../src/base/errors.ts";
import { type MachineConfig, SerialUse, type StopReason } from "../../src/control/protocol.ts";
import { ConsoleTail } from "../common/console-tail.ts";
import { ControlLine } from "../common/control-line.ts";
import { ExitCode } from "./exit-code.ts";
import { JobInput } from "./guest/job-input.ts";
import { formatJitReport } from "./jit-table.ts";
import type { Messages } from "./messages.ts";
import type { ProfileFile } from "./profile-file.ts";
import { ConsoleTerminal } from "./terminal/console-terminal.ts";
import { ESCAPE_HELP, type EscapeCommand } from "./terminal/escape-keys.ts";
import type { StopRequests, StopSignal } from "./terminal/stop-requests.ts";
import type { TraceFile } from "./trace-file.ts";
import { machineWorkerUrl, VmClient } from "./vm-client.ts";
import { openDoor } from "./vms/door.ts";

export interface MachineRun {
  readonly config: MachineConfig;
  readonly name: string;
  /** What it runs, for a list of machines. */
  readonly what: string;
  /** "console": our terminal is the guest's. "pipes": a job's three streams are ours. */
  readonly mode: "console" | "pipes";
  /** Our initramfs runs in the guest, so the control line has somebody at its end. */
  readonly hasSession: boolean;
  /** In "pipes" mode: copy the guest's console to standard error. */
  readonly showConsole: boolean;
  readonly trace: TraceFile | undefined;
  readonly profile: ProfileFile | undefined;
}

/** How long a guest may take to end after it was asked to. */
const PATIENCE_MS = 10_000;
/** How long a machine may take to stop. */
const STOP_MS = 1000;

export function runMachine(
  run: MachineRun,
  messages: Messages,
  stops: StopRequests,
): Promise<number> {
  return new Promise((resolve, reject) => {
    new RunningMachine(run, messages, stops, resolve).start().catch(reject);
  });
}

class RunningMachine {
  readonly #run: MachineRun;
  readonly #messages: Messages;
  readonly #stops: StopRequests;
  readonly #done: (code: number) => void;
  readonly #client: VmClient;
  readonly #control: ControlLine;
  readonly #input: JobInput;
  readonly #terminal: ConsoleTerminal;
  readonly #tail = new ConsoleTail();
  /** The user turned it off from the keyboard. */
  #switchedOff = false;
  #outputClosed = false;
  /** What --jit-stats prints, when the machine has said it. */
  #jitLines: readonly string[] | undefined;
  #timer: NodeJS.Timeout | undefined;
  #closeDoor = (): void => {};

  constructor(
    run: MachineRun,
    messages: Messages,
    stops: StopRequests,
    done: (code: number) => void,
  ) {
    this.#run = run;
    this.#messages = messages;
    this.#stops = stops;
    this.#done = done;
    this.#client = new VmClient(machineWorkerUrl(), {
      output: (port, data) => this.#output(port, data),
      trace: (lines) => run.trace?.write(lines),
      jitStats: (report, retired) => {
        this.#jitLines = formatJitReport(report, retired);
      },
      profile: (json) => run.profile?.write(json),
      log: (level, text) => messages.log(level, text),
      stopped: (reason) => this.#stopped(reason),
    });
    this.#control = new ControlLine(
      (text) => this.#client.input(SerialUse.CONTROL, Buffer.from(text)),
      { ready: () => messages.clearStatus(), inputWanted: () => this.#input.next() },
    );
    this.#input = new JobInput(process.stdin, (bytes) => this.#client.input(SerialUse.JOB, bytes));
    this.#terminal = new ConsoleTerminal({
      input: (bytes) => this.#client.input(SerialUse.CONSOLE, bytes),
      command: (command) => this.#command(command),
      resized: (size) => this.#control.resize(size),
    });
  }

  async start(): Promise<void> {
    await this.#openDoor();
    process.stdout.on("error", () => this.#outputFailed());
    if (this.#run.mode === "console") this.#openTerminal();
    else this.#messages.status("booting ...");
    this.#client.start(this.#run.config);
    this.#stops.handle((signal, count) => this.#stopRequested(signal, count));
  }

  /** A machine that has no door runs none the less, unless its name was asked for. */
  async #openDoor(): Promise<void> {
    const { name, what, config } = this.#run;
    const { memoryBytes } = config;
    try {
      this.#closeDoor = await openDoor({
        info: { name, pid: process.pid, started: Date.now(), what, memoryBytes },
        services: () => this.#client.services(),
        drill: (service, drill) => this.#client.drill(service, drill),
      });
    } catch (error) {
      if (error instanceof HypolithError && error.code === "name-taken") {
        await this.#client.kill();
        throw error;
      }
      this.#messages.log("info", `hypo ps will not see this machine: ${(error as Error).message}`);
    }
  }

  #openTerminal(): void {
    this.#terminal.open();
    this.#messages.rawTerminal = this.#terminal.isRaw;
    if (this.#terminal.isRaw) {
      this.#messages.notice("the escape key is Ctrl-A: Ctrl-A X powers off, Ctrl-A H is help");
    }
  }

  #output(port: number, data: Uint8Array): void {
    switch (port) {
      case SerialUse.CONSOLE:
        this.#consoleOutput(data);
        break;
      case SerialUse.JOB:
        this.#messages.clearStatus();
        if (!this.#outputClosed) process.stdout.write(data);
        break;
      case SerialUse.JOB_ERROR:
        this.#messages.clearStatus();
        process.stderr.write(data);
        break;
      case SerialUse.CONTROL:
        if (this.#run.hasSession) this.#control.receive(data);
        break;
    }
  }

  #consoleOutput(data: Uint8Array): void {
    this.#tail.add(data);
    if (this.#run.mode === "console") {
      if (!this.#outputClosed) process.stdout.write(data);
    } else if (this.#run.showConsole) {
      this.#messages.clearStatus();
      process.stderr.write(data);
    }
  }

  #command(command: EscapeCommand): void {
    if (command === "help") {
      for (const line of ["", ...ESCAPE_HELP]) this.#messages.notice(line);
    } else if (command === "power-off") {
      this.#switchedOff = true;
      this.#kill();
    } else if (!this.#control.powerOff()) {
      this.#client.pressPowerButton();
    }
  }

  /** Politely once, if there is somebody to be polite to. */
  #stopRequested(signal: StopSignal, count: number): void {
    if (count > 1) {
      // A machine that is asked once more still says what it was to report.
      if (count === 2 && this.#hasReports()) this.#kill();
      else this.#client.kill();
      return;
    }
    const isJob = this.#run.mode === "pipes";
    const asked = isJob ? this.#control.signal(signal.slice(3)) : this.#control.powerOff();
    if (!asked) {
      this.#kill();
      return;
    }
    if (isJob) this.#messages.notice("hypo: stopping the command; once more to power off at once");
    this.#timer = setTimeout(() => this.#kill(), PATIENCE_MS);
  }

  #hasReports(): boolean {
    return this.#run.profile !== undefined || this.#run.config.reportJit === true;
  }

  #kill(): void {
    clearTimeout(this.#timer);
    this.#client.stop();
    this.#timer = setTimeout(() => this.#client.kill(), STOP_MS);
  }

  /** Nobody reads what the job writes: `hypo run -- yes | head`. */
  #outputFailed(): void {
    if (this.#outputClosed) return;
    this.#outputClosed = true;
    this.#kill();
  }

  async #stopped(reason: StopReason): Promise<void> {
    clearTimeout(this.#timer);
    this.#closeDoor();
    this.#terminal.close();
    this.#messages.rawTerminal = false;
    this.#messages.clearStatus();
    this.#run.trace?.close();
    this.#run.profile?.end();
    this.#printJitLines();
    const code = this.#exitCode(reason);
    await this.#client.kill();
    this.#done(code);
  }

  /** Asked for, so --quiet does not silence it. */
  #printJitLines(): void {
    if (!this.#run.config.reportJit) return;
    const lines = this.#jitLines ?? ["region tier: unknown, the machine ended without saying it"];
    process.stderr.write(`${lines.join("\n")}\n`);
  }

  #exitCode(reason: StopReason): number {
    if (this.#stops.exitCode !== undefined) return this.#stops.exitCode;
    if (this.#outputClosed) return ExitCode.BROKEN_PIPE;
    if (this.#switchedOff) return ExitCode.OK;
    const isConsole = this.#run.mode === "console";
    const { exitStatus } = this.#control;
    switch (reason.kind) {
      case "poweroff":
        if (exitStatus !== undefined) return exitStatus;
        if (isConsole) return ExitCode.OK;
        return this.#failed("the guest turned itself off before the command ended", reason);
      case "reset":
        if (this.#tail.panic)
          return this.#failed(`the guest's kernel stopped: ${this.#tail.panic}`, reason);
        // A shell's `reboot`. There is no second boot: a run is one life of a machine.
        if (exitStatus !== undefined) return exitStatus;
        if (isConsole) return ExitCode.OK;
        return this.#failed("the guest restarted before the command ended", reason);
      case "triple-fault":
        return this.#failed(reason.message ?? "the guest ended in a triple fault", reason);
      case "killed":
        return this.#failed(reason.message ?? "the machine was stopped", reason);
      case "error":
        return this.#failed(reason.message ?? "the machine failed", reason);
    }
  }

  #failed(message: string, { code, hint, dump, kind }: StopReason): number {
    this.#messages.failure(
      new HypolithError(code ?? kind, message, hint === undefined ? {} : { hint }),
    );
    if (dump !== undefined) this.#messages.block(dump);
    const last = this.#tail.lastLines();
    const unseen = this.#run.mode === "pipes" && !this.#run.showConsole;
    if (unseen && last !== "" && kind !== "error") {
      this.#messages.notice("  the end of the guest's console:");
      if (!this.#messages.quiet) this.#messages.block(last);
    }
    return ExitCode.FAILED;
  }
}
