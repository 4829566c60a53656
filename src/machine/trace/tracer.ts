/**
 * What a person traces of a running machine: system calls, levels, VM exits, injected interrupts. From outside: the guest is unmodified and
 * does not notice but by time.
 *
 * System calls come from exits on privilege level (isa/vendor.ts): into ring 0 always, out of it only while a call has not answered yet.
 * Nothing is on while nobody traces. Events leave as lines of JSON, several at a time.
 */
import type { TraceRequest } from "../../control/protocol.ts";
import type { ExitLog } from "../../hypervisor/kernel/exit-log.ts";
import { GUEST, type Transition } from "../../hypervisor/kernel/transition-log.ts";
import type { Vcpu } from "../../hypervisor/kernel/vcpu.ts";
import { exitReasonName } from "../../processor/isa/exit-reasons.ts";
import {
  CplExit,
  CplQualification,
  TransitionCause,
  VendorExit,
  VendorField,
} from "../../processor/isa/vendor.ts";
import { Field, INTERRUPTION_VALID } from "../../processor/isa/vmcs-fields.ts";
import { gprAt } from "../../processor/state/layout.ts";
import { type GuestRam, GuestReader } from "./guest-reader.ts";
import { LinuxTasks, type Task } from "./linux-tasks.ts";
import { type Call, SyscallText } from "./syscall-text.ts";

export interface TracerPorts {
  readonly vcpus: readonly Vcpu[];
  readonly log: ExitLog;
  readonly ram: GuestRam;
  /** Virtual time in ns. */
  now(): number;
  /** A clock for how long events may wait to be sent, ms. */
  nowMs(): number;
  send(id: number, lines: string): void;
}

const MAX_LINES = 256;
const MAX_WAIT_MS = 50;
/** Matrix bits of CplExit: user to kernel, kernel to user. */
const INTO_KERNEL = (1 << (CplExit.MATRIX_SHIFT + 4 * 3)) >>> 0;
const OUT_OF_KERNEL = 1 << (CplExit.MATRIX_SHIFT + 3);
const USER = 3;
const LEGACY_GATE = 0x80;
const [RAX, RCX, RDX, RBX, RBP, RSI, RDI, R8, R9, R10] = [0, 1, 2, 3, 5, 6, 7, 8, 9, 10];
const ARGUMENTS = [RDI, RSI, RDX, R10, R8, R9] as const;
const LEGACY_ARGUMENTS = [RBX, RCX, RDX, RSI, RDI, RBP] as const;
/** Length of SYSCALL: where a restarted call goes back to. */
const CALL_BYTES = 2n;
/** Calls that do not come back to where they were made. */
const EXECUTES = new Set(["execve", "execveat"]);
const NEVER_RETURNS = new Set(["exit", "exit_group", "rt_sigreturn"]);
const CAUSES: Readonly<Record<number, string>> = {
  [TransitionCause.FAR_CALL]: "far call",
  [TransitionCause.FAR_JUMP]: "far jump",
  [TransitionCause.FAR_RETURN]: "far return",
  [TransitionCause.IRET]: "iret",
  [TransitionCause.SYSCALL]: "syscall",
  [TransitionCause.SYSRET]: "sysret",
  [TransitionCause.SYSENTER]: "sysenter",
  [TransitionCause.SYSEXIT]: "sysexit",
  [TransitionCause.MOV_CR0]: "mov cr0",
  [TransitionCause.EVENT]: "interrupt",
  [TransitionCause.EVENT + 2]: "nmi",
  [TransitionCause.EVENT + 3]: "exception",
  [TransitionCause.EVENT + 4]: "int n",
  [TransitionCause.EVENT + 5]: "int1",
  [TransitionCause.EVENT + 6]: "int3",
};

interface Pending extends Call {
  readonly name: string;
  readonly entry: readonly (string | null)[];
  readonly time: number;
  /** Where it returns to. */
  readonly rip: bigint;
  readonly isLegacy: boolean;
}

class Session {
  readonly request: TraceRequest;
  readonly #id: number;
  readonly #ports: TracerPorts;
  readonly #names: ReadonlySet<string> | null;
  readonly #processes: ReadonlySet<string> | null;
  #lines: string[] = [];
  #since = 0;

  constructor(id: number, request: TraceRequest, ports: TracerPorts) {
    this.#id = id;
    this.#ports = ports;
    this.request = request;
    this.#names = request.names ? new Set(request.names) : null;
    this.#processes = request.processes ? new Set(request.processes) : null;
  }

  wantsName(name: string): boolean {
    return this.#names === null || this.#names.has(name);
  }

  wantsTask({ pid, tid, comm }: Task): boolean {
    const only = this.#processes;
    return only === null || only.has(comm) || only.has(String(pid)) || only.has(String(tid));
  }

  add(event: object): void {
    if (this.#lines.length === 0) this.#since = this.#ports.nowMs();
    this.#lines.push(JSON.stringify(event));
    if (this.#lines.length >= MAX_LINES) this.flush();
  }

  pulse(nowMs: number): void {
    if (this.#lines.length > 0 && nowMs - this.#since > MAX_WAIT_MS) this.flush();
  }

  flush(): void {
    if (this.#lines.length === 0) return;
    this.#ports.send(this.#id, `${this.#lines.join("\n")}\n`);
    this.#lines = [];
  }
}

export class Tracer {
  readonly #ports: TracerPorts;
  readonly #sessions = new Map<number, Session>();
  readonly #reader: GuestReader;
  readonly #text: SyscallText;
  #tasks: LinuxTasks;
  readonly #pending = new Map<bigint, Pending>();
  #calls: Session[] = [];
  #levels: Session[] = [];
  #stopWatching: (() => void) | null = null;
  #enteredAt = 0;

  constructor(ports: TracerPorts) {
    this.#ports = ports;
    this.#reader = new GuestReader(ports.ram);
    this.#text = new SyscallText(this.#reader);
    this.#tasks = new LinuxTasks(this.#reader);
  }

  get isOn(): boolean {
    return this.#sessions.size > 0;
  }

  begin(id: number, request: TraceRequest): void {
    this.#sessions.set(id, new Session(id, request, this.#ports));
    this.#apply();
  }

  end(id: number): void {
    this.#sessions.get(id)?.flush();
    this.#sessions.delete(id);
    this.#apply();
  }

  flush(): void {
    for (const session of this.#sessions.values()) session.flush();
  }

  /** Sends what has waited for long enough. */
  pulse(): void {
    const now = this.#ports.nowMs();
    for (const session of this.#sessions.values()) session.pulse(now);
  }

  #of(...kinds: TraceRequest["kind"][]): Session[] {
    return [...this.#sessions.values()].filter(({ request }) => kinds.includes(request.kind));
  }

  #apply(): void {
    this.#calls = this.#of("syscalls");
    this.#levels = this.#of("transitions");
    if (this.#calls.length === 0) this.#pending.clear();
    const watches = this.#of("exits", "interrupts").length > 0;
    if (watches && this.#stopWatching === null)
      this.#stopWatching = this.#ports.log.transitions.watch((t) => this.#transition(t));
    else if (!watches) {
      this.#stopWatching?.();
      this.#stopWatching = null;
    }
    for (const vcpu of this.#ports.vcpus) this.#control(vcpu);
  }

  /** Which transitions exit. */
  #control(vcpu: Vcpu): void {
    let control = 0;
    if (this.#levels.length > 0) control |= CplExit.CHANGE;
    if (this.#calls.length > 0) control |= INTO_KERNEL;
    if (this.#pending.size > 0) control |= OUT_OF_KERNEL;
    vcpu.vmcs.set(VendorField.CPL_EXIT_CONTROLS, control >>> 0);
  }

  /** An exit on privilege level. */
  level(vcpu: Vcpu): void {
    const { vmcs } = vcpu;
    if (this.#calls.length === 0 && this.#levels.length === 0) {
      this.#control(vcpu);
      return;
    }
    const qualification = vmcs.number(Field.EXIT_QUALIFICATION);
    const to = qualification & 3;
    const from = (qualification >> CplQualification.OLD_SHIFT) & 3;
    const cause = (qualification >> CplQualification.CAUSE_SHIFT) & 0x1f;
    const vector = (qualification >> CplQualification.VECTOR_SHIFT) & 0xff;
    const isCall =
      cause === TransitionCause.SYSCALL ||
      cause === TransitionCause.SYSENTER ||
      (cause === TransitionCause.EVENT + 4 && vector === LEGACY_GATE);
    if (this.#levels.length > 0) this.#level(vcpu, { from, to, cause, vector });
    if (this.#calls.length === 0) return;
    if (to === USER && from !== USER) this.#return(vcpu);
    else if (from === USER && isCall) this.#call(vcpu, cause !== TransitionCause.SYSCALL);
  }

  #level(
    vcpu: Vcpu,
    { from, to, cause, vector }: { from: number; to: number; cause: number; vector: number },
  ): void {
    const task = this.#tasks.current(vcpu.vmcs);
    const name = CAUSES[cause] ?? String(cause);
    const rip = vcpu.vmcs.big(Field.GUEST_RIP).toString(16);
    const { pid, tid, comm } = task;
    const isEvent = cause >= TransitionCause.EVENT;
    const event = {
      ...{ t: this.#ports.now(), pid, tid, comm, name, from, to, rip },
      ...(isEvent ? { vector } : {}),
    };
    for (const session of this.#levels)
      if (session.wantsName(name) && session.wantsTask(task)) session.add(event);
  }

  #call(vcpu: Vcpu, isLegacy: boolean): void {
    const { vmcs } = vcpu;
    const register = (n: number): bigint => vmcs.state.getBigUint64(gprAt(n), true);
    const task = this.#tasks.current(vmcs);
    const number = Number(BigInt.asUintN(32, register(RAX)));
    const name = isLegacy ? `i386_${number}` : this.#text.name(number);
    if (!this.#calls.some((session) => session.wantsName(name) && session.wantsTask(task))) return;
    const registers = isLegacy ? LEGACY_ARGUMENTS : ARGUMENTS;
    const root = Number(vmcs.big(Field.GUEST_CR3) & 0x000f_ffff_ffff_f000n);
    const call = { number, root, args: registers.map(register) };
    const entry = isLegacy
      ? call.args.map((v) => `0x${BigInt.asUintN(32, v).toString(16)}`)
      : this.#text.atEntry(call);
    const pending = { ...call, name, entry, time: this.#ports.now(), rip: register(RCX), isLegacy };
    if (EXECUTES.has(name)) {
      const path = /"(.*?)"/.exec(entry.join(","))?.[1];
      if (path !== undefined) this.#tasks.executes(task, path);
    }
    if (NEVER_RETURNS.has(name)) {
      this.#tell(task, pending, "?", null);
      return;
    }
    this.#pending.set(task.key, pending);
    if (this.#pending.size === 1) this.#control(vcpu);
  }

  #return(vcpu: Vcpu): void {
    const { vmcs } = vcpu;
    const task = this.#tasks.current(vmcs);
    const pending = this.#pending.get(task.key);
    if (!pending) return;
    this.#pending.delete(task.key);
    if (this.#pending.size === 0) this.#control(vcpu);
    const rip = vmcs.big(Field.GUEST_RIP);
    const value = vmcs.state.getBigUint64(gprAt(RAX), true);
    if (EXECUTES.has(pending.name) && rip !== pending.rip) this.#tell(task, pending, "0", null);
    else if (pending.isLegacy || rip === pending.rip) {
      const answer = pending.isLegacy ? BigInt.asIntN(32, value) : value;
      const { text, error } = this.#text.result(pending, answer);
      this.#tell(task, pending, text, error, value);
    } else if (rip === pending.rip - CALL_BYTES)
      this.#tell(task, pending, "? (to be restarted)", null);
    else this.#tell(task, pending, "? (a signal came)", null);
  }

  #tell(task: Task, call: Pending, ret: string, err: string | null, value = 0n): void {
    const { name, time } = call;
    const { pid, tid, comm } = task;
    const args = this.#text.atReturn(call, call.entry, value);
    const event = {
      ...{ t: time, d: this.#ports.now() - time, pid, tid, comm, name, args, ret },
      ...(err === null ? {} : { err }),
    };
    for (const session of this.#calls)
      if (session.wantsName(name) && session.wantsTask(task)) session.add(event);
  }

  /** VM entries and VM exits of the guest. */
  #transition(t: Transition): void {
    if (t.vm !== GUEST) return;
    const now = this.#ports.now();
    if (t.kind === "entry") {
      this.#enteredAt = now;
      if (t.interruption < INTERRUPTION_VALID) return;
      const vector = t.interruption & 0xff;
      const name = CAUSES[TransitionCause.EVENT + ((t.interruption >> 8) & 7)] ?? "event";
      const event = { t: now, name, vector, rip: t.rip.toString(16), cpl: t.cpl };
      for (const session of this.#of("interrupts")) if (session.wantsName(name)) session.add(event);
      return;
    }
    const name = exitReasonName(t.reason);
    if (t.reason === VendorExit.CPL_TRANSITION) return;
    const event = {
      ...{ t: this.#enteredAt, d: now - this.#enteredAt, name, n: t.instructions },
      ...{ q: t.qualification.toString(16), rip: t.rip.toString(16), cpl: t.cpl },
    };
    for (const session of this.#of("exits")) if (session.wantsName(name)) session.add(event);
  }
}
