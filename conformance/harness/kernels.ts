/** Stock Debian kernels and the busybox of their architecture, as files: from the command line's own image supply and its cache. */

import { defaultCacheRoot, ImageCache } from "../../apps/cli/image/cache.ts";
import { flavorOfShortName } from "../../apps/cli/image/flavors.ts";
import type { GuestImage } from "../../apps/cli/image/guest-image.ts";
import { supplyImage } from "../../apps/cli/image/supply.ts";
import { Messages } from "../../apps/cli/messages.ts";
import { digest, storedFile } from "./cache.ts";

export interface GuestKernel {
  readonly flavor: string;
  readonly release: string;
  readonly kernelPath: string;
  readonly busybox: Uint8Array;
}

/** `flavor` as in `hypo run --flavor`. */
export async function guestKernel(flavor: string): Promise<GuestKernel> {
  const { release, kernel, busybox } = await guestImage(flavor);
  const name = `kernels/vmlinuz-${release}-${digest(kernel).slice(0, 12)}`;
  return { flavor, release, kernelPath: await storedFile(name, kernel), busybox };
}

function guestImage(flavor: string): Promise<GuestImage> {
  return supplyImage({
    flavor: flavorOfShortName(flavor),
    cache: new ImageCache(defaultCacheRoot()),
    pull: "missing",
    mirror: process.env.HYPO_DEBIAN_MIRROR,
    suite: undefined,
    messages: new Messages({ quiet: false, level: "warn" }),
    signal: new AbortController().signal,
  });
}
