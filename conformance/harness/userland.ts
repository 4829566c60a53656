/** The Debian userland image (conformance/images/userland.sh). */
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { APT_COMMANDS, aptMirror } from "../../apps/cli/image/apt.ts";
import { DEFAULT_MIRROR, DEFAULT_SUITE } from "../../apps/cli/image/mirror.ts";
import { HypolithError } from "../../src/base/errors.ts";
import { CHECKOUT, cachedFile, digest } from "./cache.ts";

const SCRIPT = join(CHECKOUT, "conformance/images/userland.sh");
const PACKAGES = {
  amd64: ["python3", "openssl", "perl-base", "xz-utils", "stress-ng", "sqlite3"],
  i386: ["python3", "openssl", "xz-utils", "sqlite3"],
} as const;

export type UserlandArchitecture = keyof typeof PACKAGES;

/** The path of its cpio archive, uncompressed and without /init. */
export async function userlandArchive(
  architecture: UserlandArchitecture = "amd64",
): Promise<string> {
  const packages = PACKAGES[architecture];
  const ofApt = await aptMirror(APT_COMMANDS, new AbortController().signal);
  const mirror = process.env.HYPO_DEBIAN_MIRROR ?? ofApt?.base ?? DEFAULT_MIRROR;
  const inputs = [DEFAULT_SUITE, architecture, ...packages];
  const recipe = digest(readFileSync(SCRIPT), ...inputs).slice(0, 12);
  return cachedFile(`images/userland-${architecture}-${recipe}.cpio`, (path) => {
    const list = packages.join(", ");
    console.log(`building the Debian userland for ${architecture} (${list}), once, some minutes`);
    try {
      execFileSync(SCRIPT, [path, DEFAULT_SUITE, mirror, architecture, ...packages], {
        stdio: ["ignore", "inherit", "inherit"],
      });
    } catch (cause) {
      throw new HypolithError("userland-failed", "the Debian userland could not be built", {
        cause,
        hint: "it needs root, debootstrap and cpio, and a Debian mirror (HYPO_DEBIAN_MIRROR)",
      });
    }
  });
}
