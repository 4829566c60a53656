/**
 * Kernel modules for the initramfs: those asked for and all they depend on, in load order.
 *
 * Dependencies are read from each module's own .modinfo section (modules.dep is made on the installed machine, a package has none).
 * A module that is not there is assumed to be built in, as `modprobe` does with modules.builtin.
 */
import { gunzipSync } from "node:zlib";
import type { KernelModule } from "../guest/initramfs.ts";

const MODULE_PATH = /^(?:usr\/)?lib\/modules\/[^/]+\/kernel\/.*\/([^/]+)\.ko(\.gz|\.xz)?$/;

export function isModulePath(path: string): boolean {
  return MODULE_PATH.test(path);
}

/** Modules `names` out of `files` (path to content), each after what it needs. */
export async function selectModules(
  files: ReadonlyMap<string, Uint8Array>,
  names: readonly string[],
): Promise<KernelModule[]> {
  const paths = new Map<string, string>();
  for (const path of files.keys()) {
    const name = MODULE_PATH.exec(path)?.[1];
    if (name) paths.set(canonical(name), path);
  }
  const selected: KernelModule[] = [];
  const seen = new Set<string>();
  const take = async (name: string): Promise<void> => {
    const key = canonical(name);
    const path = paths.get(key);
    if (path === undefined || seen.has(key)) return;
    seen.add(key);
    const content = await unpack(path, files.get(path)!);
    for (const dependency of dependenciesOf(content)) await take(dependency);
    selected.push({ name: `${key}.ko`, content });
  };
  for (const name of names) await take(name);
  return selected;
}

/** Those of `modules` that `names` and their dependencies name, in the order that they have. Names that are not there are built in. */
export function withDependencies(
  modules: readonly KernelModule[],
  names: readonly string[],
): KernelModule[] {
  const byName = new Map(modules.map((module) => [module.name, module]));
  const wanted = new Set<string>();
  const take = (name: string): void => {
    const file = `${canonical(name)}.ko`;
    const found = byName.get(file);
    if (!found || wanted.has(file)) return;
    wanted.add(file);
    for (const dependency of dependenciesOf(found.content)) take(dependency);
  };
  for (const name of names) take(name);
  return modules.filter(({ name }) => wanted.has(name));
}

/** The kernel takes "-" and "_" in module names as the same. */
function canonical(name: string): string {
  return name.replaceAll("-", "_");
}

function dependenciesOf(module: Uint8Array): string[] {
  const text = Buffer.from(module.buffer, module.byteOffset, module.byteLength).toString("latin1");
  const depends = /\0depends=([^\0]*)\0/.exec(text)?.[1] ?? "";
  return depends.split(",").filter((name) => name !== "");
}

async function unpack(path: string, content: Uint8Array): Promise<Uint8Array> {
  if (path.endsWith(".gz")) return gunzipSync(content);
  if (!path.endsWith(".xz")) return content;
  const { decompressXz } = await import("./xz.ts");
  const parts: Uint8Array[] = [];
  for await (const part of decompressXz(content)) parts.push(part);
  return Buffer.concat(parts);
}
