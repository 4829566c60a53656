/**
 * Links a service's modules into one script: the image that a compartment or a thread evaluates.
 *
 * The script is an expression whose value is a ServiceEntry. Modules become functions that run once, in the order in which they need each
 * other; an import becomes a destructuring of what another answered. Built-in objects are taken into constants first: in a compartment
 * free names are looked up through proxies, a hundred times slower.
 *
 * Knows the import and export forms of this repository's own modules, at the start of a line, and refuses others.
 */
import { invariant } from "../../base/invariant.ts";

/** JavaScript text of a module by its path from the root of the sources: "services/console/console.ts". */
export type ReadModule = (path: string) => string;

const RUNTIME = "hypervisor/abi/runtime.ts";
const BUILT_INS = [
  ...["Array", "ArrayBuffer", "BigInt", "BigInt64Array", "BigUint64Array", "Boolean", "DataView"],
  ...["Error", "Float32Array", "Float64Array", "Int8Array", "Int16Array", "Int32Array", "JSON"],
  ...["Map", "Math", "Number", "Object", "RangeError", "Set", "String", "Symbol", "TypeError"],
  ...["Uint8Array", "Uint16Array", "Uint32Array", "WeakMap", "WeakSet", "encodeURIComponent"],
];

const IMPORT = /^import\s*\{([^}]*)\}\s*from\s*"([^"]+)";?/gm;
const RE_EXPORT = /^export\s*\{([^}]*)\}\s*from\s*"([^"]+)";?/gm;
const EXPORT_LIST = /^export\s*\{([^}]*)\};?/gm;
const EXPORT_DECLARATION = /^export\s+((?:async\s+)?(?:const|let|function\*?|class)\s+([\w$]+))/gm;

/** `module` is the service's path without extension, below services/. */
export function linkImage(module: string, read: ReadModule): string {
  const linker = new Linker(read);
  const program = linker.add(`services/${module}.ts`);
  const runtime = linker.add(RUNTIME);
  return `(() => {
"use strict";
const { ${BUILT_INS.join(", ")} } = globalThis;
${linker.text}
const { createRuntime } = ${runtime};
const { createService } = ${program};
return (setup) => createRuntime({ ...setup, factory: createService });
})()`;
}

/** A module and all that it imports, by its path from the root of the sources, as an expression: the module's exports. */
export function linkModule(path: string, read: ReadModule): string {
  const linker = new Linker(read);
  const name = linker.add(path);
  return `(() => {\n"use strict";\n${linker.text}\nreturn ${name};\n})()`;
}

class Linker {
  text = "";
  #count = 0;
  readonly #read: ReadModule;
  /** Name of the constant that holds a module's exports; null while the module is being read. */
  readonly #names = new Map<string, string | null>();

  constructor(read: ReadModule) {
    this.#read = read;
  }

  add(path: string): string {
    const known = this.#names.get(path);
    invariant(known !== null, `${path} imports itself by way of others`);
    if (known !== undefined) return known;
    this.#names.set(path, null);
    const body = this.#link(path, this.#read(path));
    const name = `module${++this.#count}`;
    this.text += `const ${name} = (() => {\n${body}\n})();\n`;
    this.#names.set(path, name);
    return name;
  }

  #link(path: string, source: string): string {
    const exported: string[] = [];
    const target = (specifier: string): string => this.add(resolvePath(path, specifier));
    const body = source
      .replace(IMPORT, (_, list: string, from: string) => {
        const names = namesOf(list);
        if (names.length === 0) return "";
        return `const { ${names.map(([a, b]) => (a === b ? a : `${a}: ${b}`)).join(", ")} } = ${target(from)};`;
      })
      .replace(RE_EXPORT, (_, list: string, from: string) => {
        for (const [a, b] of namesOf(list)) exported.push(`${b}: ${target(from)}.${a}`);
        return "";
      })
      .replace(EXPORT_LIST, (_, list: string) => {
        for (const [a, b] of namesOf(list)) exported.push(a === b ? a : `${b}: ${a}`);
        return "";
      })
      .replace(EXPORT_DECLARATION, (_, declaration: string, name: string) => {
        exported.push(name);
        return declaration;
      });
    const strange = /^(?:import|export)\b.*$/m.exec(body);
    invariant(!strange, `${path}: a service cannot have '${strange?.[0]}'`);
    return `${body}\nreturn { ${exported.join(", ")} };`;
  }
}

/** "a, b as c" as pairs of names. */
function namesOf(list: string): [string, string][] {
  const words = list.split(",").map((word) => word.trim());
  return words
    .filter((word) => word !== "")
    .map((word) => {
      const [a = "", b = a] = word.split(/\s+as\s+/);
      return [a, b];
    });
}

function resolvePath(from: string, specifier: string): string {
  invariant(/^\.\.?\//.test(specifier), `a service cannot import ${specifier}`);
  const parts = from.split("/").slice(0, -1);
  for (const part of specifier.split("/")) {
    if (part === "..") parts.pop();
    else if (part !== ".") parts.push(part);
  }
  return parts.join("/").replace(/\.js$/, ".ts");
}
