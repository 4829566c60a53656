/** Which pool the operands of a row come from, by the operand codes of its row. */
import type { OperandSpec } from "../../src/processor/isa/operand.ts";
import type { Row } from "../../src/processor/isa/row.ts";
import type { Random } from "./random.ts";
import { BYTES, F32S, F64S, F80S, INTS, LANES, MIXED, type Pool, TEXT } from "./values.ts";

const FLOAT32 = new Set(["ps", "ss"]);
const FLOAT64 = new Set(["pd", "sd"]);
const VECTOR = new Set(["xmm", "mm"]);
const MEMORY_POOLS: Readonly<Record<string, Pool>> = {
  m32fp: F32S,
  m64fp: F64S,
  m80fp: F80S,
  m80bcd: BYTES,
};

function elementPool(row: Row): Pool | null {
  // Conversions between the two float formats have operands of both; each operand's own code decides (operandPool).
  if (row.specs.some((s) => FLOAT32.has(s.size))) return F32S;
  if (row.specs.some((s) => FLOAT64.has(s.size))) return F64S;
  return null;
}

/** Pool for the vector registers of a row, or null if it has none. */
export function rowPool(r: Random, row: Row): Pool | null {
  if (!row.specs.some((s) => VECTOR.has(s.cls) && s.place !== "imm")) return null;
  const element = elementPool(row);
  const source = row.specs[1];
  if (element && source && FLOAT64.has(source.size)) return r.chance(85) ? F64S : MIXED;
  if (element) return r.chance(85) ? element : MIXED;
  return r.pick([INTS, BYTES, LANES, LANES, MIXED, TEXT]);
}

/** Pool for a memory operand. */
export function operandPool(r: Random, row: Row, spec: OperandSpec, bytes: number): Pool {
  const named = MEMORY_POOLS[spec.code];
  if (named) return named;
  if (FLOAT32.has(spec.memSize)) return F32S;
  if (FLOAT64.has(spec.memSize)) return F64S;
  if (VECTOR.has(spec.cls)) {
    // CVTPS2PD and its likes read half a register.
    const element = elementPool(row);
    if (element && bytes === 8) return r.pick([F32S, F64S]);
    return r.pick([INTS, BYTES, LANES, MIXED]);
  }
  return bytes <= 8 ? r.pick([INTS, INTS, LANES]) : MIXED;
}
