/**
 * Service images, and the script of the threads they run in, from the files of a package or the sources of a checkout.
 *
 * Taking the types out of sources costs a tenth of a second and a parser's memory, so what a checkout's sources come to is kept in the
 * user's cache, under a digest of their names, sizes and times.
 */
import { createHash } from "node:crypto";
import {
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import * as nodeModule from "node:module";
import { homedir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { sesSource } from "./embedder-node-realm.ts";
import { LOCKDOWN_OPTIONS } from "./placements/compartment.ts";
import { linkImage, linkModule } from "./placements/image-linker.ts";

const isCheckout = import.meta.url.endsWith(".ts");
const SOURCES = new URL("../", import.meta.url);
/** What images are made of. */
const FOLDERS = ["base", "devices", "hypervisor/abi", "machine/placements", "services"];
const THREAD = "machine/placements/service-thread.ts";

const texts = new Map<string, string>();

export function serviceImage(module: string): string {
  return once(`service-${module}`, () => linkImage(module, readModule));
}

/** For a worker: locks its realm down, then serves the mailbox (placements/service-thread.ts). */
export function threadScript(): string {
  const serving = once("thread", () => linkModule(THREAD, readModule));
  return `${sesSource()}
;{
  const { workerData } = require("node:worker_threads");
  const { serveService } = ${serving};
  lockdown(${JSON.stringify(LOCKDOWN_OPTIONS)});
  serveService(globalThis, workerData);
}`;
}

function once(name: string, make: () => string): string {
  let text = texts.get(name);
  text ??= isCheckout ? cached(`${name.replaceAll("/", "-")}.js`, make) : make();
  texts.set(name, text);
  return text;
}

function readModule(path: string): string {
  if (!isCheckout) return readFileSync(new URL(path.replace(/\.ts$/, ".js"), SOURCES), "utf8");
  const { stripTypeScriptTypes } = nodeModule;
  return silently(() => stripTypeScriptTypes(readFileSync(new URL(path, SOURCES), "utf8")));
}

/** Node says of the function that it is experimental, to a user who has not asked. */
function silently<T>(action: () => T): T {
  const { emitWarning } = process;
  process.emitWarning = () => {};
  try {
    return action();
  } finally {
    process.emitWarning = emitWarning;
  }
}

let digest: string | undefined;

function cached(name: string, make: () => string): string {
  digest ??= digestOf(FOLDERS);
  const folder = join(cacheRoot(), "services");
  const path = join(folder, `${digest}-${name}`);
  try {
    return readFileSync(path, "utf8");
  } catch {
    const text = make();
    keep(folder, path, text);
    return text;
  }
}

/** A cache that cannot be written costs time and nothing else. */
function keep(folder: string, path: string, text: string): void {
  try {
    mkdirSync(folder, { recursive: true });
    for (const old of readdirSync(folder))
      if (!old.startsWith(digest!)) rmSync(join(folder, old), { force: true });
    const half = `${path}.${process.pid}`;
    writeFileSync(half, text);
    renameSync(half, path);
  } catch {
    // The next start makes it again.
  }
}

function cacheRoot({ HYPO_HOME, XDG_CACHE_HOME } = process.env): string {
  if (HYPO_HOME) return join(HYPO_HOME, "cache");
  return join(XDG_CACHE_HOME || join(homedir(), ".cache"), "hypolith");
}

function digestOf(folders: readonly string[]): string {
  const hash = createHash("sha256").update(process.version);
  for (const folder of folders) {
    const root = fileURLToPath(new URL(folder, SOURCES));
    for (const name of (readdirSync(root, { recursive: true }) as string[]).sort()) {
      if (!name.endsWith(".ts") || name.endsWith(".test.ts")) continue;
      const { size, mtimeMs } = statSync(join(root, name));
      hash.update(`${folder}/${name}:${size}:${mtimeMs}\n`);
    }
  }
  return hash.digest("hex").slice(0, 16);
}
