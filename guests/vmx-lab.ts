/**
 * A guest hypervisor on the bench: a small x86 program that carries out a list of VMX instructions and notes how each ended, so that a test
 * can be a VMM without being written in assembler.
 *
 * The program runs in 64-bit mode with identity mapping; the list is at LIST, 32 bytes an entry: operation, two arguments (the second also
 * takes a result), RFLAGS afterwards. A VM exit is the end of the entry that led to it. The guest's guest starts with what EntryPoint says.
 */
import type { EngineName } from "../src/control/protocol.ts";
import { DeterministicClock } from "../src/machine/clocks.ts";
import { offerVmx } from "../src/machine/offer-vmx.ts";
import { Assembler, imm, qword, xmmword } from "../src/processor/isa/assemble.ts";
import { parseCpuModel } from "../src/processor/isa/cpuid.ts";
import { ExitReason } from "../src/processor/isa/exit-reasons.ts";
import {
  al,
  cr4,
  dx,
  ecx,
  r8,
  r9,
  r10,
  r11,
  r12,
  r13,
  r14,
  r15,
  rax,
  rbp,
  rbx,
  rcx,
  rdi,
  rdx,
  rsi,
} from "../src/processor/isa/registers.ts";
import { Field, PinControl, PrimaryControl } from "../src/processor/isa/vmcs-fields.ts";
import type { EptTables } from "../src/processor/memory/ept.ts";
import { gprAt, RAM_BASE } from "../src/processor/state/layout.ts";
import { REVISION } from "../src/processor/vmx/capabilities.ts";
import { TEST_CONTROLS } from "../src/processor/vmx/entry-checks/check.ts";
import type { InterruptPort } from "../src/processor/vmx/interrupt-port.ts";
import { Processor } from "../src/processor/vmx/processor.ts";
import type { Vmcs } from "../src/processor/vmx/vmcs.ts";
import { assembleBareMetal } from "./bare-metal.ts";

const ORIGIN = 0x10_0000;
const LIST = 0x20_0000;
const CURSOR = 0x1f_0000;
const REGISTERS = 0x1f_1000;
/** Of INVEPT and INVVPID. */
const DESCRIPTOR = 0x1f_2000;
/** Of the hypervisor's own IDT handler: runs so far. Of its dispatcher: vectors taken from the VMCS so far, and the last of them. */
const HANDLED = 0x1f_3000;
const DISPATCHED = 0x1f_3008;
const LAST_VECTOR = 0x1f_3010;
const HOST_IDT = 0x1f_4000;
const HOST_CODE_SELECTOR = 0x10n;
export const At = {
  VMXON: 0x30_0000,
  VMCS: 0x30_1000,
  SHADOW: 0x30_2000,
  MSR_BITMAP: 0x30_3000,
  IO_BITMAP: 0x30_4000,
  VMREAD_BITMAP: 0x30_6000,
  VMWRITE_BITMAP: 0x30_7000,
  PML: 0x30_8000,
  EPTP_LIST: 0x30_9000,
  MSR_AREA: 0x30_a000,
  /** Where the guest's guest begins, and its stack. */
  CODE: 0x40_0000,
  STACK: 0x50_0000,
  DATA: 0x60_0000,
  EPT: 0x70_0000,
  /** 4 KiB pages of the first 2 MiB region that a test wants to change (of DATA). */
  EPT_DATA: 0x70_3000,
} as const;
const ROOT_STACK = 0x1e_0000;
const DONE_PORT = 0xe7;
export const PAGE_TABLE = 0x9000;
const CR4_VMXE = 0x2000;
const MIB2 = 0x20_0000;
/** Read, write, execute, write-back. */
export const EPT_ALL = 0x37n;
const EPT_LARGE = 0x80n;

const Op = {
  END: 0,
  VMXON: 1,
  VMXOFF: 2,
  VMCLEAR: 3,
  VMPTRLD: 4,
  VMPTRST: 5,
  VMREAD: 6,
  VMWRITE: 7,
  VMLAUNCH: 8,
  VMRESUME: 9,
  INVEPT: 10,
  INVVPID: 11,
  VMCALL: 12,
  /** What a VMM does after an external-interrupt exit: dispatch the vector if there is one, then STI, NOP, CLI. */
  DISPATCH: 13,
  /** STI, NOP, CLI. */
  OPEN: 14,
} as const;

const SAVED = [rax, rcx, rdx, rbx, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15];

/** Where RSI points: the entry. */
function program(a: Assembler): void {
  a.emit("mov", rax, cr4);
  a.emit("or", rax, imm(CR4_VMXE));
  a.emit("mov", cr4, rax);
  a.label("again");
  a.emit("mov", rsi, imm(LIST));
  a.label("next");
  a.emit("mov", rax, qword(rsi));
  a.emit("mov", rbx, qword(rsi, 8));
  a.emit("mov", rcx, qword(rsi, 16));
  const table: readonly (readonly [number, string])[] = Object.entries(Op).map(([name, n]) => [
    n,
    `op_${name}`,
  ]);
  for (const [n, label] of table) {
    a.emit("cmp", rax, imm(n));
    a.emit("je", label);
  }
  const op = (name: keyof typeof Op, body: () => void): void => {
    a.label(`op_${name}`);
    body();
    a.emit("jmp", "noted");
  };
  op("VMXON", () => a.emit("vmxon", qword(rsi, 8)));
  op("VMXOFF", () => a.emit("vmxoff"));
  op("VMCLEAR", () => a.emit("vmclear", qword(rsi, 8)));
  op("VMPTRLD", () => a.emit("vmptrld", qword(rsi, 8)));
  op("VMPTRST", () => a.emit("vmptrst", qword(rsi, 16)));
  op("VMREAD", () => {
    a.emit("vmread", rcx, rbx);
    a.emit("mov", qword(rsi, 16), rcx);
  });
  op("VMWRITE", () => a.emit("vmwrite", rbx, qword(rsi, 16)));
  op("INVEPT", () => a.emit("invept", rbx, xmmword(DESCRIPTOR)));
  op("INVVPID", () => a.emit("invvpid", rbx, xmmword(DESCRIPTOR)));
  op("VMCALL", () => a.emit("vmcall"));
  op("DISPATCH", () => {
    a.emit("mov", rbx, imm(Field.EXIT_INTERRUPTION_INFO));
    a.emit("vmread", rcx, rbx);
    a.emit("test", ecx, ecx);
    a.emit("jns", "op_OPEN");
    a.emit("and", ecx, imm(0xff));
    a.emit("mov", qword(LAST_VECTOR), rcx);
    a.emit("mov", rcx, qword(DISPATCHED));
    a.emit("inc", rcx);
    a.emit("mov", qword(DISPATCHED), rcx);
    a.emit("jmp", "op_OPEN");
  });
  op("OPEN", () => a.emit("sti").emit("nop").emit("cli"));
  for (const name of ["VMLAUNCH", "VMRESUME"] as const)
    op(name, () => {
      a.emit("mov", qword(CURSOR), rsi);
      for (const [i, register] of SAVED.entries())
        a.emit("mov", register, qword(REGISTERS + 8 * i));
      a.emit(name.toLowerCase());
      a.emit("mov", rsi, qword(CURSOR));
    });
  a.label("exited");
  for (const [i, register] of SAVED.entries()) a.emit("mov", qword(REGISTERS + 8 * i), register);
  a.emit("mov", rsi, qword(CURSOR));
  a.label("noted");
  a.emit("pushfq");
  a.emit("pop", rdx);
  a.emit("mov", qword(rsi, 24), rdx);
  a.emit("add", rsi, imm(32));
  a.emit("jmp", "next");
  a.label("op_END");
  a.emit("mov", dx, imm(DONE_PORT));
  a.emit("out", dx, al);
  a.emit("jmp", "again");
  a.label("host_handler").emit("push", rcx);
  a.emit("mov", rcx, qword(HANDLED));
  a.emit("inc", rcx);
  a.emit("mov", qword(HANDLED), rcx);
  a.emit("pop", rcx);
  a.emit("iretq");
}

/** How an instruction ended: "ok", "invalid" (VMfailInvalid), or "fail" (VMfailValid). */
export type Ending = "ok" | "invalid" | "fail";

export interface Done {
  readonly ending: Ending;
  readonly value: bigint;
}

export interface VmxLabOptions {
  readonly engine: EngineName;
  /** The guest's guest. */
  readonly guest?: (a: Assembler) => void;
  readonly cpuModel?: string;
  /** The pCPU's interrupt controllers, passed through: what they ask for is the guest hypervisor's, and neither it nor HLT exits to ours. */
  readonly interrupts?: InterruptPort;
  /** Sees exits to our own hypervisor but those of the lab; answers true if it has handled it. */
  readonly onExit?: (vmcs: Vmcs, reason: number) => boolean;
}

export class VmxLab {
  readonly processor: Processor;
  readonly vmcs: Vmcs;
  readonly view: DataView;
  /** Of our own hypervisor. */
  readonly ept: EptTables;
  readonly capabilities: ReadonlyMap<number, bigint>;
  /** Exit reasons that our own hypervisor has seen, but those of the lab's port. */
  readonly own: number[] = [];
  /** Called once after the next doorbell exit in between: answers true to be called no more. */
  between: (() => boolean) | null = null;
  readonly #exited: bigint;
  readonly #hostHandler: bigint;
  readonly #labels: Assembler | null;
  readonly #onExit: ((vmcs: Vmcs, reason: number) => boolean) | undefined;
  #isStarted = false;
  #isInOperation = false;

  constructor(options: VmxLabOptions) {
    const cpuModel = options.cpuModel ?? "max,+vmx";
    const code = new Assembler(64, ORIGIN);
    program(code);
    this.processor = new Processor({
      clock: new DeterministicClock(),
      entropy: () => 42n,
      doorbell: () => this.between !== null,
      ...(options.interrupts ? { interrupts: options.interrupts } : {}),
    });
    const parts = assembleBareMetal(
      {
        ...{ image: code.assemble(), mode: "long64", address: ORIGIN },
        ...{ engine: options.engine, cpuModel },
      },
      this.processor,
    );
    this.vmcs = parts.vmcs;
    this.view = parts.view;
    this.ept = parts.ept;
    if (options.interrupts) {
      const primary = this.vmcs.number(Field.PRIMARY_CONTROLS);
      this.vmcs.set(Field.PIN_CONTROLS, PinControl.NMI);
      this.vmcs.set(Field.PRIMARY_CONTROLS, (primary & ~PrimaryControl.HLT) >>> 0);
    }
    this.vmcs.set(Field.GUEST_RSP, ROOT_STACK);
    this.vmcs.set(Field.GUEST_CR0, 0x8000_0031);
    const others = { read: () => null, write: () => false };
    this.capabilities = offerVmx(this.processor, parseCpuModel(cpuModel), others) ?? new Map();
    this.#exited = BigInt(code.addressOf("exited"));
    this.#hostHandler = BigInt(code.addressOf("host_handler"));
    this.#onExit = options.onExit;
    this.#labels = options.guest ? new Assembler(64, At.CODE) : null;
    if (this.#labels && options.guest) {
      options.guest(this.#labels);
      this.writeBytes(At.CODE, this.#labels.assemble());
    }
    for (const at of [At.VMXON, At.VMCS, At.SHADOW]) this.write(at, BigInt(REVISION));
    this.#mapAll();
  }

  /** Where the program goes on after a VM exit. */
  get exitAddress(): bigint {
    return this.#exited;
  }

  get isLaunched(): boolean {
    return this.read(At.VMCS + 8) % 0x1_0000_0000n !== 0n;
  }

  addressOf(label: string): bigint {
    return BigInt(this.#labels!.addressOf(label));
  }

  read(at: number): bigint {
    return this.view.getBigUint64(RAM_BASE + at, true);
  }

  write(at: number, value: bigint): void {
    this.view.setBigUint64(RAM_BASE + at, value, true);
  }

  writeBytes(at: number, bytes: Uint8Array): void {
    new Uint8Array(this.view.buffer).set(bytes, RAM_BASE + at);
  }

  /** EPT of the guest's guest: everything to itself, the 2 MiB region of DATA in small pages. */
  #mapAll(): void {
    const [top, second, third] = [At.EPT, At.EPT + 0x1000, At.EPT + 0x2000];
    this.write(top, BigInt(second) | 7n);
    this.write(second, BigInt(third) | 7n);
    for (let i = 0; i < 512; i++) this.write(third + 8 * i, BigInt(i * MIB2) | EPT_ALL | EPT_LARGE);
    this.write(third + 8 * (At.DATA / MIB2), BigInt(At.EPT_DATA) | 7n);
    for (let i = 0; i < 512; i++)
      this.write(At.EPT_DATA + 8 * i, BigInt(At.DATA + i * 4096) | EPT_ALL);
  }

  /** The EPT entry of a page of DATA. */
  eptEntry(page: number): number {
    return At.EPT_DATA + 8 * page;
  }

  get eptp(): bigint {
    return BigInt(At.EPT) | 0x1en;
  }

  /** Register n (encoding order) of the guest's guest at its last exit, or its next value. RSP is in the VMCS. */
  register(n: number): bigint {
    return this.read(REGISTERS + 8 * REGISTER_PLACE[n]!);
  }

  setRegister(n: number, value: bigint): void {
    this.write(REGISTERS + 8 * REGISTER_PLACE[n]!, value);
  }

  // ---- operations ----

  #run(ops: readonly (readonly bigint[])[]): Done[] {
    ops.forEach((op, i) => {
      for (let k = 0; k < 4; k++) this.write(LIST + 32 * i + 8 * k, op[k] ?? 0n);
    });
    this.write(LIST + 32 * ops.length, BigInt(Op.END));
    this.#enter();
    return ops.map((_, i) => {
      const flags = this.read(LIST + 32 * i + 24);
      const ending = (flags & 1n) !== 0n ? "invalid" : (flags & 0x40n) !== 0n ? "fail" : "ok";
      return { ending, value: this.read(LIST + 32 * i + 16) };
    });
  }

  /** Runs the program up to its port. */
  #enter(): void {
    const { vmcs, processor } = this;
    const skip = (): void =>
      vmcs.setBig(
        Field.GUEST_RIP,
        vmcs.big(Field.GUEST_RIP) + BigInt(vmcs.number(Field.EXIT_INSTRUCTION_LENGTH)),
      );
    if (this.#isStarted) skip();
    this.#isStarted = true;
    for (;;) {
      const error = processor.enter(vmcs);
      if (error !== 0) throw new Error(`VM-instruction error ${error}`);
      const reason = vmcs.number(Field.EXIT_REASON);
      const port = Math.floor(vmcs.number(Field.EXIT_QUALIFICATION) / 0x1_0000);
      if (reason === ExitReason.IO && port === DONE_PORT) return;
      if (reason === ExitReason.EXTERNAL_INTERRUPT && this.between) {
        if (this.between()) this.between = null;
        else this.#oneStep();
        continue;
      }
      this.own.push(reason);
      if (this.#onExit?.(vmcs, reason)) continue;
      const state = [0, 1, 2, 3].map((n) => vmcs.state.getBigUint64(gprAt(n), true).toString(16));
      const info = vmcs.number(Field.EXIT_INTERRUPTION_INFO).toString(16);
      throw new Error(
        `exit ${reason} (info ${info}) at ${vmcs.number(Field.GUEST_RIP).toString(16)}, registers ${state}`,
      );
    }
  }

  /** A guest that is not where `between` waits for goes on by an instruction. */
  #oneStep(): void {
    const { between } = this;
    this.between = null;
    const { vmcs } = this;
    const pin = vmcs.number(Field.PIN_CONTROLS);
    vmcs.set(Field.PIN_CONTROLS, pin | PinControl.PREEMPTION_TIMER);
    vmcs.set(Field.PREEMPTION_TIMER, 1);
    this.processor.enter(vmcs);
    vmcs.set(Field.PIN_CONTROLS, pin);
    this.between = between;
  }

  vmxon(at: number | bigint = At.VMXON): Ending {
    return this.#run([[BigInt(Op.VMXON), BigInt(at)]])[0]!.ending;
  }

  vmxoff(): Ending {
    return this.#run([[BigInt(Op.VMXOFF)]])[0]!.ending;
  }

  vmclear(at: number | bigint): Ending {
    return this.#run([[BigInt(Op.VMCLEAR), BigInt(at)]])[0]!.ending;
  }

  vmptrld(at: number | bigint): Ending {
    return this.#run([[BigInt(Op.VMPTRLD), BigInt(at)]])[0]!.ending;
  }

  vmptrst(): bigint {
    return this.#run([[BigInt(Op.VMPTRST)]])[0]!.value;
  }

  vmcall(): Ending {
    return this.#run([[BigInt(Op.VMCALL)]])[0]!.ending;
  }

  vmread(field: number): Done {
    return this.#run([[BigInt(Op.VMREAD), BigInt(field)]])[0]!;
  }

  field(field: number): bigint {
    return this.vmread(field).value;
  }

  vmwrite(field: number, value: bigint): Ending {
    return this.#run([[BigInt(Op.VMWRITE), BigInt(field), value]])[0]!.ending;
  }

  writeFields(fields: Iterable<readonly [number, bigint]>): void {
    const ops = [...fields].map(([field, value]) => [BigInt(Op.VMWRITE), BigInt(field), value]);
    for (const [i, { ending }] of this.#run(ops).entries())
      if (ending !== "ok") throw new Error(`VMWRITE ${ops[i]![1]!.toString(16)}: ${ending}`);
  }

  /** INVEPT or INVVPID with its descriptor. */
  invalidate(
    which: "INVEPT" | "INVVPID",
    type: bigint,
    descriptor: readonly [bigint, bigint],
  ): Ending {
    this.write(DESCRIPTOR, descriptor[0]);
    this.write(DESCRIPTOR + 8, descriptor[1]);
    return this.#run([[BigInt(Op[which]), type]])[0]!.ending;
  }

  launch(): Ending {
    return this.#run([[BigInt(Op.VMLAUNCH)]])[0]!.ending;
  }

  resume(): Ending {
    return this.#run([[BigInt(Op.VMRESUME)]])[0]!.ending;
  }

  /** The vector's gate in the guest hypervisor's own IDT leads to a handler that counts. In force from the next VM exit on. */
  setHostGate(vector: number): void {
    const to = this.#hostHandler;
    const low = (to & 0xffffn) | (HOST_CODE_SELECTOR << 16n) | (0x8e00n << 32n);
    this.write(HOST_IDT + 16 * vector, low | ((to >> 16n) << 48n));
    this.write(HOST_IDT + 16 * vector + 8, to >> 32n);
    this.vmwrite(Field.HOST_IDTR_BASE, BigInt(HOST_IDT));
  }

  /** After an external-interrupt exit: Op.DISPATCH. Answers how often handler and dispatcher have run in all, and the last vector dispatched. */
  dispatch(): { handled: number; dispatched: number; vector: number } {
    this.#run([[BigInt(Op.DISPATCH)]]);
    const count = (at: number): number => Number(this.read(at));
    return {
      handled: count(HANDLED),
      dispatched: count(DISPATCHED),
      vector: count(LAST_VECTOR),
    };
  }

  /** STI, NOP, CLI in the guest hypervisor. Answers how often its handler has run in all. */
  openWindow(): number {
    this.#run([[BigInt(Op.OPEN)]]);
    return Number(this.read(HANDLED));
  }

  /** Resumes and answers the exit reason. */
  next(): number {
    this.resume();
    return Number(this.field(Field.EXIT_REASON));
  }

  /** Past the instruction that has exited. */
  skip(): void {
    const rip = this.field(Field.GUEST_RIP) + this.field(Field.EXIT_INSTRUCTION_LENGTH);
    this.vmwrite(Field.GUEST_RIP, rip);
  }

  /** VMXON, and a VMCS for a 64-bit guest at CODE, with EPT, VPID and unrestricted guest; `changes` last. */
  prepare(changes: Iterable<readonly [number, bigint]> = []): void {
    if (!this.#isInOperation) this.vmxon();
    this.#isInOperation = true;
    this.vmclear(At.VMCS);
    // What VMCLEAR leaves of an earlier test.
    for (let at = 8; at < 4096; at += 8) this.write(At.VMCS + at, 0n);
    this.vmptrld(At.VMCS);
    this.writeFields(this.goodFields());
    this.writeFields(changes);
  }

  goodFields(): Map<number, bigint> {
    const data = 0xc093n;
    const fields = new Map<number, bigint>([
      [Field.PIN_CONTROLS, TEST_CONTROLS.pin],
      [Field.PRIMARY_CONTROLS, TEST_CONTROLS.primary],
      [Field.SECONDARY_CONTROLS, TEST_CONTROLS.secondary],
      [Field.EXIT_CONTROLS, TEST_CONTROLS.exit],
      [Field.ENTRY_CONTROLS, TEST_CONTROLS.entry],
      [Field.EXCEPTION_BITMAP, 0n],
      [Field.VPID, 1n],
      [Field.EPTP, this.eptp],
      [Field.VMCS_LINK, 0xffff_ffff_ffff_ffffn],
      [Field.HOST_CR0, 0x8000_0031n],
      [Field.HOST_CR3, BigInt(PAGE_TABLE)],
      [Field.HOST_CR4, 0x2020n],
      [Field.HOST_CS_SELECTOR, 0x10n],
      [Field.HOST_SS_SELECTOR, 0x18n],
      [Field.HOST_DS_SELECTOR, 0x18n],
      [Field.HOST_ES_SELECTOR, 0x18n],
      [Field.HOST_FS_SELECTOR, 0n],
      [Field.HOST_GS_SELECTOR, 0n],
      [Field.HOST_TR_SELECTOR, 0x20n],
      [Field.HOST_GDTR_BASE, 0x500n],
      [Field.HOST_IDTR_BASE, 0n],
      [Field.HOST_RSP, BigInt(ROOT_STACK)],
      [Field.HOST_RIP, this.#exited],
      [Field.GUEST_CR0, 0x8000_0031n],
      [Field.GUEST_CR3, BigInt(PAGE_TABLE)],
      [Field.GUEST_CR4, 0x2020n],
      [Field.GUEST_DR7, 0x400n],
      [Field.GUEST_RFLAGS, 2n],
      [Field.GUEST_RIP, BigInt(At.CODE)],
      [Field.GUEST_RSP, BigInt(At.STACK)],
      [Field.GUEST_CS_SELECTOR, 0x10n],
      [Field.GUEST_CS_LIMIT, 0xffff_ffffn],
      [Field.GUEST_CS_RIGHTS, 0xa09bn],
      [Field.GUEST_TR_SELECTOR, 0x20n],
      [Field.GUEST_TR_LIMIT, 0x67n],
      [Field.GUEST_TR_RIGHTS, 0x8bn],
      [Field.GUEST_LDTR_RIGHTS, 0x1_0000n],
      [Field.GUEST_GDTR_BASE, 0x500n],
      [Field.GUEST_GDTR_LIMIT, 0x3fn],
      [Field.GUEST_IDTR_LIMIT, 0n],
      [Field.ENTRY_INTERRUPTION_INFO, 0n],
      [Field.GUEST_INTERRUPTIBILITY, 0n],
      [Field.GUEST_ACTIVITY, 0n],
      [Field.GUEST_PENDING_DEBUG, 0n],
    ]);
    for (const name of ["ES", "SS", "DS", "FS", "GS"] as const) {
      fields.set(Field[`GUEST_${name}_SELECTOR`], 0x18n);
      fields.set(Field[`GUEST_${name}_LIMIT`], 0xffff_ffffn);
      fields.set(Field[`GUEST_${name}_RIGHTS`], data);
    }
    return fields;
  }
}

/** Place in the program's list of saved registers by encoding. RSP has none. */
const REGISTER_PLACE = [0, 1, 2, 3, undefined, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14];
