/**
 * Handler numbers of shapes: inlined ones are fixed, cold ones are compiled in small modules when their first instruction is decoded,
 * and put into the core module's table.
 */
import { invariant } from "../../base/invariant.ts";
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

export class Handlers {
  readonly #numbers = new Map<string, number>();
  /** The same by the shape itself: cold ones only, all. */
  readonly #known = [new Map<Shape, number>(), new Map<Shape, number>()] as const;
  readonly #firstCold: number;
  readonly #core: CoreModule;
  readonly #semantics: (sem: string) => Semantics | undefined;
  #waiting: { shape: Shape; slot: number }[] = [];
  #coldCount = 0;

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
    const { signatures, memory, memoryShape, exports, imports } = this.#core;
    const module = new ModuleBuilder(memoryShape, { importable: (name) => signatures.get(name) });
    for (const { shape, slot } of waiting) {
      module.function(
        `h${slot}`,
        ["i32"],
        ["i32"],
        (fn) => {
          const semantics = this.#semantics(shape.sem);
          invariant(semantics, `semantics of ${shape.sem}`);
          semantics(new ColdInsn(module, fn, shape));
          fn.return(0);
        },
        true,
      );
    }
    const compiled = new WebAssembly.Module(module.finish());
    const instance = new WebAssembly.Instance(compiled, {
      env: { ...imports, ...exports, memory },
    });
    const table = exports.table as WebAssembly.Table;
    for (const { slot } of waiting)
      table.set(slot, instance.exports[`h${slot}`] as CallableFunction);
  }
}
