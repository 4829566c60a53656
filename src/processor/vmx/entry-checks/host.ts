/** Checks on the host-state area. SDM Vol. 3C, "Checks on Host Control Registers, MSRs, and SSP", "Checks on Host Segment and Descriptor-Table Registers", "Checks Related to Address-Space Size". */
import { ExitControl, Field } from "../../isa/vmcs-fields.ts";
import { Cr4, Efer } from "../../state/control-bits.ts";
import {
  BEYOND,
  badPat,
  beyond,
  type EntryCheck,
  exit,
  HIGH,
  isHost64,
  isLong,
  nonCanonical,
  withExit,
} from "./check.ts";

const HOST_SELECTORS = ["ES", "CS", "SS", "DS", "FS", "GS", "TR"] as const;

export const HOST: readonly EntryCheck[] = [
  {
    text: "host CR0: bits fixed in VMX operation",
    isBroken: (v, { limits }) =>
      (limits.cr0Fixed & ~v.big(Field.HOST_CR0)) !== 0n || v.big(Field.HOST_CR0) >> 32n !== 0n,
    breaks: [[Field.HOST_CR0, 0x8000_0001n]],
  },
  {
    text: "host CR4: bits fixed in VMX operation",
    isBroken: (v, { limits }) =>
      (limits.cr4Fixed & ~v.big(Field.HOST_CR4)) !== 0n ||
      (v.big(Field.HOST_CR4) & ~limits.cr4Allowed) !== 0n,
    breaks: [[Field.HOST_CR4, 0x20n]],
  },
  {
    text: "host CR3 is too wide",
    isBroken: (v, c) => beyond(v.big(Field.HOST_CR3), c),
    breaks: [[Field.HOST_CR3, BEYOND]],
  },
  ...[Field.HOST_SYSENTER_ESP, Field.HOST_SYSENTER_EIP].map(
    (field): EntryCheck => ({
      text: `host field ${field.toString(16)} (SYSENTER) is not canonical`,
      isBroken: (v) => nonCanonical(v.big(field)),
      breaks: [[field, HIGH]],
    }),
  ),
  {
    text: "host PAT",
    isBroken: (v) => exit(v, ExitControl.LOAD_PAT) && badPat(v.big(Field.HOST_PAT)),
    breaks: [withExit(ExitControl.LOAD_PAT), [Field.HOST_PAT, 2n]],
  },
  {
    text: "host EFER",
    isBroken: (v, { limits }) => {
      if (!exit(v, ExitControl.LOAD_EFER)) return false;
      const efer = v.big(Field.HOST_EFER);
      const long = BigInt(Efer.LMA | Efer.LME);
      return (
        (efer & ~(limits.eferAllowed | BigInt(Efer.LMA))) !== 0n ||
        (efer & long) !== (isHost64(v) ? long : 0n)
      );
    },
    breaks: [withExit(ExitControl.LOAD_EFER), [Field.HOST_EFER, 0n]],
  },
  ...HOST_SELECTORS.map((name): EntryCheck => {
    const field = Field[`HOST_${name}_SELECTOR`];
    return {
      text: `host ${name} has RPL or TI`,
      isBroken: (v) => (v.number(field) & 7) !== 0,
      breaks: [[field, 0x13n]],
    };
  }),
  ...(["CS", "TR"] as const).map((name): EntryCheck => {
    const field = Field[`HOST_${name}_SELECTOR`];
    return {
      text: `host ${name} is null`,
      isBroken: (v) => v.number(field) === 0,
      breaks: [[field, 0n]],
    };
  }),
  {
    text: "host SS is null outside 64-bit mode",
    isBroken: (v) => !isHost64(v) && v.number(Field.HOST_SS_SELECTOR) === 0,
    breaks: [withExit(0, ExitControl.HOST_64), [Field.HOST_SS_SELECTOR, 0n]],
  },
  ...(["FS", "GS", "GDTR", "IDTR", "TR"] as const).map((name): EntryCheck => {
    const field = Field[`HOST_${name}_BASE`];
    return {
      text: `host ${name} base is not canonical`,
      isBroken: (v) => nonCanonical(v.big(field)),
      breaks: [[field, HIGH]],
    };
  }),
  {
    text: "host address-space size and the mode of the VMM",
    isBroken: (v, { fromLong }) => isHost64(v) !== fromLong,
    breaks: [withExit(0, ExitControl.HOST_64)],
  },
  {
    text: "IA-32e mode guest of a VMM outside it",
    isBroken: (v, { fromLong }) => !fromLong && isLong(v),
    breaks: [withExit(0, ExitControl.HOST_64)],
  },
  {
    text: "host of 32 bits: CR4.PCIDE or a wide RIP",
    isBroken: (v) =>
      !isHost64(v) &&
      ((v.number(Field.HOST_CR4) & Cr4.PCIDE) !== 0 || v.big(Field.HOST_RIP) >> 32n !== 0n),
    breaks: [withExit(0, ExitControl.HOST_64), [Field.HOST_CR4, 0x2_2020n]],
  },
  {
    text: "host of 64 bits without CR4.PAE",
    isBroken: (v) => isHost64(v) && (v.number(Field.HOST_CR4) & Cr4.PAE) === 0,
    breaks: [[Field.HOST_CR4, 0x2000n]],
  },
  {
    text: "host RIP is not canonical",
    isBroken: (v) => isHost64(v) && nonCanonical(v.big(Field.HOST_RIP)),
    breaks: [[Field.HOST_RIP, HIGH]],
  },
];
