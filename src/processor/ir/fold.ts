/**
 * Constant folding and identities of integer operations. Answers null where nothing folds.
 * Only i32 and i64; floating point is left to the engine so that NaN payloads stay its business in one place.
 */
import type { OpInfo } from "./ops.ts";
import type { Val } from "./value.ts";

type Fold = (a: bigint, b: bigint, bits: bigint) => bigint | null;

const u = (x: bigint, bits: bigint) => BigInt.asUintN(Number(bits), x);
const s = (x: bigint, bits: bigint) => BigInt.asIntN(Number(bits), x);
const bool = (b: boolean) => (b ? 1n : 0n);

/** Shared with the reference evaluator: the meaning of each two-operand integer instruction on mathematical integers. */
export const INTEGER_BINARY: Readonly<Record<string, Fold>> = {
  add: (a, b) => a + b,
  sub: (a, b) => a - b,
  mul: (a, b) => a * b,
  div_s: (a, b, n) => (u(b, n) === 0n ? null : s(a, n) / s(b, n)),
  div_u: (a, b, n) => (u(b, n) === 0n ? null : u(a, n) / u(b, n)),
  rem_s: (a, b, n) => (u(b, n) === 0n ? null : s(a, n) % s(b, n)),
  rem_u: (a, b, n) => (u(b, n) === 0n ? null : u(a, n) % u(b, n)),
  and: (a, b) => a & b,
  or: (a, b) => a | b,
  xor: (a, b) => a ^ b,
  shl: (a, b, n) => a << (b & (n - 1n)),
  shr_s: (a, b, n) => s(a, n) >> (b & (n - 1n)),
  shr_u: (a, b, n) => u(a, n) >> (b & (n - 1n)),
  rotl: (a, b, n) => (u(a, n) << (b & (n - 1n))) | (u(a, n) >> ((n - (b & (n - 1n))) & (n - 1n))),
  rotr: (a, b, n) => (u(a, n) >> (b & (n - 1n))) | (u(a, n) << ((n - (b & (n - 1n))) & (n - 1n))),
  eq: (a, b, n) => bool(u(a, n) === u(b, n)),
  ne: (a, b, n) => bool(u(a, n) !== u(b, n)),
  lt_s: (a, b, n) => bool(s(a, n) < s(b, n)),
  lt_u: (a, b, n) => bool(u(a, n) < u(b, n)),
  gt_s: (a, b, n) => bool(s(a, n) > s(b, n)),
  gt_u: (a, b, n) => bool(u(a, n) > u(b, n)),
  le_s: (a, b, n) => bool(s(a, n) <= s(b, n)),
  le_u: (a, b, n) => bool(u(a, n) <= u(b, n)),
  ge_s: (a, b, n) => bool(s(a, n) >= s(b, n)),
  ge_u: (a, b, n) => bool(u(a, n) >= u(b, n)),
};

const COMMUTATIVE = new Set(["add", "mul", "and", "or", "xor", "eq", "ne"]);
const SHIFTS = new Set(["shl", "shr_s", "shr_u", "rotl", "rotr"]);

export function foldBinary(op: OpInfo, x: Val, y: Val): Val | null {
  if ((!x.isConst && !y.isConst) || (x.type !== "i32" && x.type !== "i64")) return null;
  const name = op.short;
  if (x.isConst && y.isConst) {
    const bits = x.type === "i64" ? 64n : 32n;
    const value = INTEGER_BINARY[name]?.(BigInt(x.imm as number), BigInt(y.imm as number), bits);
    if (value === null || value === undefined) return null;
    return op.result === "i64" ? x.fn.i64(value) : x.fn.i32(Number(BigInt.asIntN(32, value)));
  }
  if (x.isConst && COMMUTATIVE.has(name)) return foldBinary(op, y, x) ?? x.fn.pure(op, [y, x]);
  if (!y.isConst) return null;
  if (y.is(0)) {
    if (name === "add" || name === "sub" || name === "or" || name === "xor" || SHIFTS.has(name))
      return x;
    if (name === "and" || name === "mul") return y;
  }
  if (y.is(1) && name === "mul") return x;
  if (y.is(-1) && name === "and") return x;
  return null;
}

export function foldUnary(op: OpInfo, x: Val): Val | null {
  if (!x.isConst) return null;
  const v = x.imm as bigint | number;
  switch (op.name) {
    case "i32.eqz":
    case "i64.eqz":
      return x.fn.i32(x.is(0) ? 1 : 0);
    case "i32.wrap_i64":
      return x.fn.i32(Number(BigInt.asIntN(32, v as bigint)));
    case "i64.extend_i32_u":
      return x.fn.i64(BigInt((v as number) >>> 0));
    case "i64.extend_i32_s":
      return x.fn.i64(BigInt(v as number));
    case "i32.extend8_s":
      return x.fn.i32(((v as number) << 24) >> 24);
    case "i32.extend16_s":
      return x.fn.i32(((v as number) << 16) >> 16);
    default:
      return null;
  }
}
