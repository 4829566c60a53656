/**
 * What a VM exit tells of the memory operand of an instruction, read from its decoded record.
 * Spec: SDM Vol. 3C, "VM-Exit Instruction-Information Field as Used for ...": the bits that all its formats share: scaling 1:0, address size 9:7,
 * segment 17:15, index 21:18 and "no index" 22, base 26:23 and "no base" 27.
 */
import type { FunctionBuilder } from "../ir/function.ts";
import type { ModuleBuilder } from "../ir/module.ts";
import type { Val } from "../ir/value.ts";
import { Ea, GPR, Rec, S, SEGMENTS, Seg, ZERO_SLOT } from "../state/layout.ts";

const NO_INDEX = 1 << 22;
const NO_BASE = 1 << 27;

/** Number of the general register in a slot, at `shift`; `none` if it holds no register. */
function register(slot: Val, shift: number, none: number): Val {
  const { fn } = slot;
  const isNone = slot.eq(ZERO_SLOT).or(slot.eq(S.RIP_PAGE.at));
  return isNone.select(fn.i32(none), slot.sub(GPR).shrU(3).shl(shift));
}

/** 0, 1, 2 for an address size of 16, 32, 64 bits. */
function addressSize(flags: Val): Val {
  const { fn } = flags;
  const narrow = flags.and(Ea.ADDRESS16).select(fn.i32(0), fn.i32(1));
  return flags.and(Ea.ADDRESS16 | Ea.ADDRESS32).select(narrow, fn.i32(2));
}

/** In 64-bit mode a record names FS and GS only; of the others it knows which are the stack. */
function segment(fn: FunctionBuilder, record: Val, flags: Val): Val {
  const slot = fn.load("i32.load16_u", record, Rec.SEGMENT);
  const unnamed = flags.and(Ea.STACK).select(fn.i32(Seg.SS), fn.i32(Seg.DS));
  return slot.eq(ZERO_SLOT).select(unnamed, slot.sub(SEGMENTS).shrU(5));
}

export function defineOperandInformation(module: ModuleBuilder): void {
  /** (record) -> bits of the instruction information. */
  module.function(
    "recordInformation",
    ["i32"],
    ["i32"],
    (fn) => {
      const record = fn.param(0);
      const flags = fn.load("i32.load8_u", record, Rec.EA);
      const scale = fn.load("i32.load8_u", record, Rec.SCALE);
      const index = register(fn.load("i32.load16_u", record, Rec.INDEX), 18, NO_INDEX);
      const base = register(fn.load("i32.load16_u", record, Rec.BASE), 23, NO_BASE);
      const place = addressSize(flags)
        .shl(7)
        .or(segment(fn, record, flags).shl(15));
      fn.return(scale.or(place).or(index).or(base));
    },
    true,
  );

  /** (record) -> exit qualification: the displacement, sign-extended; where it is relative to RIP, the sum. */
  module.function(
    "recordDisplacement",
    ["i32"],
    ["i64"],
    (fn) => {
      const record = fn.param(0);
      const signed = fn.load("i64.load32_s", record, Rec.DISPLACEMENT);
      const form = fn.load("i32.load8_u", record, Rec.EA).and(Ea.CHECKED | Ea.SEGMENT);
      const wide = form.eq(Ea.UNSIGNED).select(signed.and(0xffff_ffffn), signed);
      const isRelative = fn.load("i32.load16_u", record, Rec.BASE).eq(S.RIP_PAGE.at);
      const page = fn.load("i64.load", 0, S.RIP_PAGE.at);
      fn.return(isRelative.select(wide.add(page), wide));
    },
    true,
  );
}
