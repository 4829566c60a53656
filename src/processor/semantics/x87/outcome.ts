/**
 * Early ends of procedures on a slot without a pop: special operands, NaNs, the invalid operation.
 */
import type { Val } from "../../ir/value.ts";
import type { Procedure } from "../procedure.ts";
import { Fsw, INDEFINITE, INDEFINITE_SE, Pop } from "./state.ts";

/** Ends with `se`, `sig` in slot under a condition. */
export function endIf(
  p: Procedure,
  condition: Val,
  slot: Val,
  result: () => { se: Val; sig: Val; flags: Val },
): void {
  p.fn.if(condition, () => {
    const r = result();
    p.fn.callVoid(p.module.get("x87Store"), slot, r.se, r.sig, r.flags, Pop.NONE);
    p.fn.return();
  });
}

/** Ends with the NaN that results if `a` or `b` is a NaN or unsupported. */
export function endIfNan(
  p: Procedure,
  condition: Val,
  a: Val,
  b: Val,
  slot: Val,
  pop: number = Pop.NONE,
): void {
  p.fn.if(condition, () => {
    p.fn.callVoid(p.module.get("x87Propagate"), a, b, slot, pop);
    p.fn.return();
  });
}

export const indefinite = (p: Procedure) => ({
  se: p.i32(INDEFINITE_SE),
  sig: p.i64(INDEFINITE),
  flags: p.i32(Fsw.IE),
});
