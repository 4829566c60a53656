/** The Debian userland image (conformance/images/userland.sh). */
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { APT_COMMANDS, aptMirror } from "../../apps/cli/image/apt.ts";
import { DEFAULT_MIRROR, DEFAULT_SUITE } from "../../apps/cli/image/mirror.ts";
import { HypolithError } from "../../src/base/errors.ts";
import { CHECKOUT, cachedFile, digest } from "./cache.ts";

const SCRIPT = join(CHECKOUT, "conformance/images/userland.sh");
const PACKAGES = ["python3", "openssl", "perl-base", "xz-utils", "stress-ng", "sqlite3"];

/** The path of its cpio archive, uncompressed and without /init. */
export async function userlandArchive(): Promise<string> {
  const ofApt = await aptMirror(APT_COMMANDS, new AbortController().signal);
  const mirror = process.env.HYPO_DEBIAN_MIRROR ?? ofApt?.base ?? DEFAULT_MIRROR;
  const recipe = digest(readFileSync(SCRIPT), DEFAULT_SUITE, ...PACKAGES).slice(0, 12);
  return cachedFile(`images/userland-${recipe}.cpio`, (path) => {
    console.log(`building the Debian userland (${PACKAGES.join(", ")}), once, some minutes`);
    try {
      execFileSync(SCRIPT, [path, DEFAULT_SUITE, mirror, ...PACKAGES], {
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
