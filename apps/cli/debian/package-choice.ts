/**
 * Which packages make a small Debian: what is essential or required, what was asked for, and all that these depend on.
 * Spec: Debian Policy, "Priorities", "Declaring relationships between packages".
 *
 * Versions in relationships are not looked at: within one release they hold. Of alternatives the first that is chosen already counts,
 * else the first that is there; for a virtual package the first that provides it, by name.
 */
import { HypolithError } from "../../../src/base/errors.ts";
import type { IndexedPackage, PackageIndex } from "./package-index.ts";

/** Beside what is required: the package manager, certificates for TLS, and the names of services and protocols. */
export const WANTED_PACKAGES: readonly string[] = ["apt", "ca-certificates", "netbase"];

/** In the order of their names. */
export function choosePackages(
  index: PackageIndex,
  wanted: readonly string[] = WANTED_PACKAGES,
): IndexedPackage[] {
  const chosen = new Map<string, IndexedPackage>();
  const queue: IndexedPackage[] = [];
  const take = (found: IndexedPackage): void => {
    if (chosen.has(found.name)) return;
    chosen.set(found.name, found);
    queue.push(found);
  };
  for (const found of index) if (found.isEssential || found.priority === "required") take(found);
  for (const name of wanted) take(index.find(name) ?? absent(name, "this Debian is made of"));
  for (let found = queue.shift(); found; found = queue.shift()) {
    for (const clause of clauses(found.depends)) {
      if (clause.some((name) => isMet(name, chosen, index))) continue;
      const next = clause.map((name) => supplierOf(name, index)).find((one) => one !== undefined);
      take(next ?? absent(clause.join(" or "), `${found.name} depends on`));
    }
  }
  return [...chosen.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
}

/** "a (>= 1) | b, c:any": names only, alternatives together. */
function clauses(text: string): string[][] {
  return text
    .split(",")
    .map((clause) =>
      clause.split("|").flatMap((word) => /^\s*([a-z0-9][a-z0-9+.-]*)/.exec(word)?.[1] ?? []),
    )
    .filter(({ length }) => length > 0);
}

function isMet(
  name: string,
  chosen: ReadonlyMap<string, IndexedPackage>,
  index: PackageIndex,
): boolean {
  return chosen.has(name) || index.providers(name).some((found) => chosen.has(found.name));
}

function supplierOf(name: string, index: PackageIndex): IndexedPackage | undefined {
  const [first] = [...index.providers(name)].sort((a, b) => (a.name < b.name ? -1 : 1));
  return index.find(name) ?? first;
}

function absent(name: string, why: string): never {
  throw new HypolithError("package-absent", `the mirror has no package ${name}, which ${why}`, {
    hint: "it may be in the middle of an update: try again, or another --mirror",
  });
}
