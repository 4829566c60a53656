/**
 * By hand: FXSAVE, FXRSTOR and the unprivileged XSAVE family against the processor of this machine.
 *
 *     node src/processor/semantics/simd/testing/native-state.ts [cases]
 *
 * Prints, for each instruction, which bytes of the area (A+n), registers (F+n, FXSAVE layout) or vector (V) ever differ. Known ones: AMD processors save
 * FOP, FIP and FDP only with an unmasked exception pending.
 */
import { ROWS } from "../../../isa/table.ts";
import { createBench, DATA, shapeOf } from "./harness.ts";
import { AT, compileOracle, load, runOracle, store } from "./record.ts";
import { Rng, randomVector } from "./values.ts";

const MEMORY = 1024;
const BYTES = AT.MEMORY + MEMORY;
const HEADER = 512;

const CODES: Readonly<Record<string, readonly number[]>> = {
  FXSAVE: [0x0f, 0xae, 0x06],
  FXSAVE64: [0x48, 0x0f, 0xae, 0x06],
  FXRSTOR: [0x0f, 0xae, 0x0e],
  FXRSTOR64: [0x48, 0x0f, 0xae, 0x0e],
  XSAVE: [0x0f, 0xae, 0x26],
  XSAVE64: [0x48, 0x0f, 0xae, 0x26],
  XRSTOR: [0x0f, 0xae, 0x2e],
  XRSTOR64: [0x48, 0x0f, 0xae, 0x2e],
  XSAVEOPT64: [0x48, 0x0f, 0xae, 0x36],
  XSAVEC64: [0x48, 0x0f, 0xc7, 0x26],
};

/** A legacy image: mostly what a save could have made. */
function fillImage(b: Buffer, at: number, rng: Rng, strict: boolean): void {
  for (let i = 0; i < 8; i++) b.set(randomVector(rng, null).subarray(0, 10), at + 32 + 16 * i);
  const usesX87 = rng.below(3) > 0;
  const usesXmm = rng.below(3) > 0;
  b.writeUInt16LE(usesX87 ? (strict ? 0x37f : rng.below(65536)) : 0x37f, at);
  b.writeUInt16LE(usesX87 ? rng.below(65536) & (strict ? 0x7f00 : 0xffff) : 0, at + 2);
  b.writeUInt16LE(usesX87 ? (strict ? rng.below(256) : rng.below(65536)) : 0, at + 4);
  b.writeUInt16LE(usesX87 ? rng.below(strict ? 0x800 : 0x10000) : 0, at + 6);
  b.writeBigUInt64LE(usesX87 ? rng.quad() & 0x7fff_ffff_ffffn : 0n, at + 8);
  b.writeBigUInt64LE(usesX87 ? rng.quad() & 0x7fff_ffff_ffffn : 0n, at + 16);
  if (!usesX87) b.fill(0, at + 32, at + 160);
  let mxcsr = rng.below(3) ? 0x1f80 : rng.below(65536);
  if (!strict && rng.below(8) === 0) mxcsr |= 0x10000;
  b.writeUInt32LE(mxcsr, at + 24);
  for (let i = 0; i < 16; i++)
    b.set(usesXmm ? randomVector(rng, null) : new Uint8Array(16), at + 160 + 16 * i);
}

function fillHeader(b: Buffer, at: number, rng: Rng): void {
  b.fill(0, at, at + 64);
  b.writeUInt8(rng.below(4), at);
  if (rng.below(3) === 0) {
    b.writeUInt8(rng.below(4), at + 8);
    b.writeUInt8(0x80, at + 15);
  }
  if (rng.below(10) === 0) b.writeUInt8(1, at + rng.below(64));
}

function main(): void {
  const count = Number(process.argv[2] ?? 300);
  const program = compileOracle(MEMORY);
  const rng = new Rng(1);
  for (const [mnemonic, code] of Object.entries(CODES)) {
    const row = ROWS.find((r) => r.mnemonic === mnemonic)!;
    const bench = createBench(
      new Map([["run", shapeOf(row, true, mnemonic.endsWith("64") ? 8 : 4)]]),
    );
    const records = Buffer.alloc(count * BYTES);
    for (let i = 0; i < count; i++) {
      const at = i * BYTES;
      fillImage(records, at, rng, true);
      for (let k = 0; k < MEMORY; k++) records[at + AT.MEMORY + k] = rng.below(256);
      fillImage(records, at + AT.MEMORY, rng, false);
      fillHeader(records, at + AT.MEMORY + HEADER, rng);
      records.writeUInt32LE(1 + rng.below(3), at + AT.REGS + 8);
    }
    const expected = runOracle(program, [{ code, offset: 0, records }], MEMORY);
    const differences = new Map<string, number>();
    let faults = 0;
    for (let i = 0; i < count; i++) {
      const at = i * BYTES;
      const actual = Buffer.from(records.subarray(at, at + BYTES));
      const view = new DataView(actual.buffer, actual.byteOffset, BYTES);
      load(bench, view, 0, MEMORY);
      const status = bench.handler("run")(0, 0, 0, BigInt(DATA), 0);
      store(bench, view, 0, status, MEMORY);
      if (status) faults++;
      for (let k = 0; k < BYTES; k++) {
        if (actual[k] === expected[at + k]) continue;
        // The record's own FOP, FIP, FDP and padding are not kept up to date.
        if (
          k < AT.REGS &&
          ((k >= 5 && k < 24) ||
            (k >= 28 && k < 32) ||
            k >= 416 ||
            (k >= 32 && k < 160 && k % 16 >= 10))
        )
          continue;
        const name = k >= AT.MEMORY ? `A+${k - AT.MEMORY}` : k >= AT.VECTOR ? "V" : `F+${k}`;
        differences.set(name, (differences.get(name) ?? 0) + 1);
        if (process.argv[3] === name)
          console.log(
            i,
            name,
            records.subarray(at, at + 32).toString("hex"),
            "image",
            records.subarray(at + AT.MEMORY, at + AT.MEMORY + 32).toString("hex"),
            records.subarray(at + AT.MEMORY + 512, at + AT.MEMORY + 540).toString("hex"),
            "rfbm",
            records[at + AT.REGS + 8],
            "expected",
            expected.subarray(at + AT.MEMORY + 512, at + AT.MEMORY + 540).toString("hex"),
            expected[at + k],
            "actual",
            actual[k],
          );
      }
    }
    console.log(
      `${mnemonic}: ${faults} faults; ${[...differences].map(([k, n]) => `${k} ${n}`).join(", ") || "no difference"}`,
    );
  }
}

main();
