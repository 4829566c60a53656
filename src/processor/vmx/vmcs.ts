/**
 * The virtual-machine control structure. SDM Vol. 3C, "Virtual Machine Control Structures".
 *
 * Controls and exit information are stored here. Guest state is where the processor keeps it: while the VMCS is active on a processor that is
 * its live state block (the SDM lets a processor keep VMCS data on chip), otherwise a saved copy of the block. So a VM exit copies
 * nothing, and VMREAD and VMWRITE of guest state see the registers themselves.
 *
 * Numbers: `number` is exact up to 2^53 (wide fields with more bits need `big`).
 */
import { invariant } from "../../base/invariant.ts";
import { VendorField } from "../isa/vendor.ts";
import { Field, fieldWidth } from "../isa/vmcs-fields.ts";
import {
  GPR,
  S,
  SEG_BASE,
  SEG_LIMIT,
  SEG_RIGHTS,
  SEG_SELECTOR,
  segmentAt,
} from "../state/layout.ts";
import { readRflags, writeRflags } from "./rflags.ts";

/** Extent of the vCPU state that belongs to a guest. */
export const STATE_START = 0x100;
export const STATE_END = 0x700;

/** Where a field is. A class of its own keeps its shape apart from all objects that begin with `at`. */
class Slot {
  readonly at: number;
  readonly bytes: 2 | 4 | 8;
  readonly isGuest: boolean;
  /** Writing it leaves earlier entry checks and loaded controls valid. */
  isClean = false;

  constructor(at: number, bytes: 2 | 4 | 8, isGuest: boolean) {
    this.at = at;
    this.bytes = bytes;
    this.isGuest = isGuest;
  }
}

const SEGMENT_NAMES = ["ES", "CS", "SS", "DS", "FS", "GS", "LDTR", "TR"] as const;

function guestSlots(): Map<number, Slot> {
  const slots = new Map<number, Slot>();
  const guest = (encoding: number, at: number, bytes: 2 | 4 | 8): void => {
    slots.set(encoding, new Slot(at, bytes, true));
  };
  SEGMENT_NAMES.forEach((name, i) => {
    guest(Field[`GUEST_${name}_SELECTOR`], segmentAt(i) + SEG_SELECTOR, 2);
    guest(Field[`GUEST_${name}_LIMIT`], segmentAt(i) + SEG_LIMIT, 4);
    guest(Field[`GUEST_${name}_RIGHTS`], segmentAt(i) + SEG_RIGHTS, 4);
    guest(Field[`GUEST_${name}_BASE`], segmentAt(i) + SEG_BASE, 8);
  });
  guest(Field.GUEST_GDTR_BASE, S.GDTR_BASE.at, 8);
  guest(Field.GUEST_IDTR_BASE, S.IDTR_BASE.at, 8);
  guest(Field.GUEST_GDTR_LIMIT, S.GDTR_LIMIT.at, 4);
  guest(Field.GUEST_IDTR_LIMIT, S.IDTR_LIMIT.at, 4);
  guest(Field.GUEST_CR0, S.CR0.at, 8);
  guest(Field.GUEST_CR3, S.CR3.at, 8);
  guest(Field.GUEST_CR4, S.CR4.at, 8);
  guest(Field.GUEST_DR7, S.DR7.at, 8);
  guest(Field.GUEST_RSP, GPR + 8 * 4, 8);
  guest(Field.GUEST_RIP, S.RIP.at, 8);
  guest(Field.GUEST_PAT, S.PAT.at, 8);
  guest(Field.GUEST_EFER, S.EFER.at, 8);
  guest(Field.GUEST_PDPTE0, S.PDPTE0.at, 8);
  guest(Field.GUEST_PDPTE1, S.PDPTE1.at, 8);
  guest(Field.GUEST_PDPTE2, S.PDPTE2.at, 8);
  guest(Field.GUEST_PDPTE3, S.PDPTE3.at, 8);
  guest(Field.GUEST_INTERRUPTIBILITY, S.INTERRUPTIBILITY.at, 4);
  guest(Field.GUEST_PENDING_DEBUG, S.PENDING_DEBUG.at, 8);
  guest(Field.GUEST_ACTIVITY, S.ACTIVITY.at, 4);
  guest(Field.GUEST_SYSENTER_CS, S.SYSENTER_CS.at, 4);
  guest(Field.GUEST_SYSENTER_ESP, S.SYSENTER_ESP.at, 8);
  guest(Field.GUEST_SYSENTER_EIP, S.SYSENTER_EIP.at, 8);
  // Exit information is left by the run loop in the state block, too.
  guest(Field.EXIT_QUALIFICATION, S.EXIT_QUALIFICATION.at, 8);
  guest(Field.GUEST_LINEAR_ADDRESS, S.EXIT_LINEAR.at, 8);
  guest(Field.GUEST_PHYSICAL_ADDRESS, S.EXIT_PHYSICAL.at, 8);
  guest(Field.EXIT_INSTRUCTION_LENGTH, S.EXIT_LENGTH.at, 4);
  guest(Field.EXIT_INSTRUCTION_INFO, S.EXIT_INSTRUCTION_INFO.at, 4);
  guest(Field.EXIT_INTERRUPTION_INFO, S.EXIT_INTERRUPTION.at, 4);
  guest(Field.EXIT_INTERRUPTION_ERROR, S.EXIT_INTERRUPTION_ERROR.at, 4);
  guest(Field.IDT_VECTORING_INFO, S.VECTORING.at, 4);
  guest(Field.IDT_VECTORING_ERROR, S.VECTORING_ERROR.at, 4);
  return slots;
}

function allSlots(): Map<number, Slot> {
  const slots = guestSlots();
  let at = 0;
  for (const encoding of [...Object.values(Field), ...Object.values(VendorField)]) {
    if (slots.has(encoding) || encoding === Field.GUEST_RFLAGS) continue;
    slots.set(encoding, new Slot(at, fieldWidth(encoding), false));
    at += 8;
  }
  return slots;
}

/** Where a field of the guest-state area, or of the exit information that the engine leaves, is in the state block. */
export interface StatePlace {
  readonly field: number;
  readonly at: number;
  readonly bytes: 2 | 4 | 8;
}

const STATE_PLACES: readonly StatePlace[] = [...guestSlots()].map(([field, { at, bytes }]) => ({
  field,
  at,
  bytes,
}));
/** Bits 11:10 of an encoding: 2 = guest state, 1 = exit information. */
const isOfType =
  (type: number) =>
  ({ field }: StatePlace) =>
    ((field >> 10) & 3) === type;
/** Guest state but RFLAGS, whose bits are spread (rflags.ts). */
export const GUEST_STATE = STATE_PLACES.filter(isOfType(2));
export const EXIT_INFORMATION = STATE_PLACES.filter(isOfType(1));

/** Encodings are below this. */
const ENCODINGS = 0x8000;
const SLOTS: Slot[] = [];
/** Hot path: place in SLOTS by encoding, -1 for none. */
const SLOT_INDEX = new Int16Array(ENCODINGS).fill(-1);
for (const [encoding, slot] of allSlots()) SLOT_INDEX[encoding] = SLOTS.push(slot) - 1;

/** Encodings of what is not guest state. */
const OWN_FIELDS: readonly number[] = [...SLOT_INDEX.keys()].filter((encoding) => {
  const slot = SLOTS[SLOT_INDEX[encoding]!];
  return slot !== undefined && !slot.isGuest;
});

function slotAt(encoding: number): Slot | undefined {
  return SLOTS[SLOT_INDEX[encoding] ?? -1];
}

for (const encoding of [
  Field.GUEST_RIP,
  Field.GUEST_INTERRUPT_STATUS,
  Field.EOI_EXIT0,
  Field.EOI_EXIT1,
  Field.EOI_EXIT2,
  Field.EOI_EXIT3,
  Field.PREEMPTION_TIMER,
  Field.ENTRY_INTERRUPTION_INFO,
  Field.ENTRY_ERROR_CODE,
  Field.ENTRY_INSTRUCTION_LENGTH,
  Field.EXIT_REASON,
  Field.EXIT_QUALIFICATION,
  Field.GUEST_PHYSICAL_ADDRESS,
  Field.INSTRUCTION_ERROR,
  Field.IDT_VECTORING_INFO,
  VendorField.VMM_DEADLINE,
  VendorField.CPL_EXIT_CONTROLS,
  VendorField.DEVICE_ACCESS,
  VendorField.DEVICE_SIZE,
  VendorField.DEVICE_WRITE_DATA,
  VendorField.DEVICE_READ_REPLY,
])
  slotAt(encoding)!.isClean = true;

export class Vmcs {
  readonly #own = new DataView(new ArrayBuffer(4096));
  #guest: DataView = new DataView(new ArrayBuffer(STATE_END));
  #live: DataView | null = null;
  /** Controls or checked guest state were written since the last successful VM entry. */
  isDirty = true;
  isLaunched = false;

  #slot(encoding: number): Slot {
    const slot = slotAt(encoding);
    // The text of the message costs more than all the rest, so it is made only when it is needed.
    if (slot === undefined) invariant(false, `VMCS field ${encoding.toString(16)}`);
    return slot;
  }

  /** A field of at most 32 bits, or a wider one whose value is below 2^53. */
  number(encoding: number): number {
    if (encoding === Field.GUEST_RFLAGS) return readRflags(this.#guest);
    const { at, bytes, isGuest } = this.#slot(encoding);
    const view = isGuest ? this.#guest : this.#own;
    if (bytes === 2) return view.getUint16(at, true);
    if (bytes === 4) return view.getUint32(at, true);
    return view.getUint32(at, true) + view.getUint32(at + 4, true) * 0x1_0000_0000;
  }

  big(encoding: number): bigint {
    const slot = slotAt(encoding);
    if (slot === undefined || slot.bytes !== 8) return BigInt(this.number(encoding));
    return (slot.isGuest ? this.#guest : this.#own).getBigUint64(slot.at, true);
  }

  /** Writes a field; negative or fractional values are an error of the caller. */
  set(encoding: number, value: number): void {
    if (encoding === Field.GUEST_RFLAGS) {
      this.isDirty = true;
      writeRflags(this.#guest, value);
      return;
    }
    const { at, bytes, isGuest, isClean } = this.#slot(encoding);
    if (!isClean) this.isDirty = true;
    const view = isGuest ? this.#guest : this.#own;
    if (bytes === 2) view.setUint16(at, value, true);
    else if (bytes === 4) view.setUint32(at, value, true);
    else {
      view.setUint32(at, value, true);
      view.setUint32(at + 4, Math.floor(value / 0x1_0000_0000), true);
    }
  }

  setBig(encoding: number, value: bigint): void {
    const slot = slotAt(encoding);
    if (slot === undefined || slot.bytes !== 8) {
      this.set(encoding, Number(value));
      return;
    }
    if (!slot.isClean) this.isDirty = true;
    (slot.isGuest ? this.#guest : this.#own).setBigUint64(slot.at, BigInt.asUintN(64, value), true);
  }

  /**
   * Registers that the VMCS has no field for (general registers, CR2, XMM ...): the state block, at state/layout.ts addresses. Valid
   * whether or not the VMCS is active.
   */
  get state(): DataView {
    return this.#guest;
  }

  /** Controls and host state by encoding, as far as they are not zero. Guest state is in the state block. */
  saveFields(): [encoding: number, value: bigint][] {
    const fields: [number, bigint][] = [];
    for (const encoding of OWN_FIELDS) {
      const value = this.big(encoding);
      if (value !== 0n) fields.push([encoding, value]);
    }
    return fields;
  }

  /** Fields that saveFields() answered; all others of them become zero. */
  restoreFields(fields: readonly (readonly [encoding: number, value: bigint])[]): void {
    new Uint8Array(this.#own.buffer).fill(0);
    for (const [encoding, value] of fields) this.setBig(encoding, value);
    this.isDirty = true;
  }

  get isActive(): boolean {
    return this.#live !== null;
  }

  /** VMPTRLD: the processor's state block becomes the home of the guest state. */
  activate(live: DataView): void {
    invariant(this.#live === null, "VMCS active on one processor at a time");
    copyState(this.#guest, live);
    this.#live = live;
    this.#guest = live;
    this.isDirty = true;
  }

  /** VMCLEAR: guest state is copied out of the processor. */
  deactivate(): void {
    if (this.#live === null) return;
    const saved = new DataView(new ArrayBuffer(STATE_END));
    copyState(this.#live, saved);
    this.#guest = saved;
    this.#live = null;
    this.isLaunched = false;
  }
}

function copyState(from: DataView, to: DataView): void {
  const source = new Uint8Array(from.buffer, from.byteOffset, STATE_END);
  new Uint8Array(to.buffer, to.byteOffset, STATE_END).set(
    source.subarray(STATE_START),
    STATE_START,
  );
}
