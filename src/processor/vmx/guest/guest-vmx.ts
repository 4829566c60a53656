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
import {
  DEVICE_WRITES,
  GPR,
  GUEST_PCID_MAP,
  GUEST_PHYSICAL_MAP,
  gprAt,
  JOINED_MSR_BITMAP,
  LOST_VMCS,
  Page,
  PCID_MAP,
  PCIDS,
  PHYSICAL_MAP,
  PHYSICAL_MAP_PAGES,
  S,
  Status,
} from "../../state/layout.ts";
import { advance } from "../advance.ts";
import { ApicVirtualization, apicAccess } from "../apic-virtualization.ts";
import { type EntryLimits, EPTP_SWITCHING, PREEMPTION_SHIFT, REVISION } from "../capabilities.ts";
import type { Engine } from "../engine-port.ts";
import { isBadPdpte, usesPae } from "../entry-checks/guest-rest.ts";
import { EntryChecks, firstBroken } from "../entry-checks.ts";
import { readRflags, writeRflags } from "../rflags.ts";
import { type Effect, VirtualApic } from "../virtual-apic.ts";
import { EptResult, GuestEpt, type PageLog, violationRights } from "./guest-ept.ts";
import {
  loadGuestPdptes,
  loadGuestState,
  loadHostState,
  saveExitInformation,
  saveGuestState,
} from "./guest-state.ts";
import { GuestVmcs, supportedFields } from "./guest-vmcs.ts";
import { MsrAreas, type OtherMsrs } from "./msr-area.ts";
import { type Fault, isFault, Operands } from "./operands.ts";
import { interceptsException, wantsExit } from "./reflect.ts";

/** VM-instruction error numbers. SDM Vol. 3C, "VM Instruction Error Numbers". */
export const VmxError = {
  VMCALL_IN_ROOT: 1,
  VMCLEAR_ADDRESS: 2,
  VMCLEAR_VMXON: 3,
  VMLAUNCH_NOT_CLEAR: 4,
  VMRESUME_NOT_LAUNCHED: 5,
  CONTROLS: 7,
  HOST_STATE: 8,
  VMPTRLD_ADDRESS: 9,
  VMPTRLD_VMXON: 10,
  VMPTRLD_REVISION: 11,
  UNSUPPORTED_FIELD: 12,
  VMXON_IN_ROOT: 15,
  MOV_SS: 26,
  INVALID_OPERAND: 28,
} as const;

const UD = 6;
const GP = 13;
const NO_POINTER = 0xffff_ffff_ffff_ffffn;
const ARITHMETIC = 0x8d5;
const RFLAGS = { CF: 1, ZF: 0x40, TF: 0x100, RF: 0x1_0000 } as const;
const BLOCKING_MOV_SS = 2;
const BLOCKING_NMI = 8;
const OTHER_EVENT = 7;
const INTERRUPTION_TYPE_NMI = InterruptionType.NMI << 8;
/** Qualifications of an entry that fails for guest state. */
const EntryQualification = { NONE: 0n, PDPTE: 2n, LINK: 4n } as const;
const ABORT = { MSR_STORE: 1, HOST_PDPTE: 2, MSR_LOAD: 4 } as const;
const PML_ENTRIES = 512;
/** HIGH_FLUSHES of a processor that does not cache the upper half once for all address spaces. */
const NEVER_SHARED = 0x4000_0000;
/** Above this many, clearing the whole map is cheaper. */
const MANY_PAGES = 0x2_0000;

/** How an instruction ends: VMsucceed, VMfailInvalid, the number of a VMfailValid, or a fault. */
type Outcome = number | Fault;
const SUCCEED = 0;
const FAIL_INVALID = -1;
/** The flags are set already. */
const KEEP_FLAGS = -2;

/** Controls of the guest hypervisor that work as exits on top of ours. */
const JOINED_PRIMARY =
  PrimaryControl.HLT |
  PrimaryControl.INVLPG |
  PrimaryControl.MWAIT |
  PrimaryControl.RDPMC |
  PrimaryControl.RDTSC |
  PrimaryControl.CR3_LOAD |
  PrimaryControl.CR3_STORE |
  PrimaryControl.CR8_LOAD |
  PrimaryControl.CR8_STORE |
  PrimaryControl.NMI_WINDOW |
  PrimaryControl.MOV_DR |
  PrimaryControl.UNCONDITIONAL_IO |
  PrimaryControl.MONITOR_TRAP |
  PrimaryControl.MONITOR |
  PrimaryControl.PAUSE;
const JOINED_SECONDARY =
  SecondaryControl.DESCRIPTOR_TABLE |
  SecondaryControl.WBINVD |
  SecondaryControl.RDRAND |
  SecondaryControl.RDSEED |
  SecondaryControl.VM_FUNCTIONS;
/** Controls that let instructions exist: both hypervisors must. */
const ENABLING_SECONDARY =
  SecondaryControl.RDTSCP | SecondaryControl.INVPCID | SecondaryControl.XSAVES;
/** Our hypervisor owns no bit of CR0 or CR4 and has no CR3 targets, so the guest's are taken as they are. */
const WIDE: readonly (readonly [at: number, field: number])[] = [
  [S.CTL_CR0_MASK.at, Field.CR0_MASK],
  [S.CTL_CR0_SHADOW.at, Field.CR0_SHADOW],
  [S.CTL_CR4_MASK.at, Field.CR4_MASK],
  [S.CTL_CR4_SHADOW.at, Field.CR4_SHADOW],
  [S.CTL_CR3_TARGET0.at, Field.CR3_TARGET0],
  [S.CTL_CR3_TARGET1.at, Field.CR3_TARGET1],
  [S.CTL_CR3_TARGET2.at, Field.CR3_TARGET2],
  [S.CTL_CR3_TARGET3.at, Field.CR3_TARGET3],
];

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
  readonly #operands: Operands;
  readonly #vmcs: GuestVmcs;
  readonly #other: GuestVmcs;
  readonly #ept: GuestEpt;
  readonly #apic: VirtualApic;
  readonly #virtual: ApicVirtualization;
  readonly #msrs: MsrAreas;
  readonly #fields: ReadonlySet<number>;
  readonly #memory;
  /** VMXON region, and current VMCS: physical addresses, NO_POINTER for none. */
  #vmxon = NO_POINTER;
  #current = NO_POINTER;
  #inside = false;
  /** The guest's guest has an EPT of the guest's. */
  #usesEpt = false;
  /** Its physical addresses are looked up here: it has an EPT, or a page that stands for its APIC. */
  #usesMap = false;
  /** The APIC-access page, -1n for none. */
  #apicPage = -1n;
  #eptp = 0n;
  /** TSC at which the guest hypervisor's preemption timer expires. */
  #deadline = Infinity;
  /** The current VMCS has been written since its checks passed, but for the fields that every entry writes. */
  #mustCheck = true;
  /** What the second address-space and physical maps have been filled for. */
  #cachedVpid = -1;
  #cachedEptp = -1n;
  #mapped: number[] = [];

  constructor(limits: EntryLimits, port: GuestVmxPort, msrs: OtherMsrs) {
    const view = port.engine.view;
    this.limits = limits;
    this.#port = port;
    this.#operands = new Operands(port.engine);
    this.#vmcs = new GuestVmcs(view);
    this.#other = new GuestVmcs(view);
    this.#memory = { view, hostOf: (physical: bigint) => this.#hostOf(physical) };
    this.#ept = new GuestEpt(this.#memory, limits.physicalBits);
    this.#apic = new VirtualApic(this.#memory, this.#vmcs);
    this.#virtual = new ApicVirtualization(this.#apic, this.#vmcs, {
      view,
      showWindow: () => port.showWindow(),
      advance: () => advance(port.engine),
      fault: () => this.#raise({ vector: GP, error: 0 }),
      trapExit: (effect) => this.#trapExit(effect),
    });
    this.#msrs = new MsrAreas(view, msrs, limits.eferAllowed);
    this.#fields = supportedFields(limits);
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
    return this.#usesMap;
  }

  /** TSC at which the preemption timer of the guest hypervisor expires. */
  get deadline(): number {
    return this.#inside ? this.#deadline : Infinity;
  }

  /** Added to the TSC offset of our own hypervisor. */
  get tscOffset(): number {
    if (!this.#inside || !this.#primary(PrimaryControl.TSC_OFFSETTING)) return 0;
    return Number(BigInt.asIntN(64, this.#vmcs.big(Field.TSC_OFFSET)));
  }

  /**
   * Whether somebody waits for the guest's guest to be open to an interrupt: its hypervisor, its virtual APIC, or `ours` (our own hypervisor or
   * the guest hypervisor's virtual APIC), whose interrupts are for the guest's guest only if its controls do not send them out.
   */
  wantsWindow(ours: boolean): boolean {
    if (this.#primary(PrimaryControl.INTERRUPT_WINDOW) || this.#apic.isRecognized) return true;
    return ours && !this.#pin(PinControl.EXTERNAL_INTERRUPT);
  }

  get interruptAnswer(): number {
    if (!this.#inside || !this.#pin(PinControl.EXTERNAL_INTERRUPT)) return InterruptAnswer.DELIVER;
    return this.#exitControl(ExitControl.ACKNOWLEDGE_INTERRUPT)
      ? InterruptAnswer.EXIT_ACKNOWLEDGED
      : InterruptAnswer.EXIT;
  }

  get nmiExits(): boolean {
    return this.#inside && this.#pin(PinControl.NMI);
  }

  save(): GuestVmxState {
    return {
      vmxon: this.#vmxon,
      current: this.#current,
      isInside: this.#inside,
      deadline: this.#deadline,
      isRecognized: this.#apic.isRecognized,
    };
  }

  /** The state block and guest memory have been restored already. */
  restore(state: GuestVmxState): void {
    this.#vmxon = state.vmxon;
    this.#current = state.current;
    this.#mustCheck = true;
    this.#inside = state.isInside;
    this.#deadline = state.deadline;
    this.#apic.isRecognized = state.isRecognized === true;
    this.#usesEpt = false;
    this.#usesMap = false;
    this.#forgetAll();
    if (this.#vmxon === NO_POINTER) return;
    this.#beginOperation();
    if (!this.#inside) return;
    this.#locate();
    this.#enterMaps();
    this.#port.reloadControls();
  }

  /** Our own EPT has changed: nothing that was found through it holds any more. */
  forgetMemory(): void {
    this.#forgetMapped();
    this.#locate();
  }

  // ---- memory ----

  /** Host address of a byte of RAM at a guest-physical address of the guest hypervisor, 0 if there is none. */
  #hostOf(physical: bigint): number {
    if (physical >> 32n !== 0n) return 0;
    const at = Number(physical);
    const page = at >>> 12;
    const known = this.#view.getUint32(PHYSICAL_MAP + 4 * page, true);
    const RW = Page.READ | Page.WRITE;
    const entry = known === 0 ? this.#port.ownPage(page, RW) : known;
    return (entry & RW) === RW ? ((entry & -4096) | (at & 4095)) >>> 0 : 0;
  }

  /** Where an access of the guest's guest leads: EptResult; with OK the rest is in #ept. */
  #walk(address: bigint, need: number, log: PageLog | null): number {
    if (this.#usesEpt) return this.#ept.walk(this.#eptp, address, need, log);
    this.#ept.pass(address);
    return EptResult.OK;
  }

  /** Physical-map entry of a page of the guest's guest. `need`: rights that the access wants. */
  fill(page: number, need: number): number {
    const view = this.#view;
    const address = BigInt(page) * 4096n;
    const result = this.#walk(address, need, (a) => this.#logDirty(a));
    if (result !== EptResult.OK) return Page.KNOWN;
    const under = this.#ept.physical;
    // Of its APIC's page only what is virtualized is an access to a device, and nothing of it is remembered.
    if (under === this.#apicPage) {
      const offset = view.getUint32(S.WALK_PHYSICAL.at, true) & 0xfff;
      const isData = (need & Page.EXECUTE) === 0;
      const isVirtual = isData && this.#apic.virtualizes(offset, (need & Page.WRITE) !== 0);
      return isVirtual ? Page.KNOWN | Page.DEVICE : Page.KNOWN;
    }
    const below =
      under >> 32n === 0n
        ? this.#port.ownPage(Number(under >> 12n), need)
        : Page.DEVICE | Page.KNOWN;
    let entry: number;
    let isCached = page < PHYSICAL_MAP_PAGES;
    if ((below & Page.DEVICE) !== 0) {
      const both = Page.READ | Page.WRITE;
      isCached &&= (this.#ept.rights & both) === both && this.#ept.isDirty;
      entry = Page.KNOWN | Page.DEVICE;
    } else {
      const rights = this.#ept.rights & below & 7;
      const known = this.#ept.isDirty ? rights : rights & ~Page.WRITE;
      entry = ((below & -4096) | known | Page.KNOWN) >>> 0;
    }
    if (isCached) {
      view.setUint32(GUEST_PHYSICAL_MAP + 4 * page, entry, true);
      this.#mapped.push(page);
    }
    return entry | 0;
  }

  /** Page-modification logging. Answers false if the log is full. */
  #logDirty(address: bigint): boolean {
    if (!this.#secondary(SecondaryControl.PML)) return true;
    const index = this.#vmcs.number(Field.PML_INDEX) & 0xffff;
    if (index >= PML_ENTRIES) return false;
    const at = this.#hostOf(this.#vmcs.big(Field.PML_ADDRESS) + BigInt(8 * index));
    if (at !== 0) this.#view.setBigUint64(at, address & ~0xfffn, true);
    this.#vmcs.set(Field.PML_INDEX, (index - 1) & 0xffff);
    return true;
  }

  #forgetMapped(): void {
    const view = this.#view;
    if (this.#mapped.length > MANY_PAGES)
      new Uint8Array(view.buffer, GUEST_PHYSICAL_MAP, 4 * PHYSICAL_MAP_PAGES).fill(0);
    else for (const page of this.#mapped) view.setUint32(GUEST_PHYSICAL_MAP + 4 * page, 0, true);
    this.#mapped = [];
  }

  /** Forgets the linear translations of the guest's guest: they get new numbers. */
  #forgetLinear(): void {
    new Uint8Array(this.#view.buffer, GUEST_PCID_MAP, 2 * PCIDS).fill(0);
  }

  #forgetAll(): void {
    this.#forgetMapped();
    this.#forgetLinear();
    this.#cachedVpid = -1;
    this.#cachedEptp = -1n;
  }

  // ---- control bits of the current VMCS ----

  #pin(bit: number): boolean {
    return (this.#vmcs.number(Field.PIN_CONTROLS) & bit) !== 0;
  }

  #primary(bit: number): boolean {
    return (this.#vmcs.number(Field.PRIMARY_CONTROLS) & bit) !== 0;
  }

  #secondary(bit: number): boolean {
    return (
      this.#primary(PrimaryControl.SECONDARY) &&
      (this.#vmcs.number(Field.SECONDARY_CONTROLS) & bit) !== 0
    );
  }

  #exitControl(bit: number): boolean {
    return (this.#vmcs.number(Field.EXIT_CONTROLS) & bit) !== 0;
  }

  /** Joins the guest hypervisor's controls to ours in the hot form (S.CTL_*), which holds ours alone. */
  overlay(): void {
    const view = this.#view;
    if (!this.#inside) return;
    const v = this.#vmcs;
    const or = (at: number, bits: number): void =>
      view.setInt32(at, view.getInt32(at, true) | bits, true);
    const pin = v.number(Field.PIN_CONTROLS);
    or(
      S.CTL_PIN.at,
      pin & (PinControl.EXTERNAL_INTERRUPT | PinControl.NMI | PinControl.VIRTUAL_NMI),
    );
    const ours = view.getInt32(S.CTL_PRIMARY.at, true);
    const theirs = v.number(Field.PRIMARY_CONTROLS) & JOINED_PRIMARY;
    // With a TPR shadow MOV CR8 is carried out here.
    const shadow = this.#apic.hasShadow ? PrimaryControl.CR8_LOAD | PrimaryControl.CR8_STORE : 0;
    view.setInt32(S.CTL_PRIMARY.at, ours | theirs | shadow, true);
    const second = this.#primary(PrimaryControl.SECONDARY) ? v.number(Field.SECONDARY_CONTROLS) : 0;
    const ourSecond = view.getInt32(S.CTL_SECONDARY.at, true);
    view.setInt32(
      S.CTL_SECONDARY.at,
      (ourSecond & ~ENABLING_SECONDARY) |
        (ourSecond & second & ENABLING_SECONDARY) |
        (second & JOINED_SECONDARY),
      true,
    );
    or(S.CTL_EXCEPTION_BITMAP.at, v.number(Field.EXCEPTION_BITMAP));
    view.setUint32(S.CTL_PF_MASK.at, v.number(Field.PF_ERROR_MASK), true);
    view.setUint32(S.CTL_PF_MATCH.at, v.number(Field.PF_ERROR_MATCH), true);
    view.setUint32(S.CTL_CR3_TARGETS.at, v.number(Field.CR3_TARGET_COUNT), true);
    for (const [at, field] of WIDE) view.setBigUint64(at, v.big(field), true);
    this.#joinMsrBitmap();
  }

  /** The MSR bitmap of both, in a page of our own; without one of the guest's every access exits. */
  #joinMsrBitmap(): void {
    const view = this.#view;
    const ours = view.getUint32(S.CTL_MSR_BITMAP.at, true);
    const theirs = this.#primary(PrimaryControl.MSR_BITMAPS)
      ? this.#hostOf(this.#vmcs.big(Field.MSR_BITMAP))
      : 0;
    if (ours === 0 || theirs === 0) {
      view.setUint32(S.CTL_MSR_BITMAP.at, 0, true);
      return;
    }
    const from = new Uint32Array(view.buffer, theirs, 1024);
    const base = new Uint32Array(view.buffer, ours, 1024);
    const to = new Uint32Array(view.buffer, JOINED_MSR_BITMAP, 1024);
    for (let i = 0; i < 1024; i++) to[i] = base[i]! | from[i]!;
    view.setUint32(S.CTL_MSR_BITMAP.at, JOINED_MSR_BITMAP, true);
  }

  // ---- exits of the engine ----

  /** An exit with `reason` (S.EXIT_*). Answers true if it has been dealt with; else S.EXIT_REASON is our hypervisor's. */
  handle(reason: number): boolean {
    if (this.#inside) return this.#exitOfGuest(reason);
    switch (reason) {
      case ExitReason.VMXON:
        return this.#finish(this.#vmxonInstruction());
      case ExitReason.VMXOFF:
        return this.#finish(this.#inRoot(() => this.#vmxoff()));
      case ExitReason.VMCLEAR:
        return this.#finish(this.#inRoot(() => this.#vmclear()));
      case ExitReason.VMPTRLD:
        return this.#finish(this.#inRoot(() => this.#vmptrld()));
      case ExitReason.VMPTRST:
        return this.#finish(this.#inRoot(() => this.#vmptrst()));
      case ExitReason.VMREAD:
        return this.#finish(this.#inRoot(() => this.#vmread()));
      case ExitReason.VMWRITE:
        return this.#finish(this.#inRoot(() => this.#vmwrite()));
      case ExitReason.INVEPT:
        return this.#finish(this.#inRoot(() => this.#invept()));
      case ExitReason.INVVPID:
        return this.#finish(this.#inRoot(() => this.#invvpid()));
      case ExitReason.VMCALL:
        return this.#finish(this.#inRoot(() => VmxError.VMCALL_IN_ROOT));
      case ExitReason.VMLAUNCH:
      case ExitReason.VMRESUME:
        return this.#enter(reason === ExitReason.VMLAUNCH);
      default:
        return false;
    }
  }

  // ---- how instructions end ----

  /** What stands before every VMX instruction but VMXON. */
  #inRoot(body: () => Outcome): Outcome {
    if (this.#vmxon === NO_POINTER) return { vector: UD };
    if (this.#view.getUint32(S.CPL.at, true) !== 0) return { vector: GP, error: 0 };
    return body();
  }

  /** VMsucceed, VMfail or a fault. Answers false if delivering the fault has come to an exit of ours. */
  #finish(outcome: Outcome): boolean {
    if (isFault(outcome)) return this.#raise(outcome);
    const view = this.#view;
    const flags = readRflags(view) & ~(ARITHMETIC | RFLAGS.RF);
    if (outcome === SUCCEED) writeRflags(view, flags);
    else if (outcome === KEEP_FLAGS) writeRflags(view, readRflags(view) & ~RFLAGS.RF);
    else if (outcome === FAIL_INVALID || this.#current === NO_POINTER)
      writeRflags(view, flags | RFLAGS.CF);
    else {
      writeRflags(view, flags | RFLAGS.ZF);
      this.#vmcs.set(Field.INSTRUCTION_ERROR, outcome as number);
    }
    advance(this.#port.engine);
    return true;
  }

  #raise({ vector, error }: Fault): boolean {
    if (this.#port.engine.raise(vector, error ?? 0) !== Status.EXIT) return true;
    return this.#inside && this.#exitOfGuest(this.#view.getUint32(S.EXIT_REASON.at, true));
  }

  // ---- VMX instructions ----

  /** The 64-bit address operand of VMXON, VMCLEAR, VMPTRLD. */
  #pointer(): bigint | Fault {
    const words = this.#operands.read(8);
    return isFault(words) ? words : words[0];
  }

  #isBadPointer(address: bigint): boolean {
    return (address & 0xfffn) !== 0n || address >> BigInt(this.limits.physicalBits) !== 0n;
  }

  #vmxonInstruction(): Outcome {
    const view = this.#view;
    if ((view.getUint32(S.CR4.at, true) & Cr4.VMXE) === 0) return { vector: UD };
    if (view.getUint32(S.CPL.at, true) !== 0) return { vector: GP, error: 0 };
    if (this.#vmxon !== NO_POINTER) return VmxError.VMXON_IN_ROOT;
    const missing = this.limits.cr0Fixed & ~view.getBigUint64(S.CR0.at, true);
    if (missing !== 0n) return { vector: GP, error: 0 };
    const address = this.#pointer();
    if (isFault(address)) return address;
    if (this.#isBadPointer(address)) return FAIL_INVALID;
    const at = this.#hostOf(address);
    if (at === 0 || view.getUint32(at, true) !== REVISION) return FAIL_INVALID;
    this.#vmxon = address;
    this.#setCurrent(NO_POINTER);
    this.#beginOperation();
    return SUCCEED;
  }

  /** From here on two hierarchies of translations share the TLB. */
  #beginOperation(): void {
    const view = this.#view;
    view.setUint32(S.HIGH_FLUSHES.at, NEVER_SHARED, true);
    this.#requireBits(false);
    this.#forgetAll();
    this.#port.engine.flushTlb();
  }

  /** What MOV to CR0 and CR4 may not clear. */
  #requireBits(isUnrestricted: boolean): void {
    const view = this.#view;
    const free = isUnrestricted ? BigInt(Cr0.PE) | BigInt(Cr0.PG) : 0n;
    view.setBigUint64(S.CR0_REQUIRED.at, this.limits.cr0Fixed & ~free, true);
    view.setBigUint64(S.CR4_REQUIRED.at, this.limits.cr4Fixed, true);
  }

  #vmxoff(): Outcome {
    const view = this.#view;
    this.#vmxon = NO_POINTER;
    this.#setCurrent(NO_POINTER);
    view.setBigUint64(S.CR0_REQUIRED.at, 0n, true);
    view.setBigUint64(S.CR4_REQUIRED.at, 0n, true);
    return SUCCEED;
  }

  #setCurrent(address: bigint): void {
    this.#current = address;
    this.#mustCheck = true;
    this.#locate();
  }

  /** The place of the current VMCS, which our own hypervisor may have moved or taken away. */
  #locate(): void {
    this.#mustCheck = true;
    const at = this.#current === NO_POINTER ? 0 : this.#hostOf(this.#current);
    this.#vmcs.at = at === 0 ? LOST_VMCS : at;
    this.#apic.locate();
  }

  #vmclear(): Outcome {
    const address = this.#pointer();
    if (isFault(address)) return address;
    if (this.#isBadPointer(address)) return VmxError.VMCLEAR_ADDRESS;
    if (address === this.#vmxon) return VmxError.VMCLEAR_VMXON;
    const at = this.#hostOf(address);
    if (at === 0) return VmxError.VMCLEAR_ADDRESS;
    this.#other.at = at;
    this.#other.isLaunched = false;
    if (address === this.#current) this.#setCurrent(NO_POINTER);
    return SUCCEED;
  }

  #vmptrld(): Outcome {
    const address = this.#pointer();
    if (isFault(address)) return address;
    if (this.#isBadPointer(address)) return VmxError.VMPTRLD_ADDRESS;
    if (address === this.#vmxon) return VmxError.VMPTRLD_VMXON;
    const at = this.#hostOf(address);
    if (at === 0) return VmxError.VMPTRLD_ADDRESS;
    this.#other.at = at;
    const shadows = (this.limits.secondary.allowed & SecondaryControl.VMCS_SHADOWING) !== 0;
    if (this.#other.revision !== REVISION || (this.#other.isShadow && !shadows))
      return VmxError.VMPTRLD_REVISION;
    this.#setCurrent(address);
    return SUCCEED;
  }

  #vmptrst(): Outcome {
    return this.#operands.write(8, this.#current) ?? SUCCEED;
  }

  /** Part of a field that an encoding names: bit 0 is the upper half of a 64-bit field. */
  #fieldOf(encoding: bigint): { field: number; isHigh: boolean } | null {
    if (encoding > 0x7fffn) return null;
    const isHigh = (encoding & 1n) !== 0n;
    const field = Number(encoding & ~1n);
    if (!this.#fields.has(field)) return null;
    if (isHigh && ((field >> 13) & 3) !== 1) return null;
    return { field, isHigh };
  }

  #vmread(): Outcome {
    if (this.#current === NO_POINTER) return FAIL_INVALID;
    return this.#readField(this.#vmcs);
  }

  #readField(vmcs: GuestVmcs): Outcome {
    const ops = this.#operands;
    const place = this.#fieldOf(ops.register(ops.second));
    if (!place) return VmxError.UNSUPPORTED_FIELD;
    const whole = vmcs.big(place.field);
    const value = place.isHigh ? whole >> 32n : whole;
    if (ops.isRegister) ops.setRegister(ops.first, value);
    else return ops.write(ops.width, value) ?? SUCCEED;
    return SUCCEED;
  }

  #vmwrite(): Outcome {
    if (this.#current === NO_POINTER) return FAIL_INVALID;
    const encoding = this.#operands.register(this.#operands.second);
    if (!UNCHECKED.has(Number(encoding & 0xffffn))) this.#mustCheck = true;
    return this.#writeField(this.#vmcs);
  }

  #writeField(vmcs: GuestVmcs): Outcome {
    const ops = this.#operands;
    let value: bigint;
    if (ops.isRegister) value = ops.register(ops.first);
    else {
      const words = ops.read(ops.width);
      if (isFault(words)) return words;
      value = words[0];
    }
    const place = this.#fieldOf(ops.register(ops.second));
    if (!place) return VmxError.UNSUPPORTED_FIELD;
    if (place.isHigh) {
      const low = vmcs.big(place.field) & 0xffff_ffffn;
      vmcs.setBig(place.field, ((value & 0xffff_ffffn) << 32n) | low);
    } else vmcs.setBig(place.field, value);
    return SUCCEED;
  }

  #invept(): Outcome {
    const type = this.#operands.register(this.#operands.second);
    if (type !== 1n && type !== 2n) return VmxError.INVALID_OPERAND;
    const words = this.#operands.read(16);
    if (isFault(words)) return words;
    if (type === 1n && !this.#isGoodEptp(words[0])) return VmxError.INVALID_OPERAND;
    this.#forgetAll();
    return SUCCEED;
  }

  #isGoodEptp(eptp: bigint): boolean {
    const type = eptp & 7n;
    return (
      (type === 0n || type === 6n) &&
      (eptp & 0xfb8n) === 0x18n &&
      eptp >> BigInt(this.limits.physicalBits) === 0n
    );
  }

  #invvpid(): Outcome {
    const type = this.#operands.register(this.#operands.second);
    if (type > 3n) return VmxError.INVALID_OPERAND;
    const words = this.#operands.read(16);
    if (isFault(words)) return words;
    const [vpid, linear] = words;
    const ALL = 2n;
    if (vpid >> 16n !== 0n) return VmxError.INVALID_OPERAND;
    if (type !== ALL && vpid === 0n) return VmxError.INVALID_OPERAND;
    if (type === 0n && BigInt.asUintN(64, BigInt.asIntN(48, linear)) !== linear)
      return VmxError.INVALID_OPERAND;
    // More than asked for: everything of the guest's guest.
    this.#forgetLinear();
    return SUCCEED;
  }

  // ---- VM entry ----

  #enter(isLaunch: boolean): boolean {
    const refused = this.#inRoot(() => this.#refusal(isLaunch));
    if (refused !== SUCCEED) return this.#finish(refused);
    const vmcs = this.#vmcs;
    const bad = this.#guestProblem();
    if (bad !== null) return this.#failEntry(ExitReason.ENTRY_GUEST_STATE, bad);
    this.#load();
    const failed = this.#msrs.load(
      vmcs.big(Field.ENTRY_MSR_LOAD),
      vmcs.number(Field.ENTRY_MSR_LOAD_COUNT),
      (physical) => this.#hostOf(physical),
    );
    if (failed !== 0) return this.#failEntry(ExitReason.ENTRY_MSR_LOAD, BigInt(failed));
    vmcs.isLaunched = true;
    this.#inside = true;
    this.#mustCheck = false;
    this.#port.reloadControls();
    this.#enterMaps();
    this.#startTimer();
    return this.#injectOnEntry();
  }

  /** Why there is no VM entry at all: VMfail, or a fault. */
  #refusal(isLaunch: boolean): Outcome {
    const view = this.#view;
    if (this.#current === NO_POINTER || this.#vmcs.isShadow) return FAIL_INVALID;
    if ((view.getUint32(S.INTERRUPTIBILITY.at, true) & BLOCKING_MOV_SS) !== 0)
      return VmxError.MOV_SS;
    const vmcs = this.#vmcs;
    if (isLaunch && vmcs.isLaunched) return VmxError.VMLAUNCH_NOT_CLEAR;
    if (!isLaunch && !vmcs.isLaunched) return VmxError.VMRESUME_NOT_LAUNCHED;
    const context = this.#checkContext();
    const controls = this.#mustCheck ? EntryChecks.controls : EntryChecks.injection;
    if (firstBroken(controls, vmcs, context) || this.#apic.isThresholdBad) return VmxError.CONTROLS;
    if (this.#mustCheck && firstBroken(EntryChecks.host, vmcs, context)) return VmxError.HOST_STATE;
    return SUCCEED;
  }

  #checkContext(): { limits: EntryLimits; fromLong: boolean } {
    const fromLong = (this.#view.getUint32(S.EFER.at, true) & Efer.LMA) !== 0;
    return { limits: this.limits, fromLong };
  }

  /** Exit qualification of an entry that guest state forbids, or null. */
  #guestProblem(): bigint | null {
    const vmcs = this.#vmcs;
    const checks = this.#mustCheck ? EntryChecks.guest : EntryChecks.volatile;
    const broken = firstBroken(checks, vmcs, this.#checkContext());
    if (broken?.text.startsWith("VMCS link")) return EntryQualification.LINK;
    if (broken?.text.startsWith("PDPTE")) return EntryQualification.PDPTE;
    if (broken) return EntryQualification.NONE;
    const link = vmcs.big(Field.VMCS_LINK);
    if (link !== NO_POINTER) {
      this.#other.at = this.#hostOf(link);
      const shadows = this.#secondary(SecondaryControl.VMCS_SHADOWING);
      const isBad =
        this.#other.at === 0 ||
        link === this.#current ||
        this.#other.revision !== REVISION ||
        this.#other.isShadow !== shadows;
      if (isBad) return EntryQualification.LINK;
    }
    if (
      usesPae(vmcs) &&
      !this.#secondary(SecondaryControl.EPT) &&
      !this.#pdptesAt(vmcs.big(Field.GUEST_CR3))
    )
      return EntryQualification.PDPTE;
    return null;
  }

  /** The four PAE page-directory-pointer entries under a CR3, or null if they cannot be loaded. */
  #pdptesAt(cr3: bigint): bigint[] | null {
    const at = this.#hostOf(cr3 & 0xffff_ffe0n);
    if (at === 0) return null;
    const entries = [0, 1, 2, 3].map((i) => this.#view.getBigUint64(at + 8 * i, true));
    return entries.some((e) => isBadPdpte(e, this.limits.physicalBits)) ? null : entries;
  }

  #load(): void {
    const vmcs = this.#vmcs;
    loadGuestState(this.#view, vmcs);
    if (!usesPae(vmcs)) return;
    if (this.#secondary(SecondaryControl.EPT)) loadGuestPdptes(this.#view, vmcs);
    else this.#loadPdptes(vmcs.big(Field.GUEST_CR3));
  }

  #loadPdptes(cr3: bigint): boolean {
    const entries = this.#pdptesAt(cr3);
    if (!entries) return false;
    [S.PDPTE0, S.PDPTE1, S.PDPTE2, S.PDPTE3].forEach(({ at }, i) => {
      this.#view.setBigUint64(at, entries[i]!, true);
    });
    return true;
  }

  /** An entry that fails after the checks on host state: the exit loads host state, saves nothing. */
  #failEntry(reason: number, qualification: bigint): boolean {
    const vmcs = this.#vmcs;
    vmcs.set(Field.EXIT_REASON, ENTRY_FAILURE + reason);
    vmcs.setBig(Field.EXIT_QUALIFICATION, qualification);
    this.#leaveTo(false, false);
    return true;
  }

  /** Translations of the guest's guest, those of an earlier stay if VPID and EPT let them be. */
  #enterMaps(): void {
    const view = this.#view;
    this.#usesEpt = this.#secondary(SecondaryControl.EPT);
    this.#eptp = this.#usesEpt ? this.#vmcs.big(Field.EPTP) : -1n;
    const apicPage = this.#apic.virtualizesAccesses ? this.#vmcs.big(Field.APIC_ACCESS) : -1n;
    this.#usesMap = this.#usesEpt || apicPage >= 0n;
    const vpid = this.#secondary(SecondaryControl.VPID) ? this.#vmcs.number(Field.VPID) : 0;
    if (vpid === 0) this.#forgetHost();
    const isSameMap = this.#eptp === this.#cachedEptp && apicPage === this.#apicPage;
    if (vpid === 0 || vpid !== this.#cachedVpid || !isSameMap) {
      this.#forgetLinear();
      if (!isSameMap) this.#forgetMapped();
      this.#cachedVpid = vpid;
      this.#cachedEptp = this.#eptp;
      this.#apicPage = apicPage;
    }
    view.setUint32(S.GUEST_EPT.at, this.#usesMap ? 1 : 0, true);
    view.setUint32(S.PHYSICAL_BASE.at, this.#usesMap ? MAP_DISTANCE : 0, true);
    view.setUint32(S.PCID_BASE.at, GUEST_PCID_MAP - PCID_MAP, true);
    this.#requireBits(this.#secondary(SecondaryControl.UNRESTRICTED_GUEST));
    this.#port.engine.enterAddressSpace(false);
  }

  /** Without VPID an entry and an exit flush what the guest hypervisor has cached, too. */
  #forgetHost(): void {
    new Uint8Array(this.#view.buffer, PCID_MAP, 2 * PCIDS).fill(0);
  }

  #startTimer(): void {
    this.#deadline = Infinity;
    if (!this.#pin(PinControl.PREEMPTION_TIMER)) return;
    const scale = 2 ** PREEMPTION_SHIFT;
    const start = Math.floor(this.#port.tsc() / scale);
    this.#deadline = (start + this.#vmcs.number(Field.PREEMPTION_TIMER)) * scale;
  }

  #injectOnEntry(): boolean {
    const vmcs = this.#vmcs;
    const view = this.#view;
    const info = vmcs.number(Field.ENTRY_INTERRUPTION_INFO);
    view.setUint32(S.VECTORING.at, 0, true);
    const effect = this.#apic.enter();
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
    if (reason === ExitReason.CR_ACCESS && this.#apic.hasShadow) {
      const done = this.#virtual.taskPriority();
      if (done !== null) return done;
    }
    if (!wantsExit(reason, this.#vmcs, this.#memory)) return this.#virtualize(reason);
    if (reason === ExitReason.VMREAD || reason === ExitReason.VMWRITE) {
      const done = this.#shadowAccess(reason);
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
    if (reason === ExitReason.INTERRUPT_WINDOW && this.#apic.isRecognized) {
      const vector = this.#apic.accept();
      this.#port.showWindow();
      const status = this.#port.inject(INTERRUPTION_VALID + vector, 0, 0);
      return status !== Status.EXIT || this.#exitOfGuest(view.getUint32(S.EXIT_REASON.at, true));
    }
    if (reason !== ExitReason.RDMSR && reason !== ExitReason.WRMSR) return false;
    return this.#virtual.msr(reason) ?? false;
  }

  /** An acknowledged external interrupt. Answers true if it was the notification of posted interrupts: nothing else comes of it. */
  takePosted(vector: number): boolean {
    if (!this.#inside || !this.#apic.takePosted(vector)) return false;
    this.#port.showWindow();
    return true;
  }

  // ---- EPT exits ----

  /** An access that the physical map has not let through: the guest's EPT forbids it, or it is a device of ours. */
  #memoryExit(): boolean {
    const view = this.#view;
    if (!this.#usesMap) return false;
    const writes = view.getUint32(S.DEVICE_WRITE_COUNT.at, true);
    if (writes > 0) return this.#deviceWrites(writes);
    const address = view.getBigUint64(S.EXIT_PHYSICAL.at, true);
    const qualification = view.getUint32(S.EXIT_QUALIFICATION.at, true);
    const need = qualification & 7;
    const result = this.#walk(address, need, null);
    if (result === EptResult.OK && (this.#ept.physical & ~0xfffn) === this.#apicPage)
      return this.#apicAccess(Number(address & 0xfffn), need);
    if (result === EptResult.OK && this.#isLogFull(need)) {
      view.setBigUint64(S.EXIT_QUALIFICATION.at, BigInt(qualification & 0x1000), true);
      view.setUint32(S.EXIT_INTERRUPTION.at, 0, true);
      return this.#exit(ExitReason.PML_FULL);
    }
    if (result === EptResult.OK) {
      view.setBigUint64(S.EXIT_PHYSICAL.at, this.#ept.physical, true);
      return false;
    }
    view.setUint32(S.EXIT_INTERRUPTION.at, 0, true);
    view.setUint32(S.DEVICE_SIZE.at, 0, true);
    if (result === EptResult.MISCONFIGURATION) {
      view.setBigUint64(S.EXIT_QUALIFICATION.at, 0n, true);
      return this.#exit(ExitReason.EPT_MISCONFIGURATION);
    }
    const full = qualification | violationRights(this.#ept.rights);
    view.setBigUint64(S.EXIT_QUALIFICATION.at, BigInt(full), true);
    return this.#exit(ExitReason.EPT_VIOLATION);
  }

  #isLogFull(need: number): boolean {
    return (
      (need & Page.WRITE) !== 0 &&
      !this.#ept.isDirty &&
      this.#secondary(SecondaryControl.PML) &&
      (this.#vmcs.number(Field.PML_INDEX) & 0xffff) >= PML_ENTRIES
    );
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
      if (this.#walk(address, Page.WRITE, null) !== EptResult.OK) continue;
      const physical = this.#ept.physical;
      if ((physical & ~0xfffn) === this.#apicPage) {
        const offset = Number(physical & 0xfffn);
        effect = this.#apic.write(offset, Number(data & 0xffff_ffffn), sizeAndHigh & 0xff);
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

  /** VMREAD and VMWRITE of a guest's guest on the shadow VMCS, where the bitmaps let it; null if it is an exit. */
  #shadowAccess(reason: number): Outcome | null {
    if (!this.#secondary(SecondaryControl.VMCS_SHADOWING)) return null;
    const ops = this.#operands;
    const encoding = ops.register(ops.second);
    if (encoding > 0x7fffn) return null;
    const isRead = reason === ExitReason.VMREAD;
    const page = this.#vmcs.big(isRead ? Field.VMREAD_BITMAP : Field.VMWRITE_BITMAP);
    const at = this.#hostOf(page + (encoding >> 3n));
    if (at === 0 || ((this.#view.getUint8(at) >> Number(encoding & 7n)) & 1) !== 0) return null;
    if (this.#view.getUint32(S.CPL.at, true) !== 0) return { vector: GP, error: 0 };
    const link = this.#vmcs.big(Field.VMCS_LINK);
    this.#other.at = link === NO_POINTER ? 0 : this.#hostOf(link);
    if (this.#other.at === 0) return FAIL_INVALID;
    const outcome = isRead ? this.#readField(this.#other) : this.#writeField(this.#other);
    if (typeof outcome !== "number" || outcome <= 0) return outcome;
    // VMfail: the error number goes to the shadow VMCS.
    this.#other.set(Field.INSTRUCTION_ERROR, outcome);
    const view = this.#view;
    writeRflags(view, (readRflags(view) & ~ARITHMETIC) | RFLAGS.ZF);
    return KEEP_FLAGS;
  }

  /** VMFUNC 0. Answers false if it is an exit. */
  #switchEptp(): boolean {
    const view = this.#view;
    const vmcs = this.#vmcs;
    const index = view.getUint32(GPR + 8, true);
    const isOn = (vmcs.big(Field.VM_FUNCTION_CONTROLS) & BigInt(EPTP_SWITCHING)) !== 0n;
    if (view.getUint32(gprAt(0), true) !== 0 || !isOn || index > 511) return false;
    const at = this.#hostOf(vmcs.big(Field.EPTP_LIST) + BigInt(8 * index));
    if (at === 0) return false;
    const eptp = view.getBigUint64(at, true);
    if (!this.#isGoodEptp(eptp)) return false;
    vmcs.setBig(Field.EPTP, eptp);
    this.#enterMaps();
    advance(this.#port.engine);
    return true;
  }

  /** VM exit to the guest hypervisor; S.EXIT_* but the reason are set. */
  #exit(reason: number): boolean {
    const view = this.#view;
    const vmcs = this.#vmcs;
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
    if (this.#exitControl(ExitControl.SAVE_PREEMPTION_TIMER)) {
      const left = Math.max(0, this.#deadline - this.#port.tsc());
      vmcs.set(Field.PREEMPTION_TIMER, Math.floor(left / 2 ** PREEMPTION_SHIFT));
    }
    const stored = this.#msrs.store(
      vmcs.big(Field.EXIT_MSR_STORE),
      vmcs.number(Field.EXIT_MSR_STORE_COUNT),
      (physical) => this.#hostOf(physical),
    );
    if (!stored) return this.#abort(ABORT.MSR_STORE);
    return this.#leaveTo(isNmi || (wasBlocked && !this.#pin(PinControl.VIRTUAL_NMI)), true);
  }

  /** Host state and what comes with it. `hasEntered`: the maps are those of the guest's guest. */
  #leaveTo(blocksNmi: boolean, hasEntered: boolean): boolean {
    const view = this.#view;
    const vmcs = this.#vmcs;
    loadHostState(view, vmcs, blocksNmi);
    const isLong = (view.getUint32(S.EFER.at, true) & Efer.LMA) !== 0;
    const isPae =
      !isLong &&
      (view.getUint32(S.CR4.at, true) & Cr4.PAE) !== 0 &&
      (view.getUint32(S.CR0.at, true) & (Cr0.PG | 0)) !== 0;
    if (isPae && !this.#loadPdptes(vmcs.big(Field.HOST_CR3))) return this.#abort(ABORT.HOST_PDPTE);
    const hasVpid = this.#secondary(SecondaryControl.VPID);
    this.#inside = false;
    this.#usesEpt = false;
    this.#usesMap = false;
    this.#deadline = Infinity;
    this.#apic.isRecognized = false;
    view.setUint32(S.DEVICE_REPLY_COUNT.at, 0, true);
    view.setUint32(S.DEVICE_REPLY_NEXT.at, 0, true);
    view.setUint32(S.GUEST_EPT.at, 0, true);
    view.setUint32(S.PHYSICAL_BASE.at, 0, true);
    view.setUint32(S.PCID_BASE.at, 0, true);
    view.setUint32(S.VECTORING.at, 0, true);
    this.#requireBits(false);
    if (!hasVpid && hasEntered) this.#forgetHost();
    this.#port.reloadControls();
    const failed = this.#msrs.load(
      vmcs.big(Field.EXIT_MSR_LOAD),
      vmcs.number(Field.EXIT_MSR_LOAD_COUNT),
      (physical) => this.#hostOf(physical),
    );
    if (failed !== 0) return this.#abort(ABORT.MSR_LOAD);
    this.#port.engine.enterAddressSpace(false);
    return true;
  }

  /** VMX abort: the processor shuts down. SDM Vol. 3C, "VMX Aborts". */
  #abort(indicator: number): boolean {
    const view = this.#view;
    this.#vmcs.abort = indicator;
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
    if (!interceptsException(this.#vmcs, vector, error)) return false;
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

/** Fields that hypervisors write at every exit, and whose rules are looked at at every entry. */
const UNCHECKED = new Set<number>([
  Field.GUEST_RIP,
  Field.GUEST_RSP,
  Field.GUEST_RFLAGS,
  Field.GUEST_INTERRUPTIBILITY,
  Field.GUEST_PENDING_DEBUG,
  Field.GUEST_INTERRUPT_STATUS,
  Field.ENTRY_INTERRUPTION_INFO,
  Field.ENTRY_ERROR_CODE,
  Field.ENTRY_INSTRUCTION_LENGTH,
  Field.EXCEPTION_BITMAP,
  Field.PREEMPTION_TIMER,
  Field.TPR_THRESHOLD,
  Field.TSC_OFFSET,
  Field.HOST_RSP,
]);

const MAP_DISTANCE = GUEST_PHYSICAL_MAP - PHYSICAL_MAP;
