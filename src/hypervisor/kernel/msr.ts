/**
 * Model-specific registers that exit to the kernel: APIC, TSC, and those that an operating system expects but that change nothing here.
 * The processor itself serves EFER, SYSCALL, segment-base, SYSENTER, PAT and TSC_AUX. Anything not named is #GP, as on real hardware.
 */
import { Field } from "../../processor/isa/vmcs-fields.ts";
import type { Vcpu } from "./vcpu.ts";

const Msr = {
  TSC: 0x10,
  APIC_BASE: 0x1b,
  FEATURE_CONTROL: 0x3a,
  TSC_ADJUST: 0x3b,
  SPEC_CTRL: 0x48,
  BIOS_SIGN_ID: 0x8b,
  PLATFORM_ID: 0x17,
  MTRR_CAP: 0xfe,
  ARCH_CAPABILITIES: 0x10a,
  MCG_CAP: 0x179,
  MCG_STATUS: 0x17a,
  MISC_ENABLE: 0x1a0,
  MTRR_DEF_TYPE: 0x2ff,
  TSC_DEADLINE: 0x6e0,
  X2APIC_FIRST: 0x800,
  X2APIC_LAST: 0x8ff,
  DEBUGCTL: 0x1d9,
  PLATFORM_INFO: 0xce,
  MISC_FEATURES_ENABLES: 0x140,
  PKG_ENERGY: 0x611,
  RAPL_UNIT: 0x606,
  SMI_COUNT: 0x34,
} as const;

/** Plain storage: number, value at reset, writable bits. */
const STORED: readonly (readonly [number, bigint, bigint])[] = [
  [Msr.PLATFORM_ID, 0n, 0n],
  [Msr.SMI_COUNT, 0n, 0n],
  [Msr.BIOS_SIGN_ID, 0x1_0000_0000n, -1n],
  [Msr.FEATURE_CONTROL, 1n, 0n],
  [Msr.MTRR_CAP, 0x508n, 0n],
  [Msr.ARCH_CAPABILITIES, 0n, 0n],
  [Msr.MCG_CAP, 0n, 0n],
  [Msr.MCG_STATUS, 0n, -1n],
  [Msr.MISC_ENABLE, 1n, -1n],
  [Msr.MTRR_DEF_TYPE, 0xc06n, 0xcffn],
  [Msr.DEBUGCTL, 0n, 3n],
  [Msr.PLATFORM_INFO, 0n, 0n],
  [Msr.MISC_FEATURES_ENABLES, 0n, 0n],
  ...Array.from({ length: 16 }, (_, i) => [0x200 + i, 0n, -1n] as const),
  ...[0x250, 0x258, 0x259, 0x268, 0x269, 0x26a, 0x26b, 0x26c, 0x26d, 0x26e, 0x26f].map(
    (n) => [n, 0x0606_0606_0606_0606n, -1n] as const,
  ),
];

const stored = new Map(STORED.map(([n, initial, writable]) => [n, { initial, writable }]));
const U64 = 0xffff_ffff_ffff_ffffn;

export interface MsrContext {
  /** Virtual time in ns = TSC without offset. */
  readonly now: number;
}

/** Value of an MSR, or null for #GP. */
export function readMsr(vcpu: Vcpu, index: number, { now }: MsrContext): bigint | null {
  const { apic } = vcpu;
  const offset = tscOffset(vcpu);
  switch (index) {
    case Msr.TSC:
      return BigInt(now) + offset;
    case Msr.TSC_ADJUST:
      return BigInt.asUintN(64, offset);
    case Msr.APIC_BASE:
      return BigInt(apic.baseMsr);
    case Msr.TSC_DEADLINE:
      return BigInt(apic.tscDeadline(Number(offset)));
  }
  if (index >= Msr.X2APIC_FIRST && index <= Msr.X2APIC_LAST) {
    if (!apic.isX2apic) return null;
    const value = apic.readX2apic(index - Msr.X2APIC_FIRST, now);
    return value && (BigInt(value.high >>> 0) << 32n) | BigInt(value.low >>> 0);
  }
  return vcpu.msrs.get(index) ?? stored.get(index)?.initial ?? null;
}

/** Writes an MSR; answers false for #GP. */
export function writeMsr(vcpu: Vcpu, index: number, value: bigint, { now }: MsrContext): boolean {
  const { apic } = vcpu;
  const low = Number(value & 0xffff_ffffn);
  const high = Number(value >> 32n);
  switch (index) {
    case Msr.TSC:
      setTscOffset(vcpu, value - BigInt(now));
      return true;
    case Msr.TSC_ADJUST:
      setTscOffset(vcpu, value);
      return true;
    case Msr.APIC_BASE:
      return apic.writeBaseMsr(low | 0, high);
    case Msr.TSC_DEADLINE:
      apic.setTscDeadline(Number(value), Number(tscOffset(vcpu)));
      return true;
  }
  if (index >= Msr.X2APIC_FIRST && index <= Msr.X2APIC_LAST) {
    return apic.isX2apic && apic.writeX2apic(index - Msr.X2APIC_FIRST, low | 0, high | 0, now);
  }
  const known = stored.get(index);
  if (!known) return false;
  const old = vcpu.msrs.get(index) ?? known.initial;
  const writable = known.writable & U64;
  if (((value ^ old) & ~writable & U64) !== 0n) return false;
  vcpu.msrs.set(index, value);
  return true;
}

function tscOffset(vcpu: Vcpu): bigint {
  return BigInt.asIntN(64, vcpu.vmcs.big(Field.TSC_OFFSET));
}

function setTscOffset(vcpu: Vcpu, offset: bigint): void {
  vcpu.vmcs.setBig(Field.TSC_OFFSET, BigInt.asUintN(64, offset));
}
