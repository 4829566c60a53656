/**
 * The images that `hypo run` knows: stock Debian kernels, each with the busybox of its architecture as userland.
 */
import { HypolithError } from "../../../src/base/errors.ts";
import type { ShareProtocol } from "../../../src/control/protocol.ts";
import { closest } from "../closest.ts";

export interface Flavor {
  /** Canonical image name, "debian:cloud-amd64". */
  readonly image: string;
  /** For --flavor. */
  readonly short: string;
  readonly architecture: "amd64" | "i386";
  /** The meta package, which depends on the kernel package of the day. */
  readonly metaPackage: string;
  /** Kernel modules that come with the image, and what they depend on: drivers of devices that a machine may have. */
  readonly modules: readonly string[];
  readonly description: string;
}

/** For the devices that a machine has with a disk. */
export const DISK_DRIVERS: readonly string[] = ["virtio_pci", "virtio_blk", "virtio_rng"];

/** For a network card. */
export const NETWORK_DRIVERS: readonly string[] = ["virtio_pci", "virtio_net"];

/** For the socket device, by which the agent in the guest is reached. */
export const SOCKET_DRIVERS: readonly string[] = ["virtio_pci", "vmw_vsock_virtio_transport"];

/** For a virtio console. */
export const CONSOLE_DRIVERS: readonly string[] = ["virtio_pci", "virtio_console"];

/** For shared folders. A kernel without a protocol lacks its drivers. */
export const SHARE_DRIVERS: Readonly<Record<ShareProtocol, readonly string[]>> = {
  fs: ["virtio_pci", "virtiofs"],
  "9p": ["virtio_pci", "9pnet_virtio", "9p"],
};

/** For an image as a disk: its file system, and what makes it writable. */
export const ROOT_DRIVERS: readonly string[] = [
  ...["virtio_pci", "virtio_blk", "crc32c_generic", "erofs", "overlay"],
];

/** For virtual machines in the guest. */
export const KVM_DRIVERS: readonly string[] = ["kvm_intel"];

/** What a run may load; it takes what its devices need. */
const DRIVERS: readonly string[] = [
  ...new Set([
    ...DISK_DRIVERS,
    ...NETWORK_DRIVERS,
    ...SOCKET_DRIVERS,
    ...ROOT_DRIVERS,
    ...CONSOLE_DRIVERS,
    ...SHARE_DRIVERS.fs,
    ...SHARE_DRIVERS["9p"],
    ...KVM_DRIVERS,
  ]),
];

/** The first is the default. */
export const FLAVORS: readonly Flavor[] = [
  {
    image: "debian:cloud-amd64",
    short: "cloud",
    architecture: "amd64",
    metaPackage: "linux-image-cloud-amd64",
    modules: DRIVERS,
    description: "Debian's kernel for virtual machines",
  },
  {
    image: "debian:amd64",
    short: "generic",
    architecture: "amd64",
    metaPackage: "linux-image-amd64",
    modules: DRIVERS,
    description: "Debian's kernel for any PC",
  },
  {
    image: "debian:rt-amd64",
    short: "rt",
    architecture: "amd64",
    metaPackage: "linux-image-rt-amd64",
    modules: DRIVERS,
    description: "Debian's PREEMPT_RT kernel",
  },
  {
    image: "debian:686-pae",
    short: "686-pae",
    architecture: "i386",
    metaPackage: "linux-image-686-pae",
    modules: DRIVERS,
    description: "Debian's 32-bit kernel with PAE",
  },
];

export const BUSYBOX_PACKAGE = "busybox-static";

/** The flavor of an image name; "debian" is the default one. */
export function flavorOfImage(name: string): Flavor {
  const wanted = name === "debian" ? FLAVORS[0]!.image : name;
  const found = FLAVORS.find((flavor) => flavor.image === wanted);
  if (found) return found;
  const names = ["debian", ...FLAVORS.map((flavor) => flavor.image)];
  const near = closest(name, names);
  throw new HypolithError("image-unknown", `there is no image '${name}'`, {
    hint: near
      ? `did you mean '${near}'?`
      : `known images: ${names.join(", ")}; to run a command in the default one: hypo run -- ${name}`,
  });
}

export function flavorOfShortName(name: string): Flavor {
  const found = FLAVORS.find((flavor) => flavor.short === name);
  if (found) return found;
  throw new HypolithError("flavor-unknown", `there is no flavor '${name}'`, {
    hint: `one of ${FLAVORS.map((flavor) => flavor.short).join(", ")}`,
  });
}
