/**
 * A virtual local APIC: xAPIC page, x2APIC registers, timer with TSC deadline.
 * Spec: SDM Vol. 3A, "Advanced Programmable Interrupt Controller (APIC)".
 *
 * The one interrupt controller that stays in the kernel. It works on virtual time (1 tick = 1 ns, which is also one TSC tick and one tick of the
 * core crystal), never reads a clock itself and keeps all state in plain fields.
 */

/** Register numbers: xAPIC offset >> 4 and x2APIC MSR - 0x800. */
const R = {
  ID: 0x02,
  VERSION: 0x03,
  TPR: 0x08,
  APR: 0x09,
  PPR: 0x0a,
  EOI: 0x0b,
  RRD: 0x0c,
  LDR: 0x0d,
  DFR: 0x0e,
  SVR: 0x0f,
  ISR: 0x10,
  TMR: 0x18,
  IRR: 0x20,
  ESR: 0x28,
  LVT_CMCI: 0x2f,
  ICR: 0x30,
  ICR_HIGH: 0x31,
  LVT_TIMER: 0x32,
  LVT_THERMAL: 0x33,
  LVT_PERF: 0x34,
  LVT_LINT0: 0x35,
  LVT_LINT1: 0x36,
  LVT_ERROR: 0x37,
  TIMER_INITIAL: 0x38,
  TIMER_CURRENT: 0x39,
  TIMER_DIVIDE: 0x3e,
  SELF_IPI: 0x3f,
} as const;

/** Integrated APIC, 6 LVT entries, EOI-broadcast suppression offered not. */
const VERSION = 0x0005_0014;
const LVT_MASKED = 1 << 16;
const LVT_WRITABLE = [0x7_00ff, 0x1_07ff, 0x1_07ff, 0x1_f7ff, 0x1_f7ff, 0x1_00ff] as const;
const SVR_ENABLED = 1 << 8;
const ESR_RECEIVED_ILLEGAL = 1 << 6;
const ESR_SENT_ILLEGAL = 1 << 5;
const ESR_ILLEGAL_REGISTER = 1 << 7;
const BASE_DEFAULT = 0xfee0_0000;
const BASE_BSP = 1 << 8;
const BASE_X2APIC = 1 << 10;
const BASE_ENABLE = 1 << 11;

const TimerMode = { ONE_SHOT: 0, PERIODIC: 1, TSC_DEADLINE: 2 } as const;
const Delivery = { FIXED: 0, LOWEST: 1, SMI: 2, NMI: 4, INIT: 5, SIPI: 6, EXTINT: 7 } as const;

export interface LocalApicWires {
  /** A level-triggered vector was ended. */
  readonly eoi: (vector: number) => void;
  /** An interrupt command for other processors (and self where the shorthand says so). */
  readonly ipi: (command: IpiCommand) => void;
}

export interface IpiCommand {
  readonly vector: number;
  readonly deliveryMode: number;
  readonly destMode: 0 | 1;
  readonly dest: number;
  readonly level: boolean;
  readonly trigger: 0 | 1;
  readonly shorthand: number;
}

/** Bits: IRR, ISR, TMR, LVT. Registers in the order of save(). Times: start and due time of the timer, ns. */
export interface SavedApic {
  readonly bits: readonly (readonly number[])[];
  readonly registers: readonly number[];
  readonly times: readonly number[];
  readonly nmiPending: boolean;
  readonly initPending: boolean;
}

export class LocalApic {
  readonly id: number;
  readonly #wires: LocalApicWires;
  readonly #irr = new Uint32Array(8);
  readonly #isr = new Uint32Array(8);
  readonly #tmr = new Uint32Array(8);
  readonly #lvt = new Uint32Array(6).fill(LVT_MASKED);
  #base: number;
  #tpr = 0;
  #ldr = 0;
  #dfr = 0xffff_ffff;
  #svr = 0xff;
  #esr = 0;
  #esrShadow = 0;
  #icrLow = 0;
  #icrHigh = 0;
  #initial = 0;
  #divide = 0;
  #started = 0;
  /** Due time of the timer in ns, Infinity if it is not running. */
  #deadline = Infinity;
  nmiPending = false;
  initPending = false;

  constructor(id: number, wires: LocalApicWires, isBootstrap: boolean) {
    this.id = id;
    this.#wires = wires;
    this.#base = BASE_DEFAULT | BASE_ENABLE | (isBootstrap ? BASE_BSP : 0);
    if (isBootstrap) {
      // As firmware hands over: software-enabled, the 8259 through LINT0 (virtual wire), NMI at LINT1.
      this.#svr |= SVR_ENABLED;
      this.#lvt[3] = Delivery.EXTINT << 8;
      this.#lvt[4] = Delivery.NMI << 8;
    }
  }

  // ---- what the kernel asks ----

  get isX2apic(): boolean {
    return (this.#base & BASE_X2APIC) !== 0;
  }

  get isEnabled(): boolean {
    return (this.#base & BASE_ENABLE) !== 0;
  }

  /** Guest-physical address of the register page, or -1 if it has none now. */
  get pageAddress(): number {
    return this.isEnabled && !this.isX2apic ? (this.#base & 0xffff_f000) >>> 0 : -1;
  }

  get deadline(): number {
    return this.#deadline;
  }

  /** CR8: the upper half of TPR. */
  get cr8(): number {
    return this.#tpr >>> 4;
  }

  set cr8(value: number) {
    this.#tpr = (value & 15) << 4;
  }

  /** Runs the timer up to now. */
  advance(now: number): void {
    if (now < this.#deadline) return;
    const lvt = this.#lvt[0]!;
    if ((lvt & LVT_MASKED) === 0) this.#accept(lvt & 0xff, 0);
    const period = this.#initial * this.#divisor();
    if (((lvt >>> 17) & 3) === TimerMode.PERIODIC && period > 0) {
      const behind = Math.floor((now - this.#deadline) / period);
      this.#started = this.#deadline + behind * period;
      this.#deadline = this.#started + period;
    } else this.#deadline = Infinity;
  }

  /** Highest deliverable vector, or -1. */
  pending(): number {
    if ((this.#svr & SVR_ENABLED) === 0) return -1;
    const vector = highest(this.#irr);
    return vector >= 16 && vector >>> 4 > this.#ppr() >>> 4 ? vector : -1;
  }

  /** INTA: moves a pending vector into service. */
  acknowledge(vector: number): void {
    clear(this.#irr, vector);
    set(this.#isr, vector);
  }

  /** True if the 8259's INTR reaches the processor through LINT0 (or because the APIC is off). */
  acceptsExtint(): boolean {
    if (!this.isEnabled) return true;
    const lint0 = this.#lvt[3]!;
    return (lint0 & LVT_MASKED) === 0 && ((lint0 >>> 8) & 7) === Delivery.EXTINT;
  }

  /** Whether an interrupt message's destination names this APIC. */
  matches(destMode: 0 | 1, dest: number): boolean {
    if (destMode === 0)
      return dest === this.id || dest === (this.isX2apic ? 0xffff_ffff : 0xff) || dest === 0xff;
    if (this.isX2apic) return dest >>> 16 === this.#ldr >>> 16 && (dest & this.#ldr & 0xffff) !== 0;
    const logical = this.#ldr >>> 24;
    if (this.#dfr >>> 28 === 0xf) return (dest & logical) !== 0;
    return (dest >>> 4 === logical >>> 4 || dest >>> 4 === 0xf) && (dest & logical & 0xf) !== 0;
  }

  /** Takes an interrupt message. Answers false if the APIC cannot take it. */
  deliver(deliveryMode: number, vector: number, trigger: 0 | 1): boolean {
    switch (deliveryMode) {
      case Delivery.FIXED:
      case Delivery.LOWEST:
        if (!this.isEnabled || (this.#svr & SVR_ENABLED) === 0) return false;
        this.#accept(vector, trigger);
        return true;
      case Delivery.NMI:
        this.nmiPending = true;
        return true;
      case Delivery.INIT:
        this.initPending = true;
        return true;
      default:
        return false;
    }
  }

  #accept(vector: number, trigger: number): void {
    if (vector < 16) {
      this.#error(ESR_RECEIVED_ILLEGAL);
      return;
    }
    set(this.#irr, vector);
    if (trigger) set(this.#tmr, vector);
    else clear(this.#tmr, vector);
  }

  #error(bit: number): void {
    this.#esrShadow |= bit;
    const lvt = this.#lvt[5]!;
    if ((lvt & LVT_MASKED) === 0 && (lvt & 0xff) >= 16) this.#accept(lvt & 0xff, 0);
  }

  #ppr(): number {
    const service = Math.max(highest(this.#isr), 0);
    return this.#tpr >>> 4 >= service >>> 4 ? this.#tpr : service & 0xf0;
  }

  // ---- registers ----

  /** Reads a register by number; `now` in ns. */
  read(register: number, now: number): number {
    switch (register) {
      case R.ID:
        return this.isX2apic ? this.id : (this.id << 24) >>> 0;
      case R.VERSION:
        return VERSION;
      case R.TPR:
        return this.#tpr;
      case R.PPR:
        return this.#ppr();
      case R.LDR:
        return this.#ldr >>> 0;
      case R.DFR:
        return this.#dfr >>> 0;
      case R.SVR:
        return this.#svr;
      case R.ESR:
        return this.#esr;
      case R.ICR:
        return this.#icrLow >>> 0;
      case R.ICR_HIGH:
        return this.#icrHigh >>> 0;
      case R.TIMER_INITIAL:
        return this.#initial;
      case R.TIMER_CURRENT:
        return this.#current(now);
      case R.TIMER_DIVIDE:
        return this.#divide;
      default:
        if (register >= R.LVT_TIMER && register <= R.LVT_ERROR)
          return this.#lvt[register - R.LVT_TIMER]!;
        if (register >= R.ISR && register < R.ISR + 8) return this.#isr[register - R.ISR]!;
        if (register >= R.TMR && register < R.TMR + 8) return this.#tmr[register - R.TMR]!;
        if (register >= R.IRR && register < R.IRR + 8) return this.#irr[register - R.IRR]!;
        if (register !== R.RRD && register !== R.APR) this.#error(ESR_ILLEGAL_REGISTER);
        return 0;
    }
  }

  write(register: number, value: number, now: number): void {
    switch (register) {
      case R.TPR:
        this.#tpr = value & 0xff;
        break;
      case R.EOI:
        this.endOfInterrupt();
        break;
      case R.LDR:
        if (!this.isX2apic) this.#ldr = value & 0xff00_0000;
        break;
      case R.DFR:
        if (!this.isX2apic) this.#dfr = value | 0x0fff_ffff;
        break;
      case R.SVR:
        this.#svr = value & 0x3ff;
        if ((value & SVR_ENABLED) === 0) for (let i = 0; i < 6; i++) this.#lvt[i]! |= LVT_MASKED;
        break;
      case R.ESR:
        this.#esr = this.#esrShadow;
        this.#esrShadow = 0;
        break;
      case R.ICR:
        this.#icrLow = value & 0xc_cfff;
        this.#command(this.#icrHigh >>> 24);
        break;
      case R.ICR_HIGH:
        this.#icrHigh = value & 0xff00_0000;
        break;
      case R.TIMER_INITIAL:
        this.#startTimer(value >>> 0, now);
        break;
      case R.TIMER_DIVIDE: {
        const left = this.#current(now);
        this.#divide = value & 0xb;
        if (this.#deadline !== Infinity && this.#mode() !== TimerMode.TSC_DEADLINE) {
          this.#started = now - (this.#initial - left) * this.#divisor();
          this.#deadline = now + left * this.#divisor();
        }
        break;
      }
      case R.SELF_IPI:
        if (this.isX2apic) this.#accept(value & 0xff, 0);
        break;
      default:
        if (register >= R.LVT_TIMER && register <= R.LVT_ERROR)
          this.#writeLvt(register - R.LVT_TIMER, value);
        else this.#error(ESR_ILLEGAL_REGISTER);
    }
  }

  #writeLvt(index: number, value: number): void {
    const oldMode = this.#mode();
    const forced = (this.#svr & SVR_ENABLED) === 0 ? LVT_MASKED : 0;
    this.#lvt[index] = (value & (LVT_WRITABLE[index]! | LVT_MASKED)) | forced;
    if (index === 0 && this.#mode() !== oldMode) {
      // Entering or leaving TSC-deadline mode disarms the timer.
      if (this.#mode() === TimerMode.TSC_DEADLINE || oldMode === TimerMode.TSC_DEADLINE) {
        this.#deadline = Infinity;
        this.#initial = 0;
      }
    }
  }

  #mode(): number {
    return (this.#lvt[0]! >>> 17) & 3;
  }

  #divisor(): number {
    const code = (this.#divide & 3) | ((this.#divide >> 1) & 4);
    return code === 7 ? 1 : 2 << code;
  }

  #startTimer(count: number, now: number): void {
    if (this.#mode() === TimerMode.TSC_DEADLINE) return;
    this.#initial = count;
    this.#started = now;
    this.#deadline = count === 0 ? Infinity : now + count * this.#divisor();
  }

  #current(now: number): number {
    if (this.#deadline === Infinity || this.#mode() === TimerMode.TSC_DEADLINE) return 0;
    return Math.max(0, Math.ceil((this.#deadline - now) / this.#divisor()));
  }

  /** IA32_TSC_DEADLINE. `deadline` is in the guest's TSC, `offset` = guest TSC - ns. */
  setTscDeadline(deadline: number, offset: number): void {
    if (this.#mode() !== TimerMode.TSC_DEADLINE) return;
    this.#deadline = deadline === 0 ? Infinity : deadline - offset;
  }

  tscDeadline(offset: number): number {
    return this.#mode() === TimerMode.TSC_DEADLINE && this.#deadline !== Infinity
      ? this.#deadline + offset
      : 0;
  }

  /** EOI: of the vector in service with the highest priority. */
  endOfInterrupt(): void {
    const vector = highest(this.#isr);
    if (vector < 0) return;
    clear(this.#isr, vector);
    if (has(this.#tmr, vector)) this.#wires.eoi(vector);
  }

  #command(dest: number): void {
    const low = this.#icrLow;
    const vector = low & 0xff;
    const deliveryMode = (low >>> 8) & 7;
    if (deliveryMode <= Delivery.LOWEST && vector < 16) {
      this.#error(ESR_SENT_ILLEGAL);
      return;
    }
    this.#wires.ipi({
      vector,
      deliveryMode,
      destMode: ((low >>> 11) & 1) as 0 | 1,
      dest,
      level: (low & (1 << 14)) !== 0,
      trigger: ((low >>> 15) & 1) as 0 | 1,
      shorthand: (low >>> 18) & 3,
    });
  }

  // ---- snapshots ----

  save(): SavedApic {
    return {
      bits: [this.#irr, this.#isr, this.#tmr, this.#lvt].map((words) => [...words]),
      registers: [
        ...[this.#base, this.#tpr, this.#ldr, this.#dfr, this.#svr, this.#esr, this.#esrShadow],
        ...[this.#icrLow, this.#icrHigh, this.#initial, this.#divide],
      ],
      times: [this.#started, this.#deadline],
      nmiPending: this.nmiPending,
      initPending: this.initPending,
    };
  }

  /** A state that `save` made. */
  restore({ bits, registers, times, nmiPending, initPending }: SavedApic): void {
    for (const [i, words] of [this.#irr, this.#isr, this.#tmr, this.#lvt].entries())
      words.set(bits[i]!);
    const at = (i: number): number => registers[i]!;
    [this.#base, this.#tpr, this.#ldr, this.#dfr] = [at(0), at(1), at(2), at(3)];
    [this.#svr, this.#esr, this.#esrShadow] = [at(4), at(5), at(6)];
    [this.#icrLow, this.#icrHigh, this.#initial, this.#divide] = [at(7), at(8), at(9), at(10)];
    [this.#started, this.#deadline] = [times[0]!, times[1]!];
    this.nmiPending = nmiPending;
    this.initPending = initPending;
  }

  // ---- MSRs ----

  get baseMsr(): number {
    return this.#base >>> 0;
  }

  /** Writes IA32_APIC_BASE; answers false for a transition or bit that is #GP. */
  writeBaseMsr(low: number, high: number): boolean {
    const enable = low & BASE_ENABLE;
    const x2apic = low & BASE_X2APIC;
    const reserved = low & ~(0xffff_f000 | BASE_BSP | BASE_X2APIC | BASE_ENABLE);
    if (reserved !== 0 || high !== 0 || (x2apic && !enable)) return false;
    if (this.isX2apic && enable && !x2apic) return false;
    if (!this.isEnabled && x2apic) return false;
    this.#base = low;
    if (x2apic) this.#ldr = ((this.id >>> 4) << 16) | (1 << (this.id & 15));
    return true;
  }

  /** x2APIC register write through an MSR; answers false for #GP. */
  writeX2apic(register: number, low: number, high: number, now: number): boolean {
    const readOnly: readonly number[] = [
      R.ID,
      R.VERSION,
      R.PPR,
      R.LDR,
      R.DFR,
      R.ICR_HIGH,
      R.TIMER_CURRENT,
    ];
    if (readOnly.includes(register) || (register >= R.ISR && register < R.ESR)) return false;
    if (register === R.ICR) {
      this.#icrLow = low & 0xc_cfff;
      this.#icrHigh = high;
      this.#command(high >>> 0);
      return true;
    }
    if (high !== 0 || ((register === R.EOI || register === R.ESR) && low !== 0)) return false;
    this.write(register, low, now);
    return true;
  }

  readX2apic(register: number, now: number): { low: number; high: number } | null {
    if (
      register === R.EOI ||
      register === R.SELF_IPI ||
      register === R.DFR ||
      register === R.ICR_HIGH
    )
      return null;
    return { low: this.read(register, now), high: register === R.ICR ? this.#icrHigh : 0 };
  }
}

function highest(bits: Uint32Array): number {
  for (let i = 7; i >= 0; i--) {
    const word = bits[i]!;
    if (word !== 0) return i * 32 + 31 - Math.clz32(word);
  }
  return -1;
}

function set(bits: Uint32Array, vector: number): void {
  bits[vector >>> 5]! |= 1 << (vector & 31);
}

function clear(bits: Uint32Array, vector: number): void {
  bits[vector >>> 5]! &= ~(1 << (vector & 31));
}

function has(bits: Uint32Array, vector: number): boolean {
  return ((bits[vector >>> 5]! >>> (vector & 31)) & 1) !== 0;
}
