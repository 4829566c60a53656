/** Conditions from operands against conditions from the words of semantics/flags.ts, and the words against arithmetic on bigint. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { ModuleBuilder } from "../ir/module.ts";
import {
  carryWordOf,
  type FlagKind,
  fromOperands,
  lazyCondition,
  resultWord,
} from "./lazy-flags.ts";

const KINDS: readonly FlagKind[] = ["add", "sub", "logic"];
const SIZES = [1, 2, 4, 8] as const;

/** A function (a, b) -> bits 0..15: condition codes by operands. */
function conditionsFunction(kind: FlagKind, bytes: number): (a: bigint, b: bigint) => number {
  const module = new ModuleBuilder({ minimum: 1, maximum: 1, shared: false });
  module.function(
    "f",
    ["i64", "i64"],
    ["i32"],
    (fn) => {
      const operand = (i: number) => (bytes === 8 ? fn.param(i) : fn.param(i).wrap());
      const flags = fromOperands(kind, bytes, operand(0), operand(1));
      let bits = fn.i32(0);
      for (let cc = 0; cc < 16; cc++) bits = bits.or(lazyCondition(flags, cc).nez().shl(cc));
      // The words: ZF, SF, CF and OF as semantics/flags.ts defines them, at bits 16 to 19.
      const result = resultWord(flags);
      const carry = carryWordOf(flags);
      const zf = result.eqz();
      const sf = result.shrU(63).wrap().xor(carry.and(1));
      const cf = carry.shrU(31);
      const of = carry.xor(carry.shl(1)).shrU(31);
      fn.return(bits.or(zf.shl(16)).or(sf.shl(17)).or(cf.shl(18)).or(of.shl(19)));
    },
    true,
  );
  const memory = new WebAssembly.Memory({ initial: 1, maximum: 1 });
  const instance = new WebAssembly.Instance(new WebAssembly.Module(module.finish()), {
    env: { memory },
  });
  return instance.exports.f as (a: bigint, b: bigint) => number;
}

function expected(kind: FlagKind, bytes: number, x: bigint, y: bigint): number {
  const width = 8 * bytes;
  const u = (v: bigint): bigint => BigInt.asUintN(width, v);
  const s = (v: bigint): bigint => BigInt.asIntN(width, v);
  const exact = kind === "add" ? u(x) + u(y) : kind === "sub" ? u(x) - u(y) : u(x);
  const signed = kind === "add" ? s(x) + s(y) : kind === "sub" ? s(x) - s(y) : s(x);
  const r = u(exact);
  const cf = exact !== r;
  const of = signed !== s(exact);
  const zf = r === 0n;
  const sf = s(r) < 0n;
  let ones = 0;
  for (let v = r & 0xffn; v !== 0n; v >>= 1n) ones += Number(v & 1n);
  const pf = ones % 2 === 0;
  const positive = [of, cf, zf, cf || zf, sf, pf, sf !== of, zf || sf !== of];
  let bits = 0;
  positive.forEach((holds, i) => {
    bits |= 1 << (2 * i + (holds ? 0 : 1));
  });
  return (
    (bits | (Number(zf) << 16) | (Number(sf) << 17) | (Number(cf) << 18) | (Number(of) << 19)) >>> 0
  );
}

const EDGES = [
  0n,
  1n,
  2n,
  0x7fn,
  0x80n,
  0xffn,
  0x7fffn,
  0x8000n,
  0xffffn,
  0x7fff_ffffn,
  0x8000_0000n,
];
const WIDE = [0xffff_ffffn, 0x7fff_ffff_ffff_ffffn, 0x8000_0000_0000_0000n, 0xffff_ffff_ffff_fff6n];

for (const kind of KINDS) {
  for (const bytes of SIZES) {
    test(`conditions after a ${bytes}-byte ${kind}`, () => {
      const f = conditionsFunction(kind, bytes);
      const values = [...EDGES, ...WIDE];
      for (const x of values) {
        for (const y of values) {
          // Reads are zero-extended; an immediate may be sign-extended beyond its size.
          const a = BigInt.asUintN(8 * bytes, x);
          const b = kind === "logic" ? a : BigInt.asIntN(8 * bytes, y);
          const got = f(a, b) >>> 0;
          assert.equal(got.toString(16), expected(kind, bytes, a, b).toString(16), `${x} ${y}`);
        }
      }
    });
  }
}
