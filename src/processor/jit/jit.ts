/**
 * The region tier: has code made for what the interpreter finds hot, and forgets it with the pages it was read from.
 *
 * Hot blocks wait until a batch of them is compiled, here or in another thread while the interpreter goes on. A region is entered from the first
 * record of the block at its entry (interpreter/run-loop.ts), and from other regions through the jump cache. When one is forgotten its table slot
 * answers RegionExit.GONE, because jump cache entries may still name it; slots are used again only after the jump cache was cleared.
 */

import type { RegionTier } from "../interpreter/code-cache.ts";
import type { RegionHost } from "../interpreter/interpreter.ts";
import { RegionExit } from "../interpreter/region-loop.ts";
import { ShapeTable } from "../interpreter/shape-table.ts";
import { ModuleBuilder } from "../ir/module.ts";
import {
  Head,
  hostPageOf,
  INDIRECT_TARGETS,
  INDIRECT_TARGETS_BYTES,
  JUMP_CACHE,
  JUMP_CACHE_BYTES,
  Mode,
  S,
  TLB_ENTRIES,
  TLB_ENTRY_BYTES,
  TLB_EXECUTE,
  TLB_PAGE,
} from "../state/layout.ts";
import { type CodePage, CodeView, PAGE } from "./code-view.ts";
import type { CompiledRegion, CompilerSetup, Extent, RegionRequest } from "./compile-batch.ts";
import { discover } from "./discover.ts";

export interface JitStats {
  /** Regions made so far, their instructions, and the modules they are in. */
  regions: number;
  instructions: number;
  modules: number;
  /** Hot blocks that no region was made of. */
  refused: number;
  /** Regions forgotten: their code was written, or room was needed. */
  dropped: number;
  /** Regions whose code had changed when they were ready. */
  stale: number;
  /** Table flushes for want of room. */
  flushes: number;
  /** Milliseconds of the processor's own thread spent on finding, compiling and installing regions. */
  ownMs: number;
}

/** Makes a module of requests; answers at once or later, in order. */
export interface RegionBackend {
  /** Batches that may be under way at a time; 0 = it answers within `submit`. */
  readonly depth: number;
  submit(requests: readonly RegionRequest[], done: (result: BackendResult) => void): void;
  /** Hands over what has become ready. */
  poll(): void;
  /** There is nothing to do for a while: what it holds for later batches may go. Answers whether something went. */
  rest(): boolean;
}

export interface BackendResult {
  /** Null if no request came to anything. */
  readonly module: WebAssembly.Module | null;
  readonly regions: readonly CompiledRegion[];
}

export interface JitOptions {
  readonly backend: (setup: CompilerSetup) => RegionBackend;
  /** Instructions executed from a block's entry before it is compiled; 0 = at once. */
  readonly threshold: number;
  readonly nowMs: () => number;
  /** Instructions of live regions before all are dropped to make room. */
  readonly capacity?: number;
}

interface Waiting {
  readonly physical: number;
  readonly mode: number;
  readonly request: RegionRequest;
}

interface Live {
  readonly key: number;
  readonly physical: number;
  readonly mode: number;
  readonly slot: number;
  readonly instructions: number;
  readonly extents: readonly Extent[];
}

const MAX_BATCH = 32;
const CAPACITY = 400_000;
/** Freed slots that wait for the jump cache to be cleared. */
const MAX_RETIRED = 512;
const TARGET_ENTRY = 16;

/** A module whose only function answers RegionExit.GONE. */
function goneFunction(host: RegionHost): CallableFunction {
  const module = new ModuleBuilder(host.core.memoryShape);
  module.function("gone", ["i32"], ["i32"], (fn) => fn.return(RegionExit.GONE), true);
  const instance = new WebAssembly.Instance(new WebAssembly.Module(module.finish()), {
    env: { memory: host.core.memory },
  });
  return instance.exports.gone as CallableFunction;
}

export class Jit implements RegionTier {
  readonly stats: JitStats = {
    regions: 0,
    instructions: 0,
    modules: 0,
    refused: 0,
    dropped: 0,
    stale: 0,
    flushes: 0,
    ownMs: 0,
  };
  readonly threshold: number;
  readonly #host: RegionHost;
  readonly #options: JitOptions;
  readonly #backend: RegionBackend;
  readonly #table: WebAssembly.Table;
  readonly #gone: CallableFunction;
  readonly #live = new Map<number, Live>();
  readonly #shapes = new ShapeTable();
  readonly #byPage = new Map<number, Set<Live>>();
  /** Host addresses where execution continues after leaving a region: regions there do not repeat others. */
  readonly #continuations = new Set<number>();
  readonly #freeSlots: number[] = [];
  #retiredSlots: number[] = [];
  #nextSlot: number;
  #waiting: Waiting[] = [];
  /** Keys of what waits or is under way. */
  readonly #requested = new Set<number>();
  #underWay = 0;
  #liveInstructions = 0;

  constructor(host: RegionHost, options: JitOptions) {
    this.#host = host;
    this.#options = options;
    this.threshold = options.threshold;
    this.#table = host.core.exports.table as WebAssembly.Table;
    this.#gone = goneFunction(host);
    this.#nextSlot = host.firstSlot;
    this.#backend = options.backend({
      memory: host.core.memoryShape,
      signatures: host.core.signatures,
      features: host.features,
    });
  }

  /** A block has become hot. */
  hot(block: number): void {
    const started = this.#options.nowMs();
    const { view } = this.#host;
    const mode = view.getUint32(block + Head.MODE, true);
    const physical = view.getUint32(block + Head.PHYSICAL, true);
    const key = keyOf(physical, mode);
    if (this.#live.has(key) || this.#requested.has(key)) return;
    const bits = bitsOf(mode);
    const request = bits ? this.#request(physical, mode, bits) : null;
    if (request) {
      this.#waiting.push({ physical, mode, request });
      this.#requested.add(key);
    } else this.stats.refused++;
    this.stats.ownMs += this.#options.nowMs() - started;
    if (this.threshold === 0 || this.#waiting.length >= MAX_BATCH) this.service();
  }

  /** The guest is idle. Answers whether memory was given up. */
  rest(): boolean {
    this.service();
    return this.#backend.rest();
  }

  /** Takes in what is ready, and starts what waits if the backend is free. */
  service(): void {
    if (this.#underWay > 0) this.#backend.poll();
    while (
      this.#waiting.length > 0 &&
      (this.#backend.depth === 0 || this.#underWay < this.#backend.depth)
    ) {
      const batch = this.#waiting.splice(0, MAX_BATCH);
      const started = this.#options.nowMs();
      this.#underWay++;
      this.#backend.submit(
        batch.map(({ request }) => request),
        (result) => {
          this.#underWay--;
          this.#install(batch, result);
        },
      );
      this.stats.ownMs += this.#options.nowMs() - started;
    }
  }

  /** Linear address of the page being executed, as the interpreter knows it. */
  #request(physical: number, mode: number, bits: 32 | 64): RegionRequest | null {
    const { view, bytes } = this.#host;
    const ripPage = view.getBigInt64(S.RIP_PAGE.at, true);
    const contextOf = (linear: bigint): bigint =>
      view.getBigInt64(linear < 0n ? S.HIGH_CONTEXT.at : S.CONTEXT.at, true);
    const copy = (delta: number, host: number): CodePage => {
      return {
        delta,
        host,
        bytes: bytes.slice(host, host + PAGE),
        known: this.#host.blockStarts(host, mode),
      };
    };
    const source = (delta: number): CodePage | undefined => {
      if (delta === 0) return copy(0, hostPageOf(physical));
      const distant = ripPage + BigInt(delta) * BigInt(PAGE);
      const linear = bits === 32 ? BigInt.asUintN(32, distant) : distant;
      const entry =
        TLB_EXECUTE + Number((linear >> 12n) & BigInt(TLB_ENTRIES - 1)) * TLB_ENTRY_BYTES;
      if (view.getBigInt64(entry, true) !== (linear | contextOf(linear))) return undefined;
      const page = copy(delta, view.getUint32(entry + TLB_PAGE, true));
      return page.known.size > 0 ? page : undefined;
    };
    let targets: ReadonlyMap<number, readonly number[]> | undefined;
    const { decoder } = this.#host;
    const codeView = new CodeView(source, { decoder, shapes: this.#shapes, bits }, (offset) => {
      targets ??= this.#targets(ripPage);
      return targets.get(offset) ?? [];
    });
    const entry = physical & (PAGE - 1);
    const stops = new Set<number>();
    const isContinuation = this.#continuations.has(physical);
    const { code } = discover(codeView, entry, (offset) => {
      if (!isContinuation) return false;
      const page = codeView.page(offset);
      const isEntry =
        page !== undefined && this.#live.has(keyOf(page.host + (offset & (PAGE - 1)), mode));
      if (isEntry) stops.add(offset);
      return isEntry;
    });
    if (code.size === 0) return null;
    const used = new Set<number>();
    for (const [offset, { next }] of code) {
      used.add(Math.floor(offset / PAGE));
      used.add(Math.floor((next - 1) / PAGE));
    }
    const pages = [...codeView.pages.values()].filter(({ delta }) => used.has(delta));
    const seen = new Map([...(targets ?? [])].filter(([at]) => code.has(at)));
    return { entry, bits, pages, targets: seen, stops };
  }

  /** What the interpreter has noted of indirect jumps, by offset from the entry's page. */
  #targets(ripPage: bigint): Map<number, number[]> {
    const { view } = this.#host;
    const targets = new Map<number, number[]>();
    const low = Number(BigInt.asIntN(32, ripPage));
    for (
      let at = INDIRECT_TARGETS;
      at < INDIRECT_TARGETS + INDIRECT_TARGETS_BYTES;
      at += TARGET_ENTRY
    ) {
      if (Math.abs((view.getInt32(at, true) - low) | 0) > 2 ** 30) continue;
      const from = Number(view.getBigInt64(at, true) - ripPage);
      if (Math.abs(from) > 2 ** 30) continue;
      const to = Number(view.getBigInt64(at + 8, true) - ripPage);
      if (Math.abs(to) > 2 ** 30) continue;
      const list = targets.get(from);
      if (list) list.push(to);
      else targets.set(from, [to]);
    }
    return targets;
  }

  #install(batch: readonly Waiting[], { module, regions }: BackendResult): void {
    const started = this.#options.nowMs();
    for (const { physical, mode } of batch) this.#requested.delete(keyOf(physical, mode));
    this.stats.refused += batch.length - regions.length;
    if (module) {
      const { core } = this.#host;
      const env: Record<string, unknown> = { memory: core.memory };
      for (const { name, kind } of WebAssembly.Module.imports(module))
        if (kind === "function") env[name] = core.exports[name] ?? core.imports[name];
      const instance = new WebAssembly.Instance(module, { env });
      this.stats.modules++;
      for (const region of regions)
        this.#installOne(
          batch[region.request]!,
          region,
          instance.exports[region.name] as CallableFunction,
        );
    }
    this.stats.ownMs += this.#options.nowMs() - started;
  }

  #installOne(
    { physical, mode, request }: Waiting,
    region: CompiledRegion,
    code: CallableFunction,
  ): void {
    const { bytes } = this.#host;
    const key = keyOf(physical, mode);
    const isSame = region.extents.every(({ page, from, to }) => {
      const then = request.pages.find(({ host }) => host === page)!.bytes;
      for (let i = from; i < to; i++) if (then[i] !== bytes[page + i]) return false;
      return true;
    });
    if (!isSame) {
      this.stats.stale++;
      return;
    }
    if (this.#liveInstructions + region.instructions > (this.#options.capacity ?? CAPACITY)) {
      this.flush();
      this.stats.flushes++;
    }
    const slot = this.#takeSlot();
    if (slot < 0) return;
    this.#table.set(slot, code);
    const { extents, instructions } = region;
    const live: Live = { key, physical, mode, slot, instructions, extents };
    this.#live.set(key, live);
    for (const { page, from, to } of extents) {
      this.#host.mark(page + from, page + to);
      const list = this.#byPage.get(page) ?? new Set();
      list.add(live);
      this.#byPage.set(page, list);
    }
    for (const offset of region.continuations) {
      const page = request.pages.find(({ delta }) => delta === Math.floor(offset / PAGE));
      if (page) this.#continuations.add(page.host + (offset & (PAGE - 1)));
    }
    this.#liveInstructions += instructions;
    this.stats.regions++;
    this.stats.instructions += instructions;
    this.#host.enter(physical, mode, slot);
  }

  #takeSlot(): number {
    const free = this.#freeSlots.pop();
    if (free !== undefined) return free;
    if (this.#nextSlot < this.#host.firstSlot + this.#host.slots) return this.#nextSlot++;
    this.#reclaim();
    return this.#freeSlots.pop() ?? -1;
  }

  /** No jump cache entry names a retired slot any more. */
  #reclaim(): void {
    this.#host.bytes.fill(0, JUMP_CACHE, JUMP_CACHE + JUMP_CACHE_BYTES);
    this.#freeSlots.push(...this.#retiredSlots);
    this.#retiredSlots = [];
  }

  /** Table slot of the region that begins at a host address, or -1. */
  slotAt(physical: number, mode: number): number {
    return this.#live.get(keyOf(physical, mode))?.slot ?? -1;
  }

  /** Bytes [from, to) (host addresses) of a page are about to change: forgets the regions made of them. */
  written(page: number, from: number, to: number): void {
    const list = this.#byPage.get(page);
    if (!list) return;
    const [first, last] = [from - page, to - page];
    for (const live of [...list]) {
      const isHit = live.extents.some((e) => e.page === page && e.from < last && e.to > first);
      if (isHit) this.#forget(live);
    }
  }

  /** Host bytes of a page that its regions were made from, to be marked again. */
  extents(page: number): { from: number; to: number }[] {
    const list = this.#byPage.get(page);
    if (!list) return [];
    return [...list].flatMap(({ extents }) =>
      extents
        .filter((e) => e.page === page)
        .map(({ from, to }) => ({ from: page + from, to: page + to })),
    );
  }

  /** Forgets everything. */
  flush(): void {
    for (const live of [...this.#live.values()]) this.#forget(live);
    this.#continuations.clear();
  }

  #forget(live: Live): void {
    this.#live.delete(live.key);
    for (const { page } of live.extents) {
      const list = this.#byPage.get(page);
      list?.delete(live);
      if (list?.size === 0) this.#byPage.delete(page);
    }
    this.#host.leave(live.physical, live.mode);
    this.#table.set(live.slot, this.#gone);
    this.#retiredSlots.push(live.slot);
    if (this.#retiredSlots.length > MAX_RETIRED) this.#reclaim();
    this.#liveInstructions -= live.instructions;
    this.stats.dropped++;
  }
}

/** Code size of a mode that regions are made for: 64-bit code, and 32-bit code whose segments need no check. */
function bitsOf(mode: number): 32 | 64 | null {
  if ((mode & Mode.CODE_MASK) === Mode.CODE64) return 64;
  return mode === (Mode.CODE32 | Mode.STACK32 | Mode.FLAT) ? 32 : null;
}

const MODES = 64;
const keyOf = (physical: number, mode: number): number => physical * MODES + mode;
