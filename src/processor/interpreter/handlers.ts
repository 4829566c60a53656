/**
 * Handler numbers of shapes: inlined ones are fixed, cold ones are compiled when their first instruction is decoded, each in a small module of its
 * own, and put into the core module's table. A thread compiles a shape once for all its processors with as much memory.
 */
import { invariant } from "../../base/invariant.ts";
import type { FunctionBuilder } from "../ir/function.ts";
import { type MemoryShape, ModuleBuilder, type Signature } from "../ir/module.ts";
import type { Semantics, Shape } from "../semantics/insn.ts";
import { ColdInsn } from "./cold-insn.ts";
import { Handler, type HotHandler } from "./run-loop.ts";
import { shapeKey } from "./shapes.ts";

export interface CoreModule {
  readonly exports: Readonly<Record<string, unknown>>;
  readonly signatures: ReadonlyMap<string, Signature>;
  readonly memory: WebAssembly.Memory;
  readonly memoryShape: MemoryShape;
  /** Functions of the embedder that handlers may import as the core module does. */
  readonly imports: Readonly<Record<string, unknown>>;
}

type Imports = NonNullable<ConstructorParameters<typeof WebAssembly.Instance>[1]>;

const HANDLER = "handler";
/** By memory and shape. */
const compiled = new Map<string, WebAssembly.Module>();

export class Handlers {
  readonly #numbers = new Map<string, number>();
  /** The same by the shape itself: cold ones only, all. */
  readonly #known = [new Map<Shape, number>(), new Map<Shape, number>()] as const;
  readonly #firstCold: number;
  readonly #core: CoreModule;
  readonly #semantics: (sem: string) => Semantics | undefined;
  #waiting: { shape: Shape; slot: number }[] = [];
  #coldCount = 0;
  #env: Imports[string] | undefined;

  constructor(
    core: CoreModule,
    hot: readonly HotHandler[],
    semantics: (sem: string) => Semantics | undefined,
  ) {
    this.#core = core;
    this.#semantics = semantics;
    hot.forEach(({ shape }, i) => {
      this.#numbers.set(shapeKey(shape), Handler.FIRST_HOT + i);
    });
    this.#firstCold = Handler.FIRST_HOT + hot.length;
  }

  /** Cold handlers made so far. */
  get coldCount(): number {
    return this.#coldCount;
  }

  /** Number of the handler of a shape, or -1 if there is no semantics for it. `allowHot` false asks for the cold one. */
  number(shape: Shape, allowHot: boolean): number {
    const known = this.#known[allowHot ? 1 : 0].get(shape);
    if (known !== undefined) return known;
    const number = this.#numberOf(shape, allowHot);
    this.#known[allowHot ? 1 : 0].set(shape, number);
    return number;
  }

  #numberOf(shape: Shape, allowHot: boolean): number {
    const key = shapeKey(shape);
    if (allowHot) {
      const hot = this.#numbers.get(key);
      if (hot !== undefined) return hot;
    }
    const coldKey = `cold ${key}`;
    const known = this.#numbers.get(coldKey);
    if (known !== undefined) {
      if (allowHot) this.#numbers.set(key, known);
      return known;
    }
    if (!this.#semantics(shape.sem)) return -1;
    const slot = this.#coldCount++;
    this.#waiting.push({ shape, slot });
    this.#numbers.set(coldKey, this.#firstCold + slot);
    if (allowHot) this.#numbers.set(key, this.#firstCold + slot);
    return this.#firstCold + slot;
  }

  /** Compiles what number() has promised. Call before any of it runs. */
  flush(): void {
    if (this.#waiting.length === 0) return;
    const waiting = this.#waiting;
    this.#waiting = [];
    const { memory, exports, imports } = this.#core;
    this.#env ??= { ...imports, ...exports, memory };
    const table = exports.table as WebAssembly.Table;
    for (const { shape, slot } of waiting) {
      const instance = new WebAssembly.Instance(this.#module(shape), { env: this.#env });
      table.set(slot, instance.exports[HANDLER] as CallableFunction);
    }
  }

  #module(shape: Shape): WebAssembly.Module {
    const { signatures, memoryShape } = this.#core;
    const key = `${memoryShape.minimum} ${memoryShape.maximum} ${shapeKey(shape)}`;
    let module = compiled.get(key);
    if (!module) {
      const builder = new ModuleBuilder(memoryShape, {
        importable: (name) => signatures.get(name),
      });
      const define = (fn: FunctionBuilder): void => {
        const semantics = this.#semantics(shape.sem);
        invariant(semantics, `semantics of ${shape.sem}`);
        semantics(new ColdInsn(builder, fn, shape));
        fn.return(0);
      };
      builder.function(HANDLER, ["i32"], ["i32"], define, true);
      module = new WebAssembly.Module(builder.finish());
      compiled.set(key, module);
    }
    return module;
  }
}
