/**
 * The code around a region's entry, by offset: bytes from the start of the linear page that the entry lies in, negative ones too.
 *
 * Relative jumps keep offsets whatever the linear address is, so a region is described by them alone. Pages are copies from the moment
 * when the entry became hot; `host` says where each was, for the check that it is still mapped there.
 */

import type { ShapeTable } from "../interpreter/shape-table.ts";
import type { Decoder } from "../isa/decode.ts";
import { Instruction } from "../isa/instruction.ts";
import { ROWS } from "../isa/table.ts";
import type { Shape } from "../semantics/insn.ts";
import { Mode } from "../state/layout.ts";
import { isInlined } from "./inlined.ts";

export const PAGE = 4096;
const MAX_INSTRUCTION = 15;

export interface CodePage {
  /** Pages from the entry's page. */
  readonly delta: number;
  /** Host address of the page. */
  readonly host: number;
  readonly bytes: Uint8Array;
  /** Offsets in the page at which the interpreter has begun a block, and how often. */
  readonly known: ReadonlyMap<number, number>;
}

export interface Decoded {
  readonly insn: Instruction;
  readonly shape: Shape;
  /** A region executes it itself. */
  readonly isCompiled: boolean;
  readonly next: number;
}

/** Answers the page at a distance, or undefined where code is not mapped or was never executed. */
export type PageSource = (delta: number) => CodePage | undefined;

/** What the bytes are read with. `bits`: code size. */
export interface CodeReader {
  readonly decoder: Decoder;
  readonly shapes: ShapeTable;
  readonly bits: 32 | 64;
}

export class CodeView {
  /** Every page that has been looked at. */
  readonly pages = new Map<number, CodePage>();
  readonly #source: PageSource;
  readonly bits: 32 | 64;
  readonly #decoder: Decoder;
  readonly #shapes: ShapeTable;
  readonly #decoded = new Map<number, Decoded | null>();
  /** Where the indirect jump or call at an offset has been seen to go. */
  readonly targetsOf: (offset: number) => readonly number[];

  constructor(
    source: PageSource,
    { decoder, shapes, bits }: CodeReader,
    targetsOf: (offset: number) => readonly number[],
  ) {
    this.#source = source;
    this.#decoder = decoder;
    this.#shapes = shapes;
    this.bits = bits;
    this.targetsOf = targetsOf;
  }

  page(offset: number): CodePage | undefined {
    const delta = Math.floor(offset / PAGE);
    const known = this.pages.get(delta);
    if (known) return known;
    const page = this.#source(delta);
    if (page) this.pages.set(delta, page);
    return page;
  }

  /** How often the interpreter has begun a block here; 0 = never. */
  executions(offset: number): number {
    return this.page(offset)?.known.get(offset & (PAGE - 1)) ?? 0;
  }

  /** The instruction at an offset; null if it is none, or not all of it is in view. */
  decode(offset: number): Decoded | null {
    const known = this.#decoded.get(offset);
    if (known !== undefined) return known;
    const decoded = this.#decode(offset);
    this.#decoded.set(offset, decoded);
    return decoded;
  }

  #decode(offset: number): Decoded | null {
    const page = this.page(offset);
    if (!page) return null;
    const insn = new Instruction(ROWS[0]!);
    const at = offset & (PAGE - 1);
    let length = this.#decoder.decode(page.bytes, at, this.bits, insn, PAGE);
    if (length < 0 && at + MAX_INSTRUCTION > PAGE) {
      const second = this.page(offset + MAX_INSTRUCTION);
      if (!second) return null;
      const both = new Uint8Array(2 * MAX_INSTRUCTION);
      const first = PAGE - at;
      both.set(page.bytes.subarray(at));
      both.set(second.bytes.subarray(0, MAX_INSTRUCTION), first);
      length = this.#decoder.decode(both, 0, this.bits, insn, first + MAX_INSTRUCTION);
    }
    if (length < 0) return null;
    const shape = this.#shapes.of(insn, this.bits === 32 ? Mode.CODE32 : Mode.CODE64);
    return { insn, shape, isCompiled: isInlined(shape), next: offset + length };
  }
}
