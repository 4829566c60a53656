/** A suite on an image: the contestants are this machine itself, the peers, and our engines, all with the same files. */
import { readFileSync } from "node:fs";
import { bootFiles } from "../conformance/harness/boot.ts";
import type { BootFiles } from "../conformance/harness/guest-machine.ts";
import { type GuestKernel, guestKernel } from "../conformance/harness/kernels.ts";
import { type EvenTerms, KERNEL_WORDS, V2_TERMS } from "./even-terms.ts";
import { bootGuests, type MachineStarters, machineStarters } from "./guests.ts";
import type { Image } from "./images.ts";
import { Native } from "./native.ts";
import type { BenchOptions } from "./options.ts";
import { runSuite } from "./suite.ts";
import { after, type Contestants, NATIVE, type RowResult, type Workload } from "./workload.ts";

export interface Platform {
  /** Of the kernel, as in `hypo run --flavor`. */
  readonly flavor: string;
  readonly terms: EvenTerms;
  /** Besides QEMU. */
  readonly peers: MachineStarters;
}

const AMD64: Platform = { flavor: "cloud", terms: V2_TERMS, peers: {} };

export async function benchImage(
  image: Image,
  workloads: readonly Workload[],
  options: BenchOptions,
  { flavor, terms, peers }: Platform = AMD64,
): Promise<RowResult[]> {
  const kernel = await guestKernel(flavor);
  const contestants: Contestants = {};
  try {
    const native = await Native.create({ ...image, busybox: kernel.busybox });
    if (native) contestants[NATIVE] = native;
    options.progress("booting the machines");
    const files = imageFiles(kernel, image, options);
    const starters = machineStarters(options, terms, peers);
    Object.assign(contestants, await bootGuests(starters, files));
    const even = workloads.map((workload) => after(terms.environment, workload));
    return await runSuite(even, contestants, options);
  } finally {
    for (const contestant of Object.values(contestants)) contestant.kill();
  }
}

/** For guests with `image` on `kernel`. */
export function imageFiles(
  kernel: GuestKernel,
  { files, userlandPath, memoryMib }: Image,
  options: Pick<BenchOptions, "memoryMib">,
): BootFiles {
  const userland = userlandPath === undefined ? {} : { userland: readFileSync(userlandPath) };
  return bootFiles(kernel, {
    ...userland,
    files,
    memoryMib: Math.max(memoryMib, options.memoryMib),
    append: KERNEL_WORDS,
  });
}
