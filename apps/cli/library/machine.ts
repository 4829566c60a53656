/**
 * A virtual machine of a program's own: `import { Machine } from "hypolith"`. What `hypo run`, `exec`, `cp` and `snapshot` do, without a terminal and
 * without leaving a trace of the machine on this computer; docs/library.md has the tour.
 *
 * A machine lives once: created, started, ended. It runs in a thread, so the program goes on meanwhile.
 */
import { randomBytes } from "node:crypto";
import { EventEmitter } from "node:events";
import { type Duplex, duplexPair, PassThrough, Readable, Writable } from "node:stream";
import { HypolithError } from "../../../src/base/errors.ts";
import { SerialUse, type StopReason } from "../../../src/control/protocol.ts";
import { ControlLine } from "../../common/control-line.ts";
import { askToEnd } from "../ask-to-end.ts";
import { RequestFlag } from "../guest/agent/agent-protocol.ts";
import { JOB_ENVIRONMENT } from "../guest/job.ts";
import { JobInput } from "../guest/job-input.ts";
import { Messages } from "../messages.ts";
import { prepareRun } from "../run.ts";
import type { MachineRun } from "../run-machine.ts";
import { aboutRun, loadSnapshot } from "../snapshots/snapshot-store.ts";
import { tellResumed } from "../snapshots/tell-resumed.ts";
import { machineWorkerUrl, resumedConfig, VmClient } from "../vm-client.ts";
import { openAgentLine } from "../vms/agent-line.ts";
import { lookUp, ROOT } from "../vms/exec.ts";
import {
  exitCodeFor,
  type OwnGuest,
  placesOf,
  runTool,
  startProgram,
  type ToolRun,
} from "../vms/guest-program.ts";
import { GuestFiles } from "./guest-files.ts";
import { GuestOutput } from "./guest-output.ts";
import { type MachineOptions, planMachine } from "./options.ts";

export interface ExecOptions {
  readonly stdin?: string | Uint8Array | Readable;
  readonly env?: Readonly<Record<string, string>>;
  readonly workdir?: string;
  readonly user?: string;
  /** Instead of keeping it: where standard output goes. */
  readonly stdout?: Writable;
  readonly stderr?: Writable;
  /** Sends the program SIGKILL. */
  readonly signal?: AbortSignal;
}

export interface ExecResult {
  /** As a shell has it: 128 + N after signal N. */
  readonly exitCode: number;
  /** Empty if it went elsewhere. */
  readonly stdout: Buffer;
  readonly stderr: Buffer;
}

export interface MachineEnd {
  /** Of the command; 0 for a guest that turned itself off; undefined if it ended otherwise. */
  readonly exitCode: number | undefined;
  readonly reason: StopReason;
}

export interface MachineEvents {
  started: [];
  /** The command is about to start. */
  ready: [];
  ended: [MachineEnd];
}

const KILL = 9;
const STOP_MS = 1000;
const DEFAULT_STOP_SECONDS = 10;

export class Machine extends EventEmitter<MachineEvents> implements AsyncDisposable {
  /** Standard output of the command; of a machine at its console, that. What nobody reads is kept up to 8 MiB. */
  readonly stdout: Readable;
  readonly stderr: Readable;
  /** What the kernel says, and the console where that is not the command's. */
  readonly console: Readable;
  /** Standard input of the command, or what is typed at the console. */
  readonly stdin: Writable;
  readonly files: GuestFiles;
  /** When it has ended. */
  readonly ended: Promise<MachineEnd>;
  readonly #run: MachineRun;
  readonly #client: VmClient;
  readonly #control: ControlLine;
  readonly #input: JobInput;
  readonly #outputs = [new GuestOutput(), new GuestOutput(), new GuestOutput()] as const;
  readonly #typed = new PassThrough();
  readonly #guest: OwnGuest;
  #state: "created" | "running" | "ended" = "created";
  #settled: Promise<unknown> = Promise.resolve();
  #timer: NodeJS.Timeout | undefined;

  /** Gets all that it needs, and does not start it. Throws HypolithError with a code and a hint. */
  static async create(options: MachineOptions = {}): Promise<Machine> {
    const name = options.name ?? `vm-${randomBytes(4).toString("hex")}`;
    const [plan, words] = planMachine(options, name);
    const write = (text: string | Uint8Array): boolean => {
      for (const line of String(text).split("\n")) if (line !== "") options.onMessage?.(line);
      return true;
    };
    const messages = new Messages({ quiet: false, level: "warn" }, { write });
    const signal = options.signal ?? new AbortController().signal;
    return new Machine(await prepareRun(plan, words, messages, signal));
  }

  /** One that goes on from a snapshot, once it is started. */
  static restore(folder: string, options: { readonly name?: string } = {}): Machine {
    const stored = loadSnapshot(folder);
    return new Machine({
      ...stored.run,
      user: stored.run.user,
      name: options.name ?? stored.machine,
      config: resumedConfig(stored, folder),
      resumed: stored.session,
      ...{ showConsole: false, trace: undefined, profile: undefined },
      ...{ isBackground: true, isKept: false },
    });
  }

  private constructor(run: MachineRun) {
    super();
    this.#run = run;
    [this.stdout, this.stderr, this.console] = this.#outputs;
    let end: (end: MachineEnd) => void = () => {};
    this.ended = new Promise((resolve) => {
      end = resolve;
    });
    this.#client = new VmClient(machineWorkerUrl(), {
      output: (port, data) => this.#output(port, data),
      log: () => {},
      started: () => this.#started(),
      stopped: (reason) => void this.#stopped(reason).then(end),
    });
    this.#control = new ControlLine(
      (text) => this.#client.input(SerialUse.CONTROL, Buffer.from(text)),
      { ready: () => void this.emit("ready"), inputWanted: () => this.#input.next() },
      run.resumed?.isReady,
    );
    this.#input = new JobInput(this.#typed, (bytes) => this.#client.input(SerialUse.JOB, bytes));
    this.stdin = run.mode === "pipes" ? this.#typed : this.#keyboard();
    this.#guest = { name: run.name, openAgent: () => this.#openAgent() };
    this.files = new GuestFiles(this.#guest);
  }

  get name(): string {
    return this.#run.name;
  }

  get state(): "created" | "running" | "ended" {
    return this.#state;
  }

  /** Resolves when the machine runs; its guest is booting then. Rejects if it cannot be built. */
  async start(): Promise<this> {
    if (this.#state !== "created")
      throw new HypolithError("machine-state", `the machine ${this.name} was started before`);
    this.#state = "running";
    const started = new Promise<void>((resolve) => this.once("started", resolve));
    this.#client.start(this.#run.config);
    const end = await Promise.race([started, this.ended]);
    if (end) {
      const {
        code = "machine-failed",
        message = "the machine cannot be started",
        hint,
      } = end.reason;
      throw new HypolithError(code, message, hint === undefined ? {} : { hint });
    }
    await this.#settled;
    return this;
  }

  /** Runs a program in the guest, beside its command; waits for the guest to have booted, and for the program's end. */
  async exec(argv: readonly string[], options: ExecOptions = {}): Promise<ExecResult> {
    const [stdout, stderr] = [new Kept(options.stdout), new Kept(options.stderr)];
    const wanted = options.user ?? this.#run.user;
    const user = wanted === undefined ? ROOT : await lookUp(this.#guest, wanted);
    const environment: Record<string, string> = {
      ...JOB_ENVIRONMENT,
      ...this.#run.environment,
      ...{ HOME: user.home, USER: user.name, LOGNAME: user.name },
      ...options.env,
    };
    const { stdin } = options;
    const request = {
      ...{ argv, environment, ...user, rows: 24, columns: 80 },
      places: placesOf(argv[0] ?? "", environment.PATH ?? ""),
      folder: options.workdir ?? this.#run.folder,
      flags: stdin === undefined ? 0 : RequestFlag.STDIN,
    };
    const input = stdin === undefined || stdin instanceof Readable ? stdin : readable(stdin);
    const ends = { stdin: input, stdout: stdout.sink, stderr: stderr.sink };
    const client = await startProgram(this.#guest, request, ends);
    const abort = (): void => client.signal(KILL);
    options.signal?.addEventListener("abort", abort);
    if (options.signal?.aborted) abort();
    const outcome = await client.outcome;
    options.signal?.removeEventListener("abort", abort);
    const exitCode = exitCodeFor(outcome, request);
    return { exitCode, stdout: stdout.bytes(), stderr: stderr.bytes() };
  }

  /** Runs an applet of the BusyBox that comes along, whatever the image has. */
  tool(argv: readonly string[]): Promise<ToolRun> {
    return runTool(this.#guest, argv);
  }

  pause(): void {
    this.#client.pause();
  }

  resume(): void {
    this.#client.resume();
    this.#setClock();
  }

  /** The whole machine into a folder that is not there yet; it goes on. Answers the bytes written. */
  async snapshot(folder: string): Promise<number> {
    const session = { isReady: this.#control.isReady, wantsInput: this.#input.isWanted };
    const outcome = await this.#client.snapshot(folder, aboutRun(this.#run, session));
    if (!outcome) throw new HypolithError("machine-ended", "the machine has ended");
    this.#setClock();
    if (!("problem" in outcome)) return outcome.bytes;
    const { code = "snapshot", message = "no snapshot was taken", hint } = outcome.problem;
    throw new HypolithError(code, message, hint === undefined ? {} : { hint });
  }

  /** Asks the command to end, or the guest to shut down; turns it off after so many seconds. */
  async stop(seconds = DEFAULT_STOP_SECONDS): Promise<MachineEnd> {
    if (this.#state !== "running") return this.#neverRan();
    if (!askToEnd(this.#run, this.#control, this.#client)) return this.kill();
    const timer = setTimeout(() => void this.kill(), seconds * 1000);
    const end = await this.ended;
    clearTimeout(timer);
    return end;
  }

  /** Turns it off. */
  async kill(): Promise<MachineEnd> {
    if (this.#state !== "running") return this.#neverRan();
    this.#client.stop();
    this.#timer ??= setTimeout(() => void this.#client.kill(), STOP_MS);
    return this.ended;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
  }

  async #neverRan(): Promise<MachineEnd> {
    if (this.#state === "created") {
      this.#state = "ended";
      await this.#client.kill();
    }
    return this.ended;
  }

  #started(): void {
    const { resumed } = this.#run;
    if (resumed?.wantsInput) this.#input.next();
    if (resumed) this.#setClock();
    this.emit("started");
  }

  /** After the guest's time has stood still. */
  #setClock(): void {
    if (!this.#run.config.sockets || !this.#control.isReady) return;
    this.#settled = tellResumed((port, events) => this.#client.connect(port, events));
  }

  async #openAgent(): Promise<Duplex> {
    await this.#settled;
    if (this.#state === "created")
      throw new HypolithError("machine-state", `the machine ${this.name} is not started`);
    if (!this.#run.config.sockets) {
      throw new HypolithError("no-agent", "this machine has no agent in its guest", {
        hint: "only images and commands have one, and with the wall clock",
      });
    }
    const line = await openAgentLine(
      (port, events) => this.#client.connect(port, events),
      () => this.#state === "ended",
    );
    const [ours, theirs] = duplexPair();
    ours.once("close", () => theirs.destroy());
    theirs.once("close", () => ours.destroy());
    line.join(theirs);
    return ours;
  }

  #keyboard(): Writable {
    return new Writable({
      write: (bytes: Buffer, _, done) => {
        this.#client.input(SerialUse.CONSOLE, new Uint8Array(bytes));
        done();
      },
    });
  }

  #output(port: number, data: Uint8Array): void {
    const [stdout, stderr, console] = this.#outputs;
    if (port === SerialUse.CONTROL) {
      if (this.#run.hasSession) this.#control.receive(data);
    } else if (port === SerialUse.JOB) stdout.add(data);
    else if (port === SerialUse.JOB_ERROR) stderr.add(data);
    else if (this.#run.mode === "console") stdout.add(data);
    else console.add(data);
  }

  async #stopped(reason: StopReason): Promise<MachineEnd> {
    clearTimeout(this.#timer);
    this.#state = "ended";
    for (const output of this.#outputs) output.finish();
    const { exitStatus } = this.#control;
    const exitCode = exitStatus ?? (reason.kind === "poweroff" ? 0 : undefined);
    const end = { exitCode, reason };
    await this.#client.kill();
    this.emit("ended", end);
    return end;
  }
}

function readable(content: string | Uint8Array): Readable {
  return Readable.from([Buffer.from(content)]);
}

class Kept {
  readonly sink: Writable;
  readonly #parts: Buffer[] = [];

  constructor(elsewhere: Writable | undefined) {
    this.sink =
      elsewhere ??
      new Writable({
        write: (bytes: Buffer, _, done) => {
          this.#parts.push(bytes);
          done();
        },
      });
  }

  bytes(): Buffer {
    return Buffer.concat(this.#parts);
  }
}
