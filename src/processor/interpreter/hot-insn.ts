/**
 * A handler inlined in the run loop: registers in memory, lazy flags, context and budget in locals, TLB inlined at each access.
 * Hot path.
 */

import type { FunctionBuilder, Label, Variable } from "../ir/function.ts";
import type { ModuleBuilder } from "../ir/module.ts";
import type { Operand, Val } from "../ir/value.ts";
import { addend, contextOf, entryOffset, isHit } from "../memory/tlb.ts";
import { isOutside } from "../semantics/branch.ts";
import { Vector } from "../semantics/cpu.ts";
import type { Shape } from "../semantics/insn.ts";
import {
  INDIRECT_TARGETS,
  INDIRECT_TARGETS_BYTES,
  Rec,
  S,
  Status,
  TLB_READ,
  TLB_WRITE,
} from "../state/layout.ts";
import { RecordInsn } from "./record-insn.ts";

/** Locals of the run loop and the places a handler can go. */
export interface RunContext {
  readonly pc: Variable;
  readonly ripPage: Variable;
  readonly flagResult: Variable;
  readonly flagCarry: Variable;
  readonly context: Variable;
  readonly highContext: Variable;
  readonly budget: Variable;
  /** Record whose chain the next lookup may fill, 0 = none. */
  readonly link: Variable;
  /** RIP (i64) of the block that a region has left to the interpreter, or -1. */
  readonly interpretAt: Variable;
  /** Note where indirect jumps go, for the region tier. */
  readonly recordsTargets: boolean;
  /** pc is the current record: execute the next one. */
  readonly next: Label;
  /** pc is the first record of a block: account for it and execute. */
  readonly enter: Label;
  /** S.RIP is set, the budget is exact: find the block. */
  readonly resume: Label;
  /** A fault is pending at the current record. */
  readonly fault: Label;
  /** A VM exit at the current record. */
  readonly exit: Label;
}

export class HotInsn extends RecordInsn {
  readonly #run: RunContext;

  constructor(module: ModuleBuilder, fn: FunctionBuilder, shape: Shape, run: RunContext) {
    super(module, fn, shape);
    this.#run = run;
  }

  record(): Val {
    return this.#run.pc.peek();
  }

  leave(status: number): void {
    const { fn } = this;
    const run = this.#run;
    switch (status) {
      case Status.NEXT:
        fn.br(run.next);
        break;
      case Status.FAULT:
        fn.br(run.fault);
        break;
      case Status.EXIT:
        fn.br(run.exit);
        break;
      default:
        this.#refund();
        fn.br(run.resume);
    }
  }

  #refund(): void {
    this.#run.budget.set(this.#run.budget.peek().add(this.remaining()));
  }

  flagResult(): Val {
    return this.#run.flagResult.read();
  }

  flagCarry(): Val {
    return this.#run.flagCarry.read();
  }

  setFlagResult(v: Val): void {
    this.#run.flagResult.set(v);
  }

  setFlagCarry(v: Val): void {
    this.#run.flagCarry.set(v);
  }

  protected ripPage(): Val {
    return this.#run.ripPage.peek();
  }

  retired(): Val {
    return this.get(S.BUDGET_START).sub(this.#run.budget.peek()).sub(this.remaining()).sub(1);
  }

  #recordTarget(to: Val): void {
    const from = this.rip();
    const low = to.wrap();
    const at = from
      .wrap()
      .xor(low)
      .xor(low.shrU(6))
      .and(INDIRECT_TARGETS_BYTES / 16 - 1)
      .shl(4);
    this.fn.store("i64.store", at, from, INDIRECT_TARGETS);
    this.fn.store("i64.store", at, to, INDIRECT_TARGETS + 8);
  }

  #host(array: number, miss: string, linear: Val, bytes: number, flags: Operand): Val {
    const { fn } = this;
    const host = fn.declare("i32");
    const at = entryOffset(linear);
    const { context, highContext } = this.#run;
    fn.likely(
      isHit(fn, array, at, linear, bytes, contextOf(linear, context.peek(), highContext.peek())),
      () => host.set(linear.wrap().add(addend(fn, array, at))),
      () => {
        const slow = fn.call(this.module.get(miss), linear, bytes, flags);
        fn.brIf(slow.eqz(), this.#run.fault);
        host.set(slow);
      },
    );
    return host.read();
  }

  override hostR(linear: Val, bytes: number, flags: Operand = 0): Val {
    return this.#host(TLB_READ, "memR", linear, bytes, flags);
  }

  override hostW(linear: Val, bytes: number, flags: Operand = 0): Val {
    return this.#host(TLB_WRITE, "memW", linear, bytes, flags);
  }

  jumpRelative(_i: number, condition: Val | null): void {
    const { fn } = this;
    const run = this.#run;
    const body = (): void => {
      const chain = fn.load("i32.load", this.record(), Rec.CHAIN);
      fn.if(chain, () => {
        this.#refund();
        run.pc.set(chain);
        fn.br(run.enter);
      });
      const target = this.relativeTarget();
      if (this.is64) this.faultIf(isOutside(this, target), Vector.GP);
      this.#refund();
      run.link.set(this.record());
      this.set(S.RIP, target);
      fn.br(run.resume);
    };
    if (condition) fn.if(condition, body);
    else body();
  }

  override unlessTaken(body: () => void): void {
    this.fn.if(this.fn.load("i32.load", this.record(), Rec.CHAIN).eqz(), body);
  }

  jumpTo(rip: Val): void {
    if (this.#run.recordsTargets && this.shape.sem.endsWith("_ind")) this.#recordTarget(rip);
    this.set(S.RIP, rip);
    this.#refund();
    this.fn.br(this.#run.resume);
  }
}
