/**
 * A virtual APIC: that of a VMCS of our own hypervisor's, or of a guest hypervisor's. SDM Vol. 3C, "APIC Virtualization and Virtual
 * Interrupts".
 *
 * State is where the manual has it: registers in the virtual-APIC page, RVI and SVI in the VMCS, and one latch: a virtual interrupt is
 * recognized. What an operation leads to besides (a VM exit after the instruction) it answers as an Effect. How the engine comes here:
 * apic-virtualization.ts.
 */
import { ExitReason } from "../isa/exit-reasons.ts";
import { Field, PinControl, PrimaryControl, SecondaryControl } from "../isa/vmcs-fields.ts";

/** A VMCS as a virtual APIC uses it. */
export interface ApicFields {
  number(field: number): number;
  big(field: number): bigint;
  set(field: number, value: number): void;
}

/** Where the physical addresses in a VMCS lead. */
export interface ApicMemory {
  /** Host address, 0 if there is no memory. */
  hostOf(physical: bigint): number;
  readonly view: DataView;
}

/** A VM exit that comes after the instruction, or null. */
export type Effect = { readonly reason: number; readonly qualification: number } | null;

export const ApicRegister = {
  TPR: 0x80,
  PPR: 0xa0,
  EOI: 0xb0,
  SPURIOUS: 0xf0,
  ISR: 0x100,
  IRR: 0x200,
  ICR_LOW: 0x300,
  ICR_HIGH: 0x310,
  SELF_IPI: 0x3f0,
} as const;

const R = ApicRegister;
/** Pages of 16 bytes that APIC-register virtualization lets be read and written. */
const READABLE = ranges(
  ...[
    [0x20, 0x30],
    [0x80, 0x80],
    [0xb0, 0xb0],
    [0xd0, 0xf0],
    [0x100, 0x280],
    [0x300, 0x380],
  ],
  [0x3e0, 0x3e0],
);
const WRITABLE = ranges(
  ...[
    [0x20, 0x30],
    [0x80, 0x80],
    [0xb0, 0xb0],
    [0xd0, 0xf0],
    [0x280, 0x280],
    [0x300, 0x380],
  ],
  [0x3e0, 0x3e0],
);
/** Of these bits the ICR of a plain self-IPI has only the shorthand. */
const ICR_PLAIN_MASK = 0xffff_b700;
const ICR_SELF_SHORTHAND = 0x4_0000;
const X2APIC_BASE = 0x800;

function ranges(...list: readonly (readonly number[])[]): ReadonlySet<number> {
  const all = new Set<number>();
  for (const [from, to] of list) for (let at = from!; at <= to!; at += 16) all.add(at);
  return all;
}

/** Posted-interrupt descriptor. */
const OUTSTANDING = 32;

export class VirtualApic {
  readonly #memory: ApicMemory;
  readonly #vmcs: ApicFields;
  /** Host address of the virtual-APIC page, 0 if there is no memory. */
  #page = 0;
  /** A virtual interrupt is recognized: it is delivered at the next boundary that lets it. */
  isRecognized = false;

  constructor(memory: ApicMemory, vmcs: ApicFields) {
    this.#memory = memory;
    this.#vmcs = vmcs;
  }

  /** Looks the virtual-APIC page up: at VM entry, and when what its address leads to may have changed. */
  locate(): void {
    this.#page = this.hasShadow ? this.#memory.hostOf(this.#vmcs.big(Field.VIRTUAL_APIC)) : 0;
  }

  // ---- controls ----

  get hasShadow(): boolean {
    return (this.#vmcs.number(Field.PRIMARY_CONTROLS) & PrimaryControl.TPR_SHADOW) !== 0;
  }

  #secondary(bit: number): boolean {
    return (
      (this.#vmcs.number(Field.PRIMARY_CONTROLS) & PrimaryControl.SECONDARY) !== 0 &&
      (this.#vmcs.number(Field.SECONDARY_CONTROLS) & bit) !== 0
    );
  }

  get virtualizesAccesses(): boolean {
    return this.#secondary(SecondaryControl.APIC_ACCESSES);
  }

  get #isX2apic(): boolean {
    return this.#secondary(SecondaryControl.X2APIC);
  }

  get #hasRegisters(): boolean {
    return this.#secondary(SecondaryControl.APIC_REGISTERS);
  }

  get delivers(): boolean {
    return this.#secondary(SecondaryControl.VIRTUAL_INTERRUPTS);
  }

  // ---- registers ----

  read(offset: number): number {
    return this.#page === 0 ? 0 : this.#memory.view.getUint32(this.#page + offset, true);
  }

  #write(offset: number, value: number): void {
    if (this.#page !== 0) this.#memory.view.setUint32(this.#page + offset, value, true);
  }

  /** VTPR. */
  get tpr(): number {
    return this.read(R.TPR) & 0xff;
  }

  #setBit(base: number, vector: number, value: boolean): void {
    const offset = base + 16 * (vector >>> 5);
    const bit = 1 << (vector & 31);
    const old = this.read(offset);
    this.#write(offset, (value ? old | bit : old & ~bit) >>> 0);
  }

  /** Highest vector of VISR or VIRR, 0 for none. */
  #highest(base: number): number {
    for (let word = 7; word >= 0; word--) {
      const bits = this.read(base + 16 * word);
      if (bits !== 0) return 32 * word + 31 - Math.clz32(bits);
    }
    return 0;
  }

  get #rvi(): number {
    return this.#vmcs.number(Field.GUEST_INTERRUPT_STATUS) & 0xff;
  }

  get #svi(): number {
    return (this.#vmcs.number(Field.GUEST_INTERRUPT_STATUS) >>> 8) & 0xff;
  }

  #setStatus(rvi: number, svi: number): void {
    this.#vmcs.set(Field.GUEST_INTERRUPT_STATUS, (svi << 8) | rvi);
  }

  // ---- operations ----

  #updatePpr(): void {
    const tpr = this.tpr;
    const svi = this.#svi;
    this.#write(R.PPR, tpr >>> 4 >= svi >>> 4 ? tpr : svi & 0xf0);
  }

  #evaluate(): void {
    const opens =
      (this.#vmcs.number(Field.PRIMARY_CONTROLS) & PrimaryControl.INTERRUPT_WINDOW) === 0;
    this.isRecognized = opens && this.#rvi >>> 4 > (this.read(R.PPR) & 0xff) >>> 4;
  }

  /** VM entry. */
  enter(): Effect {
    this.isRecognized = false;
    this.locate();
    if (this.delivers) {
      this.#updatePpr();
      this.#evaluate();
      return null;
    }
    return this.virtualizesAccesses || this.#isX2apic ? this.#belowThreshold() : null;
  }

  /** The TPR threshold that VM entry refuses: only where no exit would tell of it. */
  get isThresholdBad(): boolean {
    if (!this.hasShadow || this.delivers || this.virtualizesAccesses) return false;
    this.locate();
    return this.#threshold > this.tpr >>> 4;
  }

  get #threshold(): number {
    return this.#vmcs.number(Field.TPR_THRESHOLD) & 15;
  }

  #belowThreshold(): Effect {
    if (!this.hasShadow || this.#threshold <= this.tpr >>> 4) return null;
    return { reason: ExitReason.TPR_BELOW_THRESHOLD, qualification: 0 };
  }

  /** VTPR has been written. */
  writeTpr(value: number): Effect {
    this.#write(R.TPR, value & 0xff);
    if (!this.delivers) return this.#belowThreshold();
    this.#updatePpr();
    this.#evaluate();
    return null;
  }

  /** EOI virtualization. */
  endOfInterrupt(): Effect {
    const vector = this.#svi;
    this.#setBit(R.ISR, vector, false);
    this.#setStatus(this.#rvi, this.#highest(R.ISR));
    this.#updatePpr();
    const bitmap = this.#vmcs.big(Field.EOI_EXIT0 + 2 * (vector >>> 6));
    if (((bitmap >> BigInt(vector & 63)) & 1n) !== 0n)
      return { reason: ExitReason.VIRTUALIZED_EOI, qualification: vector };
    this.#evaluate();
    return null;
  }

  /** A virtual interrupt is requested: self-IPI virtualization, direct delivery. */
  request(vector: number): void {
    this.#setBit(R.IRR, vector, true);
    this.#setStatus(Math.max(this.#rvi, vector), this.#svi);
    this.#evaluate();
  }

  /** The guest has switched its APIC on (spurious-interrupt vector register, bit 8). */
  get isEnabled(): boolean {
    return (this.read(R.SPURIOUS) & 0x100) !== 0;
  }

  /** The recognized interrupt is being delivered. Answers its vector. */
  accept(): number {
    const vector = this.#rvi;
    this.#setBit(R.ISR, vector, true);
    this.#write(R.PPR, vector & 0xf0);
    this.#setBit(R.IRR, vector, false);
    this.#setStatus(this.#highest(R.IRR), vector);
    this.isRecognized = false;
    return vector;
  }

  /** An acknowledged external interrupt. Answers true if it was the notification of posted interrupts, which has been processed. */
  takePosted(vector: number): boolean {
    const vmcs = this.#vmcs;
    if ((vmcs.number(Field.PIN_CONTROLS) & PinControl.POSTED_INTERRUPTS) === 0) return false;
    if (vector !== (vmcs.number(Field.POSTED_NOTIFICATION_VECTOR) & 0xff)) return false;
    const at = this.#memory.hostOf(vmcs.big(Field.POSTED_INTERRUPT_DESCRIPTOR));
    if (at === 0) return true;
    const { view } = this.#memory;
    view.setUint8(at + OUTSTANDING, view.getUint8(at + OUTSTANDING) & ~1);
    let highest = 0;
    for (let word = 0; word < 8; word++) {
      const bits = view.getUint32(at + 4 * word, true);
      if (bits === 0) continue;
      view.setUint32(at + 4 * word, 0, true);
      this.#write(R.IRR + 16 * word, (this.read(R.IRR + 16 * word) | bits) >>> 0);
      highest = 32 * word + 31 - Math.clz32(bits);
    }
    if (highest > 0) this.#setStatus(Math.max(this.#rvi, highest), this.#svi);
    this.#evaluate();
    return true;
  }

  // ---- accesses to the APIC-access page ----

  /** Whether an access of this kind is virtualized, or ends in an APIC-access exit. */
  virtualizes(offset: number, isWrite: boolean): boolean {
    if (!this.hasShadow) return false;
    const register = offset & 0xff0;
    // The low four bytes of each 16.
    if ((offset & 15) > 3) return false;
    if (register === R.TPR) return true;
    if (isWrite && this.delivers && (register === R.EOI || register === R.ICR_LOW)) return true;
    return this.#hasRegisters && (isWrite ? WRITABLE : READABLE).has(register);
  }

  /** A virtualized write of 1, 2 or 4 bytes that is done: APIC-write emulation. */
  write(offset: number, data: number, bytes = 4): Effect {
    const register = offset & 0xff0;
    const shift = 8 * (offset & 3);
    const mask = ((2 ** (8 * bytes) - 1) << shift) >>> 0;
    const value = ((this.read(register) & ~mask) | ((data << shift) & mask)) >>> 0;
    this.#write(register, value);
    switch (register) {
      case R.TPR:
        return this.writeTpr(value);
      case R.EOI:
        if (!this.delivers) break;
        this.#write(R.EOI, 0);
        return this.endOfInterrupt();
      case R.ICR_LOW: {
        const isSelf =
          (value & ICR_PLAIN_MASK) >>> 0 === ICR_SELF_SHORTHAND && (value & 0xf0) !== 0;
        if (!this.delivers || !isSelf) break;
        this.request(value & 0xff);
        return null;
      }
      case R.ICR_HIGH:
        this.#write(register, (value & 0xff00_0000) >>> 0);
        return null;
    }
    return { reason: ExitReason.APIC_WRITE, qualification: register };
  }

  // ---- x2APIC mode ----

  /** RDMSR of an x2APIC register; null if it is not virtualized. */
  readMsr(index: number): bigint | null {
    if (!this.#isX2apic || index < X2APIC_BASE || index > X2APIC_BASE + 0xff) return null;
    const offset = (index - X2APIC_BASE) << 4;
    if (offset !== R.TPR && !this.#hasRegisters) return null;
    return this.#page === 0 ? 0n : this.#memory.view.getBigUint64(this.#page + offset, true);
  }

  /** WRMSR of one: its effect, "fault" for #GP, undefined if it is not virtualized. */
  writeMsr(index: number, value: bigint): Effect | "fault" | undefined {
    if (!this.#isX2apic) return undefined;
    switch ((index - X2APIC_BASE) << 4) {
      case R.TPR:
        return value > 0xffn ? "fault" : this.writeTpr(Number(value));
      case R.EOI:
        if (!this.delivers) return undefined;
        return value !== 0n ? "fault" : this.endOfInterrupt();
      case R.SELF_IPI: {
        if (!this.delivers) return undefined;
        if (value > 0xffn) return "fault";
        const vector = Number(value);
        this.#write(R.SELF_IPI, vector);
        if (vector < 16) return { reason: ExitReason.APIC_WRITE, qualification: R.SELF_IPI };
        this.request(vector);
        return null;
      }
      default:
        return undefined;
    }
  }
}
