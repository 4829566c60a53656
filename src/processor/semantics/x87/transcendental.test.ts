import assert from "node:assert/strict";
import { test } from "node:test";
import { S } from "../../state/layout.ts";
import { LN2, PI, TWO_OVER_LN2 } from "./series.ts";
import { conditions, flags, ONE, PE, reset, run, set, stack, THREE } from "./test-fpu.ts";

test("constants of the series have their known digits", () => {
  assert.equal(PI.toString(16), "c90fdaa22168c234c4c6628b80dc1cd1");
  assert.equal(LN2.toString(16), "b17217f7d1cf79abc9e3b39803f2f6af");
  assert.equal(TWO_OVER_LN2.toString(16), "b8aa3b295c17f0bbbe87fed0691d3e89");
});

test("constants are rounded by the rounding control (Vol. 2, FLD1/FLDL2T/FLDL2E/FLDPI/FLDLG2/FLDLN2/FLDZ)", () => {
  for (const [rc, pi, l2t] of [
    [0, "5", "e"],
    [1, "4", "e"],
    [2, "5", "f"],
    [3, "4", "e"],
  ] as const) {
    reset();
    set(S.FCW, 0x37f | (rc << 10));
    run("fldpi");
    run("fldl2t");
    assert.equal(stack(1), `4000:c90fdaa22168c23${pi}`);
    assert.equal(stack(0), `4000:d49a784bcd1b8af${l2t}`);
    assert.equal(flags(), 0);
  }
});

test("trigonometric arguments are reduced by a pi of 66 bits; 2^63 and above are refused with C2", () => {
  reset("4000:c90fdaa22168c235");
  run("fsin");
  // The 66-bit pi is 2^-64 below the 64-bit one.
  assert.equal(stack(0), "bfbf:8000000000000000");
  reset("403e:8000000000000000");
  run("fsin");
  assert.equal(stack(0), "403e:8000000000000000");
  assert.equal(conditions() & 4, 4);
  reset(ONE);
  run("fptan");
  assert.equal(stack(0), ONE);
  assert.equal(stack(1), "3fff:c75922e5f71d2dc5");
  assert.equal(flags(), PE);
});

test("logarithms, powers and arctangents of simple arguments", () => {
  reset("4003:8000000000000000", THREE); // log2(16) * 3
  run("fyl2x");
  assert.equal(stack(0), "4002:c000000000000000");
  reset("bfff:8000000000000000");
  run("f2xm1");
  assert.equal(stack(0), "bffe:8000000000000000");
  reset("bfff:8000000000000000", ONE); // 3 pi / 4
  run("fpatan");
  assert.equal(stack(0), "4000:96cbe3f9990e91a8");
});
