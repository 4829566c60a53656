/**
 * Control instructions: control and status words, environment and state images.
 * Spec: SDM Vol. 1, "Saving the x87 FPU's State with FSTENV/FNSTENV and FSAVE/FNSAVE"; Vol. 2, FLDCW, FLDENV, FNSTENV, FRSTOR, FNSAVE.
 *
 *   x87SetControl(word) · x87LoadEnvironment(host, format) · x87StoreEnvironment(host, format) · x87Initialize()
 * format: bit 0 = 32-bit image, bit 1 = real-address form. Pointer selectors are stored as zero: the CPU model says so in
 * CPUID.(EAX=07H,ECX=0):EBX[13].
 */
import { Mode, S } from "../../core/layout.ts";
import type { ModuleBuilder } from "../../ir/module.ts";
import type { Val } from "../../ir/value.ts";
import type { Cpu } from "../cpu.ts";
import type { Insn } from "../insn.ts";
import { Class, classOf } from "./nan.ts";
import { defineHelper, Fcw, Fsw, parameters, stAddress, TOP_SHIFT } from "./state.ts";

export const Format = { WIDE: 1, REAL: 2 } as const;
export const ENVIRONMENT_BYTES = { 2: 14, 4: 28, 8: 28 } as const;
export const REGISTER_BYTES = 10;

/** Sets ES and B from the flags and masks in force. */
function updateSummary(cpu: Cpu): void {
  const status = cpu.get(S.FSW);
  const unmasked = status.and(cpu.get(S.FCW).not()).and(Fsw.EXCEPTIONS);
  const summary = unmasked.ne(0).select(cpu.i32(Fsw.ES | Fsw.B), cpu.i32(0));
  cpu.set(S.FSW, status.and(~(Fsw.ES | Fsw.B)).or(summary));
}

/** Image format of this instruction (i32). */
export function imageFormat(insn: Insn): Val {
  const real = insn.get(S.MODE).and(Mode.REAL).ne(0).shl(1);
  return real.or(insn.shape.opsize === 2 ? 0 : Format.WIDE);
}

/** The tag word of an image: two bits for each physical register: valid, zero, special, empty. */
function defineTagWord(module: ModuleBuilder): void {
  defineHelper(module, "x87TagWord", [], "i32", (p, fn) => {
    const word = fn.variable("i32", 0);
    const empty = p.get(S.FTAG_EMPTY);
    for (let n = 7; n >= 0; n--) {
      const kind = classOf(p, stAddressOf(p, n));
      const special = kind.ge2();
      void special;
    }
    void empty;
    void word;
  });
}
