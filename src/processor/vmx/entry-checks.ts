/**
 * Checks of VM entry. SDM Vol. 3C, "Checks on VMX Controls and Host-State Area", "Checking and Loading Guest State".
 * Each answers null, or the rule that is broken (for logs; the processor reports only that there is one).
 * Not checked: host state (root mode is not x86 code here) and fields of controls that are not offered.
 */

import { CplExit, VendorField } from "../isa/vendor.ts";
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
import { Cr0, Cr4, Efer } from "../state/control-bits.ts";
import type { Vmcs } from "./vmcs.ts";

type Rule = readonly [broken: boolean, text: string];

const PIN_ALLOWED =
  PinControl.EXTERNAL_INTERRUPT |
  PinControl.NMI |
  PinControl.VIRTUAL_NMI |
  PinControl.PREEMPTION_TIMER;
const RIGHTS_UNUSABLE = 0x1_0000;
const RFLAGS_IF = 0x200;
const RFLAGS_VM = 0x2_0000;
/** Bits 3:0, enabled breakpoint, BS, and RTM. */
const PENDING_DEBUG_DEFINED = 0x1_500fn;
const BLOCKING_STI = 1;
const BLOCKING_MOV_SS = 2;

function firstBroken(rules: readonly Rule[]): string | null {
  return rules.find(([broken]) => broken)?.[1] ?? null;
}

/** Bit 16 of the PIN-based controls' allowed-0 settings etc. are not modelled: reserved bits may have either value. */
export function checkControls(vmcs: Vmcs): string | null {
  const pin = vmcs.number(Field.PIN_CONTROLS);
  const primary = vmcs.number(Field.PRIMARY_CONTROLS) | 0;
  const secondary = primary & PrimaryControl.SECONDARY ? vmcs.number(Field.SECONDARY_CONTROLS) : 0;
  const exit = vmcs.number(Field.EXIT_CONTROLS);
  const page = (field: number): boolean => vmcs.number(field) % 4096 !== 0;
  const eptp = vmcs.big(Field.EPTP);
  return firstBroken([
    [
      (pin & ~PIN_ALLOWED & 0xff) !== 0 && (pin & PinControl.POSTED_INTERRUPTS) !== 0,
      "posted interrupts are not offered",
    ],
    [
      (primary & PrimaryControl.IO_BITMAPS) !== 0 &&
        (page(Field.IO_BITMAP_A) || page(Field.IO_BITMAP_B)),
      "I/O bitmap alignment",
    ],
    [
      (primary & PrimaryControl.MSR_BITMAPS) !== 0 && page(Field.MSR_BITMAP),
      "MSR bitmap alignment",
    ],
    [
      (pin & PinControl.VIRTUAL_NMI) !== 0 && (pin & PinControl.NMI) === 0,
      "virtual NMIs require NMI exiting",
    ],
    [
      (primary & PrimaryControl.NMI_WINDOW) !== 0 && (pin & PinControl.VIRTUAL_NMI) === 0,
      "NMI-window exiting requires virtual NMIs",
    ],
    [(primary & PrimaryControl.TPR_SHADOW) !== 0, "TPR shadow is not offered"],
    [
      (vmcs.number(VendorField.CPL_EXIT_CONTROLS) & CplExit.RESERVED) !== 0,
      "reserved bits of the CPL-exit controls",
    ],
    [vmcs.number(Field.CR3_TARGET_COUNT) > 4, "CR3-target count"],
    [
      (secondary & SecondaryControl.UNRESTRICTED_GUEST) !== 0 &&
        (secondary & SecondaryControl.EPT) === 0,
      "unrestricted guest requires EPT",
    ],
    [
      (secondary & SecondaryControl.EPT) !== 0 && (eptp & 0x3fn) !== 0x1en,
      "EPTP memory type and walk length",
    ],
    [
      (exit & ExitControl.SAVE_PREEMPTION_TIMER) !== 0 && (pin & PinControl.PREEMPTION_TIMER) === 0,
      "saving an inactive preemption timer",
    ],
  ]);
}

/** Event injection, checked at every entry that has one. */
export function checkInjection(vmcs: Vmcs): string | null {
  const info = vmcs.number(Field.ENTRY_INTERRUPTION_INFO);
  if (info < INTERRUPTION_VALID) return null;
  const type = (info >> 8) & 7;
  const vector = info & 0xff;
  const hasError = (info & INTERRUPTION_ERROR_CODE) !== 0;
  const isProtected = (vmcs.number(Field.GUEST_CR0) & Cr0.PE) !== 0;
  const wantsError =
    isProtected &&
    type === InterruptionType.HARDWARE_EXCEPTION &&
    [8, 10, 11, 12, 13, 14, 17].includes(vector);
  const length = vmcs.number(Field.ENTRY_INSTRUCTION_LENGTH);
  const isSoftware = type === 4 || type === 5 || type === 6;
  return firstBroken([
    [type === 1 || type === 7, "interruption type is reserved"],
    [type === InterruptionType.NMI && vector !== 2, "an NMI has vector 2"],
    [
      type === InterruptionType.HARDWARE_EXCEPTION && vector > 31,
      "an exception has a vector below 32",
    ],
    [hasError !== wantsError, "error-code delivery"],
    [(info & 0x7fff_f000) !== 0, "reserved bits of the interruption information"],
    [hasError && vmcs.number(Field.ENTRY_ERROR_CODE) > 0x7fff, "error code"],
    [isSoftware && (length < 1 || length > 15), "instruction length of a software event"],
  ]);
}

function checkControlRegisters(vmcs: Vmcs, isLong: boolean): string | null {
  const cr0 = vmcs.number(Field.GUEST_CR0);
  const cr4 = vmcs.number(Field.GUEST_CR4);
  const efer = vmcs.number(Field.GUEST_EFER);
  const pg = (cr0 & (Cr0.PG | 0)) !== 0;
  return firstBroken([
    [pg && (cr0 & Cr0.PE) === 0, "CR0.PG without CR0.PE"],
    [(cr0 & Cr0.NW) !== 0 && (cr0 & Cr0.CD) === 0, "CR0.NW without CR0.CD"],
    [isLong && (!pg || (cr4 & Cr4.PAE) === 0), "IA-32e mode without PAE paging"],
    [!isLong && (cr4 & Cr4.PCIDE) !== 0, "CR4.PCIDE outside IA-32e mode"],
    [((efer & Efer.LMA) !== 0) !== isLong, "EFER.LMA and the IA-32e mode guest control"],
    [
      pg && ((efer & Efer.LMA) !== 0) !== ((efer & Efer.LME) !== 0),
      "EFER.LMA and EFER.LME under paging",
    ],
    [(efer & ~(Efer.SCE | Efer.LME | Efer.LMA | Efer.NXE)) !== 0, "EFER reserved bits"],
  ]);
}

const SEGMENTS = ["ES", "CS", "SS", "DS", "FS", "GS"] as const;

function checkSegments(vmcs: Vmcs, isLong: boolean): string | null {
  const rules: Rule[] = [];
  const isV8086 = !isLong && (vmcs.number(Field.GUEST_RFLAGS) & RFLAGS_VM) !== 0;
  for (const name of SEGMENTS) {
    const rights = vmcs.number(Field[`GUEST_${name}_RIGHTS`]);
    const usable = (rights & RIGHTS_UNUSABLE) === 0;
    const limit = vmcs.number(Field[`GUEST_${name}_LIMIT`]);
    if (isV8086) {
      rules.push([rights !== 0xf3 || limit !== 0xffff, `${name} in virtual-8086 mode`]);
      continue;
    }
    if (!usable && name !== "CS") continue;
    rules.push(
      [(rights & 0x10) === 0, `${name} is no code or data segment`],
      [(rights & 0x80) === 0, `${name} is not present`],
      [(rights & 0xf00) !== 0, `${name} rights have reserved bits`],
      [
        (rights & 0x8000) !== 0 ? (limit & 0xfff) !== 0xfff : limit > 0xf_ffff,
        `${name} limit and granularity`,
      ],
    );
  }
  const cs = vmcs.number(Field.GUEST_CS_RIGHTS);
  rules.push([isLong && (cs & 0x6000) === 0x6000, "CS.L and CS.D"]);
  const tr = vmcs.number(Field.GUEST_TR_RIGHTS);
  rules.push(
    [(tr & RIGHTS_UNUSABLE) !== 0, "TR is unusable"],
    [isLong && (tr & 0xf) !== 11, "TR type in IA-32e mode"],
  );
  return firstBroken(rules);
}

/** The guest-state area. */
export function checkGuestState(vmcs: Vmcs): string | null {
  const isLong =
    (vmcs.number(Field.ENTRY_CONTROLS) & EntryControl.IA32E_GUEST) !== 0 ||
    (vmcs.number(Field.GUEST_EFER) & Efer.LMA) !== 0;
  const rflags = vmcs.number(Field.GUEST_RFLAGS);
  const blocking = vmcs.number(Field.GUEST_INTERRUPTIBILITY);
  const info = vmcs.number(Field.ENTRY_INTERRUPTION_INFO);
  const type = info >= INTERRUPTION_VALID ? (info >> 8) & 7 : -1;
  const rip = vmcs.big(Field.GUEST_RIP);
  const is64 = isLong && (vmcs.number(Field.GUEST_CS_RIGHTS) & 0x2000) !== 0;
  return (
    checkControlRegisters(vmcs, isLong) ??
    checkSegments(vmcs, isLong) ??
    firstBroken([
      [(rflags & 2) === 0, "RFLAGS bit 1"],
      [isLong && (rflags & RFLAGS_VM) !== 0, "RFLAGS.VM in IA-32e mode"],
      [!is64 && rip >> 32n !== 0n, "RIP above 4 GiB"],
      [is64 && BigInt.asUintN(64, BigInt.asIntN(48, rip)) !== rip, "RIP is not canonical"],
      [vmcs.number(Field.GUEST_ACTIVITY) > 3, "activity state"],
      [(blocking & 3) === 3, "blocking by STI and by MOV SS"],
      [
        (vmcs.big(Field.GUEST_PENDING_DEBUG) & ~PENDING_DEBUG_DEFINED) !== 0n,
        "pending debug exceptions have reserved bits",
      ],
      [
        (blocking & BLOCKING_STI) !== 0 && (rflags & RFLAGS_IF) === 0,
        "blocking by STI with IF clear",
      ],
      [
        type === InterruptionType.EXTERNAL && ((rflags & RFLAGS_IF) === 0 || (blocking & 3) !== 0),
        "injection of an external interrupt while blocked",
      ],
      [
        type === InterruptionType.NMI && (blocking & BLOCKING_MOV_SS) !== 0,
        "injection of an NMI under MOV SS",
      ],
    ])
  );
}
