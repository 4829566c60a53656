/**
 * Decoder against iced-x86 in all three modes, on random byte strings and on a sweep of the opcode maps:
 *
 *     node conformance/decoder-vs-iced.ts --count 10000000 --seed 1 [--mode 64] [--sweep]
 *
 * `count` strings for each mode. Same seed, same strings. Exit status 1 if anything differs that is not justified
 * (JUSTIFIED in decoder-vs-iced-compare.ts).
 */
import { parseArgs } from "node:util";
import { opsizePrefixes } from "../src/processor/isa/encode.ts";
import type { Mode } from "../src/processor/isa/instruction.ts";
import type { Row } from "../src/processor/isa/row.ts";
import { ROWS } from "../src/processor/isa/table.ts";
import { IcedComparison } from "./decoder-vs-iced-compare.ts";
import { generateString, Random, STRING_LENGTH, sweepStrings } from "./decoder-vs-iced-generate.ts";

const BATCH = 4096;
const MODES = [16, 32, 64] as const;

export interface Differences {
  /** Strings compared, and those that differ. */
  count: number;
  total: number;
  /** Strings both decoders take for the row, by row id. */
  readonly rowHits: Uint32Array;
  /** Kinds of difference, how often, and the first bytes that showed it. */
  readonly kinds: Map<string, { count: number; example: string }>;
}

/** Compares `count` strings; the strings depend on mode and seed only. */
export function compareRandom(mode: Mode, count: number, seed: number): Differences {
  const random = new Random(seed * 64 + mode);
  const comparison = new IcedComparison(mode);
  const bytes = new Uint8Array(BATCH * STRING_LENGTH);
  const result = createDifferences(comparison);
  for (let done = 0; done < count; done += BATCH) {
    for (let i = 0; i < BATCH; i++) generateString(random, mode === 64, bytes, i * STRING_LENGTH);
    compareBatch(comparison, bytes, Math.min(BATCH, count - done), result);
  }
  return result;
}

/** Compares every opcode with every ModRM under the prefixes that matter. */
export function compareSweep(mode: Mode): Differences {
  const comparison = new IcedComparison(mode);
  const bytes = new Uint8Array(BATCH * STRING_LENGTH);
  const result = createDifferences(comparison);
  sweepStrings(mode === 64, bytes, (count) => compareBatch(comparison, bytes, count, result));
  return result;
}

function createDifferences(comparison: IcedComparison): Differences {
  return { count: 0, total: 0, rowHits: comparison.rowHits, kinds: new Map() };
}

function compareBatch(
  comparison: IcedComparison,
  bytes: Uint8Array<ArrayBuffer>,
  count: number,
  result: Differences,
): void {
  comparison.load(bytes);
  result.count += count;
  for (let i = 0; i < count; i++) {
    const difference = comparison.compare(i * STRING_LENGTH);
    if (difference === "") continue;
    result.total += 1;
    const kind = result.kinds.get(difference);
    const example = Buffer.from(
      bytes.subarray(i * STRING_LENGTH, (i + 1) * STRING_LENGTH),
    ).toString("hex");
    if (kind) kind.count += 1;
    else result.kinds.set(difference, { count: 1, example });
  }
}

/** Whether the mode has the operand and address sizes the row is for. */
function isReachable(row: Row, mode: Mode): boolean {
  if (mode === 64 ? row.i64 : row.o64) return false;
  const hasOpsize = [2, 4, 8].some(
    (size) => (row.opsizes & size) !== 0 && opsizePrefixes(row, mode, size),
  );
  return hasOpsize && (row.addrSizes & (mode === 64 ? 4 | 8 : 2 | 4)) !== 0;
}

function report(name: string, mode: Mode, compare: () => Differences): boolean {
  const start = process.cpuUsage().user;
  const result = compare();
  const seconds = ((process.cpuUsage().user - start) / 1e6).toFixed(1);
  const valid = result.rowHits.reduce((sum, n) => sum + n, 0);
  console.log(
    `${mode}-bit ${name}: ${result.count} strings (${valid} valid), ${result.total} differences, ${seconds} s CPU`,
  );
  const missed = ROWS.filter((r) => result.rowHits[r.id] === 0 && isReachable(r, mode));
  if (missed.length > 0)
    console.log(`  rows not reached: ${missed.map((r) => r.mnemonic).join(" ")}`);
  for (const [kind, { count, example }] of [...result.kinds].sort(
    (a, b) => b[1].count - a[1].count,
  )) {
    console.log(`  ${count} x ${kind}\n      ${example}`);
  }
  return result.total === 0;
}

function main(): void {
  const { values } = parseArgs({
    options: {
      count: { type: "string", default: "100000" },
      seed: { type: "string", default: "1" },
      mode: { type: "string" },
      sweep: { type: "boolean", default: false },
    },
  });
  let isSame = true;
  for (const mode of MODES.filter((m) => values.mode === undefined || values.mode === String(m))) {
    const random = (): Differences =>
      compareRandom(mode, Number(values.count), Number(values.seed));
    isSame = report(`random, seed ${values.seed}`, mode, random) && isSame;
    if (values.sweep) isSame = report("sweep", mode, () => compareSweep(mode)) && isSame;
  }
  process.exitCode = isSame ? 0 : 1;
}

if (import.meta.main) main();
