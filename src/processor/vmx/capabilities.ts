/**
 * What this processor's VMX offers to guests: controls that may be 0 and 1, and the capability MSRs that say so.
 * SDM Vol. 3D, appendix "VMX Capability Reporting Facility". One table: VM entry checks controls against it, and RDMSR answers it.
 */
import { PHYSICAL_BITS } from "../isa/cpuid.ts";
import {
  EntryControl,
  ExitControl,
  Field,
  PinControl,
  PrimaryControl,
  SecondaryControl,
} from "../isa/vmcs-fields.ts";

/** Bits that must be 1 (`fixed`) and bits that may be 1 (`allowed`) in a control word. */
export interface ControlWord {
  readonly fixed: number;
  readonly allowed: number;
}

export interface EntryLimits {
  readonly pin: ControlWord;
  readonly primary: ControlWord;
  readonly secondary: ControlWord;
  readonly exit: ControlWord;
  readonly entry: ControlWord;
  readonly cr0Fixed: bigint;
  readonly cr4Fixed: bigint;
  readonly cr4Allowed: bigint;
  readonly eferAllowed: bigint;
  readonly physicalBits: number;
  /** Bit n: activity state n is supported. */
  readonly activities: number;
}

/** Reserved bits that read 1 ("default1"); those that the TRUE capability MSRs let software clear are in the second column. */
const DEFAULT1 = {
  pin: [0x16, 0],
  primary: [0x0401_e172, PrimaryControl.CR3_LOAD | PrimaryControl.CR3_STORE],
  exit: [0x0003_6dff, ExitControl.SAVE_DEBUG],
  entry: [0x0000_11ff, EntryControl.LOAD_DEBUG],
} as const;

const sum = (bits: readonly number[]): number => bits.reduce((all, bit) => all | bit, 0);

const PIN = sum([
  PinControl.EXTERNAL_INTERRUPT,
  PinControl.NMI,
  PinControl.VIRTUAL_NMI,
  PinControl.PREEMPTION_TIMER,
  PinControl.POSTED_INTERRUPTS,
]);
const PRIMARY = sum([
  PrimaryControl.INTERRUPT_WINDOW,
  PrimaryControl.TSC_OFFSETTING,
  PrimaryControl.HLT,
  PrimaryControl.INVLPG,
  PrimaryControl.MWAIT,
  PrimaryControl.RDPMC,
  PrimaryControl.RDTSC,
  PrimaryControl.CR3_LOAD,
  PrimaryControl.CR3_STORE,
  PrimaryControl.CR8_LOAD,
  PrimaryControl.CR8_STORE,
  PrimaryControl.TPR_SHADOW,
  PrimaryControl.NMI_WINDOW,
  PrimaryControl.MOV_DR,
  PrimaryControl.UNCONDITIONAL_IO,
  PrimaryControl.IO_BITMAPS,
  PrimaryControl.MONITOR_TRAP,
  PrimaryControl.MSR_BITMAPS,
  PrimaryControl.MONITOR,
  PrimaryControl.PAUSE,
  PrimaryControl.SECONDARY,
]);
const SECONDARY = sum([
  SecondaryControl.APIC_ACCESSES,
  SecondaryControl.X2APIC,
  SecondaryControl.APIC_REGISTERS,
  SecondaryControl.VIRTUAL_INTERRUPTS,
  SecondaryControl.EPT,
  SecondaryControl.DESCRIPTOR_TABLE,
  SecondaryControl.VPID,
  SecondaryControl.WBINVD,
  SecondaryControl.UNRESTRICTED_GUEST,
  SecondaryControl.RDRAND,
  SecondaryControl.VM_FUNCTIONS,
  SecondaryControl.VMCS_SHADOWING,
  SecondaryControl.RDSEED,
  SecondaryControl.PML,
  SecondaryControl.TSC_SCALING,
]);
const EXIT = sum([
  ExitControl.SAVE_DEBUG,
  ExitControl.HOST_64,
  ExitControl.ACKNOWLEDGE_INTERRUPT,
  ExitControl.SAVE_PAT,
  ExitControl.LOAD_PAT,
  ExitControl.SAVE_EFER,
  ExitControl.LOAD_EFER,
  ExitControl.SAVE_PREEMPTION_TIMER,
]);
const ENTRY = sum([
  EntryControl.LOAD_DEBUG,
  EntryControl.IA32E_GUEST,
  EntryControl.LOAD_PAT,
  EntryControl.LOAD_EFER,
]);

/** Controls that come with an instruction set extension, by CPUID flag. */
const BY_FLAG: readonly (readonly [string, number])[] = [
  ["rdtscp", SecondaryControl.RDTSCP],
  ["invpcid", SecondaryControl.INVPCID],
  ["xsaves", SecondaryControl.XSAVES],
];

export const CR0_FIXED = 0x8000_0021n;
export const CR4_FIXED = 0x2000n;
/** Activity states that VM entry can enter besides "active": HLT. */
const ACTIVITIES = 0b11;

const word = (name: keyof typeof DEFAULT1, allowed: number): ControlWord => {
  const [all, clearable] = DEFAULT1[name];
  return { fixed: (all & ~clearable) >>> 0, allowed: (allowed | all) >>> 0 };
};

/** What a processor with these CPUID flags offers; `cr4Allowed` and `eferAllowed` are what MOV CR4 and WRMSR let through. */
export function offeredLimits(
  has: (flag: string) => boolean,
  { cr4Allowed, eferAllowed }: { cr4Allowed: bigint; eferAllowed: bigint },
): EntryLimits {
  const byFlag = sum(BY_FLAG.filter(([flag]) => has(flag)).map(([, bit]) => bit));
  return {
    pin: word("pin", PIN),
    primary: word("primary", PRIMARY),
    secondary: { fixed: 0, allowed: SECONDARY | byFlag },
    exit: word("exit", EXIT),
    entry: word("entry", ENTRY),
    cr0Fixed: CR0_FIXED,
    cr4Fixed: CR4_FIXED,
    cr4Allowed: cr4Allowed | CR4_FIXED,
    eferAllowed,
    physicalBits: PHYSICAL_BITS,
    activities: ACTIVITIES,
  };
}

const ANY: ControlWord = { fixed: 0, allowed: 0xffff_ffff };

/**
 * Limits of our own micro-hypervisor, which is no x86 program: reserved bits are free, CR0 and CR4 have no fixed bits. What the VMX-preemption
 * timer, HLT exiting and so on need of each other still holds.
 */
export const OWN_LIMITS: EntryLimits = {
  pin: { fixed: 0, allowed: PIN },
  primary: ANY,
  secondary: ANY,
  exit: ANY,
  entry: ANY,
  cr0Fixed: 0n,
  cr4Fixed: 0n,
  cr4Allowed: 0xffff_ffff_ffff_ffffn,
  eferAllowed: 0xffff_ffff_ffff_ffffn,
  physicalBits: 52,
  activities: 0b1111,
};

/** VMCS revision identifier. It changes with the layout of a VMCS in memory (guest/guest-vmcs.ts). */
export const REVISION = 0x4859_5001;
/** Preemption-timer rate for guests: TSC ticks per count = 2^PREEMPTION_SHIFT (IA32_VMX_MISC bits 4:0). */
export const PREEMPTION_SHIFT = 5;
export const CR3_TARGETS = 4;
/** Entries of an MSR area: what IA32_VMX_MISC bits 27:25 = 0 recommends. */
export const MAX_MSR_AREA = 512;

/** IA32_VMX_EPT_VPID_CAP. */
const EPT_VPID = {
  EXECUTE_ONLY: 1n << 0n,
  WALK_4: 1n << 6n,
  UNCACHEABLE: 1n << 8n,
  WRITE_BACK: 1n << 14n,
  PAGES_2M: 1n << 16n,
  PAGES_1G: 1n << 17n,
  INVEPT: 1n << 20n,
  ACCESSED_DIRTY: 1n << 21n,
  INVEPT_SINGLE: 1n << 25n,
  INVEPT_ALL: 1n << 26n,
  INVVPID: 1n << 32n,
  INVVPID_ADDRESS: 1n << 40n,
  INVVPID_SINGLE: 1n << 41n,
  INVVPID_ALL: 1n << 42n,
  INVVPID_SINGLE_GLOBALS: 1n << 43n,
} as const;
export const EPTP_SWITCHING = 1;

const IA32_VMX_BASIC = 0x480;
export const FEATURE_CONTROL = 0x3a;
const FEATURE_CONTROL_LOCKED_OUTSIDE_SMX = 5n;

/** Capability MSRs and IA32_FEATURE_CONTROL. All are read-only: the firmware that we are has locked them. */
export function capabilityMsrs(limits: EntryLimits): Map<number, bigint> {
  const truth = ({ fixed, allowed }: ControlWord): bigint =>
    (BigInt(allowed >>> 0) << 32n) | BigInt(fixed >>> 0);
  const classic = (name: keyof typeof DEFAULT1): bigint =>
    (BigInt(limits[name].allowed >>> 0) << 32n) | BigInt(DEFAULT1[name][0]);
  const OUTS_INFORMATION = 1n << 54n;
  const TRUE_MSRS = 1n << 55n;
  const WRITE_BACK = 6n << 50n;
  const basic = BigInt(REVISION) | (4096n << 32n) | WRITE_BACK | OUTS_INFORMATION | TRUE_MSRS;
  const STORES_LMA = 1n << 5n;
  const HLT_STATE = 1n << 6n;
  const WRITES_ANY_FIELD = 1n << 29n;
  const misc =
    BigInt(PREEMPTION_SHIFT) |
    STORES_LMA |
    HLT_STATE |
    (BigInt(CR3_TARGETS) << 16n) |
    WRITES_ANY_FIELD;
  const highest = Math.max(...Object.values(Field).map((encoding) => (encoding >> 1) & 0x1ff));
  const values: bigint[] = [
    basic,
    classic("pin"),
    classic("primary"),
    classic("exit"),
    classic("entry"),
    misc,
    limits.cr0Fixed,
    0xffff_ffffn,
    limits.cr4Fixed,
    limits.cr4Allowed,
    BigInt(highest << 1),
    BigInt(limits.secondary.allowed >>> 0) << 32n,
    Object.values(EPT_VPID).reduce((all, bit) => all | bit, 0n),
    truth(limits.pin),
    truth(limits.primary),
    truth(limits.exit),
    truth(limits.entry),
    BigInt(EPTP_SWITCHING),
  ];
  return new Map([
    [FEATURE_CONTROL, FEATURE_CONTROL_LOCKED_OUTSIDE_SMX],
    ...values.map((value, i) => [IA32_VMX_BASIC + i, value] as const),
  ]);
}
