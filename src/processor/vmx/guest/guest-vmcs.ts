/**
 * A VMCS of a guest hypervisor: its region in guest memory. SDM Vol. 3C, "VMCS Data Area".
 *
 *   +0 revision identifier (bit 31: shadow VMCS) · +4 abort indicator · +8 launch state · +64 fields, 8 bytes each, in the order of Field
 * Nothing of it is kept elsewhere: VMREAD and VMWRITE, VM entries and exits go to memory, so whoever copies guest memory has it all.
 */
import {
  Field,
  fieldWidth,
  PinControl,
  PrimaryControl,
  SecondaryControl,
} from "../../isa/vmcs-fields.ts";
import type { EntryLimits } from "../capabilities.ts";
import type { CheckedVmcs } from "../entry-checks/check.ts";

export const REGION_BYTES = 4096;
const ABORT = 4;
const LAUNCH = 8;
const FIELDS = 64;
const SHADOW = 0x8000_0000;
const ENCODINGS = 0x8000;

/** Offset in the region by encoding, 0 for none. */
const OFFSET = new Uint16Array(ENCODINGS);
Object.values(Field).forEach((encoding, i) => {
  OFFSET[encoding] = FIELDS + 8 * i;
});

/** Fields that exist only with a control: pin, primary, secondary. */
const NEEDS: readonly (readonly [
  word: "pin" | "primary" | "secondary",
  bit: number,
  fields: readonly number[],
])[] = [
  [
    "pin",
    PinControl.POSTED_INTERRUPTS,
    [Field.POSTED_NOTIFICATION_VECTOR, Field.POSTED_INTERRUPT_DESCRIPTOR],
  ],
  ["primary", PrimaryControl.TPR_SHADOW, [Field.VIRTUAL_APIC, Field.TPR_THRESHOLD]],
  ["secondary", SecondaryControl.APIC_ACCESSES, [Field.APIC_ACCESS]],
  [
    "secondary",
    SecondaryControl.VIRTUAL_INTERRUPTS,
    [
      Field.GUEST_INTERRUPT_STATUS,
      Field.EOI_EXIT0,
      Field.EOI_EXIT1,
      Field.EOI_EXIT2,
      Field.EOI_EXIT3,
    ],
  ],
  ["secondary", SecondaryControl.PAUSE_LOOP, [Field.PLE_GAP, Field.PLE_WINDOW]],
  ["secondary", SecondaryControl.EPT_VE, [Field.VE_INFORMATION, Field.EPTP_INDEX]],
  ["secondary", SecondaryControl.XSAVES, [Field.XSS_EXITING]],
  ["secondary", SecondaryControl.TSC_SCALING, [Field.TSC_MULTIPLIER]],
];
const PERF_FIELDS = [Field.GUEST_PERF_GLOBAL_CTRL, Field.HOST_PERF_GLOBAL_CTRL];

/** The encodings that VMREAD and VMWRITE know. */
export function supportedFields(limits: EntryLimits): ReadonlySet<number> {
  const all = new Set<number>(Object.values(Field));
  for (const [word, bit, fields] of NEEDS)
    if ((limits[word].allowed & bit) === 0) for (const field of fields) all.delete(field);
  for (const field of PERF_FIELDS) all.delete(field);
  return all;
}

export class GuestVmcs implements CheckedVmcs {
  readonly #view: DataView;
  /** Host address of the region; 0 while there is no current VMCS. */
  at = 0;

  constructor(view: DataView) {
    this.#view = view;
  }

  get revision(): number {
    return this.#view.getUint32(this.at, true) & 0x7fff_ffff;
  }

  get isShadow(): boolean {
    return this.#view.getUint32(this.at, true) >= SHADOW;
  }

  get isLaunched(): boolean {
    return this.#view.getUint32(this.at + LAUNCH, true) !== 0;
  }

  set isLaunched(value: boolean) {
    this.#view.setUint32(this.at + LAUNCH, value ? 1 : 0, true);
  }

  set abort(indicator: number) {
    this.#view.setUint32(this.at + ABORT, indicator, true);
  }

  /** Host address of a field's 8 bytes, of which its width counts. */
  placeOf(field: number): number {
    return this.at + OFFSET[field]!;
  }

  /** Low 53 bits are exact. */
  number(field: number): number {
    const at = this.at + OFFSET[field]!;
    const low = this.#view.getUint32(at, true);
    const bytes = fieldWidth(field);
    if (bytes !== 8) return low;
    return low + this.#view.getUint32(at + 4, true) * 0x1_0000_0000;
  }

  big(field: number): bigint {
    return this.#view.getBigUint64(this.at + OFFSET[field]!, true);
  }

  set(field: number, value: number): void {
    const at = this.at + OFFSET[field]!;
    this.#view.setUint32(at, value, true);
    this.#view.setUint32(at + 4, Math.floor(value / 0x1_0000_0000), true);
  }

  setBig(field: number, value: bigint): void {
    const bytes = fieldWidth(field);
    this.#view.setBigUint64(this.at + OFFSET[field]!, BigInt.asUintN(8 * bytes, value), true);
  }
}
