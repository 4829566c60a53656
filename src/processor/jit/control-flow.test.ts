/** Regions whose code does not fit whole. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { ShapeTable } from "../interpreter/shape-table.ts";
import { parseCpuModel } from "../isa/cpuid.ts";
import { Decoder } from "../isa/decode.ts";
import { type CodePage, CodeView, PAGE } from "./code-view.ts";
import { findRegion } from "./control-flow.ts";

const INC_EAX = [0xff, 0xc0];
const CALL_RAX = [0xff, 0xd0];
const RET = 0xc3;
const CALLEE = 0xc00;

/** `before` instructions, then an indirect call that has been seen to go to a function of one instruction. */
function regionOf(before: number) {
  const bytes = new Uint8Array(PAGE);
  const code = [...Array.from({ length: before }, () => INC_EAX).flat(), ...CALL_RAX, RET];
  bytes.set(code);
  bytes[CALLEE] = RET;
  const known = new Map([
    [0, 1000],
    [CALLEE, 1000],
  ]);
  const page: CodePage = { delta: 0, host: 0x1_0000, bytes, known };
  const reader = {
    decoder: new Decoder(parseCpuModel("x86-64-v2").features),
    shapes: new ShapeTable(),
    bits: 64 as const,
  };
  const view = new CodeView(
    (delta) => (delta === 0 ? page : undefined),
    reader,
    () => [CALLEE],
  );
  return findRegion(view, 0, () => false)!;
}

const hasCallee = (region: ReturnType<typeof regionOf>): boolean =>
  region.blocks.some(({ start }) => start === CALLEE);

test("a callee of an indirect call is part of the region, or outside where there is no room for it", () => {
  assert.equal(hasCallee(regionOf(10)), true);
  for (let before = 290; before < 300; before++) {
    const region = regionOf(before);
    assert.ok(region.instructionCount <= 300);
    if (before === 299) assert.equal(hasCallee(region), false);
  }
});
