/** The end of an instruction that the processor has carried out at an exit of the engine. */
import { Efer } from "../state/control-bits.ts";
import { PendingDebug, S, SEG_RIGHTS, Seg, segmentAt } from "../state/layout.ts";
import type { Engine } from "./engine-port.ts";

const RFLAGS = { TF: 0x100, RF: 0x1_0000 } as const;
const BLOCKING_BY_STI_OR_MOV_SS = 3;
const CODE_LONG = 1 << 13;

/** Code is 64-bit code. */
export function isCode64(view: DataView): boolean {
  const isLong = (view.getUint32(S.EFER.at, true) & Efer.LMA) !== 0;
  return isLong && (view.getUint32(segmentAt(Seg.CS) + SEG_RIGHTS, true) & CODE_LONG) !== 0;
}

/** Past the instruction at RIP, of S.EXIT_LENGTH bytes: RF and blocking by STI and MOV SS end, a single step is due. */
export function advance(engine: Engine): void {
  const { view } = engine;
  const next = view.getBigUint64(S.RIP.at, true) + BigInt(view.getUint32(S.EXIT_LENGTH.at, true));
  view.setBigUint64(S.RIP.at, BigInt.asUintN(isCode64(view) ? 64 : 32, next), true);
  const blocking = view.getUint32(S.INTERRUPTIBILITY.at, true);
  view.setUint32(S.INTERRUPTIBILITY.at, blocking & ~BLOCKING_BY_STI_OR_MOV_SS, true);
  const flags = view.getUint32(S.RFLAGS_REST.at, true);
  view.setUint32(S.RFLAGS_REST.at, flags & ~RFLAGS.RF, true);
  if ((flags & RFLAGS.TF) !== 0) {
    const pending = view.getUint32(S.PENDING_DEBUG.at, true) | PendingDebug.BS;
    view.setUint32(S.PENDING_DEBUG.at, pending, true);
  }
  engine.updateMode();
}
