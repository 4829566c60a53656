/**
 * Builder of one WebAssembly module: an imported memory, imported and defined functions, an optional table of its own.
 * Spec: WebAssembly Core Specification 2.0, "Binary Format: Modules".
 *
 * Functions are declared (name and signature) before they are defined, so bodies may call each other. Imports come first.
 */
import { invariant } from "../../base/invariant.ts";
import { ByteWriter } from "./bytes.ts";
import { FunctionBuilder, type PlacedHint } from "./function.ts";
import { TYPE_CODE, type Type } from "./ops.ts";

export interface FunctionRef {
  readonly name: string;
  readonly params: readonly Type[];
  readonly results: readonly Type[];
  readonly typeIndex: number;
  /** Final when the module is finished, which is when bodies are emitted. */
  index: number;
}

export interface Signature {
  readonly params: readonly Type[];
  readonly results: readonly Type[];
}

/** Custom section of branch hints. Spec: WebAssembly Core Specification 3.0, "Branch Hints". */
function writeHints(
  w: ByteWriter,
  functions: readonly { readonly index: number; readonly hints: readonly PlacedHint[] }[],
): void {
  w.name("metadata.code.branch_hint");
  w.uleb(functions.length);
  for (const { index, hints } of functions) {
    w.uleb(index);
    w.uleb(hints.length);
    for (const { at, hint } of hints) {
      w.uleb(at);
      w.raw([1, hint]);
    }
  }
}

interface Defined {
  readonly ref: FunctionRef;
  fn: FunctionBuilder | null;
  exported: boolean;
}

export interface MemoryShape {
  /** Pages of 64 KiB. */
  readonly minimum: number;
  readonly maximum: number;
  readonly shared: boolean;
}

export class ModuleBuilder {
  readonly #memory: MemoryShape;
  readonly #types: string[] = [];
  readonly #typeShapes: { params: readonly Type[]; results: readonly Type[] }[] = [];
  readonly #imports: FunctionRef[] = [];
  readonly #defined: Defined[] = [];
  readonly #byName = new Map<string, FunctionRef>();
  readonly #importable: (name: string) => Signature | undefined;
  readonly #tableSize: number;

  /**
   * `tableSize` > 0 gives the module an exported table "table" of that many functions. `importable` answers signatures of functions
   * that `get` may import from "env" on first use.
   */
  constructor(
    memory: MemoryShape,
    options: { tableSize?: number; importable?: (name: string) => Signature | undefined } = {},
  ) {
    this.#memory = memory;
    this.#tableSize = options.tableSize ?? 0;
    this.#importable = options.importable ?? (() => undefined);
  }

  #typeIndex(params: readonly Type[], results: readonly Type[]): number {
    const key = `${params.join()}>${results.join()}`;
    const found = this.#types.indexOf(key);
    if (found >= 0) return found;
    this.#types.push(key);
    this.#typeShapes.push({ params, results });
    return this.#types.length - 1;
  }

  #add(name: string, params: readonly Type[], results: readonly Type[]): FunctionRef {
    invariant(!this.#byName.has(name), `function ${name} declared once`);
    const ref = { name, params, results, typeIndex: this.#typeIndex(params, results), index: -1 };
    this.#byName.set(name, ref);
    return ref;
  }

  /** A function imported from "env". */
  import(name: string, params: readonly Type[], results: readonly Type[]): FunctionRef {
    const ref = this.#add(name, params, results);
    this.#imports.push(ref);
    return ref;
  }

  /** Only a signature, for indirect calls. */
  shape(name: string, params: readonly Type[], results: readonly Type[]): FunctionRef {
    return this.#add(name, params, results);
  }

  declare(
    name: string,
    params: readonly Type[],
    results: readonly Type[],
    exported = false,
  ): FunctionRef {
    const ref = this.#add(name, params, results);
    this.#defined.push({ ref, fn: null, exported });
    return ref;
  }

  define(ref: FunctionRef, build: (fn: FunctionBuilder) => void): void {
    const entry = this.#defined.find((d) => d.ref === ref);
    invariant(entry && entry.fn === null, `${ref.name} defined once`);
    entry.fn = new FunctionBuilder(ref.params, ref.results);
    build(entry.fn);
  }

  /** Declares (unless that has been done) and defines. */
  function(
    name: string,
    params: readonly Type[],
    results: readonly Type[],
    build: (fn: FunctionBuilder) => void,
    exported = false,
  ): FunctionRef {
    const declared = this.#byName.get(name);
    const ref = declared ?? this.declare(name, params, results, exported);
    invariant(ref.typeIndex === this.#typeIndex(params, results), `${name}: one signature`);
    this.define(ref, build);
    return ref;
  }

  get(name: string): FunctionRef {
    const ref = this.#byName.get(name);
    if (ref) return ref;
    const signature = this.#importable(name);
    invariant(signature, `function ${name} is declared`);
    return this.import(name, signature.params, signature.results);
  }

  exportAll(): void {
    for (const d of this.#defined) d.exported = true;
  }

  /** Names and signatures of the functions defined here. */
  signatures(): Map<string, Signature> {
    return new Map(
      this.#defined.map(({ ref }) => [ref.name, { params: ref.params, results: ref.results }]),
    );
  }

  finish(): Uint8Array {
    this.#imports.forEach((ref, i) => {
      ref.index = i;
    });
    this.#defined.forEach(({ ref }, i) => {
      ref.index = this.#imports.length + i;
    });
    const out = new ByteWriter(1 << 16);
    out.raw([0, 0x61, 0x73, 0x6d, 1, 0, 0, 0]);
    const section = (id: number, fill: (w: ByteWriter) => void): void => {
      const w = new ByteWriter(4096);
      fill(w);
      out.u8(id);
      out.uleb(w.length);
      out.raw(w.view());
    };
    section(1, (w) => {
      w.uleb(this.#typeShapes.length);
      for (const { params, results } of this.#typeShapes) {
        w.u8(0x60);
        w.uleb(params.length);
        for (const p of params) w.u8(TYPE_CODE[p]);
        w.uleb(results.length);
        for (const r of results) w.u8(TYPE_CODE[r]);
      }
    });
    section(2, (w) => {
      w.uleb(this.#imports.length + 1);
      w.name("env");
      w.name("memory");
      w.u8(2);
      w.u8(this.#memory.shared ? 3 : 1);
      w.uleb(this.#memory.minimum);
      w.uleb(this.#memory.maximum);
      for (const f of this.#imports) {
        w.name("env");
        w.name(f.name);
        w.u8(0);
        w.uleb(f.typeIndex);
      }
    });
    section(3, (w) => {
      w.uleb(this.#defined.length);
      for (const { ref } of this.#defined) w.uleb(ref.typeIndex);
    });
    if (this.#tableSize > 0) {
      section(4, (w) => {
        w.raw([1, 0x70, 0]);
        w.uleb(this.#tableSize);
      });
    }
    section(7, (w) => {
      const exported = this.#defined.filter((d) => d.exported);
      w.uleb(exported.length + (this.#tableSize > 0 ? 1 : 0));
      for (const { ref } of exported) {
        w.name(ref.name);
        w.u8(0);
        w.uleb(ref.index);
      }
      if (this.#tableSize > 0) {
        w.name("table");
        w.raw([1, 0]);
      }
    });
    const bodies = this.#defined.map(({ ref, fn }) => {
      invariant(fn, `${ref.name} is defined`);
      return { index: ref.index, code: fn.finish(), hints: fn.hints };
    });
    const hinted = bodies.filter(({ hints }) => hints.length > 0);
    if (hinted.length > 0) section(0, (w) => writeHints(w, hinted));
    section(10, (w) => {
      w.uleb(bodies.length);
      for (const { code } of bodies) {
        w.uleb(code.length);
        w.raw(code);
      }
    });
    return out.view().slice();
  }
}
