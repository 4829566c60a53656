/**
 * The region tier: compiles what the interpreter finds hot, and forgets it with its page.
 *
 * A block whose heat runs out is compiled together with others that are waiting, several regions a module; its first record is then
 * the JIT handler, which calls the region through the core module's table. Regions are found by nothing else, so dropping a block's
 * record drops the region.
 */

import type { RegionTier } from "../interpreter/code-cache.ts";
import type { RegionHost } from "../interpreter/interpreter.ts";
import { ModuleBuilder } from "../ir/module.ts";
import { Head, Mode } from "../state/layout.ts";
import { compileRegion } from "./compile-region.ts";
import { findRegion, type Region } from "./control-flow.ts";

export interface JitStats {
  regions: number;
  instructions: number;
  modules: number;
  refused: number;
  dropped: number;
  compileMs: number;
}

interface Compiled {
  readonly block: number;
  readonly slot: number;
  readonly from: number;
  readonly to: number;
}

const PAGE = 4096;

export class Jit implements RegionTier {
  readonly stats: JitStats = {
    regions: 0,
    instructions: 0,
    modules: 0,
    refused: 0,
    dropped: 0,
    compileMs: 0,
  };
  readonly #host: RegionHost;
  readonly #nowMs: () => number;
  readonly #pages = new Map<number, Compiled[]>();
  readonly #freeSlots: number[] = [];
  #nextSlot: number;

  constructor(host: RegionHost, nowMs: () => number) {
    this.#host = host;
    this.#nowMs = nowMs;
    this.#nextSlot = host.firstSlot;
  }

  /** A block has become hot. Answers the table slot of its region, or -1. */
  hot(block: number): number {
    const { view, bytes, decoder } = this.#host;
    const mode = view.getUint32(block + Head.MODE, true);
    const physical = view.getUint32(block + Head.PHYSICAL, true);
    if ((mode & Mode.CODE_MASK) !== Mode.CODE64 || view.getUint32(block + Head.SECOND, true) !== 0)
      return this.#refuse();
    const base = physical & -PAGE;
    const region = findRegion({ bytes, base, mode: 64, decoder }, physical - base);
    if (!region || region.instructionCount < 2) return this.#refuse();
    const slot =
      this.#freeSlots.pop() ??
      (this.#nextSlot < this.#host.firstSlot + this.#host.slots ? this.#nextSlot++ : -1);
    if (slot < 0) return this.#refuse();
    this.#compile(region, slot);
    const from = base + Math.min(...region.blocks.map((b) => b.start));
    const to = base + Math.max(...region.blocks.map((b) => b.end));
    this.#host.mark(from, to);
    const list = this.#pages.get(base) ?? [];
    list.push({ block, slot, from, to });
    this.#pages.set(base, list);
    return slot;
  }

  #refuse(): number {
    this.stats.refused++;
    return -1;
  }

  #compile(region: Region, slot: number): void {
    const started = this.#nowMs();
    const { core } = this.#host;
    const module = new ModuleBuilder(core.memoryShape, {
      importable: (name) => core.signatures.get(name),
    });
    compileRegion(module, "region", region);
    const instance = new WebAssembly.Instance(new WebAssembly.Module(module.finish()), {
      env: { ...core.imports, ...core.exports, memory: core.memory },
    });
    (core.exports.table as WebAssembly.Table).set(
      slot,
      instance.exports.region as CallableFunction,
    );
    this.stats.regions++;
    this.stats.modules++;
    this.stats.instructions += region.instructionCount;
    this.stats.compileMs += this.#nowMs() - started;
  }

  /** Bytes [from, to) of a page are about to change: answers the blocks whose regions are gone. */
  written(page: number, from: number, to: number): number[] {
    const list = this.#pages.get(page);
    if (!list) return [];
    const gone = list.filter((c) => c.from < to && c.to > from);
    const kept = list.filter((c) => !(c.from < to && c.to > from));
    if (kept.length > 0) this.#pages.set(page, kept);
    else this.#pages.delete(page);
    for (const c of gone) this.#release(c);
    return gone.map((c) => c.block);
  }

  /** Extents of the regions of a page, to be marked again. */
  extents(page: number): readonly { from: number; to: number }[] {
    return this.#pages.get(page) ?? [];
  }

  flush(): void {
    for (const list of this.#pages.values()) for (const c of list) this.#release(c);
    this.#pages.clear();
  }

  #release(c: Compiled): void {
    (this.#host.core.exports.table as WebAssembly.Table).set(c.slot, null);
    this.#freeSlots.push(c.slot);
    this.stats.dropped++;
  }
}
