/**
 * VMX instructions and undefined opcodes. In VMX non-root operation they exit at any CPL, after #UD for the mode; on the bare processor VMX
 * is off (CR4.VMXE cannot be set), so they are #UD.
 * Spec: SDM Vol. 3C, "VMX Instruction Reference", "Instructions That Cause VM Exits Unconditionally", "VM Functions".
 */
import { Mode, S, Seg } from "../../state/layout.ts";
import { Vector } from "../cpu.ts";
import type { Insn, Semantics, SemanticsTable } from "../insn.ts";
import {
  exitWithOperand,
  Information,
  registerNumber,
  registerOperand,
  Secondary,
  secondary,
  undefinedIf,
} from "./common.ts";
import { Rights } from "./rights.ts";
import { longMode } from "./state.ts";

const VMFUNC_EXIT = 59;
const VMFUNC_FUNCTIONS = 63;

/** #UD in real-address, virtual-8086 and compatibility mode. */
function checkMode(insn: Insn): void {
  if (insn.is64) return;
  const compatibility = longMode(insn).and(insn.segRights(Seg.CS).and(Rights.LONG).eqz());
  undefinedIf(insn, insn.get(S.MODE).and(Mode.REAL).ne(0).or(compatibility));
}

function outsideIsUndefined(insn: Insn): void {
  undefinedIf(insn, insn.get(S.NON_ROOT).eqz());
}

/** Operands of an instruction as its exit tells them: its register operand `second`, and operand `place` which may be memory. */
interface Operands {
  readonly second?: number;
  readonly place?: number;
}

function exits(reason: number, { second, place }: Operands = {}): Semantics {
  return (insn) => {
    outsideIsUndefined(insn);
    checkMode(insn);
    const register =
      second === undefined ? insn.i32(0) : registerNumber(insn, second).shl(Information.REGISTER2);
    exitWithOperand(
      insn,
      reason,
      place === undefined ? register : register.or(registerOperand(insn, place)),
    );
  };
}

/** VMCALL exits from every mode. */
function vmcall(insn: Insn): void {
  outsideIsUndefined(insn);
  insn.vmExit(18);
}

function vmfunc(insn: Insn): void {
  outsideIsUndefined(insn);
  undefinedIf(
    insn,
    secondary(insn, Secondary.VM_FUNCTIONS).eqz().or(insn.gpr(0, 4).gtU(VMFUNC_FUNCTIONS)),
  );
  insn.vmExit(VMFUNC_EXIT);
}

const undefinedOpcode: Semantics = (insn) => insn.fault(Vector.UD);

export const VMX: SemanticsTable = {
  vmcall,
  vmclear: exits(19),
  vmlaunch: exits(20),
  vmptrld: exits(21),
  vmptrst: exits(22),
  vmread: exits(23, { second: 1, place: 0 }),
  vmresume: exits(24),
  vmwrite: exits(25, { second: 0, place: 1 }),
  vmxoff: exits(26),
  vmxon: exits(27),
  invept: exits(50, { second: 0 }),
  invvpid: exits(53, { second: 0 }),
  vmfunc,
  getsec: undefinedOpcode,
  rsm: undefinedOpcode,
  ud: undefinedOpcode,
  undefined_opcode: undefinedOpcode,
  instruction_too_long: (insn) => insn.fault(Vector.GP),
};
