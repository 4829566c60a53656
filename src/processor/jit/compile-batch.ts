/**
 * Regions in, one WebAssembly module out. Pure: it can run in another thread, and everything it takes or gives can be posted there.
 */

import { ShapeTable } from "../interpreter/shape-table.ts";
import { type MemoryShape, ModuleBuilder, type Signature } from "../ir/module.ts";
import { Decoder } from "../isa/decode.ts";
import type { CpuFeatures } from "../isa/features.ts";
import { type CodePage, CodeView, PAGE } from "./code-view.ts";
import { compileRegion } from "./compile-region.ts";
import { findRegion, pagesOf, type Region } from "./control-flow.ts";

/** What a compiler needs to know of the core module that its modules will be linked to. */
export interface CompilerSetup {
  readonly memory: MemoryShape;
  readonly signatures: ReadonlyMap<string, Signature>;
  readonly features: CpuFeatures;
}

export interface RegionRequest {
  /** Offset of the entry in the page with delta 0. */
  readonly entry: number;
  /** Code size. 32-bit code has flat segments and a 32-bit stack. */
  readonly bits: 32 | 64;
  readonly pages: readonly CodePage[];
  /** Seen targets of indirect jumps, all by offset. */
  readonly targets: ReadonlyMap<number, readonly number[]>;
  /** Offsets at which other regions begin that this one is to leave to them. */
  readonly stops: ReadonlySet<number>;
}

/** Bytes of a host page that a region was made from. */
export interface Extent {
  readonly page: number;
  readonly from: number;
  readonly to: number;
}

export interface CompiledRegion {
  /** Index of its request in the batch. */
  readonly request: number;
  readonly name: string;
  readonly extents: readonly Extent[];
  readonly instructions: number;
  /** Offsets at which execution comes back from what the region leaves for: after calls and interpreted instructions. */
  readonly continuations: readonly number[];
}

export interface CompiledBatch {
  /** Null if no request came to anything. */
  readonly bytes: Uint8Array | null;
  readonly regions: readonly CompiledRegion[];
}

function extentsOf(region: Region, view: CodeView): Extent[] {
  return [...pagesOf(region)].map(([delta, { from, to }]) => {
    const { host } = view.pages.get(delta)!;
    return { page: host, from: from - delta * PAGE, to: to - delta * PAGE };
  });
}

function continuationsOf(region: Region): number[] {
  return region.blocks
    .filter(({ instructions }) => instructions.at(-1)?.insn.row.sem.startsWith("call"))
    .map(({ end }) => end);
}

const MIN_INSTRUCTIONS = 2;

export class BatchCompiler {
  readonly #setup: CompilerSetup;
  readonly #decoder: Decoder;
  readonly #shapes = new ShapeTable();

  constructor(setup: CompilerSetup) {
    this.#setup = setup;
    this.#decoder = new Decoder(setup.features);
  }

  compile(requests: readonly RegionRequest[]): CompiledBatch {
    const { memory, signatures } = this.#setup;
    const module = new ModuleBuilder(memory, { importable: (name) => signatures.get(name) });
    const regions: CompiledRegion[] = [];
    requests.forEach((request, i) => {
      const pages = new Map(request.pages.map((page) => [page.delta, page]));
      const view = new CodeView(
        (delta) => pages.get(delta),
        { decoder: this.#decoder, shapes: this.#shapes, bits: request.bits },
        (offset) => request.targets.get(offset) ?? [],
      );
      const region = findRegion(view, request.entry, (offset) => request.stops.has(offset));
      if (!region || region.instructionCount < MIN_INSTRUCTIONS) return;
      const name = `r${i}`;
      compileRegion(module, name, region, view);
      regions.push({
        request: i,
        name,
        extents: extentsOf(region, view),
        instructions: region.instructionCount,
        continuations: continuationsOf(region),
      });
    });
    return { bytes: regions.length > 0 ? module.finish() : null, regions };
  }
}
