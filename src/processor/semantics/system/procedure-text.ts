/**
 * How the system procedures are written down: as a list per file, declared together before any is defined, so that they may call each
 * other in any order. All are exported: handlers compiled later import them by name.
 */

import type { FunctionBuilder } from "../../ir/function.ts";
import type { ModuleBuilder } from "../../ir/module.ts";
import type { Type } from "../../ir/ops.ts";
import type { Operand, Val } from "../../ir/value.ts";
import { Status } from "../../state/layout.ts";
import type { Cpu } from "../cpu.ts";
import { Procedure } from "../procedure.ts";

/**
 * What a procedure answers: a Status · a host address, 0 with a fault pending · a 64-bit value (descriptor or linear address), 0 with a
 * fault pending · nothing (it cannot fault).
 */
export type Answer = "status" | "host" | "wide" | "none";

export interface ProcedureText {
  readonly name: string;
  readonly params: readonly Type[];
  readonly answer: Answer;
  readonly body: (p: Procedure) => void;
}

const RESULTS: Record<Answer, readonly Type[]> = {
  status: ["i32"],
  host: ["i32"],
  wide: ["i64"],
  none: [],
};

class SystemProcedure extends Procedure {
  readonly #answer: Answer;

  constructor(module: ModuleBuilder, fn: FunctionBuilder, answer: Answer) {
    super(module, fn);
    this.#answer = answer;
  }

  override leave(status: number): void {
    if (this.#answer === "status") this.fn.return(status);
    else if (this.#answer === "none") this.fn.return();
    else this.fn.return(0);
  }
}

/** Declares what another part of the module has not declared already. */
export function declareProcedures(module: ModuleBuilder, texts: readonly ProcedureText[]): void {
  for (const { name, params, answer } of texts) module.declare(name, params, RESULTS[answer], true);
}

export function defineProcedures(module: ModuleBuilder, texts: readonly ProcedureText[]): void {
  for (const { name, params, answer, body } of texts) {
    module.function(
      name,
      params,
      RESULTS[answer],
      (fn) => {
        body(new SystemProcedure(module, fn, answer));
        if (answer === "none") fn.return();
        else fn.return(answer === "status" ? Status.NEXT : 0);
      },
      true,
    );
  }
}

/** Calls a procedure by name for its answer. */
export function call(p: Cpu, name: string, ...args: Operand[]): Val {
  return p.fn.call(p.module.get(name), ...args);
}

export function callVoid(p: Cpu, name: string, ...args: Operand[]): void {
  p.fn.callVoid(p.module.get(name), ...args);
}

/** Calls a "host" or "wide" procedure; leaves with FAULT if it answers 0. */
export function obtain(p: Cpu, name: string, ...args: Operand[]): Val {
  const answer = call(p, name, ...args);
  p.fn.if(answer.eqz(), () => p.leave(Status.FAULT));
  return answer;
}

/** Calls a "status" procedure that answers NEXT or FAULT. */
export function perform(p: Cpu, name: string, ...args: Operand[]): void {
  p.propagate(call(p, name, ...args));
}
