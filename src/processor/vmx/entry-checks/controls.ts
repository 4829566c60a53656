/** Checks on VMX controls. SDM Vol. 3C, "Checks on VMX Controls". */
import {
  ExitControl,
  Field,
  PinControl,
  PrimaryControl,
  SecondaryControl,
} from "../../isa/vmcs-fields.ts";
import { type ControlWord, CR3_TARGETS, EPTP_SWITCHING } from "../capabilities.ts";
import {
  BASE,
  BEYOND,
  beyond,
  type CheckContext,
  type CheckedVmcs,
  type EntryCheck,
  exit,
  MISALIGNED,
  pin,
  primary,
  secondary,
  violates,
  withExit,
  withPin,
  withPrimary,
  withSecondary,
} from "./check.ts";

interface WordRow {
  readonly name: string;
  readonly field: number;
  readonly limit: (c: CheckContext) => ControlWord;
  readonly bad: bigint;
  readonly when?: (v: CheckedVmcs) => boolean;
}

const controlWord = ({ name, field, limit, bad, when = () => true }: WordRow): EntryCheck => ({
  text: `reserved bits of the ${name}`,
  isBroken: (v, c) => when(v) && violates(v.number(field), limit(c)),
  breaks: [[field, bad]],
});

/** An address field that counts while a control is on. */
const addressField = (
  name: string,
  field: number,
  on: (v: CheckedVmcs) => boolean,
  enabling: readonly (readonly [number, bigint])[],
  bits = 12n,
): EntryCheck[] =>
  [MISALIGNED + (bits === 6n ? 1n : 0n), BEYOND].map((bad) => ({
    text: `${name} address ${bad === BEYOND ? "is too wide" : "is not aligned"}`,
    isBroken: (v, c) =>
      on(v) &&
      (bad === BEYOND ? beyond(v.big(field), c) : (v.big(field) & ((1n << bits) - 1n)) !== 0n),
    breaks: [...enabling, [field, bad]],
  }));

const EPTP_WALK_4 = 3n << 3n;
const EPTP_TYPE = 7n;
const EPTP_RESERVED = 0xf80n;

/** MSR areas: 16-byte aligned, and their last byte within the physical address space. */
const msrArea = (name: string, address: number, count: number): EntryCheck => ({
  text: `${name} area`,
  isBroken: (v, c) => {
    const entries = BigInt(v.number(count));
    if (entries === 0n) return false;
    const at = v.big(address);
    return (at & 15n) !== 0n || beyond(at, c) || beyond(at + entries * 16n - 1n, c);
  },
  breaks: [
    [address, 0x10_0008n],
    [count, 1n],
  ],
});

export const CONTROLS: readonly EntryCheck[] = [
  controlWord({
    ...{ name: "pin-based controls", field: Field.PIN_CONTROLS, bad: 0x09n },
    limit: ({ limits }) => limits.pin,
  }),
  controlWord({
    ...{ name: "primary controls", field: Field.PRIMARY_CONTROLS, bad: BASE.primary | 1n },
    limit: ({ limits }) => limits.primary,
  }),
  controlWord({
    ...{
      name: "secondary controls",
      field: Field.SECONDARY_CONTROLS,
      bad: BASE.secondary | (1n << 31n),
    },
    limit: ({ limits }) => limits.secondary,
    when: (v) => primary(v, PrimaryControl.SECONDARY),
  }),
  {
    text: "number of CR3-target values",
    isBroken: (v) => v.number(Field.CR3_TARGET_COUNT) > CR3_TARGETS,
    breaks: [[Field.CR3_TARGET_COUNT, 5n]],
  },
  ...[Field.IO_BITMAP_A, Field.IO_BITMAP_B].flatMap((field, i) =>
    addressField(`I/O bitmap ${"AB"[i]}`, field, (v) => primary(v, PrimaryControl.IO_BITMAPS), [
      withPrimary(PrimaryControl.IO_BITMAPS),
    ]),
  ),
  ...addressField(
    ...(["MSR bitmap", Field.MSR_BITMAP] as const),
    (v) => primary(v, PrimaryControl.MSR_BITMAPS),
    [withPrimary(PrimaryControl.MSR_BITMAPS)],
  ),
  ...addressField(
    ...(["virtual-APIC", Field.VIRTUAL_APIC] as const),
    (v) => primary(v, PrimaryControl.TPR_SHADOW),
    [withPrimary(PrimaryControl.TPR_SHADOW)],
  ),
  {
    text: "TPR threshold has reserved bits",
    isBroken: (v) =>
      primary(v, PrimaryControl.TPR_SHADOW) &&
      !secondary(v, SecondaryControl.VIRTUAL_INTERRUPTS) &&
      v.number(Field.TPR_THRESHOLD) > 15,
    breaks: [withPrimary(PrimaryControl.TPR_SHADOW), [Field.TPR_THRESHOLD, 0x10n]],
  },
  ...[
    SecondaryControl.X2APIC,
    SecondaryControl.APIC_REGISTERS,
    SecondaryControl.VIRTUAL_INTERRUPTS,
  ].map(
    (bit): EntryCheck => ({
      text: `secondary control 0x${bit.toString(16)} requires the TPR shadow`,
      isBroken: (v) => !primary(v, PrimaryControl.TPR_SHADOW) && secondary(v, bit),
      breaks: [withSecondary(bit)],
    }),
  ),
  {
    text: "virtual NMIs require NMI exiting",
    isBroken: (v) => pin(v, PinControl.VIRTUAL_NMI) && !pin(v, PinControl.NMI),
    breaks: [withPin(PinControl.VIRTUAL_NMI, PinControl.NMI)],
  },
  {
    text: "NMI-window exiting requires virtual NMIs",
    isBroken: (v) => primary(v, PrimaryControl.NMI_WINDOW) && !pin(v, PinControl.VIRTUAL_NMI),
    breaks: [withPrimary(PrimaryControl.NMI_WINDOW)],
  },
  ...addressField(
    ...(["APIC-access", Field.APIC_ACCESS] as const),
    (v) => secondary(v, SecondaryControl.APIC_ACCESSES),
    [withSecondary(SecondaryControl.APIC_ACCESSES)],
  ),
  {
    text: "x2APIC mode excludes APIC accesses",
    isBroken: (v) =>
      secondary(v, SecondaryControl.X2APIC) && secondary(v, SecondaryControl.APIC_ACCESSES),
    breaks: [
      withPrimary(PrimaryControl.TPR_SHADOW),
      withSecondary(SecondaryControl.X2APIC | SecondaryControl.APIC_ACCESSES),
    ],
  },
  {
    text: "virtual-interrupt delivery requires external-interrupt exiting",
    isBroken: (v) =>
      secondary(v, SecondaryControl.VIRTUAL_INTERRUPTS) && !pin(v, PinControl.EXTERNAL_INTERRUPT),
    breaks: [
      withPin(0, PinControl.EXTERNAL_INTERRUPT),
      withPrimary(PrimaryControl.TPR_SHADOW),
      withSecondary(SecondaryControl.VIRTUAL_INTERRUPTS),
    ],
  },
  {
    text: "posted interrupts require virtual-interrupt delivery and acknowledgement, and a vector below 256",
    isBroken: (v) =>
      pin(v, PinControl.POSTED_INTERRUPTS) &&
      (!secondary(v, SecondaryControl.VIRTUAL_INTERRUPTS) ||
        !exit(v, ExitControl.ACKNOWLEDGE_INTERRUPT) ||
        v.number(Field.POSTED_NOTIFICATION_VECTOR) > 255),
    breaks: [withPin(PinControl.POSTED_INTERRUPTS)],
  },
  ...addressField(
    ...(["posted-interrupt descriptor", Field.POSTED_INTERRUPT_DESCRIPTOR] as const),
    (v) => pin(v, PinControl.POSTED_INTERRUPTS),
    [withPin(PinControl.POSTED_INTERRUPTS)],
    6n,
  ),
  {
    text: "VPID 0 is the host's",
    isBroken: (v) => secondary(v, SecondaryControl.VPID) && v.number(Field.VPID) === 0,
    breaks: [[Field.VPID, 0n]],
  },
  {
    text: "EPT memory type",
    isBroken: (v) =>
      secondary(v, SecondaryControl.EPT) && ![0n, 6n].includes(v.big(Field.EPTP) & EPTP_TYPE),
    breaks: [[Field.EPTP, 0x10_001fn]],
  },
  {
    text: "EPT walk length",
    isBroken: (v) =>
      secondary(v, SecondaryControl.EPT) && (v.big(Field.EPTP) & 0x38n) !== EPTP_WALK_4,
    breaks: [[Field.EPTP, 0x10_0026n]],
  },
  {
    text: "EPT pointer has reserved bits",
    isBroken: (v, c) =>
      secondary(v, SecondaryControl.EPT) &&
      ((v.big(Field.EPTP) & EPTP_RESERVED) !== 0n || beyond(v.big(Field.EPTP), c)),
    breaks: [[Field.EPTP, 0x10_009en]],
  },
  ...(["PML", "UNRESTRICTED_GUEST", "EPT_VE", "MODE_BASED_EXECUTE"] as const).map(
    (name): EntryCheck => ({
      text: `${name} requires EPT`,
      isBroken: (v) => secondary(v, SecondaryControl[name]) && !secondary(v, SecondaryControl.EPT),
      breaks: [
        withSecondary(
          SecondaryControl[name],
          SecondaryControl.EPT | SecondaryControl.UNRESTRICTED_GUEST,
        ),
      ],
    }),
  ),
  ...addressField(
    ...(["PML", Field.PML_ADDRESS] as const),
    (v) => secondary(v, SecondaryControl.PML),
    [withSecondary(SecondaryControl.PML)],
  ),
  {
    text: "VM-function controls have reserved bits",
    isBroken: (v) =>
      secondary(v, SecondaryControl.VM_FUNCTIONS) &&
      (v.big(Field.VM_FUNCTION_CONTROLS) & ~BigInt(EPTP_SWITCHING)) !== 0n,
    breaks: [withSecondary(SecondaryControl.VM_FUNCTIONS), [Field.VM_FUNCTION_CONTROLS, 2n]],
  },
  {
    text: "EPTP switching requires EPT",
    isBroken: (v) => switchesEptp(v) && !secondary(v, SecondaryControl.EPT),
    breaks: [
      withSecondary(
        SecondaryControl.VM_FUNCTIONS,
        SecondaryControl.EPT | SecondaryControl.UNRESTRICTED_GUEST,
      ),
      [Field.VM_FUNCTION_CONTROLS, 1n],
    ],
  },
  ...addressField("EPTP list", Field.EPTP_LIST, (v) => switchesEptp(v), [
    withSecondary(SecondaryControl.VM_FUNCTIONS),
    [Field.VM_FUNCTION_CONTROLS, 1n],
  ]),
  ...[Field.VMREAD_BITMAP, Field.VMWRITE_BITMAP].flatMap((field, i) =>
    addressField(
      `${["VMREAD", "VMWRITE"][i]} bitmap`,
      field,
      (v) => secondary(v, SecondaryControl.VMCS_SHADOWING),
      [withSecondary(SecondaryControl.VMCS_SHADOWING)],
    ),
  ),
  // VM-exit control fields
  controlWord({
    ...{ name: "VM-exit controls", field: Field.EXIT_CONTROLS, bad: 0x200n },
    limit: ({ limits }) => limits.exit,
  }),
  {
    text: "saving an inactive preemption timer",
    isBroken: (v) =>
      exit(v, ExitControl.SAVE_PREEMPTION_TIMER) && !pin(v, PinControl.PREEMPTION_TIMER),
    breaks: [withExit(ExitControl.SAVE_PREEMPTION_TIMER)],
  },
  msrArea("VM-exit MSR-store", Field.EXIT_MSR_STORE, Field.EXIT_MSR_STORE_COUNT),
  msrArea("VM-exit MSR-load", Field.EXIT_MSR_LOAD, Field.EXIT_MSR_LOAD_COUNT),
  // VM-entry control fields
  controlWord({
    ...{ name: "VM-entry controls", field: Field.ENTRY_CONTROLS, bad: 0x200n },
    limit: ({ limits }) => limits.entry,
  }),
  msrArea("VM-entry MSR-load", Field.ENTRY_MSR_LOAD, Field.ENTRY_MSR_LOAD_COUNT),
];

function switchesEptp(v: CheckedVmcs): boolean {
  return (
    secondary(v, SecondaryControl.VM_FUNCTIONS) &&
    (v.big(Field.VM_FUNCTION_CONTROLS) & BigInt(EPTP_SWITCHING)) !== 0n
  );
}
