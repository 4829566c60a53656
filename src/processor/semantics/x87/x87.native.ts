/**
 * Comparison of every x87 instruction with the processor this runs on. By hand:
 *
 *     node src/processor/semantics/x87/x87.native.ts [count per instruction] [name pattern] [seed]
 *     node src/processor/semantics/x87/x87.native.ts --digests       writes x87.digests.ts, after a run without differences
 *
 * Random and edge operands, all rounding and precision controls, all exception masks, empty registers, pending exceptions. Prints the
 * first differences.
 */
import { writeFileSync } from "node:fs";
import { compileOracle, runOracle } from "./native-oracle.ts";
import { createBench } from "./test-bench.ts";
import { CASES, type Case } from "./test-cases.ts";
import { Random } from "./test-operands.ts";
import { benchShape, digest, Rec, randomRecords, runRecords } from "./test-records.ts";

const hex = (n: number | bigint, width: number): string => n.toString(16).padStart(width, "0");

function show(view: DataView, at: number, c: Case): string {
  const st = (i: number): string =>
    `${hex(view.getUint16(at + Rec.ST + 10 * i + 8, true), 4)}:${hex(view.getBigUint64(at + Rec.ST + 10 * i, true), 16)}`;
  const all = c.second ? [0, 1, c.second] : [0, 1, 7];
  return (
    `cw ${hex(view.getUint16(at + Rec.FCW, true), 4)} sw ${hex(view.getUint16(at + Rec.FSW, true), 4)} ` +
    `valid ${hex(view.getUint8(at + Rec.VALID), 2)} sig ${view.getUint8(at + Rec.SIGNALLED)} fl ${hex(view.getUint32(at + Rec.RFLAGS, true), 3)} ` +
    `${all.map((i) => `st${i} ${st(i)}`).join(" ")} mem ${hex(view.getUint16(at + Rec.MEM + 8, true), 4)}:${hex(view.getBigUint64(at + Rec.MEM, true), 16)}`
  );
}

/** Distance in units of the last place if only a result register differs, else Infinity. */
function differs(expected: DataView, actual: DataView, at: number, c: Case): boolean {
  // C1 of the transcendental instructions is no better than their last place, unless it tells a stack fault.
  const stackFault =
    (expected.getUint16(at + Rec.FSW, true) & 0x41) === 0x41 &&
    expected.getUint16(at + Rec.ST + 8, true) === 0xffff;
  const mask = c.tolerance !== undefined && !stackFault ? 0xfdff : (c.statusMask ?? 0xffff);
  if ((expected.getUint16(at + Rec.FSW, true) ^ actual.getUint16(at + Rec.FSW, true)) & mask)
    return true;
  for (let i = 0; i < Rec.BYTES; i++) {
    if (i === Rec.FSW || i === Rec.FSW + 1 || i === Rec.FOP || i === Rec.FOP + 1) continue;
    const m = i - Rec.MEM;
    if (c.ignoreMemory && m >= c.ignoreMemory[0] && m < c.ignoreMemory[1]) continue;
    if (i >= Rec.ST && i < Rec.MEM && c.tolerance !== undefined) continue;
    if (expected.getUint8(at + i) !== actual.getUint8(at + i)) return true;
  }
  if (c.tolerance === undefined) return false;
  for (let i = 0; i < 8; i++) {
    const o = at + Rec.ST + 10 * i;
    const value = (v: DataView): bigint =>
      (BigInt(v.getUint16(o + 8, true) & 0x7fff) << 63n) +
      (v.getBigUint64(o, true) & (TOP_BIT - 1n));
    if ((expected.getUint16(o + 8, true) ^ actual.getUint16(o + 8, true)) & 0x8000) return true;
    const distance = value(expected) - value(actual);
    if (distance > BigInt(c.tolerance) || distance < -BigInt(c.tolerance)) return true;
    if (distance !== 0n) c.inexact = (c.inexact ?? 0) + 1;
  }
  return false;
}
const TOP_BIT = 1n << 63n;

const BATCH = 20_000;

function compare(c: Case, index: number, count: number, seed: number): number {
  const r = new Random(seed * 1000 + index + 7);
  let differences = 0;
  for (let done = 0; done < count; done += BATCH) {
    const input = randomRecords(r, c, Math.min(BATCH, count - done));
    const native = runOracle(c.code, input);
    const expected = new DataView(native.buffer, native.byteOffset, native.byteLength);
    const actual = runRecords(bench, index, c, input);
    const before = new DataView(input.buffer);
    for (let at = 0; at < input.length; at += Rec.BYTES) {
      if (!differs(expected, actual, at, c)) continue;
      if (differences++ < SHOWN) {
        console.log(
          `${c.name}\n  in   ${show(before, at, c)}\n  cpu  ${show(expected, at, c)}\n  ours ${show(actual, at, c)}`,
        );
      }
    }
  }
  return differences;
}
const SHOWN = Number(process.env.SHOW ?? 3);

function writeDigests(): void {
  const lines = cases.map((c, i) => `  ${JSON.stringify(c.name)}: "${digest(bench, i, c)}",`);
  const text = `/** Outcomes of test-records.ts for each case, written by x87.native.ts. */\nexport const DIGESTS: Readonly<Record<string, string>> = {\n${lines.join("\n")}\n};\n`;
  writeFileSync(new URL("x87.digests.ts", import.meta.url), text);
}

function compareAll(): void {
  compileOracle();
  let total = 0;
  cases.forEach((c, i) => {
    const differences = compare(c, i, Number(count), Number(seed));
    total += differences;
    const rounding = c.inexact ? `, ${c.inexact} results 1 ulp apart` : "";
    console.log(
      `${differences === 0 ? "ok  " : "FAIL"} ${c.name}: ${differences} differences in ${count}${rounding}`,
    );
  });
  process.exitCode = total === 0 ? 0 : 1;
}

const [count = "20000", pattern = "", seed = "1"] = process.argv.slice(2);
const cases = CASES.filter((c) => new RegExp(pattern).test(c.name));
const bench = createBench(cases.map(benchShape));
if (count === "--digests") writeDigests();
else compareAll();
