/**
 * A handler as a function of its own: (record) -> Status. Lazy flags, budget and instruction pointer are in the state block.
 */

import type { Val } from "../ir/value.ts";
import { isOutside } from "../semantics/branch.ts";
import { Vector } from "../semantics/cpu.ts";
import { S, Status } from "../state/layout.ts";
import { RecordInsn } from "./record-insn.ts";

export class ColdInsn extends RecordInsn {
  record(): Val {
    return this.fn.param(0);
  }

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

  protected ripPage(): Val {
    return this.get(S.RIP_PAGE);
  }

  retired(): Val {
    return this.get(S.BUDGET_START).sub(this.get(S.BUDGET)).sub(this.remaining()).sub(1);
  }

  jumpRelative(_i: number, condition: Val | null): void {
    const body = (): void => {
      const target = this.relativeTarget();
      this.faultIf(isOutside(this, target), Vector.GP);
      this.jumpTo(target);
    };
    if (condition) this.fn.if(condition, body);
    else body();
  }

  jumpTo(rip: Val): void {
    this.set(S.RIP, rip);
    this.leave(Status.JUMP);
  }
}
