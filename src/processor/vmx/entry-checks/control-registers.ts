/** Checks on guest control registers and MSRs. SDM Vol. 3C, "Checks on Guest Control Registers, Debug Registers, and MSRs". */
import { EntryControl, Field } from "../../isa/vmcs-fields.ts";
import { Cr0, Cr4, Efer } from "../../state/control-bits.ts";
import {
  BEYOND,
  badPat,
  beyond,
  type EntryCheck,
  entry,
  HIGH,
  isLong,
  isUnrestricted,
  nonCanonical,
  withEntry,
} from "./check.ts";

export const CONTROL_REGISTERS: readonly EntryCheck[] = [
  {
    text: "guest CR0: bits fixed in VMX operation",
    isBroken: (v, { limits }) => {
      const free = isUnrestricted(v) ? BigInt(Cr0.PE | Cr0.PG) & 0xffff_ffffn : 0n;
      return (
        (limits.cr0Fixed & ~free & ~v.big(Field.GUEST_CR0)) !== 0n ||
        v.big(Field.GUEST_CR0) >> 32n !== 0n
      );
    },
    breaks: [[Field.GUEST_CR0, 0x8000_0001n]],
  },
  {
    text: "guest CR0.PG without CR0.PE",
    isBroken: (v) => {
      const cr0 = v.number(Field.GUEST_CR0);
      return (cr0 & (Cr0.PG | 0)) !== 0 && (cr0 & Cr0.PE) === 0;
    },
    breaks: [[Field.GUEST_CR0, 0x8000_0020n]],
  },
  {
    text: "guest CR4: bits fixed in VMX operation",
    isBroken: (v, { limits }) =>
      (limits.cr4Fixed & ~v.big(Field.GUEST_CR4)) !== 0n ||
      (v.big(Field.GUEST_CR4) & ~limits.cr4Allowed) !== 0n,
    breaks: [[Field.GUEST_CR4, 0x20n]],
  },
  {
    text: "guest DEBUGCTL has reserved bits",
    isBroken: (v) =>
      entry(v, EntryControl.LOAD_DEBUG) && (v.big(Field.GUEST_DEBUGCTL) & ~3n) !== 0n,
    breaks: [[Field.GUEST_DEBUGCTL, 0x10_0000n]],
  },
  {
    text: "IA-32e mode guest without PAE paging",
    isBroken: (v) =>
      isLong(v) &&
      ((v.number(Field.GUEST_CR0) & (Cr0.PG | 0)) === 0 ||
        (v.number(Field.GUEST_CR4) & Cr4.PAE) === 0),
    breaks: [[Field.GUEST_CR4, 0x2000n]],
  },
  {
    text: "CR4.PCIDE outside IA-32e mode",
    isBroken: (v) => !isLong(v) && (v.number(Field.GUEST_CR4) & Cr4.PCIDE) !== 0,
    breaks: [withEntry(0, EntryControl.IA32E_GUEST), [Field.GUEST_CR4, 0x2_2020n]],
  },
  {
    text: "guest CR3 is too wide",
    isBroken: (v, c) => beyond(v.big(Field.GUEST_CR3), c),
    breaks: [[Field.GUEST_CR3, BEYOND]],
  },
  {
    text: "guest DR7 is too wide",
    isBroken: (v) => entry(v, EntryControl.LOAD_DEBUG) && v.big(Field.GUEST_DR7) >> 32n !== 0n,
    breaks: [[Field.GUEST_DR7, 1n << 32n]],
  },
  ...[Field.GUEST_SYSENTER_ESP, Field.GUEST_SYSENTER_EIP].map(
    (field): EntryCheck => ({
      text: `guest field ${field.toString(16)} (SYSENTER) is not canonical`,
      isBroken: (v) => nonCanonical(v.big(field)),
      breaks: [[field, HIGH]],
    }),
  ),
  {
    text: "guest PAT",
    isBroken: (v) => entry(v, EntryControl.LOAD_PAT) && badPat(v.big(Field.GUEST_PAT)),
    breaks: [withEntry(EntryControl.LOAD_PAT), [Field.GUEST_PAT, 0x0800n]],
  },
  {
    text: "guest EFER",
    isBroken: (v, { limits }) => {
      if (!entry(v, EntryControl.LOAD_EFER)) return false;
      const efer = v.big(Field.GUEST_EFER);
      const lma = (efer & BigInt(Efer.LMA)) !== 0n;
      const lme = (efer & BigInt(Efer.LME)) !== 0n;
      const paging = (v.number(Field.GUEST_CR0) & (Cr0.PG | 0)) !== 0;
      return (
        (efer & ~(limits.eferAllowed | BigInt(Efer.LMA))) !== 0n ||
        lma !== isLong(v) ||
        (paging && lma !== lme)
      );
    },
    breaks: [withEntry(EntryControl.LOAD_EFER), [Field.GUEST_EFER, 0x100n]],
  },
];
