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
import { CplExit, VendorExit, VendorField } from "../isa/vendor.ts";
import {
  EntryControl,
  ExitControl,
  Field,
  INTERRUPTION_ERROR_CODE,
  INTERRUPTION_VALID,
  InterruptionType,
  PinControl,
  PrimaryControl,
  SecondaryControl,
} from "../isa/vmcs-fields.ts";
import { EptEntry, type EptLeaf, frameOf, walkEpt } from "../memory/ept.ts";
import { Efer } from "../state/control-bits.ts";
import {
  DEVICE_ENTRIES,
  DEVICE_REPLIES,
  DEVICE_WRITES,
  INTERRUPT_TAKEN,
  NO_BUDGET,
  Page,
  PendingDebug,
  PHYSICAL_MAP,
  PHYSICAL_MAP_PAGES,
  S,
  Slow,
  Status,
} from "../state/layout.ts";
import type { EntryLimits } from "./capabilities.ts";
import type { Engine, EngineServices, TscClock } from "./engine-port.ts";
import { checkControls, checkGuestState, checkInjection } from "./entry-checks.ts";
import { GuestVmx, InterruptAnswer } from "./guest/guest-vmx.ts";
import type { OtherMsrs } from "./guest/msr-area.ts";
import { doorbellPort, type InterruptPort, Request } from "./interrupt-port.ts";
import { dropDeviceWrite, OwnApic } from "./own-apic.ts";
import { PLAIN_TSC, type TscView, tscViewOf, viewTsc } from "./tsc-view.ts";
import type { Effect } from "./virtual-apic.ts";
import type { Vmcs } from "./vmcs.ts";
import { VmmTimer } from "./vmm-timer.ts";

/** Longest run between two looks at the embedder's requests, in instructions. */
const MAX_RUN = 400_000;
/** #boundary: the guest goes on. */
const GO_ON = -1;
/** The preemption timer of a guest hypervisor has expired. */
const GUEST_TIMER = -2;

const BLOCKING_BY_STI = 1;
const BLOCKING_BY_MOV_SS = 2;
const BLOCKING_BY_NMI = 8;
const NMI_VECTOR = 2;
const RFLAGS_IF = 0x200;
/** S.CPL_CAUSE of VM entry. */
const CPL_ENTRY = 0x8000_0000;
/** Activity states. SDM Vol. 3C, "Guest Non-Register State". */
const Activity = { ACTIVE: 0, HLT: 1, SHUTDOWN: 2, WAIT_FOR_SIPI: 3 } as const;
/** Qualification of an APIC-access exit: linear access for a data write. */
const APIC_WRITE_ACCESS = 1 << 12;
const LONGEST_PAUSE_NS = 1e6;
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
  VendorExit.VMM_DEADLINE,
  VendorExit.CPL_TRANSITION,
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

export interface ProcessorOptions {
  readonly clock: TscClock;
  readonly entropy: () => bigint;
  /** Where external interrupts come from. Without it: from `doorbell`, with one vector. */
  readonly interrupts?: InterruptPort;
  readonly doorbell?: () => boolean;
  /** TSC ticks per count of the preemption timer are 2^this (IA32_VMX_MISC bits 4:0). Default: 0. */
  readonly preemptionShift?: number;
  /** A halted guest of a wall clock has nothing to do for so long. Default: the interrupt port is asked again at once. */
  readonly pause?: (ns: number) => void;
}

export class Processor implements EngineServices {
  #engine: Engine | null = null;
  readonly #clock: TscClock;
  readonly #entropy: () => bigint;
  readonly #interrupts: InterruptPort;
  readonly #timer: VmmTimer;
  readonly #pause: (ns: number) => void;
  #current: Vmcs | null = null;
  #eptp = 0n;
  /** What the guest's TSC is: by our own controls, and on top of that by those of a guest hypervisor for its guest. */
  #tscView: TscView = PLAIN_TSC;
  #innerTscView: TscView = PLAIN_TSC;
  /** Exit on privilege level, CplExit bits. */
  #cplControl = 0;
  #cr = { cr0: 0, cr3: 0, cr4: 0, efer: 0 };
  /** Instructions executed since the processor was made. */
  retired = 0;
  /** Called with the host address of each page of memory before the guest reaches it for the first time since the last INVEPT. */
  pager: ((frame: number) => void) | null = null;
  /** The physical map has entries: writing zeros over zeros would have the system make pages for all of it. */
  #mapsPages = false;
  #sampler: Sampler | null = null;
  #guestVmx: GuestVmx | null = null;
  #ownApic: OwnApic | null = null;
  /** A guest hypervisor has entered its guest while an interrupt waits that ends that stay at once. */
  #owesWindow = false;
  /** The value of `retired` at which the next sample is due. */
  #sampleAt = Infinity;

  constructor(options: ProcessorOptions) {
    this.#clock = options.clock;
    this.#entropy = options.entropy;
    this.#interrupts = options.interrupts ?? doorbellPort(options.doorbell ?? (() => false));
    this.#timer = new VmmTimer(options.preemptionShift ?? 0);
    this.#pause = options.pause ?? (() => {});
  }

  attach(engine: Engine): void {
    this.#engine = engine;
    this.#ownApic = new OwnApic({
      engine,
      showWindow: () => this.#showWindow(),
      inject: (info) => this.#deliverEvent(info, 0, 0),
      handledByGuest: (reason) => this.#handledByGuest(reason),
      leafOf: (page) => this.#leafOf(page),
    });
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

  get #apic(): OwnApic {
    invariant(this.#ownApic, "processor has an engine");
    return this.#ownApic;
  }

  /** VMX for the guest's own use; null unless it has been offered. */
  get guestVmx(): GuestVmx | null {
    return this.#guestVmx;
  }

  /** Offers VMX to the guest. `msrs`: those that the hypervisor keeps for it. */
  offerVmx(limits: EntryLimits, msrs: OtherMsrs): void {
    this.#guestVmx = new GuestVmx(
      limits,
      {
        engine: this.engine,
        tsc: () => this.tsc(),
        ownPage: (page, need) => this.#ownPage(page, need),
        reloadControls: () => {
          invariant(this.#current, "a VMCS is active");
          this.#loadControls(this.#current);
        },
        showWindow: () => this.#showWindow(),
        inject: (info, error, length) => this.#deliverEvent(info, error, length),
      },
      msrs,
    );
  }

  // ---- services to the engine ----

  physicalFill(page: number, need: number): number {
    if (this.#guestVmx?.usesMap) return this.#guestVmx.fill(page, need);
    return this.#ownPage(page, need);
  }

  /** Where our own EPT leads from a guest-physical page. */
  #leafOf(page: number): EptLeaf {
    return this.#eptp === 0n
      ? { entry: BigInt(page) << 12n, level: 0 }
      : walkEpt(this.view, this.#eptp, BigInt(page) << 12n);
  }

  /** Physical-map entry of a guest-physical page under our own EPT; without EPT it is a host-physical one. `need`: Page rights. */
  #ownPage(page: number, need: number): number {
    const view = this.view;
    const known = view.getInt32(PHYSICAL_MAP + page * 4, true);
    if (known !== 0) return known;
    const found = this.#leafOf(page);
    const ofApic = this.#apic.fill(page, found, need);
    if (ofApic !== 0) return ofApic;
    const leaf = found.entry;
    let entry: number;
    if (this.#eptp === 0n) entry = hostPage(view, page);
    else {
      if ((leaf & EptEntry.DEVICE) !== 0n) entry = Page.KNOWN | Page.DEVICE;
      else if ((leaf & 7n) === 0n) entry = Page.KNOWN;
      else {
        const frame = frameOf(found, page);
        this.pager?.(frame);
        entry = frame | Number(leaf & 7n) | Page.KNOWN;
      }
    }
    view.setUint32(PHYSICAL_MAP + page * 4, entry, true);
    this.#mapsPages = true;
    return entry | 0;
  }

  readTsc(retired: number): void {
    const now = this.#clock.tsc(this.retired + retired);
    // Whoever reads the deadline has reached it: a clock that goes on by itself stands still just before it until the run has ended.
    const deadline = this.#deadline;
    const ours = viewTsc(this.#tscView, now < deadline ? now : deadline - 1);
    const tsc = viewTsc(this.#innerTscView, ours);
    if (typeof tsc === "bigint") {
      this.view.setBigUint64(S.TSC.at, tsc, true);
      return;
    }
    this.view.setUint32(S.TSC.at, tsc >>> 0, true);
    this.view.setUint32(S.TSC.at + 4, Math.floor(tsc / 0x1_0000_0000), true);
  }

  /** TSC (without offset) at which somebody's timer ends the run. */
  get #deadline(): number {
    const { deadline } = this.#timer;
    return this.#guestVmx === null ? deadline : Math.min(deadline, this.#guestVmx.deadline);
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
    if (this.#mapsPages)
      new Uint8Array(this.view.buffer, PHYSICAL_MAP, PHYSICAL_MAP_PAGES * 4).fill(0);
    this.#mapsPages = false;
    this.#apic.forgetPage();
    this.#guestVmx?.forgetMemory();
    this.engine.flushTlb();
  }

  /** VMPTRLD. */
  load(vmcs: Vmcs): void {
    if (this.#current === vmcs) return;
    this.#current?.deactivate();
    vmcs.activate(this.view);
    this.#current = vmcs;
  }

  /** The state block and the VMCS's fields are those of a processor that had retired so many instructions. Translations are forgotten. */
  resume(vmcs: Vmcs, retired: number): void {
    this.load(vmcs);
    this.retired = retired;
    this.#loadControls(vmcs);
    this.#cr = {
      cr0: vmcs.number(Field.GUEST_CR0),
      cr3: vmcs.number(Field.GUEST_CR3),
      cr4: vmcs.number(Field.GUEST_CR4),
      efer: vmcs.number(Field.GUEST_EFER),
    };
    this.invalidateEpt();
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
    if (this.#apic.apic.isThresholdBad)
      return this.#refuse(vmcs, InstructionError.INVALID_CONTROLS);
    this.#timer.arm(vmcs, this.tsc());
    view.setUint32(S.VECTORING.at, 0, true);
    view.setUint32(S.EXIT_INTERRUPTION.at, 0, true);
    const cplControl = vmcs.number(VendorField.CPL_EXIT_CONTROLS);
    if (cplControl !== this.#cplControl) {
      if ((cplControl & CplExit.RESERVED) !== 0)
        return this.#refuse(vmcs, InstructionError.INVALID_CONTROLS);
      this.#loadLevels(cplControl);
    }
    if (cplControl !== 0) this.#latchLevel();
    this.#collectBreakpoints();
    if (checkInjection(vmcs) !== null) return this.#refuse(vmcs, InstructionError.INVALID_CONTROLS);
    const effect = this.#apic.enter();
    this.#showWindow();
    if (!this.#inject(vmcs)) return InstructionError.NONE;
    if (effect !== null) {
      this.#exitAfterEntry(vmcs, effect);
      return InstructionError.NONE;
    }
    if (vmcs.number(VendorField.DEVICE_ACCESS) !== 0) this.#answerDeviceRead(vmcs);
    this.#runUntilExit(vmcs);
    return InstructionError.NONE;
  }

  /** The virtual APIC of our own hypervisor's VMCS ends the stay before it has begun. */
  #exitAfterEntry(vmcs: Vmcs, { reason, qualification }: NonNullable<Effect>): void {
    this.#prepareTimerExit();
    this.view.setBigUint64(S.EXIT_QUALIFICATION.at, BigInt(qualification), true);
    this.#finishExit(vmcs, reason);
  }

  #loadLevels(control: number): void {
    const { view } = this;
    this.#cplControl = control;
    view.setInt32(S.CTL_CPL_EXIT.at, control, true);
    view.setUint32(S.CPL_CAUSE.at, 0, true);
    view.setUint32(S.SLOW.at, view.getUint32(S.SLOW.at, true) & ~Slow.CPL, true);
  }

  /** The level that transitions of this stay are compared with; some criteria may ask about it at once. */
  #latchLevel(): void {
    const { view } = this;
    const asks = (this.#cplControl & CplExit.AT_ENTRY) !== 0;
    view.setUint32(S.CPL_LAST.at, view.getUint32(S.CPL.at, true), true);
    view.setUint32(S.CPL_CAUSE.at, asks ? CPL_ENTRY : 0, true);
    const slow = view.getUint32(S.SLOW.at, true);
    view.setUint32(S.SLOW.at, asks ? slow | Slow.CPL : slow & ~Slow.CPL, true);
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
    // Since the exit the state may have become that of the guest hypervisor.
    if (this.#guestVmx !== null) this.#storeLongMode(vmcs);
    if (checkControls(vmcs) !== null) return this.#refuse(vmcs, InstructionError.INVALID_CONTROLS);
    if (checkGuestState(vmcs) !== null) {
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
    this.#tscView = tscViewOf(vmcs, primary, secondary);
    const eptp = secondary & SecondaryControl.EPT ? vmcs.big(Field.EPTP) : 0n;
    if (eptp !== this.#eptp) {
      this.#eptp = eptp;
      this.invalidateEpt();
    }
    this.#apic.load(vmcs, primary, secondary);
    if (this.#guestVmx?.isInside) {
      this.#guestVmx.overlay();
      this.#innerTscView = this.#guestVmx.tscView;
    } else this.#innerTscView = PLAIN_TSC;
    this.#showWindow();
  }

  /** The engine is to stop where the guest is open to an interrupt if a window or a recognized virtual interrupt waits for that. */
  #showWindow(): void {
    const { view } = this;
    const ours = this.#wantsWindow() || this.#apic.apic.isRecognized;
    const wanted = this.#guestVmx?.isInside ? this.#guestVmx.wantsWindow(ours) : ours;
    const bit = PrimaryControl.INTERRUPT_WINDOW;
    const primary = view.getInt32(S.CTL_PRIMARY.at, true);
    if (((primary & bit) !== 0) === wanted) return;
    view.setInt32(S.CTL_PRIMARY.at, primary ^ bit, true);
    this.engine.updateMode();
  }

  /** Event injection. Answers false if delivering it ended in a VM exit. */
  #inject(vmcs: Vmcs): boolean {
    const info = vmcs.number(Field.ENTRY_INTERRUPTION_INFO);
    if (info < INTERRUPTION_VALID) return true;
    vmcs.set(Field.ENTRY_INTERRUPTION_INFO, info - INTERRUPTION_VALID);
    const error = info & INTERRUPTION_ERROR_CODE ? vmcs.number(Field.ENTRY_ERROR_CODE) : 0;
    if (this.#guestVmx?.intercepts(info, error)) return true;
    const status = this.#deliverEvent(info, error, vmcs.number(Field.ENTRY_INSTRUCTION_LENGTH));
    if (status !== Status.EXIT) return true;
    const reason = this.view.getUint32(S.EXIT_REASON.at, true);
    if (this.#guestVmx?.isInside && this.#handledByGuest(reason)) return true;
    this.#finishExit(vmcs, this.view.getUint32(S.EXIT_REASON.at, true));
    return false;
  }

  #deliverEvent(info: number, error: number, length: number): number {
    // An injected event ends HLT.
    this.view.setUint32(S.ACTIVITY.at, 0, true);
    this.#dropPendingDebug(info);
    return this.engine.injectEvent(info | 0, error, length);
  }

  /** Our hypervisor has an interrupt that waits. */
  #wantsWindow(): boolean {
    const primary = this.#current?.number(Field.PRIMARY_CONTROLS) ?? 0;
    return (primary & PrimaryControl.INTERRUPT_WINDOW) !== 0;
  }

  /** An exit of the engine that is none of our own hypervisor's: the guest goes on. Else S.EXIT_* is what it is to see. */
  #handled(reason: number): boolean {
    return this.#handledByGuest(reason) || this.#apic.handle(reason);
  }

  /** Gives an exit of the engine to the guest's own VMX. Answers true if the guest goes on. */
  #handledByGuest(reason: number): boolean {
    const guest = this.#guestVmx;
    if (guest === null) return false;
    if (guest.isInside) {
      this.#settleResumeFlag(reason);
      this.#settleBreakpoints(reason);
    }
    if (!guest.handle(reason)) return false;
    this.#owesWindow = guest.interruptAnswer !== InterruptAnswer.DELIVER && this.#wantsWindow();
    this.view.setUint32(S.VECTORING.at, 0, true);
    return true;
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

  #runUntilExit(vmcs: Vmcs): void {
    const { view } = this;
    for (;;) {
      if (this.#owesWindow) {
        this.#owesWindow = false;
        this.#prepareTimerExit();
        this.#finishExit(vmcs, ExitReason.INTERRUPT_WINDOW);
        return;
      }
      const replies = view.getUint32(S.DEVICE_REPLY_COUNT.at, true);
      // The instruction that has asked completes before anything else.
      let budget = 1;
      if (replies === 0) {
        const request = this.#interrupts.request();
        budget = this.#budget();
        const activity = view.getUint32(S.ACTIVITY.at, true);
        // One that waited may have been withdrawn, or acknowledged by an exit.
        const waits = view.getUint32(S.INTERRUPT_WAITS.at, true) !== 0;
        const asks = request !== 0 || waits || this.#leavesGuestsGuest;
        if (budget <= 0 || asks || activity !== 0 || this.#interrupts.nmi) {
          const reason = this.#boundary(vmcs, request);
          if (reason !== GO_ON) {
            view.setUint32(S.EXIT_REASON.at, reason, true);
            if (this.#endsGuestsGuest(reason) || this.#apic.handle(reason)) continue;
            this.#finishExit(vmcs, this.#exitReason);
            return;
          }
          if (view.getUint32(S.ACTIVITY.at, true) !== 0) this.#rest();
          else if (budget > 0) budget = this.#budget();
          if (budget <= 0 || view.getUint32(S.ACTIVITY.at, true) !== 0) continue;
        }
      }
      const exit = this.#run(budget);
      if (this.retired >= this.#sampleAt) this.#sample();
      if (exit !== 0 && !this.#staysInGuest()) {
        if (this.#handled(this.#exitReason)) continue;
        this.#finishExit(vmcs, this.#exitReason);
        return;
      }
      if (replies > 0) {
        view.setUint32(S.DEVICE_REPLY_COUNT.at, 0, true);
        view.setUint32(S.DEVICE_REPLY_NEXT.at, 0, true);
      }
    }
  }

  get #exitReason(): number {
    return this.view.getUint32(S.EXIT_REASON.at, true);
  }

  /** Instructions up to the next look at the world outside; 0 or less if the deadline has come. */
  #budget(): number {
    const until = Math.min(this.#deadline, this.#interrupts.nextAt);
    const budget = Math.min(MAX_RUN, this.#sampleAt - this.retired);
    return until === Infinity
      ? budget
      : Math.min(budget, this.#clock.budgetUntil(until, this.retired));
  }

  /** The run was left for what is no VM exit: a halt, or an interrupt that the guest takes. */
  #staysInGuest(): boolean {
    const reason = this.view.getUint32(S.EXIT_REASON.at, true);
    if (reason === INTERRUPT_TAKEN) return true;
    return reason === ExitReason.HLT && this.view.getUint32(S.ACTIVITY.at, true) === Activity.HLT;
  }

  /**
   * The boundary before the next instruction where something from outside the guest may have come. SDM Vol. 3C, "Other Causes of VM Exits",
   * and Vol. 3A, "Priority Among Concurrent Events". Answers an exit reason or GO_ON.
   */
  #boundary(vmcs: Vmcs, request: number): number {
    const { view } = this;
    const slowNow = (): number => view.getUint32(S.SLOW.at, true);
    // Monitor trap flag, privilege level, debug traps.
    if (slowNow() !== 0 || view.getUint32(S.STEPPING.at, true) !== 0)
      if (this.#run(0) !== 0) return view.getUint32(S.EXIT_REASON.at, true);
    const activity = view.getUint32(S.ACTIVITY.at, true);
    view.setBigUint64(S.EXIT_QUALIFICATION.at, 0n, true);
    if (activity === Activity.WAIT_FOR_SIPI) return GO_ON;
    const now = this.tsc();
    if (this.#guestVmx && now >= this.#guestVmx.deadline) return GUEST_TIMER;
    if (now >= this.#timer.deadline) return this.#timer.reason;
    const slow = slowNow();
    const isFree = (slow & Slow.SHADOW) === 0;
    if (isFree && (slow & Slow.NMI_WINDOW) !== 0) return ExitReason.NMI_WINDOW;
    if (this.#interrupts.nmi) {
      const reason = this.#nmi(vmcs);
      if (reason !== GO_ON) return reason;
    }
    if (activity === Activity.SHUTDOWN) return GO_ON;
    if (this.#isWindowOpen) return ExitReason.INTERRUPT_WINDOW;
    if (this.#leavesGuestsGuest) return this.#virtualInterrupt();
    return request === Request.NONE ? this.#expect(false) : this.#externalInterrupt(vmcs, request);
  }

  /** A virtual interrupt for the guest hypervisor is recognized while its guest runs, and its controls send interrupts out of that. */
  get #leavesGuestsGuest(): boolean {
    const guest = this.#guestVmx;
    if (guest === null || !this.#apic.apic.isRecognized) return false;
    return guest.interruptAnswer !== InterruptAnswer.DELIVER;
  }

  /** What external interrupts are to the guest of a guest hypervisor, whose local APIC is virtual. */
  #virtualInterrupt(): number {
    const guest = this.#guestVmx!;
    const { apic } = this.#apic;
    const isAcknowledged = guest.interruptAnswer === InterruptAnswer.EXIT_ACKNOWLEDGED;
    const vector = isAcknowledged ? apic.accept() : -1;
    if (!guest.takePosted(vector)) {
      guest.interrupt(vector, this.view.getUint32(S.ACTIVITY.at, true) === Activity.HLT);
      return GO_ON;
    }
    const effect = apic.endOfInterrupt();
    this.#showWindow();
    if (effect === null) return this.#isWindowOpen ? ExitReason.INTERRUPT_WINDOW : GO_ON;
    this.#prepareTimerExit();
    this.view.setBigUint64(S.EXIT_QUALIFICATION.at, BigInt(effect.qualification), true);
    return effect.reason;
  }

  /** Somebody asks for an interrupt window, or waits to deliver a virtual interrupt, and the guest is open to it. */
  get #isWindowOpen(): boolean {
    const slow = this.view.getUint32(S.SLOW.at, true);
    return (slow & (Slow.SHADOW | Slow.INTERRUPT_WINDOW)) === Slow.INTERRUPT_WINDOW;
  }

  /** Whether an interrupt waits for the guest to be able to take it. */
  #expect(waits: boolean): number {
    const { view } = this;
    if ((view.getUint32(S.INTERRUPT_WAITS.at, true) !== 0) !== waits) {
      view.setUint32(S.INTERRUPT_WAITS.at, waits ? 1 : 0, true);
      this.engine.updateMode();
    }
    return GO_ON;
  }

  #nmi(vmcs: Vmcs): number {
    const { view } = this;
    const pin = vmcs.number(Field.PIN_CONTROLS);
    const blocking = view.getUint32(S.INTERRUPTIBILITY.at, true);
    const exits = (pin & PinControl.NMI) !== 0 || this.#guestVmx?.nmiExits === true;
    // With virtual NMIs the blocking is that of virtual ones.
    const isBlocked = (blocking & BLOCKING_BY_NMI) !== 0 && (pin & PinControl.VIRTUAL_NMI) === 0;
    if (isBlocked || (!exits && (blocking & BLOCKING_BY_MOV_SS) !== 0)) return GO_ON;
    this.#interrupts.takeNmi();
    const info = INTERRUPTION_VALID + (InterruptionType.NMI << 8) + NMI_VECTOR;
    if (!exits) return this.#deliver(info);
    view.setUint32(S.EXIT_INTERRUPTION.at, info, true);
    return ExitReason.EXCEPTION_OR_NMI;
  }

  /**
   * SDM Vol. 3C, "Other Causes of VM Exits": with external-interrupt exiting neither RFLAGS.IF nor blocking by STI or MOV SS holds the exit
   * back (of the latter the manual lets a processor choose).
   */
  #externalInterrupt(vmcs: Vmcs, request: number): number {
    const { view } = this;
    if ((vmcs.number(Field.PIN_CONTROLS) & PinControl.EXTERNAL_INTERRUPT) === 0) {
      const guest = this.#guestVmx;
      if (guest && guest.interruptAnswer !== InterruptAnswer.DELIVER) {
        const isAcknowledged = guest.interruptAnswer === InterruptAnswer.EXIT_ACKNOWLEDGED;
        const isHalted = view.getUint32(S.ACTIVITY.at, true) === Activity.HLT;
        const vector = isAcknowledged ? this.#interrupts.acknowledge() : -1;
        if (guest.takePosted(vector)) {
          this.#interrupts.end();
          // A virtual interrupt that is recognized now ends HLT.
          return this.#isWindowOpen ? ExitReason.INTERRUPT_WINDOW : GO_ON;
        }
        guest.interrupt(vector, isHalted);
        return GO_ON;
      }
      const flags = view.getUint32(S.RFLAGS_REST.at, true);
      const blocking = view.getUint32(S.INTERRUPTIBILITY.at, true);
      const isOpen =
        (flags & RFLAGS_IF) !== 0 && (blocking & (BLOCKING_BY_STI | BLOCKING_BY_MOV_SS)) === 0;
      if (!isOpen) return this.#expect(true);
      this.#expect(false);
      return this.#deliver(INTERRUPTION_VALID + this.#interrupts.acknowledge());
    }
    const acknowledges =
      (vmcs.number(Field.EXIT_CONTROLS) & ExitControl.ACKNOWLEDGE_INTERRUPT) !== 0;
    if (!acknowledges) return ExitReason.EXTERNAL_INTERRUPT;
    const vector = this.#interrupts.acknowledge();
    const isTaken =
      request === Request.APIC && this.#apic.take(vector, this.#interrupts.isLevel(vector));
    if (isTaken) {
      this.#interrupts.end();
      // A virtual interrupt that is recognized now ends HLT.
      return this.#isWindowOpen ? ExitReason.INTERRUPT_WINDOW : GO_ON;
    }
    view.setUint32(S.EXIT_INTERRUPTION.at, INTERRUPTION_VALID + vector, true);
    return ExitReason.EXTERNAL_INTERRUPT;
  }

  /** Through the guest's IDT. Answers GO_ON, or the reason of an exit during delivery. */
  #deliver(info: number): number {
    const status = this.engine.injectEvent(info | 0, 0, 0);
    return status === Status.EXIT ? this.view.getUint32(S.EXIT_REASON.at, true) : GO_ON;
  }

  /** Halted: time passes without instructions. */
  #rest(): void {
    const deadline = this.#deadline;
    const activity = this.view.getUint32(S.ACTIVITY.at, true);
    const own = activity === Activity.WAIT_FOR_SIPI ? Infinity : deadline;
    const wait = this.#clock.idle(Math.min(own, this.#interrupts.nextAt), this.retired);
    if (wait > 0) this.#pause(Math.min(wait, LONGEST_PAUSE_NS));
  }

  /** Gives what has come between two instructions to the guest hypervisor, if its guest runs and it has asked for that. */
  #endsGuestsGuest(reason: number): boolean {
    if (!this.#guestVmx?.isInside) return false;
    if (reason !== GUEST_TIMER)
      return reason !== ExitReason.PREEMPTION_TIMER && this.#handledByGuest(reason);
    this.#prepareTimerExit();
    return this.#handledByGuest(ExitReason.PREEMPTION_TIMER);
  }

  /** The exit of the guest hypervisor's timer comes between two instructions. */
  #prepareTimerExit(): void {
    const { view } = this;
    view.setUint32(S.EXIT_LENGTH.at, 0, true);
    view.setBigUint64(S.EXIT_QUALIFICATION.at, 0n, true);
    view.setUint32(S.EXIT_INTERRUPTION.at, 0, true);
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
    const isOwnAccess = reason === ExitReason.APIC_ACCESS && this.#guestVmx?.isInside !== true;
    if (reason !== ExitReason.EPT_VIOLATION && !isOwnAccess) this.#setResumeFlag(isFault);
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

  #finishExit(vmcs: Vmcs, reason: number): void {
    const view = this.view;
    vmcs.set(Field.EXIT_REASON, reason);
    this.#timer.save(vmcs, this.tsc());
    this.#settleResumeFlag(reason);
    this.#settleBreakpoints(reason);
    const isMemory = reason === ExitReason.EPT_VIOLATION || reason === ExitReason.APIC_ACCESS;
    if (isMemory) this.#describeDeviceAccess(vmcs);
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
    this.#storeLongMode(vmcs);
  }

  /** The exit stores EFER.LMA in the IA-32e mode guest control: the guest may have changed it. */
  #storeLongMode(vmcs: Vmcs): void {
    const controls = vmcs.number(Field.ENTRY_CONTROLS);
    const isLong = (vmcs.number(Field.GUEST_EFER) & Efer.LMA) !== 0;
    if (isLong !== ((controls & EntryControl.IA32E_GUEST) !== 0))
      vmcs.set(Field.ENTRY_CONTROLS, (controls ^ EntryControl.IA32E_GUEST) >>> 0);
  }

  #describeDeviceAccess(vmcs: Vmcs): void {
    const view = this.view;
    if (view.getUint32(S.DEVICE_WRITE_COUNT.at, true) > 0) {
      // The instruction that may have read before is done.
      view.setUint32(S.DEVICE_REPLY_COUNT.at, 0, true);
      view.setUint32(S.DEVICE_REPLY_NEXT.at, 0, true);
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
    if (view.getUint32(S.DEVICE_WRITE_COUNT.at, true) === 0) return false;
    const effect = this.#apic.write();
    if (effect !== null) {
      this.#exitAfterEntry(vmcs, effect);
      return true;
    }
    const count = view.getUint32(S.DEVICE_WRITE_COUNT.at, true);
    if (count === 0) return false;
    vmcs.set(Field.EXIT_REASON, ExitReason.EPT_VIOLATION);
    vmcs.set(VendorField.DEVICE_ACCESS, 3);
    vmcs.setBig(VendorField.DEVICE_WRITE_DATA, view.getBigUint64(DEVICE_WRITES, true));
    const sizeAndHigh = view.getUint32(DEVICE_WRITES + 12, true);
    const physical = view.getUint32(DEVICE_WRITES + 8, true) + (sizeAndHigh >>> 8) * 0x1_0000_0000;
    vmcs.set(Field.GUEST_PHYSICAL_ADDRESS, physical);
    vmcs.set(VendorField.DEVICE_SIZE, sizeAndHigh & 0xff);
    const isApic = this.#apic.isAccessPage(Math.floor(physical / 4096));
    if (isApic) {
      vmcs.set(Field.EXIT_REASON, ExitReason.APIC_ACCESS);
      vmcs.set(Field.EXIT_QUALIFICATION, (physical & 0xfff) | APIC_WRITE_ACCESS);
    }
    dropDeviceWrite(view, count);
    if (count === 1) this.engine.updateMode();
    return true;
  }
}

/** Physical-map entry of a host-physical page: memory with all rights, or nobody's and so a device's. */
function hostPage(view: DataView, page: number): number {
  const isMemory = page !== 0 && (page + 1) * 4096 <= view.byteLength;
  return isMemory
    ? (page * 4096) | Page.READ | Page.WRITE | Page.EXECUTE | Page.KNOWN
    : Page.KNOWN | Page.DEVICE;
}
