/** Checks on event injection. SDM Vol. 3C, "VM-Entry Control Fields". */
import {
  Field,
  INTERRUPTION_ERROR_CODE,
  InterruptionType,
  PrimaryControl,
} from "../../isa/vmcs-fields.ts";
import { Cr0 } from "../../state/control-bits.ts";
import {
  type EntryCheck,
  ERROR_VECTORS,
  inject,
  injectedType,
  injectedVector,
  isInjecting,
  isUnrestricted,
  OTHER_EVENT,
} from "./check.ts";

/** Checked at every entry that injects; part of the checks on controls. */
export const INJECTION: readonly EntryCheck[] = [
  {
    text: "interruption type is reserved",
    isBroken: (v) => injectedType(v) === 1,
    breaks: [inject(0x120n)],
  },
  {
    text: "the pending MTF exit has vector 0 and needs the monitor trap flag",
    isBroken: (v, { limits }) =>
      injectedType(v) === OTHER_EVENT &&
      (injectedVector(v) !== 0 || (limits.primary.allowed & PrimaryControl.MONITOR_TRAP) === 0),
    breaks: [inject(0x701n)],
  },
  {
    text: "an NMI has vector 2",
    isBroken: (v) => injectedType(v) === InterruptionType.NMI && injectedVector(v) !== 2,
    breaks: [inject(0x203n)],
  },
  {
    text: "an exception has a vector below 32",
    isBroken: (v) =>
      injectedType(v) === InterruptionType.HARDWARE_EXCEPTION && injectedVector(v) > 31,
    breaks: [inject(0x320n)],
  },
  {
    text: "error-code delivery",
    isBroken: (v) => {
      if (!isInjecting(v)) return false;
      const isProtected = (v.number(Field.GUEST_CR0) & Cr0.PE) !== 0 || !isUnrestricted(v);
      const wants =
        isProtected &&
        injectedType(v) === InterruptionType.HARDWARE_EXCEPTION &&
        ERROR_VECTORS.includes(injectedVector(v));
      return wants !== ((v.number(Field.ENTRY_INTERRUPTION_INFO) & INTERRUPTION_ERROR_CODE) !== 0);
    },
    breaks: [inject(0x30dn)],
  },
  {
    text: "reserved bits of the interruption information",
    isBroken: (v) =>
      isInjecting(v) && (v.number(Field.ENTRY_INTERRUPTION_INFO) & 0x7fff_f000) !== 0,
    breaks: [inject(0x1306n)],
  },
  {
    text: "error code has reserved bits",
    isBroken: (v) =>
      isInjecting(v) &&
      (v.number(Field.ENTRY_INTERRUPTION_INFO) & INTERRUPTION_ERROR_CODE) !== 0 &&
      v.number(Field.ENTRY_ERROR_CODE) > 0x7fff,
    breaks: [inject(0xb0dn), [Field.ENTRY_ERROR_CODE, 0x1_0000n]],
  },
  {
    text: "instruction length of a software event",
    isBroken: (v) => {
      const type = injectedType(v);
      const length = v.number(Field.ENTRY_INSTRUCTION_LENGTH);
      return type >= 4 && type <= 6 && (length < 1 || length > 15);
    },
    breaks: [inject(0x480n), [Field.ENTRY_INSTRUCTION_LENGTH, 16n]],
  },
];
