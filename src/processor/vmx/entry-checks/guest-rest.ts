/** Checks on guest descriptor tables, RIP, RFLAGS, non-register state and PDPTEs. SDM Vol. 3C, "Checks on Guest Descriptor-Table Registers" and on. */
import {
  EntryControl,
  Field,
  InterruptionType,
  PinControl,
  SecondaryControl,
} from "../../isa/vmcs-fields.ts";
import { Cr0, Cr4 } from "../../state/control-bits.ts";
import {
  badAddress,
  type CheckedVmcs,
  type EntryCheck,
  HIGH,
  inject,
  injectedType,
  injectedVector,
  isInjecting,
  isLong,
  isVirtual8086,
  nonCanonical,
  OTHER_EVENT,
  pin,
  RFLAGS_IF,
  RFLAGS_TF,
  secondary,
  U64,
  withEntry,
  withPin,
} from "./check.ts";
import { CODE64, DATA32, dpl, rights } from "./segments.ts";

const blocking = (v: CheckedVmcs): number => v.number(Field.GUEST_INTERRUPTIBILITY);
const BLOCKING = { STI: 1, MOV_SS: 2, SMI: 4, NMI: 8 } as const;
const ACTIVITY = { ACTIVE: 0, HLT: 1, SHUTDOWN: 2, WAIT_FOR_SIPI: 3 } as const;
const PENDING_BS = 0x4000n;
/** Bits 3:0, enabled breakpoint, BS, and RTM. */
const PENDING_DEFINED = 0x1_500fn;
const DEBUGCTL_BTF = 2n;

/** Events that may be injected into a halted processor: those that would wake it. */
function cannotWake(v: CheckedVmcs): boolean {
  if (!isInjecting(v)) return false;
  const kind = injectedType(v);
  const vector = injectedVector(v);
  switch (v.number(Field.GUEST_ACTIVITY)) {
    case ACTIVITY.ACTIVE:
      return false;
    case ACTIVITY.HLT:
      return !(
        kind === InterruptionType.EXTERNAL ||
        kind === InterruptionType.NMI ||
        (kind === InterruptionType.HARDWARE_EXCEPTION && (vector === 1 || vector === 18)) ||
        kind === OTHER_EVENT
      );
    case ACTIVITY.SHUTDOWN:
      return !(
        kind === InterruptionType.NMI ||
        (kind === InterruptionType.HARDWARE_EXCEPTION && vector === 18)
      );
    default:
      return true;
  }
}

export const REST: readonly EntryCheck[] = [
  ...(["GDTR", "IDTR"] as const).flatMap((name): EntryCheck[] => [
    {
      text: `${name} base is not canonical`,
      isBroken: (v) => nonCanonical(v.big(Field[`GUEST_${name}_BASE`])),
      breaks: [[Field[`GUEST_${name}_BASE`], HIGH]],
    },
    {
      text: `${name} limit is wide`,
      isBroken: (v) => v.number(Field[`GUEST_${name}_LIMIT`]) > 0xffff,
      breaks: [[Field[`GUEST_${name}_LIMIT`], 0x1_0000n]],
    },
  ]),
  {
    text: "RIP is wide outside 64-bit mode",
    isBroken: (v) =>
      (!isLong(v) || (rights(v, "CS") & 0x2000) === 0) && v.big(Field.GUEST_RIP) >> 32n !== 0n,
    breaks: [
      [Field.GUEST_CS_RIGHTS, 0xc09bn],
      [Field.GUEST_RIP, 1n << 32n],
    ],
  },
  {
    text: "RIP is not canonical",
    isBroken: (v) =>
      isLong(v) && (rights(v, "CS") & 0x2000) !== 0 && nonCanonical(v.big(Field.GUEST_RIP)),
    breaks: [[Field.GUEST_RIP, HIGH]],
  },
  {
    text: "RFLAGS has reserved bits",
    isBroken: (v) => {
      const flags = v.big(Field.GUEST_RFLAGS);
      return (flags & 0xffff_ffff_ffc0_8028n) !== 0n || (flags & 2n) === 0n;
    },
    breaks: [[Field.GUEST_RFLAGS, 0n]],
  },
  {
    text: "RFLAGS.VM in IA-32e mode or real mode",
    isBroken: (v) => isVirtual8086(v) && (isLong(v) || (v.number(Field.GUEST_CR0) & Cr0.PE) === 0),
    breaks: [[Field.GUEST_RFLAGS, 0x2_0002n]],
  },
  {
    text: "RFLAGS.IF is clear for an external interrupt",
    isBroken: (v) =>
      injectedType(v) === InterruptionType.EXTERNAL &&
      (v.number(Field.GUEST_RFLAGS) & RFLAGS_IF) === 0,
    breaks: [inject(0x20n), [Field.GUEST_RFLAGS, 2n]],
  },
  {
    text: "activity state is not supported",
    isBroken: (v, { limits }) => {
      const state = v.number(Field.GUEST_ACTIVITY);
      return state > 3 || ((limits.activities >> state) & 1) === 0;
    },
    breaks: [[Field.GUEST_ACTIVITY, 4n]],
  },
  {
    text: "HLT outside ring 0",
    isBroken: (v) => v.number(Field.GUEST_ACTIVITY) === ACTIVITY.HLT && dpl(v, "SS") !== 0,
    breaks: [
      [Field.GUEST_ACTIVITY, 1n],
      [Field.GUEST_SS_RIGHTS, DATA32 | 0x60n],
      [Field.GUEST_SS_SELECTOR, 0x13n],
      [Field.GUEST_CS_RIGHTS, CODE64 | 0x60n],
    ],
  },
  {
    text: "not active while blocked by STI or MOV SS",
    isBroken: (v) => v.number(Field.GUEST_ACTIVITY) !== ACTIVITY.ACTIVE && (blocking(v) & 3) !== 0,
    breaks: [
      [Field.GUEST_ACTIVITY, 1n],
      [Field.GUEST_INTERRUPTIBILITY, 2n],
    ],
  },
  {
    text: "the injected event would not wake the processor",
    isBroken: cannotWake,
    breaks: [[Field.GUEST_ACTIVITY, 1n], inject(0x306n)],
  },
  {
    text: "interruptibility has reserved bits",
    isBroken: (v) => blocking(v) > 15,
    breaks: [[Field.GUEST_INTERRUPTIBILITY, 0x20n]],
  },
  {
    text: "blocking by STI and by MOV SS",
    isBroken: (v) => (blocking(v) & 3) === 3,
    breaks: [
      [Field.GUEST_INTERRUPTIBILITY, 3n],
      [Field.GUEST_RFLAGS, 0x202n],
    ],
  },
  {
    text: "blocking by STI with IF clear",
    isBroken: (v) =>
      (blocking(v) & BLOCKING.STI) !== 0 && (v.number(Field.GUEST_RFLAGS) & RFLAGS_IF) === 0,
    breaks: [[Field.GUEST_INTERRUPTIBILITY, 1n]],
  },
  {
    text: "injection of an external interrupt while blocked",
    isBroken: (v) => injectedType(v) === InterruptionType.EXTERNAL && (blocking(v) & 3) !== 0,
    breaks: [inject(0x20n), [Field.GUEST_RFLAGS, 0x202n], [Field.GUEST_INTERRUPTIBILITY, 1n]],
  },
  {
    text: "injection of an NMI under MOV SS",
    isBroken: (v) =>
      injectedType(v) === InterruptionType.NMI && (blocking(v) & BLOCKING.MOV_SS) !== 0,
    breaks: [inject(0x202n), [Field.GUEST_INTERRUPTIBILITY, 2n]],
  },
  {
    text: "blocking by SMI outside SMM",
    isBroken: (v) => (blocking(v) & BLOCKING.SMI) !== 0,
    breaks: [[Field.GUEST_INTERRUPTIBILITY, 4n]],
  },
  {
    text: "injection of an NMI while virtual NMIs are blocked",
    isBroken: (v) =>
      pin(v, PinControl.VIRTUAL_NMI) &&
      injectedType(v) === InterruptionType.NMI &&
      (blocking(v) & BLOCKING.NMI) !== 0,
    breaks: [withPin(PinControl.VIRTUAL_NMI), inject(0x202n), [Field.GUEST_INTERRUPTIBILITY, 8n]],
  },
  {
    text: "pending debug exceptions have reserved bits",
    isBroken: (v) => (v.big(Field.GUEST_PENDING_DEBUG) & U64 & ~PENDING_DEFINED) !== 0n,
    breaks: [[Field.GUEST_PENDING_DEBUG, 0x10n]],
  },
  {
    text: "a pending single step and RFLAGS.TF",
    isBroken: (v) => {
      const isHeld = (blocking(v) & 3) !== 0 || v.number(Field.GUEST_ACTIVITY) === ACTIVITY.HLT;
      if (!isHeld) return false;
      const steps =
        (v.number(Field.GUEST_RFLAGS) & RFLAGS_TF) !== 0 &&
        (v.big(Field.GUEST_DEBUGCTL) & DEBUGCTL_BTF) === 0n;
      return steps !== ((v.big(Field.GUEST_PENDING_DEBUG) & PENDING_BS) !== 0n);
    },
    breaks: [
      [Field.GUEST_INTERRUPTIBILITY, 2n],
      [Field.GUEST_PENDING_DEBUG, PENDING_BS],
    ],
  },
  {
    text: "VMCS link pointer",
    isBroken: (v, c) => v.big(Field.VMCS_LINK) !== U64 && badAddress(v.big(Field.VMCS_LINK), c),
    breaks: [[Field.VMCS_LINK, 0x10_0010n]],
  },
  {
    text: "PDPTEs have reserved bits",
    isBroken: (v, c) => {
      if (!usesPae(v) || !secondary(v, SecondaryControl.EPT)) return false;
      return PDPTES.some((field) => isBadPdpte(v.big(field), c.limits.physicalBits));
    },
    breaks: [
      withEntry(0, EntryControl.IA32E_GUEST),
      [Field.GUEST_CS_RIGHTS, 0xc09bn],
      [Field.GUEST_PDPTE2, 0x1000_0003n],
    ],
  },
];

const PDPTES = [Field.GUEST_PDPTE0, Field.GUEST_PDPTE1, Field.GUEST_PDPTE2, Field.GUEST_PDPTE3];
const PDPTE_RESERVED = 0x1e6n;

export function isBadPdpte(entryValue: bigint, physicalBits: number): boolean {
  return (
    (entryValue & 1n) !== 0n &&
    ((entryValue & PDPTE_RESERVED) !== 0n || entryValue >> BigInt(physicalBits) !== 0n)
  );
}

/** PAE paging with its four registers. */
export function usesPae(v: CheckedVmcs): boolean {
  return (
    (v.number(Field.GUEST_CR0) & (Cr0.PG | 0)) !== 0 &&
    (v.number(Field.GUEST_CR4) & Cr4.PAE) !== 0 &&
    !isLong(v)
  );
}
