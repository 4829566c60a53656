/**
 * One run of a machine, from start to exit code: the serial ports joined to our terminal or streams, requests to stop turned into
 * what the guest understands, and the end explained.
 *
 * Exit codes: the job's own; 0 when the guest turned itself off; 125 when the run ended in any other way before the job did; 128+n
 * when signal n asked us to stop.
 */
import type { Socket } from "node:net";
import { PassThrough } from "node:stream";
import { HypolithError } from "../../src/base/errors.ts";
import {
  type MachineConfig,
  type SerialPort,
  SerialUse,
  type StopReason,
  type TraceRequest,
} from "../../src/control/protocol.ts";
import { ConsoleTail } from "../common/console-tail.ts";
import { ControlLine } from "../common/control-line.ts";
import { askToEnd } from "./ask-to-end.ts";
import { ExitCode } from "./exit-code.ts";
import { JobInput } from "./guest/job-input.ts";
import { formatJitReport } from "./jit-table.ts";
import type { Messages } from "./messages.ts";
import type { ProfileFile } from "./profile-file.ts";
import { aboutRun } from "./snapshots/snapshot-store.ts";
import { tellResumed } from "./snapshots/tell-resumed.ts";
import { ConsoleTerminal } from "./terminal/console-terminal.ts";
import { ESCAPE_HELP, type EscapeCommand } from "./terminal/escape-keys.ts";
import type { StopRequests, StopSignal } from "./terminal/stop-requests.ts";
import type { TraceFile } from "./trace-file.ts";
import { machineWorkerUrl, VmClient } from "./vm-client.ts";
import { type AgentLine, openAgentLine } from "./vms/agent-line.ts";
import { Attachments } from "./vms/attachments.ts";
import { announceStart } from "./vms/background.ts";
import { type DoorService, openDoor } from "./vms/door.ts";
import type { MachineInfo, MachineStats, SnapshotTaken } from "./vms/door-protocol.ts";
import { MachineKeeper } from "./vms/machine-keeper.ts";
import { signalName, signalNumber } from "./vms/signals.ts";
import { streamTrace } from "./vms/trace-stream.ts";

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
  /** It has no terminal and no streams of ours: they are its log's, and of those who attach. */
  readonly isBackground: boolean;
  /** In the background, with "pipes": the job reads what those who are attached type. */
  readonly takesInput: boolean;
  /** Stays known when it has ended. */
  readonly isKept: boolean;
  /** What programs in the guest find that the agent starts. */
  readonly environment: Readonly<Record<string, string>>;
  readonly folder: string;
  /** Who they are, as for --user; undefined: root. */
  readonly user: string | undefined;
  /** What asks the command to end, without "SIG"; default: TERM. */
  readonly stopSignal?: string;
  /** What it was started with, for `hypo inspect`. */
  readonly settings: Readonly<Record<string, unknown>>;
  /** It goes on from a snapshot (config.snapshot). */
  readonly resumed?: ResumedSession;
}

/** What the machine's process knew of its guest when a snapshot was taken. */
export interface ResumedSession {
  readonly isReady: boolean;
  readonly wantsInput: boolean;
}

/** How long a guest may take to end after it was asked to. */
const PATIENCE_MS = 10_000;
const KILL = 9;
/** 128 + SIGKILL */
const KILLED = 128 + KILL;
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

class RunningMachine implements DoorService {
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
  #closeDoor = async (): Promise<void> => {};
  readonly #keeper: MachineKeeper;
  readonly #attachments: Attachments;
  /** What those who are attached type for a job without a terminal. */
  readonly #typed = new PassThrough();
  #tellEnd: (code: number) => void = () => {};
  /** Somebody turned it off through the door. */
  #killed = false;
  /** What #failed said. */
  #complaint: string | undefined;
  #isPaused = false;
  #isOver = false;
  #settled: Promise<void> = Promise.resolve();
  /** It never began: its name is taken, or it could not be kept. */
  #isRefused = false;
  readonly ended = new Promise<number>((resolve) => {
    this.#tellEnd = resolve;
  });

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
      started: () => {
        this.#keeper.hasStarted = true;
        void this.#settle().then(() => {
          if (run.isBackground) announceStart(run.name);
        });
      },
      stopped: (reason) => this.#stopped(reason),
    });
    this.#keeper = new MachineKeeper(run);
    this.#attachments = new Attachments({
      bytes: (bytes, done) => this.#attachedInput(bytes, done),
      end: () => this.#typed.end(),
      resize: (size) => this.#control.resize(size),
      signal: (number) => this.#jobSignal(signalName(number)),
    });
    this.#control = new ControlLine(
      (text) => this.#client.input(SerialUse.CONTROL, Buffer.from(text)),
      { ready: () => messages.clearStatus(), inputWanted: () => this.#input.next() },
      run.resumed?.isReady,
    );
    this.#input = new JobInput(run.isBackground ? this.#typed : process.stdin, (bytes) =>
      this.#client.input(SerialUse.JOB, bytes),
    );
    this.#terminal = new ConsoleTerminal({
      input: (bytes) => this.#client.input(this.#console, bytes),
      command: (command) => this.#command(command),
      resized: (size) => this.#control.resize(size),
    });
  }

  /** A guest that goes on learns what time it is, and gets new randomness, before anybody talks to it. */
  async #settle(): Promise<void> {
    const { resumed } = this.#run;
    if (!resumed) return;
    if (resumed.wantsInput) this.#input.next();
    await this.#setGuestClock();
  }

  /** After the guest's time has stood still. Not of a guest without our agent: it has the machine's clock chip to look at. */
  #setGuestClock(): Promise<void> {
    if (!this.#run.config.sockets || !this.#control.isReady) return Promise.resolve();
    this.#settled = tellResumed((port, events) => this.#client.connect(port, events)).then(
      (problem) => {
        if (problem !== null && !this.#isOver)
          this.#messages.warn(`the guest's clock is not set: ${problem}`);
      },
    );
    return this.#settled;
  }

  async start(): Promise<void> {
    await this.#openDoor();
    if (this.#run.isBackground) {
      this.#client.start(this.#run.config);
      this.#stops.handle(() => this.stop(PATIENCE_MS / 1000));
      return;
    }
    process.stdout.on("error", () => this.#outputFailed());
    if (this.#run.mode === "console") this.#openTerminal();
    else this.#messages.status("booting ...");
    this.#client.start(this.#run.config);
    this.#stops.handle((signal, count) => this.#stopRequested(signal, count));
  }

  /** In the foreground a machine that has no door runs none the less, unless its name was asked for. */
  async #openDoor(): Promise<void> {
    try {
      await this.#keeper.begin();
      this.#closeDoor = await openDoor(this);
    } catch (error) {
      if (this.#run.isKept || (error instanceof HypolithError && error.code === "name-taken")) {
        this.#isRefused = true;
        await this.#client.kill();
        throw error;
      }
      this.#messages.log("info", `hypo ps will not see this machine: ${(error as Error).message}`);
    }
  }

  // ---- what can be asked for through the door ----

  get name(): string {
    return this.#run.name;
  }

  info(): MachineInfo {
    const { name, what, config, mode, hasSession, environment, folder, ...run } = this.#run;
    const isBooting = hasSession && !this.#control.isReady;
    return {
      ...{ name, what, environment, folder, pid: process.pid },
      started: this.#keeper.started,
      memoryBytes: config.memoryBytes,
      state: this.#isPaused ? "paused" : isBooting ? "booting" : "running",
      hasTerminal: mode === "console",
      takesInput: mode === "console" || (run.isBackground && run.takesInput),
      user: run.user ?? null,
      hasAgent: config.sockets === true,
    };
  }

  services(): ReturnType<DoorService["services"]> {
    this.#refusePaused();
    return this.#client.services();
  }

  drill(...request: Parameters<DoorService["drill"]>): Promise<string | null> {
    this.#refusePaused();
    return this.#client.drill(...request);
  }

  async stats(): Promise<MachineStats> {
    const { user, system } = process.cpuUsage();
    const report = this.#isPaused ? undefined : await this.#client.services();
    const all = report?.services ?? [];
    return {
      ...{ name: this.#run.name, pid: process.pid },
      cpuMs: (user + system) / 1000,
      upMs: Date.now() - this.#keeper.started,
      residentBytes: process.memoryUsage.rss(),
      memoryBytes: this.#run.config.memoryBytes,
      restarts: all.reduce((sum, { restarts }) => sum + restarts, 0),
      guestMs: report?.guestMs ?? 0,
      kernelMs: report?.kernelMs ?? 0,
      servicesMs: all.reduce((sum, { ms }) => sum + ms, 0),
    };
  }

  stop(seconds: number): void {
    this.unpause();
    this.#killed = true;
    if (!askToEnd(this.#run, this.#control, this.#client)) {
      this.#kill();
      return;
    }
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#kill(), seconds * 1000);
  }

  kill(signal: string): void {
    const number = signalNumber(signal);
    if (number === undefined) throw new HypolithError("signal", `there is no signal ${signal}`);
    if (number === KILL) {
      this.#killed = true;
      this.unpause();
      this.#kill();
      return;
    }
    this.#refusePaused();
    if (!this.#jobSignal(signalName(number))) {
      throw new HypolithError("no-job", "there is no job in the guest that could get a signal", {
        hint: "hypo stop asks the guest to shut down",
      });
    }
  }

  pause(): void {
    if (this.#isPaused) throw new HypolithError("paused", "the machine is paused already");
    this.#isPaused = true;
    this.#client.pause();
  }

  unpause(): void {
    if (!this.#isPaused) return;
    this.#client.resume();
    this.#isPaused = false;
    void this.#setGuestClock();
  }

  attach(socket: Socket): void {
    this.#attachments.add(socket);
  }

  async snapshot(folder: string): Promise<SnapshotTaken> {
    const session = { isReady: this.#control.isReady, wantsInput: this.#input.isWanted };
    const outcome = await this.#client.snapshot(folder, aboutRun(this.#run, session));
    if (!outcome) throw new HypolithError("machine-ended", "the machine has ended");
    if (!this.#isPaused) void this.#setGuestClock();
    if (!("problem" in outcome)) return { bytes: outcome.bytes, ms: outcome.ms };
    const { code = "snapshot", message = "no snapshot was taken", hint } = outcome.problem;
    throw new HypolithError(code, message, hint === undefined ? {} : { hint });
  }

  trace(request: TraceRequest, socket: Socket): void {
    streamTrace((lines) => this.#client.trace(request, lines), socket);
  }

  async openAgent(): Promise<AgentLine> {
    await this.#settled;
    if (!this.#run.config.sockets) {
      throw new HypolithError("no-agent", "this machine has no agent in its guest", {
        hint: "only images and commands of hypo run have one, and with --clock wall",
      });
    }
    this.#refusePaused();
    return openAgentLine(
      (port, events) => this.#client.connect(port, events),
      () => this.#isOver,
    );
  }

  #refusePaused(): void {
    if (!this.#isPaused) return;
    const { name } = this.#run;
    const hint = `hypo unpause ${name}`;
    throw new HypolithError("paused", "the machine is paused", { hint });
  }

  #jobSignal(name: string): boolean {
    return this.#run.hasSession && this.#control.signal(name);
  }

  #attachedInput(bytes: Buffer, done: () => void): void {
    const { mode, isBackground, takesInput } = this.#run;
    if (mode === "console") this.#client.input(this.#console, new Uint8Array(bytes));
    else if (isBackground && takesInput && this.#typed.writable) {
      this.#typed.write(bytes, done);
      return;
    }
    done();
  }

  /** Where the guest's terminal is. */
  get #console(): SerialPort {
    return this.#run.config.virtioConsole ? SerialUse.VIRTIO_CONSOLE : SerialUse.CONSOLE;
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
      case SerialUse.VIRTIO_CONSOLE:
        this.#consoleOutput(data);
        break;
      case SerialUse.JOB:
        this.#say(1, data);
        break;
      case SerialUse.JOB_ERROR:
        this.#say(2, data);
        break;
      case SerialUse.CONTROL:
        if (this.#run.hasSession) this.#control.receive(data);
        break;
    }
  }

  /** What is the job's, to all who want it: 1 its output, 2 its errors. */
  #say(stream: 1 | 2, data: Uint8Array): void {
    this.#keeper.output(stream, data);
    this.#attachments.output(stream, data);
    if (this.#run.isBackground) return;
    this.#messages.clearStatus();
    if (stream === 2) process.stderr.write(data);
    else if (!this.#outputClosed) process.stdout.write(data);
  }

  #consoleOutput(data: Uint8Array): void {
    this.#tail.add(data);
    if (this.#run.mode === "console") this.#say(1, data);
    else if (this.#run.showConsole && !this.#run.isBackground) {
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
    if (this.#isRefused) return;
    clearTimeout(this.#timer);
    this.#isOver = true;
    this.#terminal.close();
    this.#messages.rawTerminal = false;
    this.#messages.clearStatus();
    this.#run.trace?.close();
    this.#run.profile?.end();
    this.#printJitLines();
    const code = this.#exitCode(reason);
    this.#keeper.end(code, this.#complaint);
    this.#attachments.end(code);
    this.#tellEnd(code);
    // The answers to those who wait are written before the door is closed.
    await new Promise(setImmediate);
    await this.#closeDoor();
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
    if (this.#killed) return exitStatus ?? (reason.kind === "poweroff" ? 0 : KILLED);
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
    this.#complaint = message;
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
