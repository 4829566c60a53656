import assert from "node:assert/strict";
import { test } from "node:test";
import { S } from "../../state/layout.ts";
import {
  bench,
  c1,
  conditions,
  DE,
  ES,
  flags,
  get,
  hex,
  IE,
  INDEFINITE,
  INFINITY,
  isEmpty,
  LARGEST,
  OE,
  ONE,
  PE,
  reset,
  run,
  SMALLEST,
  set,
  stack,
  type Text,
  THREE,
  TWO,
  UE,
  ZE,
} from "./test-fpu.ts";

test("precision control rounds the significand of basic arithmetic (Vol. 1, Precision Control Field)", () => {
  for (const [control, quotient] of [
    [0x07f, "aaaaab0000000000"],
    [0x27f, "aaaaaaaaaaaaa800"],
    [0x37f, "aaaaaaaaaaaaaaab"],
  ] as const) {
    reset(TWO, THREE);
    set(S.FCW, control);
    run("fdiv", 0, 1);
    assert.equal(stack(0), `3ffe:${quotient}`);
    assert.equal(flags(), PE);
  }
});

test("rounding control and C1 (Vol. 1, Rounding Control Field; C1 is set when the last rounding was up)", () => {
  for (const [rc, last, up] of [
    [0, "b", 1],
    [1, "a", 0],
    [2, "b", 1],
    [3, "a", 0],
  ] as const) {
    reset(TWO, THREE);
    set(S.FCW, 0x37f | (rc << 10));
    run("fdiv", 0, 1);
    assert.equal(stack(0), `3ffe:aaaaaaaaaaaaaaa${last}`);
    assert.equal(c1(), up);
  }
  // x - x is +0, but -0 when rounding down.
  reset(ONE, ONE);
  set(S.FCW, 0x77f);
  run("fsub", 0, 1);
  assert.equal(stack(0), "8000:0000000000000000");
});

test("masked overflow gives infinity or the largest number by the rounding control", () => {
  for (const [rc, result] of [
    [0, INFINITY],
    [1, LARGEST],
    [2, INFINITY],
    [3, LARGEST],
  ] as const) {
    reset(LARGEST, LARGEST);
    set(S.FCW, 0x37f | (rc << 10));
    run("fadd", 0, 1);
    assert.equal(stack(0), result);
    assert.equal(flags(), OE | PE);
  }
});

test("unmasked overflow and underflow scale the result by 2^24576 and set ES and B", () => {
  reset(LARGEST, LARGEST);
  set(S.FCW, 0x37f & ~OE);
  assert.equal(run("fmul", 0, 1), 0);
  assert.equal(stack(0), hex(0x7ffe + 0x7ffe - 0x3fff + 1 - 24576, 0xffff_ffff_ffff_fffen));
  assert.equal(get(S.FSW) & 0x80ff, 0x8000 | ES | OE | PE);
  reset(SMALLEST, SMALLEST);
  set(S.FCW, 0x37f & ~UE);
  run("fmul", 0, 1);
  assert.equal(stack(0), hex(1 + 1 - 0x3fff + 24576, 0x8000_0000_0000_0000n));
  assert.equal(flags(), ES | UE);
});

test("tininess is detected after rounding, and masked underflow needs a loss of accuracy", () => {
  // Largest number below the smallest normal one when rounded to 64 bits: rounds up to it.
  reset("3ffe:ffffffffffffffff", SMALLEST);
  run("fmul", 0, 1);
  assert.equal(stack(0), SMALLEST);
  assert.equal(flags(), UE | PE);
  // An exact denormal.
  reset("3ffe:8000000000000000", SMALLEST);
  run("fmul", 0, 1);
  assert.equal(stack(0), "0000:4000000000000000");
  assert.equal(flags(), 0);
});

test("an unmasked invalid, divide or denormal exception leaves operands and stack alone", () => {
  reset(ONE, "0000:0000000000000000");
  set(S.FCW, 0x37f & ~ZE);
  run("fdiv", 0, 1);
  assert.equal(stack(0), ONE);
  assert.equal(flags(), ES | ZE);
  reset("0000:0000000000000001", ONE);
  set(S.FCW, 0x37f & ~DE);
  run("faddp", 1, 0);
  assert.equal(stack(1), ONE);
  assert.equal(isEmpty(0), false);
  assert.equal(flags(), ES | DE);
});

test("of two NaNs the larger significand results, a signaling one is made quiet (Vol. 1, Rules for Handling NaNs)", () => {
  const cases: [Text, Text, Text, number][] = [
    ["7fff:c000000000000001", "ffff:c000000000000002", "ffff:c000000000000002", 0],
    ["7fff:8000000000000003", "7fff:8000000000000002", "7fff:c000000000000003", IE],
    ["7fff:8000000000000003", "7fff:c000000000000001", "7fff:c000000000000001", IE],
    ["ffff:c000000000000001", "7fff:c000000000000001", "7fff:c000000000000001", 0],
    ["7fff:8000000000000001", ONE, "7fff:c000000000000001", IE],
    ["7fff:4000000000000000", ONE, INDEFINITE, IE],
    ["7fff:0000000000000000", "7fff:c000000000000001", INDEFINITE, IE],
    ["4000:7fffffffffffffff", ONE, INDEFINITE, IE],
  ];
  for (const [a, b, result, exceptions] of cases) {
    reset(a, b);
    run("fadd", 0, 1);
    assert.equal(stack(0), result);
    assert.equal(flags(), exceptions);
  }
});

test("a pseudo-denormal counts as denormal and has the value of exponent 1", () => {
  reset("0000:8000000000000000", SMALLEST);
  run("fadd", 0, 1);
  assert.equal(stack(0), "0002:8000000000000000");
  assert.equal(flags(), DE);
});

test("FXAM classes (Vol. 2, FXAM)", () => {
  const cases: [Text, number][] = [
    ["4000:7000000000000000", 0x00],
    ["7fff:c000000000000000", 0x01],
    ["3fff:8000000000000000", 0x04],
    [INFINITY, 0x05],
    ["0000:0000000000000000", 0x40],
    ["0000:0000000000000001", 0x44],
    ["bfff:8000000000000000", 0x06],
  ];
  for (const [value, code] of cases) {
    reset(value);
    run("fxam");
    assert.equal(conditions(), code, value);
  }
  reset();
  run("fxam");
  assert.equal(conditions() & 0x45, 0x41);
});

test("FCOM is invalid for any NaN, FUCOM for signaling ones; FCOMI reports in RFLAGS", () => {
  for (const [a, b, image] of [
    [ONE, TWO, 1],
    [TWO, ONE, 0],
    [ONE, ONE, 0x40],
    [ONE, INDEFINITE, 0x45],
  ] as const) {
    reset(a, b);
    bench.setFlags(0x8d5);
    run("fcomi", 0, 1);
    assert.equal(bench.flags(), image);
  }
  assert.equal(flags(), IE);
  reset(ONE, INDEFINITE);
  run("fucomi", 0, 1);
  assert.equal(flags(), 0);
  run("fcom", 0, 1);
  assert.equal(get(S.FSW) & 0x4500, 0x4500);
});

test("FPREM takes at most 63 bits off at a time and tells the quotient's low bits (Vol. 2, FPREM)", () => {
  reset("4001:f000000000000000", TWO); // 7.5 = 3 * 2 + 1.5
  run("fprem");
  assert.equal(stack(0), "3fff:c000000000000000");
  assert.equal(conditions(), 0x42); // C3 = Q1, C1 = Q0
  reset("4001:f000000000000000", TWO); // 7.5 = 4 * 2 - 0.5
  run("fprem1");
  assert.equal(stack(0), "bffe:8000000000000000");
  assert.equal(conditions(), 0x01);
  reset("407f:8000000000000000", THREE); // 2^128 by 3
  let rounds = 0;
  do run("fprem");
  while (++rounds < 10 && conditions() & 4);
  assert.equal(stack(0), ONE);
  assert.equal(rounds, 2);
});

test("FSCALE, FXTRACT and FRNDINT", () => {
  reset(THREE, "c000:a000000000000000"); // 3 * 2^-2
  run("fscale");
  assert.equal(stack(0), "3ffe:c000000000000000");
  run("fxtract");
  assert.equal(stack(0), "3fff:c000000000000000");
  assert.equal(stack(1), "bfff:8000000000000000");
  reset("4000:a000000000000000");
  run("frndint");
  assert.equal(stack(0), TWO);
});
