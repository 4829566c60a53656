/**
 * The virtualization side of a pCPU: VM entry, VM exit, and the causes of exits that are not instructions.
 * SDM Vol. 3C, "VM Entries", "VM Exits", "VMX-Preemption Timer".
 *
 * enter(vmcs) runs the guest until a VM exit; everything about it is then in the VMCS. There is no host state to load: root mode is the
 * hypervisor's TypeScript. External interrupts are requests of the embedder (requestInterrupt); they are seen between runs, whose length is
 * bounded, never inside one.
 */
import { invariant } from "../../base/invariant.ts";
import { ENTRY_FAILURE, ExitReason } from "../isa/exit-reasons.ts";
import {
  ExitControl,
  Field,
  INTERRUPTION_ERROR_CODE,
  INTERRUPTION_VALID,
  InterruptionType,
  PinControl,
  PrimaryControl,
  SecondaryControl,
  VendorField,
} from "../isa/vmcs-fields.ts";
import { EptEntry, walkEpt } from "../memory/ept.ts";
import {
  DEVICE_ENTRIES,
  DEVICE_REPLIES,
  DEVICE_WRITES,
  NO_BUDGET,
  Page,
  PendingDebug,
  PHYSICAL_MAP,
  PHYSICAL_MAP_PAGES,
  S,
  Status,
} from "../state/layout.ts";
import type { Engine, EngineServices, TscClock } from "./engine-port.ts";
import { checkControls, checkGuestState, checkInjection } from "./entry-checks.ts";
import type { Vmcs } from "./vmcs.ts";

/** Preemption-timer rate: TSC ticks per count = 2^PREEMPTION_SHIFT (IA32_VMX_MISC bits 4:0). */
export const PREEMPTION_SHIFT = 0;
/** Longest run between two looks at the embedder's requests, in instructions. */
const MAX_RUN = 400_000;
/** Vector of the one external interrupt source there is: the embedder's doorbell. */
export const DOORBELL_VECTOR = 0xf0;

const BLOCKING_BY_STI = 1;
const BLOCKING_BY_MOV_SS = 2;
const RFLAGS_RF = 0x1_0000;
/** Hardware exceptions that are not faults: #DB, NMI, #DF, #MC. */
const NO_FAULTS = (1 << 1) | (1 << 2) | (1 << 8) | (1 << 18);
/** Exits that leave RF as it is: it has been set by the exception that exits, or they come between instructions. */
const KEEPS_RF = new Set<number>([
  ExitReason.EXCEPTION_OR_NMI,
  ExitReason.EXTERNAL_INTERRUPT,
  ExitReason.TRIPLE_FAULT,
  ExitReason.INTERRUPT_WINDOW,
  ExitReason.NMI_WINDOW,
  ExitReason.MTF,
  ExitReason.PREEMPTION_TIMER,
]);

/** VM-instruction errors. SDM Vol. 3C, "VM-Instruction Error Numbers". */
export const InstructionError = { INVALID_CONTROLS: 7, INVALID_HOST_STATE: 8, NONE: 0 } as const;

/** Looks at the guest at every so many retired instructions; it must not change anything. */
export interface Sampler {
  /** Retired instructions up to the next sample, a whole number from 1 on; read again after every `take`. */
  readonly every: number;
  /** The instruction that is about to be executed: RIP (without the base of CS) and CPL. */
  take(rip: bigint, cpl: number): void;
}

export class Processor implements EngineServices {
  #engine: Engine | null = null;
  readonly #clock: TscClock;
  readonly #entropy: () => bigint;
  readonly #doorbell: () => boolean;
  #current: Vmcs | null = null;
  #eptp = 0n;
  #tscOffset = 0;
  #cr = { cr0: 0, cr3: 0, cr4: 0, efer: 0 };
  /** Instructions executed since the processor was made. */
  retired = 0;
  #sampler: Sampler | null = null;
  /** The value of `retired` at which the next sample is due. */
  #sampleAt = Infinity;

  constructor(options: { clock: TscClock; entropy: () => bigint; doorbell: () => boolean }) {
    this.#clock = options.clock;
    this.#entropy = options.entropy;
    this.#doorbell = options.doorbell;
  }

  attach(engine: Engine): void {
    this.#engine = engine;
  }

  /** From now on; null ends it. Without a sampler it costs a comparison a run. */
  set sampler(sampler: Sampler | null) {
    this.#sampler = sampler;
    this.#sampleAt = sampler ? this.retired + sampler.every : Infinity;
  }

  get engine(): Engine {
    invariant(this.#engine, "processor has an engine");
    return this.#engine;
  }

  get view(): DataView {
    return this.engine.view;
  }

  // ---- services to the engine ----

  physicalFill(page: number): number {
    const view = this.view;
    let entry: number;
    if (this.#eptp === 0n) entry = Page.KNOWN;
    else {
      const { entry: leaf, level } = walkEpt(view, this.#eptp, BigInt(page) << 12n);
      if ((leaf & EptEntry.DEVICE) !== 0n) entry = Page.KNOWN | Page.DEVICE;
      else if ((leaf & 7n) === 0n) entry = Page.KNOWN;
      else {
        const inside = level === 0 ? 0 : page & ((1 << (9 * level)) - 1);
        const frame = Number(leaf & 0x000f_ffff_ffff_f000n) + inside * 4096;
        entry = frame | Number(leaf & 7n) | Page.KNOWN;
      }
    }
    view.setUint32(PHYSICAL_MAP + page * 4, entry, true);
    return entry | 0;
  }

  readTsc(retired: number): void {
    const tsc = this.#clock.tsc(this.retired + retired) + this.#tscOffset;
    const view = this.view;
    view.setUint32(S.TSC.at, tsc >>> 0, true);
    view.setUint32(S.TSC.at + 4, Math.floor(tsc / 0x1_0000_0000), true);
  }

  random(): bigint {
    return this.#entropy();
  }

  // ---- VMX ----

  /** TSC without offset, now (between runs). */
  tsc(): number {
    return this.#clock.tsc(this.retired);
  }

  /** INVEPT: forgets translations made with any EPT. */
  invalidateEpt(): void {
    new Uint8Array(this.view.buffer, PHYSICAL_MAP, PHYSICAL_MAP_PAGES * 4).fill(0);
    this.engine.flushTlb();
  }

  /** VMPTRLD. */
  load(vmcs: Vmcs): void {
    if (this.#current === vmcs) return;
    this.#current?.deactivate();
    vmcs.activate(this.view);
    this.#current = vmcs;
  }

  /** VMLAUNCH / VMRESUME up to the next VM exit. Answers InstructionError.NONE, or why there was no entry. */
  enter(vmcs: Vmcs): number {
    this.load(vmcs);
    const view = this.view;
    if (vmcs.isDirty) {
      const failed = this.#prepare(vmcs);
      if (failed !== null) return failed;
    }
    if (this.#reportQueuedWrite(vmcs)) return InstructionError.NONE;
    const start = this.#clock.tsc(this.retired);
    const pin = vmcs.number(Field.PIN_CONTROLS);
    let deadline = Infinity;
    if (pin & PinControl.PREEMPTION_TIMER) {
      deadline = start + vmcs.number(Field.PREEMPTION_TIMER) * 2 ** PREEMPTION_SHIFT;
    }
    view.setUint32(S.VECTORING.at, 0, true);
    this.#collectBreakpoints();
    const injection = checkInjection(vmcs);
    if (injection !== null) return this.#refuse(vmcs, InstructionError.INVALID_CONTROLS);
    if (!this.#inject(vmcs)) return InstructionError.NONE;
    if (vmcs.number(VendorField.DEVICE_ACCESS) !== 0) this.#answerDeviceRead(vmcs);
    this.#runUntilExit(vmcs, pin, deadline);
    return InstructionError.NONE;
  }

  /** Accesses that the VMM has made in the guest's stead (engine.hostRead, hostWrite) are the guest's to its breakpoints. */
  #collectBreakpoints(): void {
    const { view } = this;
    const hits = view.getUint32(S.BREAK_HITS.at, true);
    if (hits === 0) return;
    view.setUint32(S.BREAK_HITS.at, 0, true);
    const pending = view.getUint32(S.PENDING_DEBUG.at, true) | hits | PendingDebug.ENABLED;
    view.setUint32(S.PENDING_DEBUG.at, pending, true);
    this.engine.updateMode();
  }

  /** Checks and loads what was written to the VMCS since the last entry. Answers null, or a result for enter(). */
  #prepare(vmcs: Vmcs): number | null {
    if (checkControls(vmcs) !== null) return this.#refuse(vmcs, InstructionError.INVALID_CONTROLS);
    const bad = checkGuestState(vmcs);
    if (bad !== null) {
      vmcs.set(Field.EXIT_REASON, ENTRY_FAILURE + ExitReason.ENTRY_GUEST_STATE);
      vmcs.setBig(Field.EXIT_QUALIFICATION, 0n);
      return InstructionError.NONE;
    }
    this.#loadControls(vmcs);
    const state = vmcs.state;
    const rights = vmcs.number(Field.GUEST_SS_RIGHTS);
    state.setUint32(S.CPL.at, (rights >> 5) & 3, true);
    const cr = {
      cr0: vmcs.number(Field.GUEST_CR0),
      cr3: vmcs.number(Field.GUEST_CR3),
      cr4: vmcs.number(Field.GUEST_CR4),
      efer: vmcs.number(Field.GUEST_EFER),
    };
    const old = this.#cr;
    if (cr.cr0 !== old.cr0 || cr.cr3 !== old.cr3 || cr.cr4 !== old.cr4 || cr.efer !== old.efer)
      this.engine.flushTlb();
    this.#cr = cr;
    this.engine.updateMode();
    vmcs.isDirty = false;
    vmcs.isLaunched = true;
    return null;
  }

  #refuse(vmcs: Vmcs, error: number): number {
    vmcs.set(Field.INSTRUCTION_ERROR, error);
    return error;
  }

  #loadControls(vmcs: Vmcs): void {
    const view = this.view;
    const primary = vmcs.number(Field.PRIMARY_CONTROLS) | 0;
    const secondary =
      primary & PrimaryControl.SECONDARY ? vmcs.number(Field.SECONDARY_CONTROLS) : 0;
    view.setInt32(S.CTL_PIN.at, vmcs.number(Field.PIN_CONTROLS), true);
    view.setInt32(S.CTL_PRIMARY.at, primary, true);
    view.setInt32(S.CTL_SECONDARY.at, secondary, true);
    view.setInt32(S.CTL_EXCEPTION_BITMAP.at, vmcs.number(Field.EXCEPTION_BITMAP), true);
    view.setInt32(S.CTL_PF_MASK.at, vmcs.number(Field.PF_ERROR_MASK), true);
    view.setInt32(S.CTL_PF_MATCH.at, vmcs.number(Field.PF_ERROR_MATCH), true);
    const usesIoBitmaps = (primary & PrimaryControl.IO_BITMAPS) !== 0;
    view.setUint32(S.CTL_IO_BITMAP_A.at, usesIoBitmaps ? vmcs.number(Field.IO_BITMAP_A) : 0, true);
    view.setUint32(S.CTL_IO_BITMAP_B.at, usesIoBitmaps ? vmcs.number(Field.IO_BITMAP_B) : 0, true);
    view.setUint32(
      S.CTL_MSR_BITMAP.at,
      primary & PrimaryControl.MSR_BITMAPS ? vmcs.number(Field.MSR_BITMAP) : 0,
      true,
    );
    view.setUint32(S.CTL_CR3_TARGETS.at, vmcs.number(Field.CR3_TARGET_COUNT), true);
    const wide: [number, number][] = [
      [S.CTL_CR0_MASK.at, Field.CR0_MASK],
      [S.CTL_CR0_SHADOW.at, Field.CR0_SHADOW],
      [S.CTL_CR4_MASK.at, Field.CR4_MASK],
      [S.CTL_CR4_SHADOW.at, Field.CR4_SHADOW],
      [S.CTL_CR3_TARGET0.at, Field.CR3_TARGET0],
      [S.CTL_CR3_TARGET1.at, Field.CR3_TARGET1],
      [S.CTL_CR3_TARGET2.at, Field.CR3_TARGET2],
      [S.CTL_CR3_TARGET3.at, Field.CR3_TARGET3],
    ];
    for (const [at, field] of wide) view.setBigUint64(at, vmcs.big(field), true);
    view.setUint32(S.NON_ROOT.at, 1, true);
    this.#tscOffset =
      primary & PrimaryControl.TSC_OFFSETTING
        ? Number(BigInt.asIntN(64, vmcs.big(Field.TSC_OFFSET)))
        : 0;
    const eptp = secondary & SecondaryControl.EPT ? vmcs.big(Field.EPTP) : 0n;
    if (eptp !== this.#eptp) {
      this.#eptp = eptp;
      this.invalidateEpt();
    }
  }

  /** Event injection. Answers false if delivering it ended in a VM exit. */
  #inject(vmcs: Vmcs): boolean {
    const info = vmcs.number(Field.ENTRY_INTERRUPTION_INFO);
    if (info < INTERRUPTION_VALID) return true;
    vmcs.set(Field.ENTRY_INTERRUPTION_INFO, info - INTERRUPTION_VALID);
    const error = info & INTERRUPTION_ERROR_CODE ? vmcs.number(Field.ENTRY_ERROR_CODE) : 0;
    // An injected event ends HLT.
    this.view.setUint32(S.ACTIVITY.at, 0, true);
    this.#dropPendingDebug(info);
    const status = this.engine.injectEvent(
      info | 0,
      error,
      vmcs.number(Field.ENTRY_INSTRUCTION_LENGTH),
    );
    if (status !== Status.EXIT) return true;
    this.#finishExit(vmcs, this.view.getUint32(S.EXIT_REASON.at, true));
    return false;
  }

  /** SDM Vol. 3C, "Delivery of Pending Debug Exceptions after VM Entry": what is pending survives only a software event under MOV SS. */
  #dropPendingDebug(info: number): void {
    const { view } = this;
    const type = (info >> 8) & 7;
    const isProgram =
      type === InterruptionType.SOFTWARE_INTERRUPT || type === InterruptionType.SOFTWARE_EXCEPTION;
    const isBlocked = (view.getUint32(S.INTERRUPTIBILITY.at, true) & BLOCKING_BY_MOV_SS) !== 0;
    if (isProgram && isBlocked) return;
    view.setBigUint64(S.PENDING_DEBUG.at, 0n, true);
  }

  /** Re-executes the instruction whose device read has just been answered. */
  #answerDeviceRead(vmcs: Vmcs): void {
    const view = this.view;
    const access = vmcs.number(VendorField.DEVICE_ACCESS);
    vmcs.set(VendorField.DEVICE_ACCESS, 0);
    if (access !== 1) return;
    const count = view.getUint32(S.DEVICE_REPLY_COUNT.at, true);
    invariant(count < DEVICE_ENTRIES, "device reads of one instruction");
    view.setBigUint64(DEVICE_REPLIES + 16 * count, vmcs.big(VendorField.DEVICE_READ_REPLY), true);
    view.setUint32(S.DEVICE_REPLY_COUNT.at, count + 1, true);
    view.setUint32(S.DEVICE_REPLY_NEXT.at, 0, true);
  }

  #runUntilExit(vmcs: Vmcs, pin: number, deadline: number): void {
    const { view } = this;
    for (;;) {
      if ((pin & PinControl.EXTERNAL_INTERRUPT) !== 0 && this.#doorbell()) {
        this.#externalInterrupt(vmcs);
        return;
      }
      let budget = Math.min(MAX_RUN, this.#sampleAt - this.retired);
      if (deadline !== Infinity) {
        const until = this.#clock.budgetUntil(deadline, this.retired);
        if (until <= 0) {
          this.#finishExit(vmcs, ExitReason.PREEMPTION_TIMER);
          return;
        }
        budget = Math.min(budget, until);
      }
      const replies = view.getUint32(S.DEVICE_REPLY_COUNT.at, true);
      const exit = this.#run(replies > 0 ? 1 : budget);
      if (this.retired >= this.#sampleAt) this.#sample();
      if (exit !== 0) {
        this.#finishExit(vmcs, view.getUint32(S.EXIT_REASON.at, true));
        return;
      }
      if (replies > 0) {
        // The instruction that asked has completed.
        view.setUint32(S.DEVICE_REPLY_COUNT.at, 0, true);
        view.setUint32(S.DEVICE_REPLY_NEXT.at, 0, true);
      }
    }
  }

  /** Runs end where a sample is due, so it is never late. */
  #sample(): void {
    const { view } = this;
    const sampler = this.#sampler!;
    sampler.take(view.getBigUint64(S.RIP.at, true), view.getUint32(S.CPL.at, true));
    this.#sampleAt = this.retired + sampler.every;
  }

  /** One run of the engine. RFLAGS.RF holds for one instruction: where it was not looked at, it is cleared afterwards. */
  #run(budget: number): number {
    const { engine, view } = this;
    view.setInt32(S.RESUME_BUDGET.at, budget, true);
    view.setInt32(S.STI_BUDGET.at, NO_BUDGET, true);
    const exit = engine.run(budget);
    const left = view.getInt32(S.BUDGET.at, true);
    this.retired += view.getInt32(S.BUDGET_START.at, true) - left;
    if (left !== view.getInt32(S.RESUME_BUDGET.at, true)) this.#setResumeFlag(false);
    if (left === view.getInt32(S.STI_BUDGET.at, true)) this.#blockBySti();
    return exit;
  }

  #blockBySti(): void {
    const { view, engine } = this;
    const blocking = view.getUint32(S.INTERRUPTIBILITY.at, true);
    view.setUint32(S.INTERRUPTIBILITY.at, blocking | BLOCKING_BY_STI, true);
    engine.updateMode();
  }

  #setResumeFlag(isSet: boolean): void {
    const { view } = this;
    const rest = view.getUint32(S.RFLAGS_REST.at, true);
    view.setUint32(S.RFLAGS_REST.at, isSet ? rest | RFLAGS_RF : rest & ~RFLAGS_RF, true);
  }

  /** RFLAGS.RF as the exit leaves it. SDM Vol. 3C, "Saving RIP, RSP, RFLAGS, and SSP". */
  #settleResumeFlag(reason: number): void {
    if (KEEPS_RF.has(reason)) return;
    const { view } = this;
    const vectoring = view.getUint32(S.VECTORING.at, true);
    const isFault =
      vectoring >= INTERRUPTION_VALID &&
      ((vectoring >> 8) & 7) === InterruptionType.HARDWARE_EXCEPTION &&
      (NO_FAULTS & (1 << (vectoring & 31))) === 0;
    if (reason !== ExitReason.EPT_VIOLATION) this.#setResumeFlag(isFault);
    else if (view.getUint32(S.DEVICE_WRITE_COUNT.at, true) === 0)
      if (vectoring < INTERRUPTION_VALID || isFault) this.#setResumeFlag(true);
  }

  /** Breakpoints that the instruction had met are no more, unless it is done and only its device writes are left. */
  #settleBreakpoints(reason: number): void {
    const { view } = this;
    if (view.getUint32(S.DEVICE_WRITE_COUNT.at, true) === 0)
      view.setUint32(S.BREAK_HITS.at, 0, true);
    if (reason !== ExitReason.IO) view.setUint32(S.IO_HITS.at, 0, true);
  }

  #externalInterrupt(vmcs: Vmcs): void {
    const acknowledges =
      (vmcs.number(Field.EXIT_CONTROLS) & ExitControl.ACKNOWLEDGE_INTERRUPT) !== 0;
    this.#finishExit(vmcs, ExitReason.EXTERNAL_INTERRUPT);
    this.view.setUint32(
      S.EXIT_INTERRUPTION.at,
      acknowledges ? INTERRUPTION_VALID + DOORBELL_VECTOR : 0,
      true,
    );
  }

  #finishExit(vmcs: Vmcs, reason: number): void {
    const view = this.view;
    vmcs.set(Field.EXIT_REASON, reason);
    this.#settleResumeFlag(reason);
    this.#settleBreakpoints(reason);
    if (reason === ExitReason.EPT_VIOLATION) this.#describeDeviceAccess(vmcs);
    else if (view.getUint32(S.DEVICE_REPLY_COUNT.at, true) > 0) {
      view.setUint32(S.DEVICE_REPLY_COUNT.at, 0, true);
      view.setUint32(S.DEVICE_REPLY_NEXT.at, 0, true);
    }
    this.#cr = {
      cr0: vmcs.number(Field.GUEST_CR0),
      cr3: vmcs.number(Field.GUEST_CR3),
      cr4: vmcs.number(Field.GUEST_CR4),
      efer: vmcs.number(Field.GUEST_EFER),
    };
  }

  #describeDeviceAccess(vmcs: Vmcs): void {
    const view = this.view;
    if (view.getUint32(S.DEVICE_WRITE_COUNT.at, true) > 0) {
      this.#reportQueuedWrite(vmcs);
      return;
    }
    const size = view.getUint32(S.DEVICE_SIZE.at, true);
    vmcs.set(VendorField.DEVICE_ACCESS, size > 0 ? 1 : 0);
    vmcs.set(VendorField.DEVICE_SIZE, size);
  }

  /** Turns the oldest queued device write into an exit. Answers false if there is none. */
  #reportQueuedWrite(vmcs: Vmcs): boolean {
    const view = this.view;
    const count = view.getUint32(S.DEVICE_WRITE_COUNT.at, true);
    if (count === 0) return false;
    vmcs.set(Field.EXIT_REASON, ExitReason.EPT_VIOLATION);
    vmcs.set(VendorField.DEVICE_ACCESS, 3);
    vmcs.setBig(VendorField.DEVICE_WRITE_DATA, view.getBigUint64(DEVICE_WRITES, true));
    const sizeAndHigh = view.getUint32(DEVICE_WRITES + 12, true);
    const physical = view.getUint32(DEVICE_WRITES + 8, true) + (sizeAndHigh >>> 8) * 0x1_0000_0000;
    vmcs.set(Field.GUEST_PHYSICAL_ADDRESS, physical);
    vmcs.set(VendorField.DEVICE_SIZE, sizeAndHigh & 0xff);
    new Uint8Array(view.buffer).copyWithin(
      DEVICE_WRITES,
      DEVICE_WRITES + 16,
      DEVICE_WRITES + 16 * count,
    );
    view.setUint32(S.DEVICE_WRITE_COUNT.at, count - 1, true);
    if (count === 1) this.engine.updateMode();
    return true;
  }
}
