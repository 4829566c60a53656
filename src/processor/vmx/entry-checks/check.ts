/** What the rows of VM-entry checks are, and what they share. */
import {
  EntryControl,
  ExitControl,
  Field,
  INTERRUPTION_VALID,
  PrimaryControl,
  SecondaryControl,
} from "../../isa/vmcs-fields.ts";
import type { ControlWord, EntryLimits } from "../capabilities.ts";

/** A VMCS as the checks read it. */
export interface CheckedVmcs {
  number(field: number): number;
  big(field: number): bigint;
}

/** What a check knows beside the VMCS. */
export interface CheckContext {
  readonly limits: EntryLimits;
  /** Whoever enters is in IA-32e mode. */
  readonly fromLong: boolean;
}

export interface EntryCheck {
  readonly text: string;
  readonly isBroken: (v: CheckedVmcs, c: CheckContext) => boolean;
  /** Field values that break the rule in a VMCS with a 64-bit guest and host, EPT, unrestricted guest and VPID. */
  readonly breaks: readonly (readonly [field: number, value: bigint])[];
}

export const pin = (v: CheckedVmcs, bit: number): boolean =>
  (v.number(Field.PIN_CONTROLS) & bit) !== 0;
export const primary = (v: CheckedVmcs, bit: number): boolean =>
  (v.number(Field.PRIMARY_CONTROLS) & bit) !== 0;
export const secondary = (v: CheckedVmcs, bit: number): boolean =>
  primary(v, PrimaryControl.SECONDARY) && (v.number(Field.SECONDARY_CONTROLS) & bit) !== 0;
export const exit = (v: CheckedVmcs, bit: number): boolean =>
  (v.number(Field.EXIT_CONTROLS) & bit) !== 0;
export const entry = (v: CheckedVmcs, bit: number): boolean =>
  (v.number(Field.ENTRY_CONTROLS) & bit) !== 0;

export const violates = (value: number, { fixed, allowed }: ControlWord): boolean =>
  (fixed & ~value) !== 0 || (value & ~allowed) !== 0;
export const beyond = (value: bigint, { limits }: CheckContext): boolean =>
  value >> BigInt(limits.physicalBits) !== 0n;
/** An address that is not that of a page (or of 2^bits bytes) in the physical address space. */
export const badAddress = (value: bigint, c: CheckContext, bits = 12n): boolean =>
  (value & ((1n << bits) - 1n)) !== 0n || beyond(value, c);
export const nonCanonical = (value: bigint): boolean =>
  BigInt.asUintN(64, BigInt.asIntN(48, value)) !== value;
export const badPat = (value: bigint): boolean => {
  for (let i = 0n; i < 64n; i += 8n) {
    const type = (value >> i) & 0xffn;
    if (type === 2n || type === 3n || type > 7n) return true;
  }
  return false;
};

export const isLong = (v: CheckedVmcs): boolean => entry(v, EntryControl.IA32E_GUEST);
export const isHost64 = (v: CheckedVmcs): boolean => exit(v, ExitControl.HOST_64);
export const isUnrestricted = (v: CheckedVmcs): boolean =>
  secondary(v, SecondaryControl.UNRESTRICTED_GUEST);
export const RFLAGS_TF = 0x100;
export const RFLAGS_IF = 0x200;
export const RFLAGS_VM = 0x2_0000;
export const isVirtual8086 = (v: CheckedVmcs): boolean =>
  (v.number(Field.GUEST_RFLAGS) & RFLAGS_VM) !== 0;

export const U64 = 0xffff_ffff_ffff_ffffn;
export const HIGH = 1n << 63n;
export const MISALIGNED = 0x10_0010n;
export const BEYOND = 1n << 45n;

/** Values for `breaks`: the control words of the VMCS that tests start from, with bits added or taken. */
export const BASE = {
  pin: 0x16n | 0x09n,
  primary: 0x0400_6172n | 0x8000_0080n,
  secondary: 0xa2n,
  exit: 0x0003_6dfbn | 0x204n,
  entry: 0x0000_11fbn | 0x204n,
} as const;
export const TEST_CONTROLS = BASE;
export const withPin = (bits: number, without = 0): readonly [number, bigint] => [
  Field.PIN_CONTROLS,
  (BASE.pin & ~BigInt(without)) | BigInt(bits),
];
export const withPrimary = (bits: number, without = 0): readonly [number, bigint] => [
  Field.PRIMARY_CONTROLS,
  (BASE.primary & ~BigInt(without)) | BigInt(bits >>> 0),
];
export const withSecondary = (bits: number, without = 0): readonly [number, bigint] => [
  Field.SECONDARY_CONTROLS,
  (BASE.secondary & ~BigInt(without)) | BigInt(bits),
];
export const withExit = (bits: number, without = 0): readonly [number, bigint] => [
  Field.EXIT_CONTROLS,
  (BASE.exit & ~BigInt(without)) | BigInt(bits),
];
export const withEntry = (bits: number, without = 0): readonly [number, bigint] => [
  Field.ENTRY_CONTROLS,
  (BASE.entry & ~BigInt(without)) | BigInt(bits),
];

export const isInjecting = (v: CheckedVmcs): boolean =>
  v.number(Field.ENTRY_INTERRUPTION_INFO) >= INTERRUPTION_VALID;
export const injectedType = (v: CheckedVmcs): number =>
  isInjecting(v) ? (v.number(Field.ENTRY_INTERRUPTION_INFO) >> 8) & 7 : -1;
export const injectedVector = (v: CheckedVmcs): number =>
  v.number(Field.ENTRY_INTERRUPTION_INFO) & 0xff;
export const ERROR_VECTORS = [8, 10, 11, 12, 13, 14, 17];
export const OTHER_EVENT = 7;
export const inject = (info: bigint): readonly [number, bigint] => [
  Field.ENTRY_INTERRUPTION_INFO,
  0x8000_0000n | info,
];
