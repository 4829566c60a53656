/**
 * WebAssembly's pure instructions as data: name -> opcode bytes and signature.
 * Spec: WebAssembly Core Specification 2.0, "Binary Format: Instructions".
 *
 * Every operation here is a pure function of its operands (no memory, no locals, no control), which is what lets function.ts sink
 * and drop them freely. Division and remainder trap on zero: a builder must guard them in the same scope.
 */
export type Type = "i32" | "i64" | "f32" | "f64" | "v128";

export interface OpInfo {
  readonly name: string;
  /** The name after the dot. */
  readonly short: string;
  readonly code: readonly number[];
  readonly args: readonly Type[];
  readonly result: Type;
  /** Immediate that follows the opcode: one lane index, or sixteen of them. */
  readonly immediate: "none" | "lane" | "lanes16";
}

export const TYPE_CODE: Record<Type, number> = {
  i32: 0x7f,
  i64: 0x7e,
  f32: 0x7d,
  f64: 0x7c,
  v128: 0x7b,
};

const table = new Map<string, OpInfo>();
const BY_TYPE: Readonly<Record<Type, Map<string, OpInfo>>> = {
  i32: new Map(),
  i64: new Map(),
  f32: new Map(),
  f64: new Map(),
  v128: new Map(),
};

function leb(n: number): number[] {
  const out: number[] = [];
  for (; n >= 0x80; n >>>= 7) out.push((n & 0x7f) | 0x80);
  out.push(n);
  return out;
}

function define(
  name: string,
  code: readonly number[],
  args: readonly Type[],
  result: Type,
  immediate: OpInfo["immediate"] = "none",
): void {
  const [type, short] = name.split(".") as [Type, string];
  const op = { name, short, code, args, result, immediate };
  table.set(name, op);
  BY_TYPE[type]?.set(short, op);
}

/** Consecutive opcodes from `first`; "-" skips one. */
function run(
  prefix: string,
  first: number,
  names: string,
  args: readonly Type[],
  result: Type,
): void {
  let code = first;
  for (const name of names.split(" ")) {
    if (name !== "-") define(`${prefix}.${name}`, [code], args, result);
    code++;
  }
}

function simd(
  prefix: string,
  first: number,
  names: string,
  args: readonly Type[],
  result: Type,
): void {
  let code = first;
  for (const name of names.split(" ")) {
    if (name !== "-") define(`${prefix}.${name}`, [0xfd, ...leb(code)], args, result);
    code++;
  }
}

const COMPARE = "eq ne lt_s lt_u gt_s gt_u le_s le_u ge_s ge_u";
const ARITHMETIC = "add sub mul div_s div_u rem_s rem_u and or xor shl shr_s shr_u rotl rotr";
const FLOAT_UNARY = "abs neg ceil floor trunc nearest sqrt";
const FLOAT_BINARY = "add sub mul div min max copysign";

run("i32", 0x45, "eqz", ["i32"], "i32");
run("i32", 0x46, COMPARE, ["i32", "i32"], "i32");
run("i64", 0x50, "eqz", ["i64"], "i32");
run("i64", 0x51, COMPARE, ["i64", "i64"], "i32");
run("f32", 0x5b, "eq ne lt gt le ge", ["f32", "f32"], "i32");
run("f64", 0x61, "eq ne lt gt le ge", ["f64", "f64"], "i32");
run("i32", 0x67, "clz ctz popcnt", ["i32"], "i32");
run("i32", 0x6a, ARITHMETIC, ["i32", "i32"], "i32");
run("i64", 0x79, "clz ctz popcnt", ["i64"], "i64");
run("i64", 0x7c, ARITHMETIC, ["i64", "i64"], "i64");
run("f32", 0x8b, FLOAT_UNARY, ["f32"], "f32");
run("f32", 0x92, FLOAT_BINARY, ["f32", "f32"], "f32");
run("f64", 0x99, FLOAT_UNARY, ["f64"], "f64");
run("f64", 0xa0, FLOAT_BINARY, ["f64", "f64"], "f64");
run("i32", 0xa7, "wrap_i64", ["i64"], "i32");
run("i64", 0xac, "extend_i32_s extend_i32_u", ["i32"], "i64");
run("f32", 0xb2, "convert_i32_s convert_i32_u", ["i32"], "f32");
run("f32", 0xb4, "convert_i64_s convert_i64_u", ["i64"], "f32");
run("f32", 0xb6, "demote_f64", ["f64"], "f32");
run("f64", 0xb7, "convert_i32_s convert_i32_u", ["i32"], "f64");
run("f64", 0xb9, "convert_i64_s convert_i64_u", ["i64"], "f64");
run("f64", 0xbb, "promote_f32", ["f32"], "f64");
run("i32", 0xbc, "reinterpret_f32", ["f32"], "i32");
run("i64", 0xbd, "reinterpret_f64", ["f64"], "i64");
run("f32", 0xbe, "reinterpret_i32", ["i32"], "f32");
run("f64", 0xbf, "reinterpret_i64", ["i64"], "f64");
run("i32", 0xc0, "extend8_s extend16_s", ["i32"], "i32");
run("i64", 0xc2, "extend8_s extend16_s extend32_s", ["i64"], "i64");
for (const [code, name, from] of [
  [0, "i32.trunc_sat_f32_s", "f32"],
  [1, "i32.trunc_sat_f32_u", "f32"],
  [2, "i32.trunc_sat_f64_s", "f64"],
  [3, "i32.trunc_sat_f64_u", "f64"],
  [4, "i64.trunc_sat_f32_s", "f32"],
  [5, "i64.trunc_sat_f32_u", "f32"],
  [6, "i64.trunc_sat_f64_s", "f64"],
  [7, "i64.trunc_sat_f64_u", "f64"],
] as const) {
  define(name, [0xfc, code], [from], name.slice(0, 3) as Type);
}

const V: Type = "v128";
const VV: Type[] = [V, V];
define("i8x16.shuffle", [0xfd, 0x0d], VV, V, "lanes16");
simd("i8x16", 0x0e, "swizzle", VV, V);
simd("i8x16", 0x0f, "splat", ["i32"], V);
simd("i16x8", 0x10, "splat", ["i32"], V);
simd("i32x4", 0x11, "splat", ["i32"], V);
simd("i64x2", 0x12, "splat", ["i64"], V);
simd("f32x4", 0x13, "splat", ["f32"], V);
simd("f64x2", 0x14, "splat", ["f64"], V);
for (const [shape, lane, extracts, first] of [
  ["i8x16", "i32", "extract_lane_s extract_lane_u replace_lane", 0x15],
  ["i16x8", "i32", "extract_lane_s extract_lane_u replace_lane", 0x18],
  ["i32x4", "i32", "extract_lane replace_lane", 0x1b],
  ["i64x2", "i64", "extract_lane replace_lane", 0x1d],
  ["f32x4", "f32", "extract_lane replace_lane", 0x1f],
  ["f64x2", "f64", "extract_lane replace_lane", 0x21],
] as const) {
  let code: number = first;
  for (const name of extracts.split(" ")) {
    const isReplace = name === "replace_lane";
    define(
      `${shape}.${name}`,
      [0xfd, code++],
      isReplace ? [V, lane] : [V],
      isReplace ? V : lane,
      "lane",
    );
  }
}
simd("i8x16", 0x23, COMPARE, VV, V);
simd("i16x8", 0x2d, COMPARE, VV, V);
simd("i32x4", 0x37, COMPARE, VV, V);
simd("f32x4", 0x41, "eq ne lt gt le ge", VV, V);
simd("f64x2", 0x47, "eq ne lt gt le ge", VV, V);
simd("v128", 0x4d, "not", [V], V);
simd("v128", 0x4e, "and andnot or xor", VV, V);
simd("v128", 0x52, "bitselect", [V, V, V], V);
simd("v128", 0x53, "any_true", [V], "i32");
simd("f32x4", 0x5e, "demote_f64x2_zero", [V], V);
simd("f64x2", 0x5f, "promote_low_f32x4", [V], V);
simd("i8x16", 0x60, "abs neg popcnt", [V], V);
simd("i8x16", 0x63, "all_true bitmask", [V], "i32");
simd("i8x16", 0x65, "narrow_i16x8_s narrow_i16x8_u", VV, V);
simd("f32x4", 0x67, "ceil floor trunc nearest", [V], V);
simd("i8x16", 0x6b, "shl shr_s shr_u", [V, "i32"], V);
simd("i8x16", 0x6e, "add add_sat_s add_sat_u sub sub_sat_s sub_sat_u", VV, V);
simd("f64x2", 0x74, "ceil floor", [V], V);
simd("i8x16", 0x76, "min_s min_u max_s max_u", VV, V);
simd("f64x2", 0x7a, "trunc", [V], V);
simd("i8x16", 0x7b, "avgr_u", VV, V);
simd("i16x8", 0x7c, "extadd_pairwise_i8x16_s extadd_pairwise_i8x16_u", [V], V);
simd("i32x4", 0x7e, "extadd_pairwise_i16x8_s extadd_pairwise_i16x8_u", [V], V);
simd("i16x8", 0x80, "abs neg", [V], V);
simd("i16x8", 0x82, "q15mulr_sat_s", VV, V);
simd("i16x8", 0x83, "all_true bitmask", [V], "i32");
simd("i16x8", 0x85, "narrow_i32x4_s narrow_i32x4_u", VV, V);
simd(
  "i16x8",
  0x87,
  "extend_low_i8x16_s extend_high_i8x16_s extend_low_i8x16_u extend_high_i8x16_u",
  [V],
  V,
);
simd("i16x8", 0x8b, "shl shr_s shr_u", [V, "i32"], V);
simd("i16x8", 0x8e, "add add_sat_s add_sat_u sub sub_sat_s sub_sat_u", VV, V);
simd("f64x2", 0x94, "nearest", [V], V);
simd("i16x8", 0x95, "mul min_s min_u max_s max_u - avgr_u", VV, V);
simd(
  "i16x8",
  0x9c,
  "extmul_low_i8x16_s extmul_high_i8x16_s extmul_low_i8x16_u extmul_high_i8x16_u",
  VV,
  V,
);
simd("i32x4", 0xa0, "abs neg", [V], V);
simd("i32x4", 0xa3, "all_true bitmask", [V], "i32");
simd(
  "i32x4",
  0xa7,
  "extend_low_i16x8_s extend_high_i16x8_s extend_low_i16x8_u extend_high_i16x8_u",
  [V],
  V,
);
simd("i32x4", 0xab, "shl shr_s shr_u", [V, "i32"], V);
simd("i32x4", 0xae, "add - - sub - - - mul min_s min_u max_s max_u dot_i16x8_s", VV, V);
simd(
  "i32x4",
  0xbc,
  "extmul_low_i16x8_s extmul_high_i16x8_s extmul_low_i16x8_u extmul_high_i16x8_u",
  VV,
  V,
);
simd("i64x2", 0xc0, "abs neg", [V], V);
simd("i64x2", 0xc3, "all_true bitmask", [V], "i32");
simd(
  "i64x2",
  0xc7,
  "extend_low_i32x4_s extend_high_i32x4_s extend_low_i32x4_u extend_high_i32x4_u",
  [V],
  V,
);
simd("i64x2", 0xcb, "shl shr_s shr_u", [V, "i32"], V);
simd("i64x2", 0xce, "add - - sub - - - mul eq ne lt_s gt_s le_s ge_s", VV, V);
simd(
  "i64x2",
  0xdc,
  "extmul_low_i32x4_s extmul_high_i32x4_s extmul_low_i32x4_u extmul_high_i32x4_u",
  VV,
  V,
);
simd("f32x4", 0xe0, "abs neg - sqrt", [V], V);
simd("f32x4", 0xe4, "add sub mul div min max pmin pmax", VV, V);
simd("f64x2", 0xec, "abs neg - sqrt", [V], V);
simd("f64x2", 0xf0, "add sub mul div min max pmin pmax", VV, V);
simd("i32x4", 0xf8, "trunc_sat_f32x4_s trunc_sat_f32x4_u", [V], V);
simd("f32x4", 0xfa, "convert_i32x4_s convert_i32x4_u", [V], V);
simd("i32x4", 0xfc, "trunc_sat_f64x2_s_zero trunc_sat_f64x2_u_zero", [V], V);
simd("f64x2", 0xfe, "convert_low_i32x4_s convert_low_i32x4_u", [V], V);

/** The pure operation on a scalar type or v128 by the name after the dot. */
export function opOf(type: Type, short: string): OpInfo | undefined {
  return BY_TYPE[type].get(short);
}

/** Pure operations by their WebAssembly text name. */
export const OPS: ReadonlyMap<string, OpInfo> = table;

export interface AccessInfo {
  readonly code: readonly number[];
  readonly type: Type;
  /** Bytes moved. */
  readonly bytes: number;
}

const a = (code: readonly number[], type: Type, bytes: number): AccessInfo => ({
  code,
  type,
  bytes,
});

/** Linear-memory loads by text name; alignment hints are left at one byte (guest accesses are unaligned at will). */
export const LOADS: Readonly<Record<string, AccessInfo>> = {
  "i32.load": a([0x28], "i32", 4),
  "i64.load": a([0x29], "i64", 8),
  "f32.load": a([0x2a], "f32", 4),
  "f64.load": a([0x2b], "f64", 8),
  "i32.load8_s": a([0x2c], "i32", 1),
  "i32.load8_u": a([0x2d], "i32", 1),
  "i32.load16_s": a([0x2e], "i32", 2),
  "i32.load16_u": a([0x2f], "i32", 2),
  "i64.load8_u": a([0x31], "i64", 1),
  "i64.load16_u": a([0x33], "i64", 2),
  "i64.load32_s": a([0x34], "i64", 4),
  "i64.load32_u": a([0x35], "i64", 4),
  "v128.load": a([0xfd, 0x00], "v128", 16),
  "v128.load32_zero": a([0xfd, 0x5c], "v128", 4),
  "v128.load64_zero": a([0xfd, 0x5d], "v128", 8),
};

export const STORES: Readonly<Record<string, AccessInfo>> = {
  "i32.store": a([0x36], "i32", 4),
  "i64.store": a([0x37], "i64", 8),
  "f32.store": a([0x38], "f32", 4),
  "f64.store": a([0x39], "f64", 8),
  "i32.store8": a([0x3a], "i32", 1),
  "i32.store16": a([0x3b], "i32", 2),
  "i64.store8": a([0x3c], "i64", 1),
  "i64.store16": a([0x3d], "i64", 2),
  "i64.store32": a([0x3e], "i64", 4),
  "v128.store": a([0xfd, 0x0b], "v128", 16),
};
