/**
 * Table entries of arithmetic, comparison and the operations on ST(0).
 * Spec: SDM Vol. 2. Destination and source are the operands as written: FSUB ST(i), ST(0) computes ST(i) - ST(0), FSUBR the reverse.
 */

import type { Val } from "../../ir/value.ts";
import { S } from "../../state/layout.ts";
import { condition, setArithmeticImage } from "../flags.ts";
import type { Insn, Semantics, SemanticsTable } from "../insn.ts";
import { NO_POP } from "./compare.ts";
import { begin, beginWithNumber, slotOf } from "./forms.ts";
import {
  Fsw,
  isEmpty,
  Pop,
  Scratch,
  setSlot,
  signExponent,
  significand,
  stAddress,
} from "./state.ts";

/** Runs `body` if all slots are in use, else the stack underflow response into `slot`. */
function ifUsed(insn: Insn, slots: readonly Val[], slot: Val, pop: number, body: () => void): void {
  const anyEmpty = slots.map((s) => isEmpty(insn, s)).reduce((x, y) => x.or(y));
  insn.fn.if(anyEmpty, () => insn.fn.callVoid(insn.module.get("x87Underflow"), slot, pop), body);
}

type Operation = (
  insn: Insn,
  a: Val,
  b: Val,
  end: { denormal: Val; slot: Val; pop: number },
) => void;

const add =
  (negate: number): Operation =>
  (insn, a, b, end) =>
    insn.fn.callVoid(insn.module.get("x87Add"), a, b, negate, end.denormal, end.slot, end.pop);

const call =
  (name: string): Operation =>
  (insn, a, b, end) =>
    insn.fn.callVoid(insn.module.get(name), a, b, end.denormal, end.slot, end.pop);

const reversed =
  (operation: Operation): Operation =>
  (insn, a, b, end) =>
    operation(insn, b, a, end);

/** destination = destination op source, in registers or with a number from memory. */
function arithmetic(operation: Operation, pop: number = Pop.NONE): Semantics {
  return (insn) => {
    if (insn.kind(0) === "m") return arithmeticMemory(operation, false)(insn);
    begin(insn);
    const destination = slotOf(insn, 0);
    const source = slotOf(insn, 1);
    ifUsed(insn, [destination, source], destination, pop, () =>
      operation(insn, destination, source, { denormal: insn.i32(0), slot: destination, pop }),
    );
  };
}

function arithmeticMemory(operation: Operation, isInteger: boolean): Semantics {
  return (insn) => {
    const denormal = beginWithNumber(insn, isInteger);
    const slot = stAddress(insn, 0);
    ifUsed(insn, [slot], slot, Pop.NONE, () =>
      operation(insn, slot, insn.i32(Scratch.MEMORY), { denormal, slot, pop: Pop.NONE }),
    );
  };
}

/** C2 says whether FPREM or a trigonometric instruction is incomplete; whatever else happens, they clear it first. */
function clearC2(insn: Insn): void {
  insn.set(S.FSW, insn.get(S.FSW).and(~Fsw.C2));
}

/** An operation on ST(0) alone. */
function unary(name: string, hasC2 = false): Semantics {
  return (insn) => {
    begin(insn);
    if (hasC2) clearC2(insn);
    const slot = stAddress(insn, 0);
    ifUsed(insn, [slot], slot, Pop.NONE, () => insn.fn.callVoid(insn.module.get(name), slot));
  };
}

/** An operation of ST(0) with ST(1) into ST(0), or into ST(1) with a pop. */
function binary(name: string, pop: number = Pop.NONE): Semantics {
  return (insn) => {
    begin(insn);
    const [a, b] = [stAddress(insn, 0), stAddress(insn, 1)];
    ifUsed(insn, [a, b], pop === Pop.POP ? b : a, pop, () =>
      insn.fn.callVoid(insn.module.get(name), a, b),
    );
  };
}

/** FCHS, FABS: any encoding, no exception but the stack fault. */
function signOperation(compute: (se: Val) => Val): Semantics {
  return (insn) => {
    begin(insn);
    const slot = stAddress(insn, 0);
    ifUsed(insn, [slot], slot, Pop.NONE, () => {
      insn.setRaw(2, slot, compute(signExponent(insn, slot)), 8);
      insn.set(S.FSW, insn.get(S.FSW).and(~Fsw.C1));
    });
  };
}

/** FPREM, FPREM1. */
function remainder(nearest: number): Semantics {
  return (insn) => {
    begin(insn);
    clearC2(insn);
    const [a, b] = [stAddress(insn, 0), stAddress(insn, 1)];
    ifUsed(insn, [a, b], a, Pop.NONE, () =>
      insn.fn.callVoid(insn.module.get("x87Remainder"), a, b, nearest),
    );
  };
}

/** An operation with two results: ST(0) is replaced and another value pushed. */
function pushing(name: string, hasC2 = false): Semantics {
  return (insn) => {
    const { fn, module } = insn;
    begin(insn);
    if (hasC2) clearC2(insn);
    const [slot, above] = [stAddress(insn, 0), stAddress(insn, -1)];
    const isFull = isEmpty(insn, above).eqz();
    fn.if(
      isEmpty(insn, slot).or(isFull),
      () => fn.callVoid(module.get("x87PushFault"), slot, above),
      () => fn.callVoid(module.get(name), slot, above),
    );
  };
}

// ---- comparisons ----

interface Comparison {
  readonly quiet?: boolean;
  readonly pops?: 0 | 1 | 2;
  readonly isInteger?: boolean;
  /** Result to RFLAGS instead of the condition codes. */
  readonly toFlags?: boolean;
}

/** ST(0) against operand `source`, with what follows from the relation. */
function endComparison(insn: Insn, source: Val, denormal: Val, c: Comparison): void {
  const { fn, module } = insn;
  const relation = fn.call(
    module.get("x87Compare"),
    stAddress(insn, 0),
    source,
    denormal,
    c.quiet ? 1 : 0,
  );
  if (c.toFlags) setArithmeticImage(insn, relation.and(0xff));
  else {
    const others = insn.get(S.FSW).and(~(Fsw.C0 | Fsw.C2 | Fsw.C3));
    insn.set(S.FSW, others.or(relation.and(0xff).shl(8)));
  }
  const pops = c.pops ?? 0;
  if (pops === 0) return;
  fn.if(relation.and(NO_POP).eqz(), () => {
    for (let i = 0; i < pops; i++) fn.callVoid(module.get("x87Pop"));
  });
}

function comparison(c: Comparison): Semantics {
  return (insn) => {
    if (insn.shape.operands.some((o) => o.kind === "m")) {
      const denormal = beginWithNumber(insn, c.isInteger ?? false);
      endComparison(insn, insn.i32(Scratch.MEMORY), denormal, c);
      return;
    }
    begin(insn);
    const source = insn.shape.operands.length === 0 ? stAddress(insn, 1) : slotOf(insn, 1);
    endComparison(insn, source, insn.i32(0), c);
  };
}

const ftst: Semantics = (insn) => {
  begin(insn);
  setSlot(insn, Scratch.MEMORY, 0, 0n);
  endComparison(insn, insn.i32(Scratch.MEMORY), insn.i32(0), {});
};

/** FCMOVcc: cc is that of the processor's condition codes. */
function conditionalMove(cc: number): Semantics {
  return (insn) => {
    begin(insn);
    const destination = slotOf(insn, 0);
    const source = slotOf(insn, 1);
    ifUsed(insn, [destination, source], destination, Pop.NONE, () =>
      insn.fn.if(condition(insn, cc), () =>
        setSlot(insn, destination, signExponent(insn, source), significand(insn, source)),
      ),
    );
  };
}

const [plus, minus, times, over] = [add(0), add(1), call("x87Mul"), call("x87Div")];

export const ARITHMETIC_FORMS: SemanticsTable = {
  fadd: arithmetic(plus),
  fsub: arithmetic(minus),
  fsubr: arithmetic(reversed(minus)),
  fmul: arithmetic(times),
  fdiv: arithmetic(over),
  fdivr: arithmetic(reversed(over)),
  faddp: arithmetic(plus, Pop.POP),
  fsubp: arithmetic(minus, Pop.POP),
  fsubrp: arithmetic(reversed(minus), Pop.POP),
  fmulp: arithmetic(times, Pop.POP),
  fdivp: arithmetic(over, Pop.POP),
  fdivrp: arithmetic(reversed(over), Pop.POP),
  fiadd: arithmeticMemory(plus, true),
  fisub: arithmeticMemory(minus, true),
  fisubr: arithmeticMemory(reversed(minus), true),
  fimul: arithmeticMemory(times, true),
  fidiv: arithmeticMemory(over, true),
  fidivr: arithmeticMemory(reversed(over), true),

  fcom: comparison({}),
  fcomp: comparison({ pops: 1 }),
  fcompp: comparison({ pops: 2 }),
  fucom: comparison({ quiet: true }),
  fucomp: comparison({ quiet: true, pops: 1 }),
  fucompp: comparison({ quiet: true, pops: 2 }),
  ficom: comparison({ isInteger: true }),
  ficomp: comparison({ isInteger: true, pops: 1 }),
  fcomi: comparison({ toFlags: true }),
  fcomip: comparison({ toFlags: true, pops: 1 }),
  fucomi: comparison({ toFlags: true, quiet: true }),
  fucomip: comparison({ toFlags: true, quiet: true, pops: 1 }),
  ftst,
  fxam: (insn) => {
    begin(insn);
    insn.fn.callVoid(insn.module.get("x87Examine"), stAddress(insn, 0));
  },

  fchs: signOperation((se) => se.xor(0x8000)),
  fabs: signOperation((se) => se.and(0x7fff)),
  fsqrt: unary("x87Sqrt"),
  frndint: unary("x87RoundInteger"),
  fscale: binary("x87Scale"),

  fprem: remainder(0),
  fprem1: remainder(1),
  fxtract: pushing("x87Extract"),
  f2xm1: unary("x87ExpM1"),
  fyl2x: binary("x87Log", Pop.POP),
  fyl2xp1: binary("x87LogP1", Pop.POP),
  fpatan: binary("x87Arctan", Pop.POP),
  fsin: unary("x87Sin", true),
  fcos: unary("x87Cos", true),
  fsincos: pushing("x87SinCos", true),
  fptan: pushing("x87Tan", true),

  fcmovb: conditionalMove(2),
  fcmovnb: conditionalMove(3),
  fcmove: conditionalMove(4),
  fcmovne: conditionalMove(5),
  fcmovbe: conditionalMove(6),
  fcmovnbe: conditionalMove(7),
  fcmovu: conditionalMove(10),
  fcmovnu: conditionalMove(11),
};
