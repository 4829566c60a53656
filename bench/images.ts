/** What contestants find in their root: the suite's programs alone, or a Debian userland with the suite's scripts. */
import { generateKeyPairSync } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { AgentFile } from "../conformance/harness/agent.ts";
import { CHECKOUT, cachedFile } from "../conformance/harness/cache.ts";
import { userlandArchive } from "../conformance/harness/userland.ts";
import { type Bits, buildPrograms } from "./build-programs.ts";
import type { BenchProgram } from "./program-table.ts";
import { RSA_BITS, RSA_KEY, SCRIPTS } from "./real-table.ts";

export interface Image {
  readonly files: readonly AgentFile[];
  /** The path of a cpio archive; without it busybox is all there is. */
  readonly userlandPath?: string;
  /** Guests need at least so much. */
  readonly memoryMib: number;
}

const USERLAND_MEMORY_MIB = 1024;
const PROGRAM_MEMORY_MIB = 256;

export async function programImage(
  programs: readonly BenchProgram[],
  bits: Bits = 64,
): Promise<Image> {
  const built = await buildPrograms(programs, bits);
  const files = built.map(({ name, path }): AgentFile => {
    return { path: `lab/${name}`, content: readFileSync(path), executable: true };
  });
  return { files, memoryMib: PROGRAM_MEMORY_MIB };
}

export async function realImage(bits: Bits = 64): Promise<Image> {
  const scripts = SCRIPTS.map((name): AgentFile => {
    return { path: `lab/${name}`, content: readFileSync(join(CHECKOUT, "bench/scripts", name)) };
  });
  const key: AgentFile = { path: RSA_KEY, content: readFileSync(await rsaKey()) };
  const userlandPath = await userlandArchive(bits === 64 ? "amd64" : "i386");
  return { files: [...scripts, key], userlandPath, memoryMib: USERLAND_MEMORY_MIB };
}

/** Made once in this checkout: signatures differ from one machine to another, and not between contestants. */
function rsaKey(): Promise<string> {
  return cachedFile(`bench/rsa-${RSA_BITS}.pem`, (path) => {
    const { privateKey } = generateKeyPairSync("rsa", { modulusLength: RSA_BITS });
    writeFileSync(path, privateKey.export({ type: "pkcs8", format: "pem" }));
  });
}
