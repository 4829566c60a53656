import assert from "node:assert/strict";
import { test } from "node:test";
import { makeSymbolList, SymbolFileError } from "./symbol-list.ts";
import { MAX_SPAN, parseSystemMap } from "./system-map.ts";

const refuses = (text: string, why: RegExp): void =>
  assert.throws(
    () => parseSystemMap(text),
    (error: unknown) => error instanceof SymbolFileError && why.test(error.message),
    JSON.stringify(text),
  );

test("code reaches to the next symbol of any kind, in whatever order the lines are", () => {
  const symbols = parseSystemMap(
    "ffffffff81000100 T second\nffffffff81000000 t first\nffffffff81000180 D data\n",
  );
  assert.deepEqual(symbols, [
    { start: 0xffff_ffff_8100_0000n, end: 0xffff_ffff_8100_0100n, name: "first" },
    { start: 0xffff_ffff_8100_0100n, end: 0xffff_ffff_8100_0180n, name: "second" },
  ]);
});

test("the last function does not reach to the end of the address space", () => {
  const [only] = parseSystemMap("1000 T only");
  assert.equal(only!.end, 0x1000n + MAX_SPAN);
  const [before] = parseSystemMap("1000 T before\nffffffffc0000000 T module_code\t[m]\n");
  assert.equal(before!.end, 0x1000n + MAX_SPAN);
});

test("symbols of modules have the module's name behind their own", () => {
  const [symbol] = parseSystemMap("ffffffffc0000000 t init\t[virtio_net]\r\n");
  assert.equal(symbol!.name, "init [virtio_net]");
});

test("several names for an address reach equally far, and the first is used", () => {
  const symbols = parseSystemMap("1000 T a\n1000 T b\n1010 T c\n");
  assert.deepEqual(
    symbols.map(({ end }) => end),
    [0x1010n, 0x1010n, 0x1010n + MAX_SPAN],
  );
  assert.deepEqual(makeSymbolList(symbols).names, ["a", "c"]);
});

test("text that is no symbol table is refused, with the line", () => {
  refuses("", /empty/);
  refuses("\n\n", /empty/);
  refuses("1000 T a\nhello\n", /line 2 .*"hello"/);
  refuses("1000 T\n", /line 1/);
  refuses("11112222333344445 T a\n", /line 1/);
  refuses("-1000 T a\n", /line 1/);
  refuses("1000 T a b\n", /line 1/);
  refuses(`\0${"x".repeat(10_000)}`, /line 1 .{0,100}$/);
});

test("tables that have no addresses or no code are refused", () => {
  refuses("0000000000000000 T a\n0000000000000000 T b\n", /addresses are 0/);
  refuses("ffffffffffffffff B The_real_System.map_is_in_the_debug_package\n", /no symbols of code/);
});

test("a symbol at the very end of the address space fits into the list", () => {
  const { starts, ends } = makeSymbolList(parseSystemMap("ffffffffffffff00 T last\n"));
  assert.deepEqual([starts[0], ends[0]], [0xffff_ffff_ffff_ff00n, 0xffff_ffff_ffff_ffffn]);
});
