/**
 * Segmentation: logical to linear addresses with limit and type checks. SDM Vol. 3A, "Limit Checking", "Type Checking".
 * A violation is recorded in PENDING and answered as POISON, which no access can translate, so that callers need no check of their own.
 */

import type { ModuleBuilder } from "../ir/module.ts";
import { Vector } from "../semantics/cpu.ts";
import { Procedure } from "../semantics/procedure.ts";
import { Rights } from "../semantics/system/rights.ts";
import { Cr0 } from "../state/control-bits.ts";
import {
  Ea,
  Mode,
  Pending,
  POISON,
  Rec,
  S,
  SEG_BASE,
  SEG_LIMIT,
  SEG_RIGHTS,
  SEGMENTS,
  Seg,
} from "../state/layout.ts";

import { defineOperandInformation } from "./operand-information.ts";

export function defineSegment(module: ModuleBuilder): void {
  /** (segment, offset, bytes, write) -> linear address, or POISON. */
  module.function("segLinear", ["i32", "i64", "i32", "i32"], ["i64"], (fn) => {
    const p = new Procedure(module, fn);
    const seg = fn.param(0);
    const offset = fn.param(1);
    const bytes = fn.param(2);
    const at = seg.shl(5);
    const base = fn.load("i64.load", at, SEGMENTS + SEG_BASE);
    fn.if(p.get(S.MODE).and(Mode.CODE_MASK).eq(Mode.CODE64), () => {
      fn.return(seg.geU(Seg.FS).select(base.add(offset), offset));
    });
    const rights = fn.load("i32.load", at, SEGMENTS + SEG_RIGHTS);
    const limit = fn.load("i64.load32_u", at, SEGMENTS + SEG_LIMIT);
    const last = offset.add(bytes.sub(1).extU());
    const isCode = rights.and(Rights.CODE);
    const expandsDown = isCode.eqz().and(rights.and(Rights.EXPAND_DOWN).ne(0));
    const upper = rights.and(Rights.DB).select(fn.i64(0xffff_ffffn), fn.i64(0xffff));
    const outside = expandsDown.select(offset.leU(limit).or(last.gtU(upper)), last.gtU(limit));
    const noWrite = isCode.ne(0).or(rights.and(Rights.WRITABLE).eqz());
    const noRead = isCode.ne(0).and(rights.and(Rights.READABLE).eqz());
    const typeBad = fn.param(3).select(noWrite, noRead);
    const bad = rights
      .and(Rights.UNUSABLE)
      .ne(0)
      .or(outside)
      .or(typeBad.and(isReal(p).eqz()));
    fn.if(bad, () => {
      p.set(S.PENDING, Pending.EVENT);
      p.set(S.PENDING_VECTOR, seg.eq(Seg.SS).select(fn.i32(Vector.SS), fn.i32(Vector.GP)));
      p.set(S.PENDING_ERROR, 0);
      p.set(S.PENDING_TYPE, 3);
      fn.return(POISON);
    });
    fn.return(base.add(offset).and(0xffff_ffffn));
  });

  /** An effective address in the segment of a record's memory operand: (record, offset, bytes, write) -> linear address, or POISON. */
  module.function("recordLinearAt", ["i32", "i64", "i32", "i32"], ["i64"], (fn) => {
    const p = new Procedure(module, fn);
    const record = fn.param(0);
    const offset = fn.param(1);
    const flags = fn.load("i32.load8_u", record, Rec.EA);
    fn.if(flags.and(Ea.CHECKED), () =>
      fn.return(
        fn.call(
          module.get("segLinear"),
          flags.shrU(Ea.SEGMENT_SHIFT).and(7),
          offset,
          fn.param(2),
          fn.param(3),
        ),
      ),
    );
    const linear = offset.add(fn.load("i64.load", fn.load("i32.load16_u", record, Rec.SEGMENT)));
    const isLong = p.get(S.MODE).and(Mode.CODE_MASK).eq(Mode.CODE64);
    fn.return(isLong.select(linear, linear.and(0xffff_ffffn)));
  });

  /** Effective address (offset) of a record's memory operand, truncated to its address size. */
  module.function("recordOffset", ["i32"], ["i64"], (fn) => {
    const record = fn.param(0);
    const flags = fn.load("i32.load8_u", record, Rec.EA);
    const form = flags.and(Ea.CHECKED | Ea.SEGMENT);
    fn.if(form.eq(Ea.ABSOLUTE), () => fn.return(fn.load("i64.load", record, Rec.IMMEDIATE)));
    const slot = (at: number) => fn.load("i64.load", fn.load("i32.load16_u", record, at));
    const displacement = fn.load("i64.load32_s", record, Rec.DISPLACEMENT);
    const sum = slot(Rec.BASE)
      .add(slot(Rec.INDEX).shl(fn.load("i64.load8_u", record, Rec.SCALE)))
      .add(form.eq(Ea.UNSIGNED).select(displacement.and(0xffff_ffffn), displacement));
    const mask = flags
      .and(Ea.ADDRESS16)
      .select(fn.i64(0xffff), flags.and(Ea.ADDRESS32).select(fn.i64(0xffff_ffffn), fn.i64(-1)));
    fn.return(sum.and(mask));
  });

  /** The memory operand of a record whose EA flags say SLOW: (record, bytes, write) -> linear address, or POISON. */
  module.function("recordLinear", ["i32", "i32", "i32"], ["i64"], (fn) => {
    const offset = fn.call(module.get("recordOffset"), fn.param(0));
    fn.return(fn.call(module.get("recordLinearAt"), fn.param(0), offset, fn.param(1), fn.param(2)));
  });

  defineOperandInformation(module);
}

function isReal(p: Procedure) {
  return p.get(S.CR0).and(Cr0.PE).eqz();
}
