/**
 * VMX for guest software: a guest hypervisor's VMX operation, its guests, and the way between them.
 * SDM Vol. 3C, "VMX Instruction Reference", "VM Entries", "VM Exits"; ADR 26.
 *
 * The processor itself runs the guest's guest: its state is loaded into the live state block, its controls are joined to those of our own
 * hypervisor (overlay), and a second physical map holds the guest's EPT over ours. Our hypervisor sees the instructions neither of the guest
 * hypervisor nor of its guest; exits that the guest hypervisor has not asked for (devices, doorbell, timers) reach it as always, with the
 * state of whoever runs.
 *
 * handle() is called for every exit that the engine leaves with, and answers true if the guest goes on.
 */
import { ENTRY_FAILURE, ExitReason } from "../../isa/exit-reasons.ts";
import {
  ExitControl,
  Field,
  INTERRUPTION_ERROR_CODE,
  INTERRUPTION_VALID,
  InterruptionType,
  PinControl,
  PrimaryControl,
  SecondaryControl,
} from "../../isa/vmcs-fields.ts";
import { Cr0, Cr4, Efer } from "../../state/control-bits.ts";
import { DEVICE_WRITES, GPR, gprAt, Page, S, Status } from "../../state/layout.ts";
import { advance } from "../advance.ts";
import { ApicVirtualization, apicAccess } from "../apic-virtualization.ts";
import { type EntryLimits, EPTP_SWITCHING, PREEMPTION_SHIFT } from "../capabilities.ts";
import type { Engine } from "../engine-port.ts";
import { usesPae } from "../entry-checks/guest-rest.ts";
import { readRflags, writeRflags } from "../rflags.ts";
import { type TscView, tscViewOf } from "../tsc-view.ts";
import type { Effect } from "../virtual-apic.ts";
import { guestProblem, loadPdptes, refusalOf } from "./entry-decision.ts";
import { EptResult, violationRights } from "./guest-ept.ts";
import {
  loadGuestPdptes,
  loadGuestState,
  loadHostState,
  saveExitInformation,
  saveGuestState,
} from "./guest-state.ts";
import { joinControls } from "./joined-controls.ts";
import { MsrAreas, type OtherMsrs } from "./msr-area.ts";
import { type Fault, isFault, Operands } from "./operands.ts";
import {
  ARITHMETIC,
  FAIL_INVALID,
  GP,
  KEEP_FLAGS,
  type Outcome,
  RFLAGS,
  SUCCEED,
} from "./outcome.ts";
import { interceptsException, wantsExit } from "./reflect.ts";
import { Translations } from "./translations.ts";
import { isGoodEptp, VmxInstructions } from "./vmx-instructions.ts";
import { NO_POINTER, VmxOperation } from "./vmx-operation.ts";

const BLOCKING_NMI = 8;
const OTHER_EVENT = 7;
const INTERRUPTION_TYPE_NMI = InterruptionType.NMI << 8;
const ABORT = { MSR_STORE: 1, HOST_PDPTE: 2, MSR_LOAD: 4 } as const;

/** What the unit needs of the processor it is part of. */
export interface GuestVmxPort {
  readonly engine: Engine;
  /** TSC without offset. */
  tsc(): number;
  /** Physical-map entry (Page) of a guest-physical page of the guest hypervisor. `need`: Page rights. */
  ownPage(page: number, need: number): number;
  /** Loads our own hypervisor's controls, and over them what overlay() says. */
  reloadControls(): void;
  /** Whether somebody waits for the guest to be open to an interrupt may have changed (wantsWindow). */
  showWindow(): void;
  /** Event injection of a VM entry: interruption information, error code, instruction length. Answers a Status. */
  inject(info: number, error: number, length: number): number;
}

/** Where the unit is between two steps, for snapshots. Everything else is in guest memory. */
export interface GuestVmxState {
  readonly vmxon: bigint;
  readonly current: bigint;
  readonly isInside: boolean;
  readonly deadline: number;
  /** A virtual interrupt is recognized. Missing: none. */
  readonly isRecognized?: boolean;
}

/** What a pending external interrupt does to the guest's guest. */
export const InterruptAnswer = { DELIVER: 0, EXIT: 1, EXIT_ACKNOWLEDGED: 2 } as const;

export class GuestVmx {
  readonly limits: EntryLimits;
  readonly #port: GuestVmxPort;
  readonly #operation: VmxOperation;
  readonly #translations: Translations;
  readonly #instructions: VmxInstructions;
  readonly #virtual: ApicVirtualization;
  readonly #msrs: MsrAreas;
  #inside = false;
  /** TSC at which the guest hypervisor's preemption timer expires. */
  #deadline = Infinity;

  constructor(limits: EntryLimits, port: GuestVmxPort, msrs: OtherMsrs) {
    const { engine } = port;
    const { view } = engine;
    const operation = new VmxOperation(view, limits, port.ownPage);
    this.limits = limits;
    this.#port = port;
    this.#operation = operation;
    this.#translations = new Translations(operation, engine, port.ownPage);
    this.#instructions = new VmxInstructions(operation, this.#translations, new Operands(engine));
    this.#virtual = new ApicVirtualization(operation.apic, operation.vmcs, {
      view,
      showWindow: () => port.showWindow(),
      advance: () => advance(engine),
      fault: () => this.#raise({ vector: GP, error: 0 }),
      trapExit: (effect) => this.#trapExit(effect),
    });
    this.#msrs = new MsrAreas(view, msrs, limits.eferAllowed);
  }

  get #view(): DataView {
    return this.#port.engine.view;
  }

  // ---- what the processor and the kernel ask ----

  /** A guest of the guest hypervisor runs. */
  get isInside(): boolean {
    return this.#inside;
  }

  /** physicalFill() is this unit's. */
  get usesMap(): boolean {
    return this.#translations.usesMap;
  }

  /** TSC at which the preemption timer of the guest hypervisor expires. */
  get deadline(): number {
    return this.#inside ? this.#deadline : Infinity;
  }

  /** How the guest's guest sees the guest hypervisor's TSC. */
  get tscView(): TscView {
    const { vmcs } = this.#operation;
    const secondary = this.#operation.primary(PrimaryControl.SECONDARY)
      ? vmcs.number(Field.SECONDARY_CONTROLS)
      : 0;
    return tscViewOf(vmcs, vmcs.number(Field.PRIMARY_CONTROLS), secondary);
  }

  /**
   * Whether somebody waits for the guest's guest to be open to an interrupt: its hypervisor, its virtual APIC, or `ours` (our own hypervisor or
   * the guest hypervisor's virtual APIC), whose interrupts are for the guest's guest only if its controls do not send them out.
   */
  wantsWindow(ours: boolean): boolean {
    if (
      this.#operation.primary(PrimaryControl.INTERRUPT_WINDOW) ||
      this.#operation.apic.isRecognized
    )
      return true;
    return ours && !this.#operation.pin(PinControl.EXTERNAL_INTERRUPT);
  }

  get interruptAnswer(): number {
    if (!this.#inside || !this.#operation.pin(PinControl.EXTERNAL_INTERRUPT))
      return InterruptAnswer.DELIVER;
    return this.#operation.exitControl(ExitControl.ACKNOWLEDGE_INTERRUPT)
      ? InterruptAnswer.EXIT_ACKNOWLEDGED
      : InterruptAnswer.EXIT;
  }

  get nmiExits(): boolean {
    return this.#inside && this.#operation.pin(PinControl.NMI);
  }

  save(): GuestVmxState {
    return {
      vmxon: this.#operation.vmxon,
      current: this.#operation.current,
      isInside: this.#inside,
      deadline: this.#deadline,
      isRecognized: this.#operation.apic.isRecognized,
    };
  }

  /** The state block and guest memory have been restored already. */
  restore(state: GuestVmxState): void {
    this.#operation.vmxon = state.vmxon;
    this.#operation.current = state.current;
    this.#operation.mustCheck = true;
    this.#inside = state.isInside;
    this.#deadline = state.deadline;
    this.#operation.apic.isRecognized = state.isRecognized === true;
    this.#translations.leave();
    this.#translations.forgetAll();
    if (this.#operation.vmxon === NO_POINTER) return;
    this.#operation.requireBits(false);
    this.#translations.begin();
    if (!this.#inside) return;
    this.#operation.locate();
    this.#enterMaps();
    this.#port.reloadControls();
  }

  /** Our own EPT has changed: nothing that was found through it holds any more. */
  forgetMemory(): void {
    this.#translations.forgetMapped();
    this.#operation.locate();
  }

  /** Physical-map entry of a page of the guest's guest. `need`: rights that the access wants. */
  fill(page: number, need: number): number {
    return this.#translations.fill(page, need);
  }

  /** Joins the guest hypervisor's controls to ours in the hot form (S.CTL_*), which holds ours alone. */
  overlay(): void {
    if (this.#inside) joinControls(this.#operation);
  }

  // ---- exits of the engine ----

  /** An exit with `reason` (S.EXIT_*). Answers true if it has been dealt with; else S.EXIT_REASON is our hypervisor's. */
  handle(reason: number): boolean {
    if (this.#inside) return this.#exitOfGuest(reason);
    if (reason === ExitReason.VMLAUNCH || reason === ExitReason.VMRESUME)
      return this.#enter(reason === ExitReason.VMLAUNCH);
    const outcome = this.#instructions.run(reason);
    return outcome !== null && this.#finish(outcome);
  }

  // ---- how instructions end ----

  /** VMsucceed, VMfail or a fault. Answers false if delivering the fault has come to an exit of ours. */
  #finish(outcome: Outcome): boolean {
    if (isFault(outcome)) return this.#raise(outcome);
    const view = this.#view;
    const flags = readRflags(view) & ~(ARITHMETIC | RFLAGS.RF);
    if (outcome === SUCCEED) writeRflags(view, flags);
    else if (outcome === KEEP_FLAGS) writeRflags(view, readRflags(view) & ~RFLAGS.RF);
    else if (outcome === FAIL_INVALID || this.#operation.current === NO_POINTER)
      writeRflags(view, flags | RFLAGS.CF);
    else {
      writeRflags(view, flags | RFLAGS.ZF);
      this.#operation.vmcs.set(Field.INSTRUCTION_ERROR, outcome as number);
    }
    advance(this.#port.engine);
    return true;
  }

  #raise({ vector, error }: Fault): boolean {
    if (this.#port.engine.raise(vector, error ?? 0) !== Status.EXIT) return true;
    return this.#inside && this.#exitOfGuest(this.#view.getUint32(S.EXIT_REASON.at, true));
  }

  // ---- VM entry ----

  #enter(isLaunch: boolean): boolean {
    const refused = this.#instructions.inRoot(() => refusalOf(this.#operation, isLaunch));
    if (refused !== SUCCEED) return this.#finish(refused);
    const vmcs = this.#operation.vmcs;
    const bad = guestProblem(this.#operation);
    if (bad !== null) return this.#failEntry(ExitReason.ENTRY_GUEST_STATE, bad);
    this.#load();
    const failed = this.#msrs.load(
      vmcs.big(Field.ENTRY_MSR_LOAD),
      vmcs.number(Field.ENTRY_MSR_LOAD_COUNT),
      (physical) => this.#operation.hostOf(physical),
    );
    if (failed !== 0) return this.#failEntry(ExitReason.ENTRY_MSR_LOAD, BigInt(failed));
    vmcs.isLaunched = true;
    this.#inside = true;
    this.#operation.mustCheck = false;
    this.#port.reloadControls();
    this.#enterMaps();
    this.#startTimer();
    return this.#injectOnEntry();
  }

  #load(): void {
    const vmcs = this.#operation.vmcs;
    loadGuestState(this.#view, vmcs);
    if (!usesPae(vmcs)) return;
    if (this.#operation.secondary(SecondaryControl.EPT)) loadGuestPdptes(this.#view, vmcs);
    else loadPdptes(this.#operation, vmcs.big(Field.GUEST_CR3));
  }

  /** An entry that fails after the checks on host state: the exit loads host state, saves nothing. */
  #failEntry(reason: number, qualification: bigint): boolean {
    const vmcs = this.#operation.vmcs;
    vmcs.set(Field.EXIT_REASON, ENTRY_FAILURE + reason);
    vmcs.setBig(Field.EXIT_QUALIFICATION, qualification);
    this.#leaveTo(false, false);
    return true;
  }

  #enterMaps(): void {
    const isUnrestricted = this.#operation.secondary(SecondaryControl.UNRESTRICTED_GUEST);
    this.#operation.requireBits(isUnrestricted);
    this.#translations.enter();
  }

  #startTimer(): void {
    this.#deadline = Infinity;
    if (!this.#operation.pin(PinControl.PREEMPTION_TIMER)) return;
    const scale = 2 ** PREEMPTION_SHIFT;
    const start = Math.floor(this.#port.tsc() / scale);
    this.#deadline = (start + this.#operation.vmcs.number(Field.PREEMPTION_TIMER)) * scale;
  }

  #injectOnEntry(): boolean {
    const vmcs = this.#operation.vmcs;
    const view = this.#view;
    const info = vmcs.number(Field.ENTRY_INTERRUPTION_INFO);
    view.setUint32(S.VECTORING.at, 0, true);
    const effect = this.#operation.apic.enter();
    this.#port.showWindow();
    if (info < INTERRUPTION_VALID) return effect === null || this.#trapExit(effect);
    if (((info >> 8) & 7) === OTHER_EVENT) return this.#exit(ExitReason.MTF);
    const error = info & INTERRUPTION_ERROR_CODE ? vmcs.number(Field.ENTRY_ERROR_CODE) : 0;
    const length = vmcs.number(Field.ENTRY_INSTRUCTION_LENGTH);
    const status = this.#port.inject(info, error, length);
    if (status === Status.EXIT) return this.#exitOfGuest(view.getUint32(S.EXIT_REASON.at, true));
    return effect === null || this.#trapExit(effect);
  }

  // ---- VM exit ----

  /** The guest's guest has left the engine. */
  #exitOfGuest(reason: number): boolean {
    const view = this.#view;
    if (reason === ExitReason.EPT_VIOLATION) return this.#memoryExit();
    if (reason === ExitReason.PREEMPTION_TIMER) return this.#exit(reason);
    if (reason === ExitReason.CR_ACCESS && this.#operation.apic.hasShadow) {
      const done = this.#virtual.taskPriority();
      if (done !== null) return done;
    }
    if (!wantsExit(reason, this.#operation.vmcs, this.#operation)) return this.#virtualize(reason);
    if (reason === ExitReason.VMREAD || reason === ExitReason.VMWRITE) {
      const done = this.#instructions.shadowAccess(reason);
      if (done !== null) return this.#finish(done);
    }
    if (reason === ExitReason.VMFUNC && this.#switchEptp()) return true;
    if (reason !== ExitReason.EXCEPTION_OR_NMI) view.setUint32(S.EXIT_INTERRUPTION.at, 0, true);
    return this.#exit(reason);
  }

  // ---- APIC virtualization ----

  /** An exit after the instruction at whose end RIP is. */
  #trapExit({ reason, qualification }: NonNullable<Effect>): boolean {
    const view = this.#view;
    view.setUint32(S.VECTORING.at, 0, true);
    view.setUint32(S.EXIT_LENGTH.at, 0, true);
    view.setUint32(S.EXIT_INTERRUPTION.at, 0, true);
    view.setBigUint64(S.EXIT_QUALIFICATION.at, BigInt(qualification), true);
    return this.#exit(reason);
  }

  /** Exits that only APIC virtualization has asked for. Answers false for those that are our own hypervisor's. */
  #virtualize(reason: number): boolean {
    const view = this.#view;
    if (reason === ExitReason.INTERRUPT_WINDOW && this.#operation.apic.isRecognized) {
      const vector = this.#operation.apic.accept();
      this.#port.showWindow();
      const status = this.#port.inject(INTERRUPTION_VALID + vector, 0, 0);
      return status !== Status.EXIT || this.#exitOfGuest(view.getUint32(S.EXIT_REASON.at, true));
    }
    if (reason !== ExitReason.RDMSR && reason !== ExitReason.WRMSR) return false;
    return this.#virtual.msr(reason) ?? false;
  }

  /** An acknowledged external interrupt. Answers true if it was the notification of posted interrupts: nothing else comes of it. */
  takePosted(vector: number): boolean {
    if (!this.#inside || !this.#operation.apic.takePosted(vector)) return false;
    this.#port.showWindow();
    return true;
  }

  // ---- EPT exits ----

  /** An access that the physical map has not let through: the guest's EPT forbids it, or it is a device of ours. */
  #memoryExit(): boolean {
    const view = this.#view;
    if (!this.#translations.usesMap) return false;
    const writes = view.getUint32(S.DEVICE_WRITE_COUNT.at, true);
    if (writes > 0) return this.#deviceWrites(writes);
    const address = view.getBigUint64(S.EXIT_PHYSICAL.at, true);
    const qualification = view.getUint32(S.EXIT_QUALIFICATION.at, true);
    const need = qualification & 7;
    const result = this.#translations.walk(address, need, null);
    if (
      result === EptResult.OK &&
      (this.#translations.ept.physical & ~0xfffn) === this.#translations.apicPage
    )
      return this.#apicAccess(Number(address & 0xfffn), need);
    if (result === EptResult.OK && this.#translations.isLogFull(need)) {
      view.setBigUint64(S.EXIT_QUALIFICATION.at, BigInt(qualification & 0x1000), true);
      view.setUint32(S.EXIT_INTERRUPTION.at, 0, true);
      return this.#exit(ExitReason.PML_FULL);
    }
    if (result === EptResult.OK) {
      view.setBigUint64(S.EXIT_PHYSICAL.at, this.#translations.ept.physical, true);
      return false;
    }
    view.setUint32(S.EXIT_INTERRUPTION.at, 0, true);
    view.setUint32(S.DEVICE_SIZE.at, 0, true);
    if (result === EptResult.MISCONFIGURATION) {
      view.setBigUint64(S.EXIT_QUALIFICATION.at, 0n, true);
      return this.#exit(ExitReason.EPT_MISCONFIGURATION);
    }
    const full = qualification | violationRights(this.#translations.ept.rights);
    view.setBigUint64(S.EXIT_QUALIFICATION.at, BigInt(full), true);
    return this.#exit(ExitReason.EPT_VIOLATION);
  }

  /** An access to the APIC-access page that has not been let through. */
  #apicAccess(offset: number, need: number): boolean {
    const view = this.#view;
    const isDevice = view.getUint32(S.DEVICE_SIZE.at, true) > 0;
    if (isDevice && view.getUint32(S.DEVICE_SIZE.at, true) <= 4) {
      this.#virtual.reply(offset);
      return true;
    }
    view.setUint32(S.EXIT_INTERRUPTION.at, 0, true);
    view.setBigUint64(S.EXIT_QUALIFICATION.at, apicAccess(view, offset, need), true);
    return this.#exit(ExitReason.APIC_ACCESS);
  }

  /**
   * Writes to devices that an instruction has made: those to the virtual APIC are carried out here, the others get the addresses of the guest
   * hypervisor and are our own hypervisor's.
   */
  #deviceWrites(count: number): boolean {
    const view = this.#view;
    let effect: Effect = null;
    let left = 0;
    for (let i = 0; i < count; i++) {
      const at = DEVICE_WRITES + 16 * i;
      const sizeAndHigh = view.getUint32(at + 12, true);
      const address = BigInt(view.getUint32(at + 8, true)) | (BigInt(sizeAndHigh >>> 8) << 32n);
      const data = view.getBigUint64(at, true);
      if (this.#translations.walk(address, Page.WRITE, null) !== EptResult.OK) continue;
      const physical = this.#translations.ept.physical;
      if ((physical & ~0xfffn) === this.#translations.apicPage) {
        const offset = Number(physical & 0xfffn);
        effect = this.#operation.apic.write(
          offset,
          Number(data & 0xffff_ffffn),
          sizeAndHigh & 0xff,
        );
        continue;
      }
      const to = DEVICE_WRITES + 16 * left++;
      view.setBigUint64(to, data, true);
      view.setUint32(to + 8, Number(physical & 0xffff_ffffn), true);
      const high = Number(physical >> 32n);
      view.setUint32(to + 12, ((high << 8) | (sizeAndHigh & 0xff)) >>> 0, true);
    }
    view.setUint32(S.DEVICE_WRITE_COUNT.at, left, true);
    if (left > 0) return false;
    view.setUint32(S.DEVICE_REPLY_COUNT.at, 0, true);
    view.setUint32(S.DEVICE_REPLY_NEXT.at, 0, true);
    this.#port.engine.updateMode();
    return this.#virtual.settle(effect);
  }

  /** VMFUNC 0. Answers false if it is an exit. */
  #switchEptp(): boolean {
    const view = this.#view;
    const vmcs = this.#operation.vmcs;
    const index = view.getUint32(GPR + 8, true);
    const isOn = (vmcs.big(Field.VM_FUNCTION_CONTROLS) & BigInt(EPTP_SWITCHING)) !== 0n;
    if (view.getUint32(gprAt(0), true) !== 0 || !isOn || index > 511) return false;
    const at = this.#operation.hostOf(vmcs.big(Field.EPTP_LIST) + BigInt(8 * index));
    if (at === 0) return false;
    const eptp = view.getBigUint64(at, true);
    if (!isGoodEptp(eptp, this.limits.physicalBits)) return false;
    vmcs.setBig(Field.EPTP, eptp);
    this.#enterMaps();
    advance(this.#port.engine);
    return true;
  }

  /** VM exit to the guest hypervisor; S.EXIT_* but the reason are set. */
  #exit(reason: number): boolean {
    const view = this.#view;
    const vmcs = this.#operation.vmcs;
    const isNmi =
      reason === ExitReason.EXCEPTION_OR_NMI &&
      (view.getUint32(S.EXIT_INTERRUPTION.at, true) & 0x700) === INTERRUPTION_TYPE_NMI;
    const wasBlocked = (view.getUint32(S.INTERRUPTIBILITY.at, true) & BLOCKING_NMI) !== 0;
    vmcs.set(Field.EXIT_REASON, reason);
    saveExitInformation(view, vmcs);
    saveGuestState(view, vmcs);
    vmcs.set(
      Field.ENTRY_INTERRUPTION_INFO,
      vmcs.number(Field.ENTRY_INTERRUPTION_INFO) % INTERRUPTION_VALID,
    );
    if (this.#operation.exitControl(ExitControl.SAVE_PREEMPTION_TIMER)) {
      const left = Math.max(0, this.#deadline - this.#port.tsc());
      vmcs.set(Field.PREEMPTION_TIMER, Math.floor(left / 2 ** PREEMPTION_SHIFT));
    }
    const stored = this.#msrs.store(
      vmcs.big(Field.EXIT_MSR_STORE),
      vmcs.number(Field.EXIT_MSR_STORE_COUNT),
      (physical) => this.#operation.hostOf(physical),
    );
    if (!stored) return this.#abort(ABORT.MSR_STORE);
    return this.#leaveTo(
      isNmi || (wasBlocked && !this.#operation.pin(PinControl.VIRTUAL_NMI)),
      true,
    );
  }

  /** Host state and what comes with it. `hasEntered`: the maps are those of the guest's guest. */
  #leaveTo(blocksNmi: boolean, hasEntered: boolean): boolean {
    const view = this.#view;
    const vmcs = this.#operation.vmcs;
    loadHostState(view, vmcs, blocksNmi);
    const isLong = (view.getUint32(S.EFER.at, true) & Efer.LMA) !== 0;
    const isPae =
      !isLong &&
      (view.getUint32(S.CR4.at, true) & Cr4.PAE) !== 0 &&
      (view.getUint32(S.CR0.at, true) & (Cr0.PG | 0)) !== 0;
    if (isPae && !loadPdptes(this.#operation, vmcs.big(Field.HOST_CR3)))
      return this.#abort(ABORT.HOST_PDPTE);
    const hasVpid = this.#operation.secondary(SecondaryControl.VPID);
    this.#inside = false;
    this.#translations.leave();
    this.#deadline = Infinity;
    this.#operation.apic.isRecognized = false;
    view.setUint32(S.DEVICE_REPLY_COUNT.at, 0, true);
    view.setUint32(S.DEVICE_REPLY_NEXT.at, 0, true);
    view.setUint32(S.VECTORING.at, 0, true);
    this.#operation.requireBits(false);
    if (!hasVpid && hasEntered) this.#translations.forgetHost();
    this.#port.reloadControls();
    const failed = this.#msrs.load(
      vmcs.big(Field.EXIT_MSR_LOAD),
      vmcs.number(Field.EXIT_MSR_LOAD_COUNT),
      (physical) => this.#operation.hostOf(physical),
    );
    if (failed !== 0) return this.#abort(ABORT.MSR_LOAD);
    this.#port.engine.enterAddressSpace(false);
    return true;
  }

  /** VMX abort: the processor shuts down. SDM Vol. 3C, "VMX Aborts". */
  #abort(indicator: number): boolean {
    const view = this.#view;
    this.#operation.vmcs.abort = indicator;
    this.#inside = false;
    view.setUint32(S.EXIT_REASON.at, ExitReason.TRIPLE_FAULT, true);
    view.setUint32(S.EXIT_LENGTH.at, 0, true);
    view.setBigUint64(S.EXIT_QUALIFICATION.at, 0n, true);
    return false;
  }

  // ---- events from outside ----

  /**
   * An external interrupt for a guest hypervisor whose controls send it out of its guest; `vector` < 0 if it has not been acknowledged.
   * `isHalted`: the guest's guest was in HLT.
   */
  interrupt(vector: number, isHalted: boolean): void {
    const view = this.#view;
    const info = vector < 0 ? 0 : INTERRUPTION_VALID + vector;
    this.#exitBetween(ExitReason.EXTERNAL_INTERRUPT, info, isHalted);
    view.setUint32(S.EXIT_INTERRUPTION.at, 0, true);
  }

  nmi(isHalted: boolean): void {
    const info = INTERRUPTION_VALID + INTERRUPTION_TYPE_NMI + 2;
    this.#exitBetween(ExitReason.EXCEPTION_OR_NMI, info, isHalted);
  }

  /** An exit at an instruction boundary. */
  #exitBetween(reason: number, info: number, isHalted: boolean): void {
    const view = this.#view;
    view.setUint32(S.ACTIVITY.at, isHalted ? 1 : 0, true);
    view.setUint32(S.VECTORING.at, 0, true);
    view.setUint32(S.EXIT_INTERRUPTION.at, info, true);
    view.setBigUint64(S.EXIT_QUALIFICATION.at, 0n, true);
    view.setUint32(S.EXIT_LENGTH.at, 0, true);
    this.#exit(reason);
  }

  /**
   * An exception that our hypervisor raises in the guest's guest (an access to an MSR that does not exist): answers true if it was an exit to the
   * guest hypervisor instead.
   */
  intercepts(info: number, error: number): boolean {
    if (!this.#inside || ((info >> 8) & 7) !== InterruptionType.HARDWARE_EXCEPTION) return false;
    const vector = info & 0xff;
    if (!interceptsException(this.#operation.vmcs, vector, error)) return false;
    const view = this.#view;
    const PAGE_FAULT = 14;
    view.setUint32(S.VECTORING.at, 0, true);
    view.setUint32(S.EXIT_INTERRUPTION.at, info, true);
    view.setUint32(S.EXIT_INTERRUPTION_ERROR.at, error, true);
    view.setBigUint64(
      S.EXIT_QUALIFICATION.at,
      vector === PAGE_FAULT ? view.getBigUint64(S.CR2.at, true) : 0n,
      true,
    );
    this.#exit(ExitReason.EXCEPTION_OR_NMI);
    return true;
  }
}
