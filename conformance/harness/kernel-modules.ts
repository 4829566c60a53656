/** A stock Debian kernel with some of its modules: from the command line's own image supply, in a cache beside the command line's. */
import { join } from "node:path";
import { ImageCache } from "../../apps/cli/image/cache.ts";
import { flavorOfShortName } from "../../apps/cli/image/flavors.ts";
import { supplyImage } from "../../apps/cli/image/supply.ts";
import { Messages } from "../../apps/cli/messages.ts";
import type { AgentFile } from "./agent.ts";
import { digest, outputFolder, storedFile } from "./cache.ts";
import type { GuestKernel } from "./kernels.ts";

export interface ModularKernel extends GuestKernel {
  /** In load order, for the agent's initramfs. */
  readonly modules: readonly AgentFile[];
}

export async function modularKernel(
  flavor: string,
  modules: readonly string[],
): Promise<ModularKernel> {
  const image = await supplyImage({
    flavor: { ...flavorOfShortName(flavor), modules },
    // The command line's would lose its own image of the same name.
    cache: new ImageCache(join(outputFolder("images-with-modules"), modules.join("+"))),
    pull: "missing",
    mirror: process.env.HYPO_DEBIAN_MIRROR,
    suite: undefined,
    messages: new Messages({ quiet: false, level: "warn" }),
    signal: new AbortController().signal,
  });
  const { release, kernel, busybox } = image;
  const name = `kernels/vmlinuz-${release}-${digest(kernel).slice(0, 12)}`;
  const files = image.modules.map(({ name, content }) => ({ path: `lab/${name}`, content }));
  return { flavor, release, kernelPath: await storedFile(name, kernel), busybox, modules: files };
}
