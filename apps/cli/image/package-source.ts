import type { PackageRecord } from "./packages-index.ts";

/** Somewhere that Debian packages come from. */
export interface PackageSource {
  /** For messages: "apt", or the mirror's address. */
  readonly description: string;
  /** The newest record of a package, or undefined if this source does not have it. */
  find(name: string, architecture: string): Promise<PackageRecord | undefined>;
  /** The package file, its checksum verified. */
  download(record: PackageRecord): Promise<Uint8Array>;
}
