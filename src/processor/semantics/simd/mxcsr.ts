/**
 * MXCSR: control bits, sticky flags, SIMD floating-point exceptions.
 * Spec: SDM Vol. 1, "MXCSR Control and Status Register", "SSE SIMD Floating-Point Exceptions", "Handling Combinations of Masked and
 * Unmasked Exceptions".
 *
 * Exactness without cost: a flag that is already set and whose exception is masked can be raised again without any effect. Such flags
 * are called quiet. PE is quiet after the first rounding in the life of a program, so that the common path needs no exactness test.
 */

import type { ModuleBuilder } from "../../ir/module.ts";
import type { Val } from "../../ir/value.ts";
import { Cr4 } from "../../state/control-bits.ts";
import { S } from "../../state/layout.ts";
import { type Cpu, Vector } from "../cpu.ts";
import { defineProcedure } from "../procedure.ts";

export const Mxcsr = {
  IE: 1,
  DE: 2,
  ZE: 4,
  OE: 8,
  UE: 0x10,
  PE: 0x20,
  DAZ: 0x40,
  OM: 0x400,
  UM: 0x800,
  PM: 0x1000,
  RC: 0x6000,
  FTZ: 0x8000,
} as const;

export const MXCSR_INIT = 0x1f80;
/** What MXCSR_MASK means where a processor reports 0. */
const MASK_DEFAULT = 0xffbf;
export const FLAGS = 0x3f;
const MASK_SHIFT = 7;
const RC_SHIFT = 13;

/** Rounding control. */
export const Rounding = { NEAREST: 0, DOWN: 1, UP: 2, ZERO: 3 } as const;

/** Exceptions found before a result is computed; an unmasked one keeps the later ones from being found. */
const BEFORE = Mxcsr.IE | Mxcsr.DE | Mxcsr.ZE;

export const roundingOf = (mxcsr: Val): Val => mxcsr.shrU(RC_SHIFT).and(3);

/** Rounds to nearest with PE quiet: then a result in the normal range needs no other attention. */
export function isPlain(mxcsr: Val): Val {
  const plain = Mxcsr.PE | Mxcsr.PM;
  return mxcsr.and(plain | Mxcsr.RC).eq(plain);
}

/** The bits of MXCSR that software may set. */
export function mxcsrMask(cpu: Cpu): Val {
  const mask = cpu.get(S.MXCSR_MASK);
  return mask.select(mask, cpu.i32(MASK_DEFAULT));
}

/** Sets sticky flags (i32); leaves with #XM, or #UD where the system does not want #XM, if one of them is unmasked. */
export function raise(cpu: Cpu, flags: Val): void {
  const mxcsr = cpu.get(S.MXCSR);
  const quiet = mxcsr.and(mxcsr.shrU(MASK_SHIFT));
  cpu.fn.if(flags.and(quiet.not()), () =>
    cpu.propagate(cpu.fn.call(cpu.module.get("sseRaise"), flags)),
  );
}

export function defineRaise(module: ModuleBuilder): void {
  defineProcedure(module, "sseRaise", ["i32"], (p) => {
    const mxcsr = p.get(S.MXCSR);
    const flags = p.fn.param(0);
    const unmasked = flags.and(mxcsr.shrU(MASK_SHIFT).not()).and(FLAGS);
    const seen = unmasked.and(BEFORE).select(flags.and(BEFORE), flags);
    p.set(S.MXCSR, mxcsr.or(seen));
    p.fn.if(unmasked, () => {
      p.faultIf(p.raw(4, 0, S.CR4.at).and(Cr4.OSXMMEXCPT), Vector.XM);
      p.fault(Vector.UD);
    });
  });
}
