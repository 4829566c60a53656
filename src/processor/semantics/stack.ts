/**
 * The stack: PUSH, POP, PUSHA, POPA, ENTER, LEAVE, near CALL and RET. SDM Vol. 2; SDM Vol. 1, "Stacks".
 *
 * The stack pointer is RSP in 64-bit mode, else ESP or SP by SS.B, with SS limits. It moves only after every access of the instruction
 * has succeeded; what PUSHA and ENTER have written below it by then is written again when they are restarted.
 */

import type { Val } from "../ir/value.ts";
import { GPR, Mode, S, SEG_SELECTOR, SEGMENTS, Seg } from "../state/layout.ts";
import { checkedTarget, checkRelative } from "./branch.ts";
import { Access } from "./cpu.ts";
import type { Insn, Semantics, SemanticsTable } from "./insn.ts";

const RSP = 4;
const RBP = 5;
/** Scratch of POPA: eight registers. */
const SCRATCH = 0x900;

type StackBytes = 2 | 4 | 8;

/** Which bits of RSP are the stack pointer; null if all are. */
function stackMask(insn: Insn): Val | null {
  if (insn.is64) return null;
  const wide = insn.i64(0xffff_ffffn);
  if (insn.isFlat32) return wide;
  return insn.get(S.MODE).and(Mode.STACK32).select(wide, insn.i64(0xffffn));
}

/** The stack of one instruction. Offsets are i64, truncated to the width of the stack pointer. */
class Stack {
  readonly #insn: Insn;
  /** Register as found, and its truncation. */
  readonly #register: Val;
  readonly #mask: Val | null;
  readonly pointer: Val;

  constructor(insn: Insn) {
    this.#insn = insn;
    this.#register = insn.gpr(RSP, 8);
    this.#mask = stackMask(insn);
    this.pointer = this.truncate(this.#register);
  }

  truncate(offset: Val): Val {
    return this.#mask ? offset.and(this.#mask) : offset;
  }

  /** The offset `n` bytes above the pointer (below if negative). */
  above(n: number): Val {
    return this.truncate(this.pointer.add(n));
  }

  linear(offset: Val, bytes: number, write: boolean): Val {
    const insn = this.#insn;
    if (insn.is64 || insn.isFlat32) return offset;
    return insn.fn.call(insn.module.get("segLinear"), Seg.SS, offset, bytes, write ? 1 : 0);
  }

  load(offset: Val, bytes: StackBytes): Val {
    return this.#insn.load(this.linear(offset, bytes, false), bytes, Access.STACK);
  }

  store(offset: Val, bytes: StackBytes, v: Val): void {
    this.#insn.store(this.linear(offset, bytes, true), bytes, v, Access.STACK);
  }

  /** RSP as it is with the pointer at `offset`. */
  registerAt(offset: Val): Val {
    return this.#mask ? this.#register.and(this.#mask.not()).or(offset) : offset;
  }

  moveTo(offset: Val): void {
    const isWhole = this.#insn.isFlat32;
    this.#insn.setGpr(RSP, 8, isWhole ? offset : this.registerAt(offset));
  }
}

/** Pushes the low `bytes` of v. */
export function push(insn: Insn, bytes: StackBytes, v: Val): void {
  const stack = new Stack(insn);
  const to = stack.above(-bytes);
  stack.store(to, bytes, v);
  stack.moveTo(to);
}

/** Pops `bytes`; a fault leaves before anything has changed. */
export function pop(insn: Insn, bytes: StackBytes): Val {
  const stack = new Stack(insn);
  const v = stack.load(stack.pointer, bytes);
  stack.moveTo(stack.above(bytes));
  return v;
}

/** A value (i32 or i64) in the type of a stack element. */
const sized = (v: Val, bytes: StackBytes): Val => (bytes === 8 ? v.extU() : v.wrap());

const popOperand: Semantics = (insn) => {
  const bytes = insn.bytes(0) as StackBytes;
  if (insn.kind(0) !== "m") {
    insn.wr(0, pop(insn, bytes));
    return;
  }
  const stack = new Stack(insn);
  const v = stack.load(stack.pointer, bytes);
  const after = stack.above(bytes);
  // The address of the destination is computed with the pointer moved, but a fault must find it as it was.
  stack.moveTo(after);
  const linear = insn.ea(bytes, true);
  stack.moveTo(stack.pointer);
  insn.store(linear, bytes, v, insn.memFlags());
  stack.moveTo(after);
};

const pusha: Semantics = (insn) => {
  const { fn } = insn;
  const bytes = insn.shape.opsize as 2 | 4;
  const stack = new Stack(insn);
  const to = fn.variable("i64", stack.pointer);
  const n = fn.variable("i32", 0);
  fn.while(
    () => n.peek().ltU(8),
    () => {
      to.set(stack.truncate(to.peek().sub(bytes)));
      stack.store(to.read(), bytes, insn.raw(bytes, n.peek().shl(3), GPR));
      n.set(n.peek().add(1));
    },
  );
  stack.moveTo(to.read());
};

const popa: Semantics = (insn) => {
  const { fn } = insn;
  const bytes = insn.shape.opsize as 2 | 4;
  const stack = new Stack(insn);
  const from = fn.variable("i64", stack.pointer);
  const n = fn.variable("i32", 8);
  fn.while(
    () => n.peek().nez(),
    () => {
      n.set(n.peek().sub(1));
      insn.setRaw(bytes, n.read().shl(3), stack.load(from.read(), bytes), SCRATCH);
      from.set(stack.truncate(from.peek().add(bytes)));
    },
  );
  for (let i = 0; i < 8; i++) {
    if (i !== RSP) insn.setGpr(i, bytes, insn.raw(bytes, 0, SCRATCH + 8 * i));
  }
  stack.moveTo(from.read());
};

const enter: Semantics = (insn) => {
  const { fn } = insn;
  const bytes = insn.shape.opsize;
  const allocated = insn.immediate(0).and(0xffff).extU();
  const level = insn.immediate(1).and(31);
  const stack = new Stack(insn);
  const frame = stack.above(-bytes);
  const frameRegister = stack.registerAt(frame);
  stack.store(frame, bytes, insn.gpr(RBP, bytes));
  const to = fn.variable("i64", frame);
  const below = (offset: Val): Val => stack.truncate(offset.sub(bytes));
  fn.if(level, () => {
    const from = fn.variable("i64", insn.gpr(RBP, 8));
    const left = fn.variable("i32", level.sub(1));
    fn.while(
      () => left.peek().nez(),
      () => {
        from.set(below(from.peek()));
        to.set(below(to.peek()));
        stack.store(to.read(), bytes, stack.load(from.read(), bytes));
        left.set(left.peek().sub(1));
      },
    );
    to.set(below(to.peek()));
    stack.store(to.read(), bytes, sized(frameRegister, bytes));
  });
  const top = stack.truncate(to.read().sub(allocated));
  // The last stack element must be writable, though nothing is written there.
  insn.hostW(stack.linear(top, bytes, true), bytes, Access.STACK);
  insn.setGpr(RBP, bytes, sized(frameRegister, bytes));
  stack.moveTo(top);
};

const leave: Semantics = (insn) => {
  const bytes = insn.shape.opsize;
  const stack = new Stack(insn);
  const frame = stack.truncate(insn.gpr(RBP, 8));
  const v = stack.load(frame, bytes);
  stack.moveTo(stack.truncate(frame.add(bytes)));
  insn.setGpr(RBP, bytes, v);
};

const ret: Semantics = (insn) => {
  const bytes = insn.shape.opsize;
  const stack = new Stack(insn);
  const target = checkedTarget(insn, stack.load(stack.pointer, bytes));
  const above = stack.pointer.add(bytes);
  const isPlain = insn.shape.operands.length === 0;
  stack.moveTo(stack.truncate(isPlain ? above : above.add(insn.immediate(0).and(0xffff).extU())));
  insn.jumpTo(target);
};

export const STACK: SemanticsTable = {
  push: (insn) => push(insn, insn.shape.opsize, insn.rd(0)),
  push_sreg: (insn) => {
    const selector = insn.fn.load(
      "i32.load16_u",
      insn.regNumber(0).shl(5),
      SEGMENTS + SEG_SELECTOR,
    );
    push(insn, insn.shape.opsize, sized(selector, insn.shape.opsize));
  },
  pop: popOperand,
  pusha,
  popa,
  enter,
  leave,
  call: (insn) => {
    checkRelative(insn, null);
    push(insn, insn.shape.opsize, sized(insn.nextRip(), insn.shape.opsize));
    insn.jumpRelative(0, null);
  },
  call_ind: (insn) => {
    const target = checkedTarget(insn, insn.rd(0));
    push(insn, insn.shape.opsize, sized(insn.nextRip(), insn.shape.opsize));
    insn.jumpTo(target);
  },
  ret,
};
