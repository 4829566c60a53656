/**
 * Table entries of loads, stores, exchanges and constants. Spec: SDM Vol. 2.
 */

import type { Val } from "../../ir/value.ts";
import { S } from "../../state/layout.ts";
import type { Insn, Semantics, SemanticsTable } from "../insn.ts";
import { begin, beginWithNumber, readOperand, setPointers, slotOf, writeOperand } from "./forms.ts";
import { CONSTANT_NAMES, type ConstantName, constantValue } from "./load.ts";
import {
  BIAS,
  checkWaiting,
  Fsw,
  INTEGER_BIT,
  isEmpty,
  Pop,
  roundingControl,
  Scratch,
  setSlot,
  signExponent,
  significand,
  stAddress,
  tagBit,
} from "./state.ts";

const fld: Semantics = (insn) => {
  const { fn, module } = insn;
  if (insn.kind(0) === "m") {
    const denormal = beginWithNumber(insn, false);
    // An 80-bit value is loaded as it is.
    if (insn.shape.operands[0]!.bytes === 10) pushMemory(insn);
    else fn.callVoid(module.get("x87LoadValue"), denormal);
    return;
  }
  begin(insn);
  const source = slotOf(insn, 0);
  fn.if(
    isEmpty(insn, source),
    () => fn.callVoid(module.get("x87PushEmpty")),
    () =>
      fn.callVoid(module.get("x87Push"), signExponent(insn, source), significand(insn, source), 0),
  );
};

function pushMemory(insn: Insn): void {
  const [se, sig] = [signExponent(insn, Scratch.MEMORY), significand(insn, Scratch.MEMORY)];
  insn.fn.callVoid(insn.module.get("x87Push"), se, sig, 0);
}

const fild: Semantics = (insn) => {
  beginWithNumber(insn, true);
  pushMemory(insn);
};

const fbld: Semantics = (insn) => {
  checkWaiting(insn);
  const host = readOperand(insn, 10);
  insn.fn.callVoid(insn.module.get("x87FromBcd"), host);
  setPointers(insn);
  pushMemory(insn);
};

function constant(value: (insn: Insn) => { exponent: Val; significand: Val }): Semantics {
  return (insn) => {
    begin(insn);
    const v = value(insn);
    insn.fn.callVoid(insn.module.get("x87Push"), v.exponent, v.significand, 0);
  };
}

/** Conversion of ST(0) to the memory operand, then a pop if it succeeded. */
function store(convert: (insn: Insn, slot: Val, bytes: number) => Val, pops: boolean): Semantics {
  return (insn) => {
    const { fn, module } = insn;
    const bytes = insn.shape.operands[0]!.bytes;
    checkWaiting(insn);
    const host = writeOperand(insn, bytes);
    setPointers(insn);
    fn.if(convert(insn, stAddress(insn, 0), bytes), () => {
      if (bytes === 10) {
        insn.setRaw(8, host, insn.raw(8, Scratch.LOW));
        insn.setRaw(2, host, insn.raw(2, Scratch.LOW, 8), 8);
      } else insn.setRaw(bytes as 2 | 4 | 8, host, insn.raw(bytes as 2 | 4 | 8, Scratch.LOW));
      insn.commit(host);
      if (pops) fn.callVoid(module.get("x87Pop"));
    });
  };
}

const FLOAT_STORES: Record<number, string> = {
  4: "x87ToSingle",
  8: "x87ToDouble",
  10: "x87ToExtended",
};

const toFloat = (insn: Insn, slot: Val, bytes: number): Val =>
  insn.fn.call(insn.module.get(FLOAT_STORES[bytes]!), slot);

const toInteger =
  (truncate: number) =>
  (insn: Insn, slot: Val, bytes: number): Val =>
    insn.fn.call(insn.module.get("x87ToInteger"), slot, bytes, truncate);

const toBcd = (insn: Insn, slot: Val): Val => insn.fn.call(insn.module.get("x87ToBcd"), slot);

/** FST and FSTP, to memory or to a register (any encoding as it is). */
function storeFloat(pop: number): Semantics {
  return (insn) => {
    if (insn.kind(0) === "m") return store(toFloat, pop === Pop.POP)(insn);
    const { fn, module } = insn;
    begin(insn);
    const [source, destination] = [stAddress(insn, 0), slotOf(insn, 0)];
    fn.if(
      isEmpty(insn, source),
      () => fn.callVoid(module.get("x87Underflow"), destination, pop),
      () =>
        fn.callVoid(
          module.get("x87Store"),
          destination,
          signExponent(insn, source),
          significand(insn, source),
          0,
          pop,
        ),
    );
  };
}

const fxch: Semantics = (insn) => {
  const { fn, module } = insn;
  begin(insn);
  const [a, b] = [slotOf(insn, 0), slotOf(insn, 1)];
  fn.if(
    isEmpty(insn, a).or(isEmpty(insn, b)),
    () => fn.callVoid(module.get("x87ExchangeEmpty"), a, b),
    () => {
      const [seA, sigA] = [signExponent(insn, a), significand(insn, a)];
      const [seB, sigB] = [signExponent(insn, b), significand(insn, b)];
      setSlot(insn, a, seB, sigB);
      setSlot(insn, b, seA, sigA);
      insn.set(S.FSW, insn.get(S.FSW).and(~Fsw.C1));
    },
  );
};

/** FSTP to an alias that does not check: an empty ST(0) is just popped. */
const storeUnchecked: Semantics = (insn) => {
  const { fn, module } = insn;
  begin(insn);
  insn.set(S.FSW, insn.get(S.FSW).and(~Fsw.C1));
  const [source, destination] = [stAddress(insn, 0), slotOf(insn, 0)];
  fn.if(
    isEmpty(insn, source),
    () => fn.callVoid(module.get("x87Pop")),
    () =>
      fn.callVoid(
        module.get("x87Store"),
        destination,
        signExponent(insn, source),
        significand(insn, source),
        0,
        Pop.POP,
      ),
  );
};

function free(insn: Insn): void {
  insn.set(S.FSW, insn.get(S.FSW).and(~Fsw.C1));
  insn.set(S.FTAG_EMPTY, insn.get(S.FTAG_EMPTY).or(tagBit(insn, slotOf(insn, 0))));
}

function rotate(by: number): Semantics {
  return (insn) => {
    begin(insn);
    const status = insn.get(S.FSW);
    const turned = status.add(by << 11).and(Fsw.TOP);
    insn.set(S.FSW, status.and(~(Fsw.TOP | Fsw.C1)).or(turned));
  };
}

export const DATA_FORMS: SemanticsTable = {
  fld,
  fild,
  fbld,
  fst: storeFloat(Pop.NONE),
  fstp: storeFloat(Pop.POP),
  fstpnce: storeUnchecked,
  fist: store(toInteger(0), false),
  fistp: store(toInteger(0), true),
  fisttp: store(toInteger(1), true),
  fbstp: store(toBcd, true),
  fxch,
  fld1: constant((insn) => ({ exponent: insn.i32(BIAS), significand: insn.i64(INTEGER_BIT) })),
  fldz: constant((insn) => ({ exponent: insn.i32(0), significand: insn.i64(0) })),
  ...Object.fromEntries(
    CONSTANT_NAMES.map((name: ConstantName) => [
      name,
      constant((insn) => constantValue(insn, name, roundingControl(insn))),
    ]),
  ),
  ffree: (insn) => {
    begin(insn);
    free(insn);
  },
  ffreep: (insn) => {
    begin(insn);
    free(insn);
    insn.fn.callVoid(insn.module.get("x87Pop"));
  },
  fincstp: rotate(1),
  fdecstp: rotate(7),
  fnop: begin,
};
