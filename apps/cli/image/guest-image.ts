import type { KernelModule } from "../guest/initramfs.ts";

/** A package that part of an image was taken from. */
export interface SourcePackage {
  readonly name: string;
  readonly version: string;
  readonly architecture: string;
  readonly sha256: string;
}

/** All that a run needs of an image, in memory. */
export interface GuestImage {
  readonly name: string;
  /** What `uname -r` says in it. */
  readonly release: string;
  readonly packages: readonly SourcePackage[];
  readonly kernel: Uint8Array;
  readonly systemMap: Uint8Array;
  readonly busybox: Uint8Array;
  /** In load order. */
  readonly modules: readonly KernelModule[];
}
