/**
 * The agent for a guest of one width: assembled when first needed, then kept in the cache, under the checksum of what it is made from.
 */
import { createHash, randomBytes } from "node:crypto";
import { mkdirSync, readdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { packageVersion } from "../../version.ts";
import type { Bits } from "./linux-program.ts";

export async function agentFile(bits: Bits, cacheRoot: string | undefined): Promise<Uint8Array> {
  const folder = cacheRoot === undefined ? undefined : join(cacheRoot, "agents");
  const path = folder === undefined ? undefined : join(folder, `${bits}-${sourcesDigest()}`);
  const kept = path === undefined ? undefined : readKept(path);
  if (kept) return kept;
  const { agentElf } = await import("./agent-program.ts");
  const elf = agentElf(bits);
  if (folder !== undefined && path !== undefined) keep(elf, folder, path);
  return elf;
}

function sourcesDigest(): string {
  const folder = fileURLToPath(new URL(".", import.meta.url));
  const hash = createHash("sha256").update(packageVersion());
  for (const name of readdirSync(folder).sort())
    if (!name.includes(".test.")) hash.update(name).update(readFileSync(join(folder, name)));
  return hash.digest("hex").slice(0, 32);
}

/** The content's own checksum stands in front of it. */
function readKept(path: string): Uint8Array | undefined {
  try {
    const bytes = readFileSync(path);
    const [sum, elf] = [bytes.subarray(0, SUM_BYTES), bytes.subarray(SUM_BYTES)];
    return checksum(elf).equals(sum) ? new Uint8Array(elf) : undefined;
  } catch {
    return undefined;
  }
}

/** Without a cache it is assembled every time. */
function keep(elf: Uint8Array, folder: string, path: string): void {
  try {
    mkdirSync(folder, { recursive: true });
    const draft = `${path}.${randomBytes(6).toString("hex")}`;
    writeFileSync(draft, Buffer.concat([checksum(elf), elf]));
    renameSync(draft, path);
  } catch {}
}

const SUM_BYTES = 32;

function checksum(bytes: Uint8Array): Buffer {
  return createHash("sha256").update(bytes).digest();
}
