/** Service images, and the script of the threads they run in, from the sources of a checkout or the files of a package, linked when they are needed and kept. */
import { readFileSync } from "node:fs";
import { stripTypeScriptTypes } from "node:module";
import { sesSource } from "./embedder-node-realm.ts";
import { LOCKDOWN_OPTIONS } from "./placements/compartment.ts";
import { linkImage, linkModule } from "./placements/image-linker.ts";

const isCheckout = import.meta.url.endsWith(".ts");
const SOURCES = new URL("../", import.meta.url);
const images = new Map<string, string>();

export function serviceImage(module: string): string {
  const known = images.get(module);
  if (known !== undefined) return known;
  const image = linkImage(module, readModule);
  images.set(module, image);
  return image;
}

let thread: string | undefined;

/** For a worker: locks its realm down, then serves the mailbox (placements/service-thread.ts). */
export function threadScript(): string {
  thread ??= `${sesSource()}
;{
  const { workerData } = require("node:worker_threads");
  const { serveService } = ${linkModule("machine/placements/service-thread.ts", readModule)};
  lockdown(${JSON.stringify(LOCKDOWN_OPTIONS)});
  serveService(globalThis, workerData);
}`;
  return thread;
}

function readModule(path: string): string {
  if (!isCheckout) return readFileSync(new URL(path.replace(/\.ts$/, ".js"), SOURCES), "utf8");
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
