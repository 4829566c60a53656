/**
 * The package lists that apt in the guest would fetch first, as it keeps them: they are here already, and checked.
 *
 * Spec: apt's URItoFileName: address without scheme and user, "/" as "_", characters that are special to it or the shell by their code.
 */
import type { SuitePlace } from "./archive.ts";

export interface AptList {
  /** In /var/lib/apt/lists. */
  readonly name: string;
  readonly content: Uint8Array;
}

/** `file`: "InRelease", or "main/binary-amd64/Packages". */
export function aptListName({ base, suite }: SuitePlace, file: string): string {
  const address = base.replace(/^https?:\/\/(?:[^/@]*@)?/, "");
  const quoted = `${address}/dists/${suite}/${file}`.replaceAll(
    /[\\|{}[\]<>"^~_=!@#$%^&*]/g,
    (character) => `%${character.charCodeAt(0).toString(16).padStart(2, "0")}`,
  );
  return quoted.replaceAll("/", "_");
}
