/**
 * Exit on privilege level (vendor, isa/vendor.ts): the decision at an instruction boundary behind a transition.
 *
 * cplBoundary() -> EXIT or NEXT. The transition is complete; the level that it led to becomes the one the next is compared with. A boundary
 * that another exit has won is not looked at again: VM entry takes the level it finds (vmx/processor.ts).
 */
import type { Val } from "../ir/value.ts";
import { CplExit, CplQualification, TransitionCause, VendorExit } from "../isa/vendor.ts";
import type { Procedure } from "../semantics/procedure.ts";
import { callVoid, type ProcedureText } from "../semantics/system/procedure-text.ts";
import { S } from "../state/layout.ts";

const CAUSES = 0x1f;
/** Criteria that hold without a transition. */
const OF_LEVEL = CplExit.MATCH | CplExit.GREATER | CplExit.LESS;
/** Place of the matrix among the criteria met. */
const BY_MATRIX = 6;

function cplBoundary(p: Procedure): void {
  const { fn } = p;
  const control = p.get(S.CTL_CPL_EXIT);
  const cause = p.get(S.CPL_CAUSE);
  const from = p.get(S.CPL_LAST);
  const to = p.get(S.CPL);
  p.set(S.CPL_CAUSE, 0);
  callVoid(p, "updateSlow");
  const target = control.shrU(CplExit.TARGET_SHIFT).and(3);
  const holds = (condition: Val, criterion: number): Val =>
    condition.select(p.i32(criterion), p.i32(0));
  const met = holds(to.ne(from), CplExit.CHANGE)
    .or(holds(to.ltU(from), CplExit.INCREASE))
    .or(holds(to.gtU(from), CplExit.DECREASE))
    .or(holds(to.eq(target), CplExit.MATCH))
    .or(holds(to.gtU(target), CplExit.GREATER))
    .or(holds(to.ltU(target), CplExit.LESS))
    .and(control);
  const bit = from.shl(2).add(to).add(CplExit.MATRIX_SHIFT);
  const all = met.or(control.shrU(bit).and(1).shl(BY_MATRIX));
  const isEntry = cause.and(CAUSES).eq(TransitionCause.VM_ENTRY);
  const criteria = isEntry.select(met.and(OF_LEVEL), all);
  const isDeclined = control.shrU(to.add(CplExit.DECLINE_SHIFT)).and(1);
  fn.if(criteria.ne(0).and(isDeclined.eqz()), () => {
    const { OLD_SHIFT, CAUSE_SHIFT, CRITERIA_SHIFT, VECTOR_SHIFT } = CplQualification;
    const qualification = to
      .or(from.shl(OLD_SHIFT))
      .or(cause.and(CAUSES).shl(CAUSE_SHIFT))
      .or(criteria.shl(CRITERIA_SHIFT))
      .or(cause.shrU(8).and(0xff).shl(VECTOR_SHIFT));
    p.vmExit(VendorExit.CPL_TRANSITION, qualification.extU());
  });
  p.set(S.CPL_LAST, to);
}

export const cplExitProcedures: readonly ProcedureText[] = [
  { name: "cplBoundary", params: [], answer: "status", body: cplBoundary },
];
