/**
 * INS and OUTS for a portal that sees only a register: the memory operand, the index and the count are the kernel's work, one element a time.
 * SDM Vol. 3C, "Exit Qualification for I/O Instructions"; Vol. 2A, "INS", "OUTS".
 *
 * Faults of the memory operand are raised in the guest before the device is touched, so that an instruction that faults has done nothing.
 */

import { Field } from "../../processor/isa/vmcs-fields.ts";
import { gprAt, S } from "../../processor/state/layout.ts";
import type { Engine } from "../../processor/vmx/engine-port.ts";
import { oweDebugTraps, skipInstruction } from "./commit.ts";
import { raise, setResumeFlag, type Vcpu } from "./vcpu.ts";

const Bits = { SIZE: 7, IN: 1 << 3, STRING: 1 << 4, REP: 1 << 5 } as const;
const PAGE_FAULT = 14;
const RFLAGS_DF = 0x400;
const [RCX, RSI, RDI] = [1, 6, 7] as const;
/** Vectors that push an error code among those a memory operand can raise. */
const WITH_ERROR = new Set([12, 13, 14, 17]);

export interface StringElement {
  /** Qualification of the plain IN or OUT. */
  readonly qualification: number;
  readonly bytes: 1 | 2 | 4;
  readonly isInput: boolean;
  /** OUTS: the element. */
  readonly data: number;
  /** INS: where it goes. */
  readonly host: number;
}

/** Does the part before the device. Answers null if there is nothing to do or the guest gets a fault instead. */
export function beginStringIo(vcpu: Vcpu, engine: Engine): StringElement | null {
  const { vmcs } = vcpu;
  const q = vmcs.number(Field.EXIT_QUALIFICATION);
  const bytes = ((q & Bits.SIZE) + 1) as 1 | 2 | 4;
  const isInput = (q & Bits.IN) !== 0;
  const linear = BigInt.asIntN(64, vmcs.big(Field.GUEST_LINEAR_ADDRESS));
  const host = isInput ? engine.hostWrite(linear, bytes) : engine.hostRead(linear, bytes);
  if (host === 0) {
    raisePending(vcpu);
    return null;
  }
  const view = engine.view;
  const data = isInput
    ? 0
    : bytes === 1
      ? view.getUint8(host)
      : bytes === 2
        ? view.getUint16(host, true)
        : view.getUint32(host, true);
  return { qualification: q - (q & (Bits.STRING | Bits.REP)), bytes, isInput, data, host };
}

/** Does the part after the device: memory, index, count, and RIP when the last element is done. */
export function endStringIo(
  vcpu: Vcpu,
  engine: Engine,
  element: StringElement,
  value: number,
): void {
  const { vmcs } = vcpu;
  const { bytes, isInput, host } = element;
  if (isInput) {
    const view = engine.view;
    if (bytes === 1) view.setUint8(host, value);
    else if (bytes === 2) view.setUint16(host, value, true);
    else view.setUint32(host, value, true);
    engine.commitWrite(host);
  }
  const step = vmcs.number(Field.GUEST_RFLAGS) & RFLAGS_DF ? -bytes : bytes;
  const width = 16 << ((vmcs.number(Field.EXIT_INSTRUCTION_INFO) >> 7) & 7);
  addTo(vcpu, isInput ? RDI : RSI, step, width);
  const repeats = (vmcs.number(Field.EXIT_QUALIFICATION) & Bits.REP) !== 0;
  if (!repeats || addTo(vcpu, RCX, -1, width) === 0n) skipInstruction(vmcs);
  else {
    // In the middle of a repeated instruction RF is set: its own breakpoint is behind it.
    setResumeFlag(vcpu);
    oweDebugTraps(vmcs);
  }
}

/** Adds to the low `width` bits of a register (32 bits clear the upper half); answers what they are then. */
function addTo(vcpu: Vcpu, n: number, amount: number, width: number): bigint {
  const { state } = vcpu.vmcs;
  const old = state.getBigUint64(gprAt(n), true);
  const low = BigInt.asUintN(width, old + BigInt(amount));
  const kept = width === 16 ? (old >> 16n) << 16n : 0n;
  state.setBigUint64(gprAt(n), kept | low, true);
  return low;
}

function raisePending(vcpu: Vcpu): void {
  const { state } = vcpu.vmcs;
  const vector = state.getUint32(S.PENDING_VECTOR.at, true);
  state.setUint32(S.PENDING.at, 0, true);
  if (vector === PAGE_FAULT)
    state.setBigUint64(S.CR2.at, state.getBigUint64(S.PENDING_ADDRESS.at, true), true);
  if (WITH_ERROR.has(vector)) raise(vcpu, vector, state.getUint32(S.PENDING_ERROR.at, true));
  else raise(vcpu, vector);
}
