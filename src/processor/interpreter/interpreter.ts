/**
 * The interpreter tier as an execution engine: the VM's memory, the core module, the handlers and the code cache, put together.
 */
import { BOUNCE_WRITE, RAM_BASE, S, TLB_ENTRIES, TLB_ENTRY_BYTES, TLB_READ } from "../core/layout.ts";
import { Decoder } from "../isa/decode.ts";
import type { CpuFeatures } from "../isa/features.ts";
import { semanticsOf } from "../semantics/index.ts";
import type { Engine, EngineServices } from "../vmx/engine-port.ts";
import { CodeCache } from "./code-cache.ts";
import { buildCoreModule } from "./core-module.ts";
import { Handlers } from "./handlers.ts";
import { hotHandlers } from "./hot-set.ts";

const WASM_PAGE = 0x1_0000;

export interface InterpreterOptions {
  /** Guest RAM in bytes, a multiple of 64 KiB. */
  readonly ramBytes: number;
  readonly features: CpuFeatures;
  readonly services: EngineServices;
}

interface CoreExports {
  run(budget: number): number;
  updateMode(): void;
  flushTlb(keep: number): void;
  fetchHost(linear: bigint): number;
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
    const { bytes, signatures } = buildCoreModule(memoryShape, hot);
    const { services } = options;
    const imports = {
      physicalFill: (page: number) => services.physicalFill(page >>> 0),
      codeWritten: (host: number, count: number) => this.code.written(host >>> 0, count),
      translateBlock: (host: number, mode: number) => this.code.translate(host >>> 0, mode),
      readTsc: (retired: number) => services.readTsc(retired),
      random: () => services.random(),
    };
    const instance = new WebAssembly.Instance(new WebAssembly.Module(bytes), { env: { memory: this.memory, ...imports } });
    this.exports = instance.exports;
    this.#core = instance.exports as unknown as CoreExports;
    this.handlers = new Handlers({ exports: instance.exports, signatures, memory: this.memory, memoryShape, imports }, hot, semanticsOf);
    this.code = new CodeCache(this.memory.buffer, new Decoder(options.features), this.handlers, (linear) => this.#core.fetchHost(linear) >>> 0);
    new Uint8Array(this.memory.buffer, TLB_READ, 3 * TLB_ENTRIES * TLB_ENTRY_BYTES).fill(0xff);
    this.view.setUint32(S.ADDRESS_SPACE_NEXT.at, 2, true);
    this.view.setUint32(S.ADDRESS_SPACE.at, 1, true);
    this.view.setUint32(S.MXCSR_MASK.at, 0xffff, true);
  }

  run(budget: number): number {
    return this.#core.run(budget);
  }

  updateMode(): void {
    this.#core.updateMode();
  }

  flushTlb(): void {
    this.#core.flushTlb(0);
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
