/**
 * Which Debian a word means: "debian", "debian:SUITE".
 *
 * Suites are Debian's own names. Any other word after "debian:" is a tag of docker.io's image, or one of our kernels with BusyBox.
 */

/** What "debian" alone is: the mirror says which release that is today. */
export const DEFAULT_SUITE_NAME = "stable";

/** Releases that have packages in a mirror's main archive, and those to come. */
const CODENAMES = ["bookworm", "trixie", "forky", "duke", "sid"];
const ALIASES = ["oldstable", "stable", "testing", "unstable"];

export const SUITES: readonly string[] = [...ALIASES, ...CODENAMES];

/** These have neither point releases nor a security archive of their own. */
const ROLLING = new Set(["testing", "unstable", "sid"]);

export interface DebianWord {
  readonly suite: string;
}

/** Undefined: no word of ours. */
export function readDebianWord(word: string): DebianWord | undefined {
  if (word === "debian") return { suite: DEFAULT_SUITE_NAME };
  const suite = /^debian:([a-z]+)$/.exec(word)?.[1];
  return suite !== undefined && SUITES.includes(suite) ? { suite } : undefined;
}

/** The name under which it is kept. */
export function debianImageName(suite: string): string {
  return `debian:${suite}`;
}

export function isRolling(suite: string): boolean {
  return ROLLING.has(suite);
}
