/** How VMX instructions end. SDM Vol. 3C, "Conventions", "VM Instruction Error Numbers". */
import type { Fault } from "./operands.ts";

/** VM-instruction error numbers. SDM Vol. 3C, "VM Instruction Error Numbers". */
export const VmxError = {
  VMCALL_IN_ROOT: 1,
  VMCLEAR_ADDRESS: 2,
  VMCLEAR_VMXON: 3,
  VMLAUNCH_NOT_CLEAR: 4,
  VMRESUME_NOT_LAUNCHED: 5,
  CONTROLS: 7,
  HOST_STATE: 8,
  VMPTRLD_ADDRESS: 9,
  VMPTRLD_VMXON: 10,
  VMPTRLD_REVISION: 11,
  UNSUPPORTED_FIELD: 12,
  VMXON_IN_ROOT: 15,
  MOV_SS: 26,
  INVALID_OPERAND: 28,
} as const;

export const UD = 6;
export const GP = 13;

/** How an instruction ends: VMsucceed, VMfailInvalid, the number of a VMfailValid, or a fault. */
export type Outcome = number | Fault;
export const SUCCEED = 0;
export const FAIL_INVALID = -1;
/** The flags are set already. */
export const KEEP_FLAGS = -2;
/** RFLAGS bits that VMsucceed and VMfail set or clear. */
export const ARITHMETIC = 0x8d5;
export const RFLAGS = { CF: 1, ZF: 0x40, RF: 0x1_0000 } as const;
