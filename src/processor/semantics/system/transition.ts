/**
 * Exit on privilege level: what may have changed the level notes so here; the boundary after it decides (core/cpl-exit.ts).
 * Costs a load and a branch at every far transfer and delivered event while the control is zero.
 */
import type { Operand } from "../../ir/value.ts";
import { S, Slow } from "../../state/layout.ts";
import type { Cpu } from "../cpu.ts";

/** S.CPL_CAUSE is not zero. */
const NOTED = 0x8000_0000 | 0;

/** A build that leaves it out has nothing of it in the code that is generated: the reference for what it costs and changes while it is off. */
export const exitsOnLevel = { isBuilt: true };

/** `cause` is a TransitionCause, with the vector of an event in bits 15:8. */
export function noteTransition(p: Cpu, cause: Operand): void {
  if (!exitsOnLevel.isBuilt) return;
  p.fn.if(p.get(S.CTL_CPL_EXIT), () => {
    p.set(S.CPL_CAUSE, p.i32(NOTED).or(cause));
    p.set(S.SLOW, p.get(S.SLOW).or(Slow.CPL));
  });
}
