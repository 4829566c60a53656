/**
 * Working storage of the SIMD procedures in the state page: nothing here lives longer than one instruction, so it is no part of the
 * processor's state. It lies beyond the fields of state/layout.ts.
 */
import type { Val } from "../../ir/value.ts";
import type { Cpu } from "../cpu.ts";

export const RESULT = 0x1d00;

/** The result of a procedure whose answer is a Status: 16 bytes, or the low 8 or 4 of them. */
export function setResult(cpu: Cpu, bytes: 4 | 8 | 16, value: Val): void {
  cpu.setRaw(bytes, 0, value, RESULT);
}

export function result(cpu: Cpu, bytes: 4 | 8 | 16): Val {
  return cpu.raw(bytes, 0, RESULT);
}
