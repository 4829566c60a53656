/**
 * The interpreter tier as an execution engine: the VM's memory, the core module, the handlers and the code cache, put together.
 */

import { Decoder } from "../isa/decode.ts";
import type { CpuFeatures } from "../isa/features.ts";
import { semanticsOf } from "../semantics/index.ts";
import {
  BOUNCE_WRITE,
  Pending,
  RAM_BASE,
  S,
  TLB_ENTRIES,
  TLB_ENTRY_BYTES,
  TLB_READ,
} from "../state/layout.ts";
import type { Engine, EngineServices } from "../vmx/engine-port.ts";
import { CodeCache, type RegionTier } from "./code-cache.ts";
import { type ArtifactStore, coreFor } from "./core-cache.ts";
import { COLD_SLOTS, REGION_SLOTS } from "./core-module.ts";
import { type CoreModule, Handlers } from "./handlers.ts";
import { hotHandlers } from "./hot-set.ts";

const WASM_PAGE = 0x1_0000;
/** Interruption type of the VMCS. */
const HARDWARE_EXCEPTION = 3;

export interface InterpreterOptions {
  /** Keeps what the engine makes of its own code only. */
  readonly artifacts?: ArtifactStore;
  /** Guest RAM in bytes, a multiple of 64 KiB. */
  readonly ramBytes: number;
  readonly features: CpuFeatures;
  readonly services: EngineServices;
  /** Makes the region tier; without it everything is interpreted. */
  readonly regions?: (host: RegionHost) => RegionTier;
}

/** What a region tier works with. */
export interface RegionHost {
  readonly core: CoreModule;
  readonly decoder: Decoder;
  readonly features: CpuFeatures;
  readonly view: DataView;
  readonly bytes: Uint8Array;
  /** First table slot that belongs to regions, and how many there are. */
  readonly firstSlot: number;
  readonly slots: number;
  /** Host bytes [from, to) are now compiled code: a write to them is reported. */
  mark(from: number, to: number): void;
  /** The block at a host address (of this code mode) enters the region in a table slot; it does so no more. */
  enter(physical: number, mode: number, slot: number): void;
  leave(physical: number, mode: number): void;
  /** Offsets in a host page at which the interpreter has begun blocks. */
  blockStarts(page: number, mode: number): ReadonlyMap<number, number>;
}

interface CoreExports {
  run(budget: number): number;
  updateMode(): void;
  flushTlb(keep: number): void;
  fetchHost(linear: bigint): number;
  enterAddressSpace(forget: number): void;
  deliverPending(): number;
  injectEvent(info: number, error: number, length: number): number;
  memR(linear: bigint, bytes: number, flags: number): number;
  memW(linear: bigint, bytes: number, flags: number): number;
  memCommit(): void;
}

export class Interpreter implements Engine {
  readonly memory: WebAssembly.Memory;
  readonly view: DataView;
  readonly code: CodeCache;
  readonly handlers: Handlers;
  /** Every exported procedure of the core module, for tests. */
  readonly exports: Readonly<Record<string, unknown>>;
  readonly #core: CoreExports;

  constructor(options: InterpreterOptions) {
    const pages = (RAM_BASE + options.ramBytes) / WASM_PAGE;
    const memoryShape = { minimum: pages, maximum: pages, shared: false };
    this.memory = new WebAssembly.Memory({ initial: pages, maximum: pages });
    this.view = new DataView(this.memory.buffer);
    const hot = hotHandlers();
    const { module, signatures } = coreFor(
      memoryShape,
      hot,
      options.regions !== undefined,
      options.artifacts,
    );
    const { services } = options;
    const imports = {
      physicalFill: (page: number, need: number) => services.physicalFill(page >>> 0, need),
      codeWritten: (host: number, count: number) => this.code.written(host >>> 0, count),
      translateBlock: (host: number, mode: number) => this.code.translate(host >>> 0, mode),
      readTsc: (retired: number) => services.readTsc(retired),
      random: () => services.random(),
      hotBlock: (block: number) => this.code.hot(block >>> 0),
    };
    const instance = new WebAssembly.Instance(module, {
      env: { memory: this.memory, ...imports },
    });
    this.exports = instance.exports;
    this.#core = instance.exports as unknown as CoreExports;
    const core: CoreModule = {
      exports: instance.exports,
      signatures,
      memory: this.memory,
      memoryShape,
      imports,
    };
    this.handlers = new Handlers(core, hot, semanticsOf);
    const decoder = new Decoder(options.features);
    this.code = new CodeCache(
      this.memory.buffer,
      decoder,
      this.handlers,
      (linear) => this.#core.fetchHost(linear) >>> 0,
    );
    if (options.regions) {
      const host: RegionHost = {
        core,
        decoder,
        features: options.features,
        view: this.view,
        bytes: new Uint8Array(this.memory.buffer),
        firstSlot: COLD_SLOTS,
        slots: REGION_SLOTS,
        mark: (from, to) => this.code.mark(from, to),
        enter: (physical, mode, slot) => this.code.enterRegion(physical, mode, slot),
        leave: (physical, mode) => this.code.leaveRegion(physical, mode),
        blockStarts: (page, mode) => this.code.blockStarts(page, mode),
      };
      this.code.useRegions(options.regions(host));
    }
    new Uint8Array(this.memory.buffer, TLB_READ, 3 * TLB_ENTRIES * TLB_ENTRY_BYTES).fill(0xff);
    this.view.setUint32(S.ADDRESS_SPACE_NEXT.at, 2, true);
    this.view.setUint32(S.ADDRESS_SPACE.at, 1, true);
    this.view.setUint32(S.MXCSR_MASK.at, 0xffff, true);
  }

  run(budget: number): number {
    this.code.service();
    return this.#core.run(budget);
  }

  updateMode(): void {
    this.#core.updateMode();
  }

  flushTlb(): void {
    this.#core.flushTlb(0);
  }

  enterAddressSpace(forget: boolean): void {
    this.#core.enterAddressSpace(forget ? 1 : 0);
  }

  raise(vector: number, error: number): number {
    const { view } = this;
    view.setUint32(S.PENDING.at, Pending.EVENT, true);
    view.setUint32(S.PENDING_VECTOR.at, vector, true);
    view.setUint32(S.PENDING_ERROR.at, error, true);
    view.setUint32(S.PENDING_TYPE.at, HARDWARE_EXCEPTION, true);
    return this.#core.deliverPending();
  }

  injectEvent(info: number, error: number, length: number): number {
    return this.#core.injectEvent(info, error, length);
  }

  hostRead(linear: bigint, bytes: number): number {
    return this.#core.memR(linear, bytes, 0) >>> 0;
  }

  hostWrite(linear: bigint, bytes: number): number {
    return this.#core.memW(linear, bytes, 0) >>> 0;
  }

  commitWrite(host: number): void {
    if (host === BOUNCE_WRITE) this.#core.memCommit();
  }

  noticeWrite(host: number, bytes: number): void {
    this.code.written(host, bytes);
  }
}
