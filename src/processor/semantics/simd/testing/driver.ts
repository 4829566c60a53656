/**
 * Instructions by mnemonic on a bench: "ADDPS", "ADDPS mem", and "mmx PADDB", "mmx PADDB mem" for the forms on MMX registers. ModRM.reg
 * is register 1, ModRM.rm register 2; memory operands are at DATA.
 */

import type { Row } from "../../../isa/row.ts";
import { ROWS } from "../../../isa/table.ts";
import { S, Status } from "../../../state/layout.ts";
import type { Shape } from "../../insn.ts";
import { SIMD } from "../index.ts";
import { type Bench, createBench, DATA, resetState, shapeOf, slot } from "./harness.ts";

export interface RunOptions {
  readonly imm?: number;
  /** Linear address of the memory operand. */
  readonly at?: number;
}

const isMmxRow = (row: Row): boolean => row.specs.some((s) => s.cls === "mm");

function slotOf(row: Row, i: number): number {
  const s = row.specs[i];
  if (!s || s.place === "imm") return 0;
  const n = s.place === "fixed" ? s.num : s.place === "reg" ? 1 : 2;
  return s.cls === "xmm" ? slot.xmm(n) : s.cls === "mm" ? slot.mmx(n) : slot.gpr(n);
}

export class Driver {
  readonly bench: Bench;
  readonly #slots = new Map<string, readonly [number, number, number]>();

  constructor(mnemonics: readonly string[]) {
    const shapes = new Map<string, Shape>();
    for (const row of ROWS) {
      if (!mnemonics.includes(row.mnemonic) || !SIMD[row.sem]) continue;
      const rm = row.specs.find((s) => s.place === "rm");
      const opsize = row.opsizes & 4 ? 4 : 8;
      for (const memory of [false, true]) {
        if (rm ? rm.mod !== "any" && (rm.mod === "mem") !== memory : memory) continue;
        const name = `${isMmxRow(row) ? "mmx " : ""}${row.mnemonic}${memory ? " mem" : ""}`;
        if (shapes.has(name)) continue;
        shapes.set(name, shapeOf(row, memory, opsize));
        this.#slots.set(name, [slotOf(row, 0), slotOf(row, 1), slotOf(row, 2)]);
      }
    }
    this.bench = createBench(shapes);
  }

  reset(): void {
    resetState(this.bench);
  }

  /** Answers -1, or the vector of the fault. */
  run(name: string, options: RunOptions = {}): number {
    const [op0, op1, op2] = this.#slots.get(name)!;
    const handler = this.bench.handler(name);
    const status = handler(op0, op1, op2, BigInt(options.at ?? DATA), options.imm ?? 0);
    return status === Status.NEXT ? -1 : this.bench.view.getUint32(S.PENDING_VECTOR.at, true);
  }

  get(field: { readonly at: number }): number {
    return this.bench.view.getUint32(field.at, true);
  }

  set(field: { readonly at: number }, value: number): void {
    this.bench.view.setUint32(field.at, value, true);
  }

  xmm(n: number): Uint8Array {
    return this.bench.bytes.slice(slot.xmm(n), slot.xmm(n) + 16);
  }

  setXmm(n: number, bytes: Uint8Array): void {
    this.bench.bytes.set(bytes, slot.xmm(n));
  }

  mmx(n: number): Uint8Array {
    return this.bench.bytes.slice(slot.mmx(n), slot.mmx(n) + 10);
  }

  setMmx(n: number, bytes: Uint8Array): void {
    this.bench.bytes.set(bytes.subarray(0, 8), slot.mmx(n));
  }

  gpr(n: number): bigint {
    return this.bench.view.getBigUint64(slot.gpr(n), true);
  }

  setGpr(n: number, value: bigint): void {
    this.bench.view.setBigUint64(slot.gpr(n), value, true);
  }

  memory(bytes: number, at = DATA): Uint8Array {
    return this.bench.bytes.slice(at, at + bytes);
  }

  setMemory(bytes: Uint8Array, at = DATA): void {
    this.bench.bytes.set(bytes, at);
  }
}

export const fromHex = (text: string): Uint8Array =>
  Uint8Array.from(text.match(/../g)!, (pair) => Number.parseInt(pair, 16));
export const toHex = (bytes: Uint8Array): string =>
  Array.from(bytes, (b) => b.toString(16).padStart(2, "0")).join("");
