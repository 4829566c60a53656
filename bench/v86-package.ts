/** The peer in JavaScript, v86: its npm package in the cache, and the BIOS that it boots with from Debian's SeaBIOS. */
import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { cachedFile } from "../conformance/harness/cache.ts";
import { HypolithError } from "../src/base/errors.ts";

/** A fixed version: figures of different ones are not comparable. */
export const V86_VERSION = "0.5.462";
const BIOS = "/usr/share/seabios/bios.bin";

export interface V86Package {
  /** The ES module. */
  readonly libraryPath: string;
  readonly wasmPath: string;
  readonly biosPath: string;
}

export async function v86Package(): Promise<V86Package> {
  if (!existsSync(BIOS)) {
    const hint = "apt-get install seabios";
    throw new HypolithError("bios-absent", `v86 needs a BIOS, ${BIOS}`, { hint });
  }
  const folder = await cachedFile(`v86/${V86_VERSION}`, (path) => {
    const words = ["install", "--no-save", "--no-audit", "--no-fund", "--ignore-scripts"];
    execFileSync("npm", [...words, "--prefix", path, `v86@${V86_VERSION}`], {
      stdio: ["ignore", "ignore", "inherit"],
    });
  });
  const build = join(folder, "node_modules/v86/build");
  return {
    libraryPath: join(build, "libv86.mjs"),
    wasmPath: join(build, "v86.wasm"),
    biosPath: BIOS,
  };
}
