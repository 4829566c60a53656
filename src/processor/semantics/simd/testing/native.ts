/**
 * By hand: every SIMD row against the processor of this machine, on random and special states.
 *
 *     node src/processor/semantics/simd/testing/native.ts [mnemonic pattern] [cases per form]
 *
 * Compared: XMM registers, MMX registers with tags and TOP, MXCSR, general registers, arithmetic flags, memory, exception vector. Not
 * compared: the values of RCP and RSQRT (implementation-defined), the reserved parts of state areas.
 */
import type { Row } from "../../../isa/row.ts";
import { ROWS } from "../../../isa/table.ts";
import type { Shape } from "../../insn.ts";
import { SIMD } from "../index.ts";
import { type Bench, createBench, DATA, shapeOf, slot } from "./harness.ts";
import {
  AT,
  compileOracle,
  describe,
  FLAGS,
  FX,
  load,
  MEMORY,
  runOracle,
  store,
} from "./record.ts";
import { Rng, randomMxcsr, randomVector } from "./values.ts";

/** Register numbers in the encodings: of the reg field, of the r/m field. */
const REG = 1;
const RM = 2;

interface Form {
  readonly name: string;
  readonly row: Row;
  readonly shape: Shape;
  readonly code: readonly number[];
  readonly offset: number;
  readonly slots: readonly number[];
  readonly imm: number;
}

const HAS_NO_FORM = new Set([
  "xgetbv",
  "lfence",
  "mfence",
  "sfence",
  "prefetch",
  "xsaves",
  "xrstors",
  "fxrstor",
  "xrstor",
  "fxsave",
  "xsave",
  "xsaveopt",
  "xsavec",
]);

function encode(
  row: Row,
  opsize: number,
  memory: boolean,
  reg: number,
  rm: number,
  imm: number,
): number[] {
  const code: number[] = [];
  const free =
    row.prefix === "" || row.prefix === "NFx" || row.prefix === "F2" || row.prefix === "F3";
  if (opsize === 2 && free) code.push(0x66);
  if (row.prefix === "66" || row.prefix === "F3" || row.prefix === "F2")
    code.push(Number.parseInt(row.prefix, 16));
  if (opsize === 8) code.push(0x48);
  if (row.map !== "1") code.push(0x0f);
  if (row.map === "0F38") code.push(0x38);
  if (row.map === "0F3A") code.push(0x3a);
  code.push(row.opcode);
  const field = row.ext >= 0 ? row.ext : reg;
  if (row.hasModrm) code.push(memory ? (field << 3) | 6 : 0xc0 | (field << 3) | rm);
  if (row.specs.some((s) => s.place === "imm")) code.push(imm);
  return code;
}

function slotOf(row: Row, i: number, reg: number, rm: number): number {
  const s = row.specs[i];
  if (!s) return 0;
  const n = s.place === "reg" ? reg : s.place === "rm" ? rm : s.num;
  if (s.cls === "xmm") return slot.xmm(n);
  if (s.cls === "mm") return slot.mmx(n);
  return slot.gpr(n);
}

function formsOf(row: Row, rng: Rng): Form[] {
  const rm = row.specs.find((s) => s.place === "rm");
  const kinds = rm === undefined ? [false] : rm.mod === "any" ? [false, true] : [rm.mod === "mem"];
  const hasGeneral = row.specs.some(
    (s) => s.cls === "gpr" && s.place !== "imm" && s.place !== "string",
  );
  const widths = ([2, 4, 8] as const).filter(
    (n) =>
      row.opsizes & n &&
      (n === 4 ||
        (n === 2 && row.operands.some((o) => /v$/.test(o))) ||
        (n === 8 && (hasGeneral || row.opsizes === 8 || /pcmpestr/.test(row.sem)))),
  );
  const hasImm = row.specs.some((s) => s.place === "imm");
  const imms = hasImm ? Array.from({ length: 16 }, () => rng.below(256)) : [0];
  if (/round|cmp[ps]|insert|pextr|pinsr|psll|psrl|psra/.test(row.sem) && hasImm)
    for (let i = 0; i < 24; i++) imms.push(i);
  const out: Form[] = [];
  for (const opsize of widths) {
    for (const memory of kinds) {
      for (const imm of imms) {
        for (const variant of memory ? ["", "odd"] : ["", "same"]) {
          const numbers = variant === "same" ? [REG, REG] : [REG, RM];
          const [reg, r] = numbers as [number, number];
          out.push({
            name: `${row.mnemonic} ${row.operands.join(",")} ${opsize} ${memory ? "mem" : "reg"} ${variant} imm ${imm}`,
            row,
            shape: shapeOf(row, memory, opsize),
            code: encode(row, opsize, memory, reg, r, imm),
            offset: variant === "odd" ? 1 : 0,
            slots: [0, 1, 2].map((i) => slotOf(row, i, reg, r)),
            imm,
          });
        }
      }
    }
  }
  return out;
}

function randomRecord(view: DataView, at: number, rng: Rng, row: Row): void {
  view.setUint16(at + FX.FCW, 0x37f, true);
  const usesX87 = row.specs.some((s) => s.cls === "mm") || /^(emms|fx|xs)/.test(row.sem);
  view.setUint16(at + FX.FSW, usesX87 ? rng.below(8) << 11 : 0, true);
  view.setUint8(at + FX.TAGS, usesX87 ? rng.below(256) : 0);
  if (rng.below(40) === 0 && usesX87) {
    view.setUint16(at + FX.FCW, 0x37e, true);
    view.setUint16(at + FX.FSW, 0x8081, true);
  }
  view.setUint32(at + FX.MXCSR, randomMxcsr(rng), true);
  let last: Uint8Array | null = null;
  for (let i = 0; i < 8; i++) {
    const v = randomVector(rng, last);
    new Uint8Array(view.buffer, view.byteOffset + at + FX.ST + 16 * i, 10).set(v.subarray(0, 10));
    if (i < 3) last = v;
  }
  last = null;
  for (let i = 0; i < 16; i++) {
    const v: Uint8Array = i < 4 ? randomVector(rng, last) : new Uint8Array(16);
    new Uint8Array(view.buffer, view.byteOffset + at + FX.XMM + 16 * i, 16).set(v);
    last = v;
  }
  view.setUint32(at + AT.REGS, rng.below(65536) & FLAGS, true);
  for (let i = 1; i < 5; i++) {
    const v = rng.below(3) ? BigInt.asUintN(64, BigInt(rng.below(64) - 20)) : rng.quad();
    view.setBigUint64(at + AT.REGS + 8 * i, v, true);
  }
  const memory = new Uint8Array(view.buffer, view.byteOffset + at + AT.MEMORY, MEMORY);
  // The operand of an unaligned form starts one byte later.
  const shift = rng.below(2);
  memory.set(randomVector(rng, last), shift);
  memory.set(randomVector(rng, null), 16 + shift);
}

const COMPARED: readonly (readonly [number, number])[] = [
  [FX.FCW, 5],
  [FX.MXCSR, 4],
  ...Array.from({ length: 8 }, (_, i) => [FX.ST + 16 * i, 10] as const),
  [FX.XMM, 256],
  [AT.REGS, 40],
  [AT.VECTOR, 4],
  [AT.MEMORY, MEMORY],
];

function same(a: Uint8Array, b: Uint8Array): boolean {
  return COMPARED.every(([at, n]) => a.subarray(at, at + n).every((v, i) => v === b[at + i]));
}

/** RCP and RSQRT: both within 1.5 * 2^-12 of the exact value, or the same special value. */
function close(a: number, b: number): boolean {
  return Object.is(a, b) || Math.abs(a - b) <= Math.abs(a) * 3 * 2 ** -12;
}

function approximates(actual: Buffer, expected: Buffer): boolean {
  for (let at = FX.XMM; at < FX.XMM + 256; at += 4) {
    const [a, b] = [actual.readFloatLE(at), expected.readFloatLE(at)];
    if (Number.isNaN(a) ? actual.readUInt32LE(at) !== expected.readUInt32LE(at) : !close(a, b))
      return false;
    actual.writeUInt32LE(expected.readUInt32LE(at), at);
  }
  return same(actual, expected);
}

/** Forms that one run of the oracle does. */
const BATCH = 50;

const keyOf = (f: Form): string =>
  `${f.row.id} ${f.shape.opsize} ${f.shape.operands.map((o) => o.kind).join("")}`;

class Comparison {
  readonly #program: string;
  readonly #bench: Bench;
  readonly #rng: Rng;
  readonly failures = new Map<string, number>();
  cases = 0;

  constructor(program: string, bench: Bench, rng: Rng) {
    this.#program = program;
    this.#bench = bench;
    this.#rng = rng;
  }

  run(forms: readonly Form[], count: number): void {
    const inputs = forms.map((form) => {
      const records = Buffer.alloc(count * AT.BYTES);
      const view = new DataView(records.buffer, records.byteOffset, records.length);
      for (let i = 0; i < count; i++) randomRecord(view, i * AT.BYTES, this.#rng, form.row);
      return records;
    });
    const output = runOracle(
      this.#program,
      forms.map((form, i) => ({ code: form.code, offset: form.offset, records: inputs[i]! })),
    );
    forms.forEach((form, k) => {
      for (let i = 0; i < count; i++) {
        const expected = (k * count + i) * AT.BYTES;
        this.#one(
          form,
          inputs[k]!.subarray(i * AT.BYTES, (i + 1) * AT.BYTES),
          output.subarray(expected, expected + AT.BYTES),
        );
      }
    });
  }

  #one(form: Form, input: Buffer, expected: Buffer): void {
    const bench = this.#bench;
    const actual = Buffer.from(input);
    const viewOf = (b: Buffer): DataView => new DataView(b.buffer, b.byteOffset, AT.BYTES);
    load(bench, viewOf(actual), 0);
    const [s0, s1, s2] = form.slots as [number, number, number];
    const status = bench.handler(keyOf(form))(s0, s1, s2, BigInt(DATA + form.offset), form.imm);
    store(bench, viewOf(actual), 0, status);
    this.cases++;
    if (
      same(actual, expected) ||
      (/^rcp|^rsqrt/.test(form.row.sem) && approximates(actual, expected))
    )
      return;
    const seen = this.failures.get(form.row.sem) ?? 0;
    this.failures.set(form.row.sem, seen + 1);
    if (seen > 1) return;
    const parts = [input, expected, actual].map((b) => describe(viewOf(b), 0));
    console.log(`${form.name}\n in\n${parts[0]}\n expected\n${parts[1]}\n actual\n${parts[2]}`);
  }
}

function main(): void {
  const pattern = new RegExp(process.argv[2] ?? ".", "i");
  const count = Number(process.argv[3] ?? 200);
  const rng = new Rng(Number(process.argv[4] ?? 1));
  const program = compileOracle(MEMORY);
  const rows = ROWS.filter(
    (r) => SIMD[r.sem] && !HAS_NO_FORM.has(r.sem) && pattern.test(r.mnemonic),
  );
  const forms = rows.flatMap((row) => formsOf(row, rng));
  const bench = createBench(new Map(forms.map((f) => [keyOf(f), f.shape])));
  const comparison = new Comparison(program, bench, rng);
  for (let i = 0; i < forms.length; i += BATCH) comparison.run(forms.slice(i, i + BATCH), count);
  const { failures } = comparison;
  const summary =
    failures.size === 0 ? "none" : [...failures].map(([k, v]) => `${k} ${v}`).join(", ");
  console.log(`${forms.length} forms, ${comparison.cases} cases; differences: ${summary}`);
}

main();
