/**
 * Table entries of the control instructions. The FN forms do not wait: they report no earlier exception.
 * Spec: SDM Vol. 2.
 */

import type { Val } from "../../ir/value.ts";
import { Cr0 } from "../../state/control-bits.ts";
import { Mode, S } from "../../state/layout.ts";
import { Vector } from "../cpu.ts";
import type { Insn, SemanticsTable } from "../insn.ts";
import { ENVIRONMENT_BYTES, REGISTER_BYTES } from "./control.ts";
import { readOperand, writeOperand } from "./forms.ts";
import { checkAvailable, checkException, checkWaiting, Fsw } from "./state.ts";

const environmentBytes = (insn: Insn): number => ENVIRONMENT_BYTES[insn.shape.opsize];
const stateBytes = (insn: Insn): number => environmentBytes(insn) + 8 * REGISTER_BYTES;

function callImage(insn: Insn, name: string, host: Val): void {
  const real = insn.get(S.MODE).and(Mode.REAL);
  const suffix = insn.shape.opsize === 2 ? "16" : "32";
  insn.fn.callVoid(insn.module.get(`${name}${suffix}`), host, real);
}

function storeState(insn: Insn, host: Val): void {
  callImage(insn, "x87StoreEnvironment", host);
  insn.fn.callVoid(insn.module.get("x87StoreRegisters"), host.add(environmentBytes(insn)));
}

export const CONTROL_FORMS: SemanticsTable = {
  fninit: (insn) => {
    checkAvailable(insn);
    insn.fn.callVoid(insn.module.get("x87Initialize"));
  },
  // Of the 8087 and 80287; no-operations since. Being FN forms they report no earlier exception.
  fnnop: checkAvailable,
  fnclex: (insn) => {
    checkAvailable(insn);
    insn.set(S.FSW, insn.get(S.FSW).and(Fsw.TOP | Fsw.CONDITIONS));
  },
  fnstcw: (insn) => {
    checkAvailable(insn);
    insn.wr(0, insn.get(S.FCW));
  },
  fldcw: (insn) => {
    checkWaiting(insn);
    insn.fn.callVoid(insn.module.get("x87SetControl"), insn.rd(0));
  },
  fnstsw: (insn) => {
    checkAvailable(insn);
    insn.wr(0, insn.get(S.FSW));
  },
  fnstenv: (insn) => {
    checkAvailable(insn);
    const host = writeOperand(insn, environmentBytes(insn));
    callImage(insn, "x87StoreEnvironment", host);
    insn.commit(host);
    insn.fn.callVoid(insn.module.get("x87SetControl"), insn.get(S.FCW).or(Fsw.EXCEPTIONS));
  },
  fldenv: (insn) => {
    checkWaiting(insn);
    callImage(insn, "x87LoadEnvironment", readOperand(insn, environmentBytes(insn)));
  },
  fnsave: (insn) => {
    checkAvailable(insn);
    const host = writeOperand(insn, stateBytes(insn));
    storeState(insn, host);
    insn.commit(host);
    insn.fn.callVoid(insn.module.get("x87Initialize"));
  },
  frstor: (insn) => {
    checkWaiting(insn);
    const host = readOperand(insn, stateBytes(insn));
    callImage(insn, "x87LoadEnvironment", host);
    insn.fn.callVoid(insn.module.get("x87LoadRegisters"), host.add(environmentBytes(insn)));
  },
  fwait: (insn) => {
    const both = Cr0.MP | Cr0.TS;
    insn.faultIf(insn.raw(4, 0, S.CR0.at).and(both).eq(both), Vector.NM);
    checkException(insn);
  },
};
