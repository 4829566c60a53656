/**
 * x87 FPU instructions: the semantics table of the family, and the procedures that its entries call.
 * Spec: SDM Vol. 2; Vol. 1, "Programming with the x87 FPU".
 *
 * An entry does what depends on operand forms (checks, memory, which slots), the rest is in procedures shared by all forms:
 * arithmetic.ts, square-root.ts, compare.ts, load.ts, store.ts, integral.ts, remainder.ts,
 * trigonometric.ts, exponential.ts, arctangent.ts, control.ts; results take effect in commit.ts.
 */
import type { ModuleBuilder } from "../../ir/module.ts";
import type { SemanticsTable } from "../insn.ts";
import { defineArctangent } from "./arctangent.ts";
import { defineArithmetic } from "./arithmetic.ts";
import { defineCommit } from "./commit.ts";
import { defineCompare } from "./compare.ts";
import { defineControl } from "./control.ts";
import { defineExponential } from "./exponential.ts";
import { ARITHMETIC_FORMS } from "./forms-arithmetic.ts";
import { CONTROL_FORMS } from "./forms-control.ts";
import { DATA_FORMS } from "./forms-data.ts";
import { defineIntegral } from "./integral.ts";
import { defineLoad } from "./load.ts";
import { defineNan } from "./nan.ts";
import { defineRemainder } from "./remainder.ts";
import { defineSquareRoot } from "./square-root.ts";
import { defineStoreConversions } from "./store.ts";
import { defineTrigonometric } from "./trigonometric.ts";
import { defineWide } from "./wide.ts";
import { defineWideFloat } from "./wide-float.ts";

export const X87: SemanticsTable = { ...ARITHMETIC_FORMS, ...DATA_FORMS, ...CONTROL_FORMS };

/** Defines every procedure of the family; needs memR, memW and memCommit declared. */
export function defineX87Procedures(module: ModuleBuilder): void {
  defineCommit(module);
  defineNan(module);
  defineWide(module);
  defineArithmetic(module);
  defineSquareRoot(module);
  defineCompare(module);
  defineLoad(module);
  defineStoreConversions(module);
  defineIntegral(module);
  defineRemainder(module);
  defineWideFloat(module);
  defineTrigonometric(module);
  defineExponential(module);
  defineArctangent(module);
  defineControl(module);
}
