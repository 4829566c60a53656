/**
 * The reading of semantic text as a WebAssembly function of its own that answers a Status (i32).
 * Lazy flags live in the state block. Used for everything too large or too rare for the run loop: page walks, exception delivery, IRET, far
 * transfers, x87. A procedure may call others with `propagate(call(...))`.
 */

import type { FunctionRef, ModuleBuilder } from "../ir/module.ts";
import type { Type } from "../ir/ops.ts";
import type { Val } from "../ir/value.ts";
import { S, Status } from "../state/layout.ts";
import { Cpu } from "./cpu.ts";

export class Procedure extends Cpu {
  leave(status: number): void {
    this.fn.return(status);
  }

  flagResult(): Val {
    return this.get(S.FLAG_RESULT);
  }

  flagCarry(): Val {
    return this.get(S.FLAG_CARRY);
  }

  setFlagResult(v: Val): void {
    this.set(S.FLAG_RESULT, v);
  }

  setFlagCarry(v: Val): void {
    this.set(S.FLAG_CARRY, v);
  }
}

/** Declares and defines a procedure of the core module. Answers NEXT where its body falls off the end. */
export function defineProcedure(
  module: ModuleBuilder,
  name: string,
  params: readonly Type[],
  body: (p: Procedure) => void,
): FunctionRef {
  return module.function(name, params, ["i32"], (fn) => {
    const p = new Procedure(module, fn);
    body(p);
    fn.return(Status.NEXT);
  });
}
