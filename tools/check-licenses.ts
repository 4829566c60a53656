/**
 * Repository check: what reaches a user with the package may be given to them, and runs on the oldest Node that package.json promises.
 *
 *   node tools/check-licenses.ts [ROOT]     prints one line per runtime package, status 1 if one is not acceptable
 *
 * Reads package-lock.json for what is a runtime package and node_modules/NAME/package.json for what it says of itself. A licence is
 * acceptable if it is on ACCEPTED, so copyleft, unknown and missing ones are refused alike. Development tools are not looked at, but for
 * what is bundled into the page.
 */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { argv, exit, stderr, stdout } from "node:process";
import { BUNDLED_PACKAGES } from "./bundled-packages.ts";

/** SPDX identifiers of licences that ask for no more than a notice. */
const ACCEPTED = new Set([
  ...["0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "BlueOak-1.0.0"],
  ...["CC0-1.0", "ISC", "MIT", "Unlicense", "Zlib"],
]);

/** The oldest Node that runs the package, as "engines" of package.json says. */
export const OLDEST_NODE = "20.19.0";

interface PackageJson {
  readonly license?: unknown;
  readonly licenses?: unknown;
  readonly engines?: { readonly node?: string };
}

interface LockedPackage extends PackageJson {
  readonly version?: string;
  readonly dev?: boolean;
  readonly optional?: boolean;
  readonly link?: boolean;
}

export interface PackageReport {
  readonly name: string;
  readonly version: string;
  readonly license: string;
  /** Why it is not acceptable, or null. */
  readonly problem: string | null;
}

// ---- licences ----

/** Is an SPDX expression satisfied by accepted licences? AND binds tighter than OR. */
export function isAccepted(expression: string): boolean {
  const tokens = expression.match(/[()]|[^\s()]+/g) ?? [];
  let at = 0;
  const atom = (): boolean => {
    const token = tokens[at++];
    if (token !== "(") return token !== undefined && ACCEPTED.has(token);
    const inner = either();
    return tokens[at++] === ")" && inner;
  };
  const both = (): boolean => {
    let all = atom();
    while (tokens[at] === "AND") {
      at++;
      all = atom() && all;
    }
    return all;
  };
  const either = (): boolean => {
    let any = both();
    while (tokens[at] === "OR") {
      at++;
      any = both() || any;
    }
    return any;
  };
  const result = either();
  return result && at === tokens.length;
}

/** The licence a package states: SPDX text, or one of the older forms of package.json. */
function licenseOf({ license, licenses }: PackageJson): string {
  if (typeof license === "string") return license;
  const typeOf = (l: unknown): string =>
    String((l as { type?: unknown } | null)?.type ?? "unknown");
  if (license) return typeOf(license);
  if (Array.isArray(licenses) && licenses.length > 0) return licenses.map(typeOf).join(" OR ");
  return "unknown";
}

// ---- versions ----

type Version = readonly [major: number, minor: number, patch: number];

const compare = (a: Version, b: Version): number => a[0] - b[0] || a[1] - b[1] || a[2] - b[2];

/** Lowest version of a comparator's operand and the first one behind it: "20" is [20.0.0, 21.0.0). */
function span(operand: string): readonly [Version, Version] | null {
  const match = /^v?(?:(\d+|[xX*])(?:\.(\d+|[xX*])(?:\.(\d+|[xX*]))?)?)?(?:[-+].*)?$/.exec(operand);
  if (!match) return null;
  const parts = match.slice(1).map((part) => (part && /\d/.test(part) ? Number(part) : null));
  const [major = null, minor = null, patch = null] = parts;
  if (major === null)
    return [
      [0, 0, 0],
      [Infinity, 0, 0],
    ];
  if (minor === null)
    return [
      [major, 0, 0],
      [major + 1, 0, 0],
    ];
  if (patch === null)
    return [
      [major, minor, 0],
      [major, minor + 1, 0],
    ];
  return [
    [major, minor, patch],
    [major, minor, patch + 1],
  ];
}

function satisfies(version: Version, comparator: string): boolean {
  const [, operator = "", operand = ""] = /^(>=|<=|>|<|=|\^|~>?)?(.*)$/.exec(comparator) ?? [];
  const range = span(operand);
  if (!range) return false;
  const [low, high] = range;
  switch (operator) {
    case ">=":
      return compare(version, low) >= 0;
    case ">":
      return compare(version, high) >= 0;
    case "<":
      return compare(version, low) < 0;
    case "<=":
      return compare(version, high) < 0;
    case "^":
      return (
        compare(version, low) >= 0 && version[0] === low[0] && (low[0] > 0 || version[1] === low[1])
      );
    case "~":
    case "~>":
      return (
        compare(version, low) >= 0 &&
        version[0] === low[0] &&
        (!/\./.test(operand) || version[1] === low[1])
      );
    default:
      return compare(version, low) >= 0 && compare(version, high) < 0;
  }
}

/** Does a version lie in a range as npm writes it? Prerelease tags are not distinguished. */
export function isInRange(version: string, range: string): boolean {
  const low = span(version)?.[0];
  if (!low) return false;
  return range.split("||").some((part) => {
    const hyphen = part.trim().replace(/^(\S+)\s+-\s+(\S+)$/, ">=$1 <=$2");
    const comparators = hyphen.replaceAll(/(>=|<=|>|<|=|\^|~>?)\s+/g, "$1").split(/\s+/);
    return comparators.every((comparator) => satisfies(low, comparator));
  });
}

// ---- the repository ----

function problemOf(
  name: string,
  locked: LockedPackage,
  installed: PackageJson | null,
): string | null {
  if (!installed && !locked.optional) return `${name} is in package-lock.json but not installed`;
  const stated = licenseOf(locked);
  const license = installed ? licenseOf(installed) : stated;
  if (!isAccepted(license)) return `licence ${license} is not on the list`;
  if (locked.license !== undefined && stated !== license) {
    return `the package says ${license}, package-lock.json ${stated}`;
  }
  const node = (installed ?? locked).engines?.node;
  if (node !== undefined && !isInRange(OLDEST_NODE, node)) {
    return `needs Node ${node}, and ${OLDEST_NODE} is promised`;
  }
  return null;
}

function readJson<T>(path: string): T | null {
  return existsSync(path) ? (JSON.parse(readFileSync(path, "utf8")) as T) : null;
}

/** Every package of the lockfile at `root` that reaches a user: runtime packages, and what is bundled. */
export function checkLicenses(root: string): PackageReport[] {
  const lock = readJson<{ packages?: Record<string, LockedPackage> }>(
    join(root, "package-lock.json"),
  );
  const reports: PackageReport[] = [];
  for (const [path, locked] of Object.entries(lock?.packages ?? {})) {
    const isBundled = BUNDLED_PACKAGES.some((name) => path === `node_modules/${name}`);
    if (path === "" || locked.link || (locked.dev && !isBundled)) continue;
    const installed = readJson<PackageJson>(join(root, path, "package.json"));
    const name = path.slice(path.lastIndexOf("node_modules/") + "node_modules/".length);
    reports.push({
      name,
      version: locked.version ?? "",
      license: licenseOf(installed ?? locked),
      problem: problemOf(name, locked, installed),
    });
  }
  return reports;
}

if (import.meta.main) {
  const reports = checkLicenses(argv[2] ?? join(import.meta.dirname, ".."));
  for (const { name, version, license, problem } of reports) {
    stdout.write(`${name} ${version} ${license}\n`);
    if (problem) stderr.write(`${name} ${version}: ${problem}\n`);
  }
  const refused = reports.filter((r) => r.problem !== null).length;
  stdout.write(`check-licenses: ${reports.length} runtime packages, ${refused} not acceptable\n`);
  exit(refused === 0 && reports.length > 0 ? 0 : 1);
}
