/**
 * A Packages index as a table: what a choice of packages needs to know of each.
 * Spec: Debian Policy, "Relationships between packages"; Debian wiki, "DebianRepository/Format".
 */
import { parseStanza } from "../image/packages-index.ts";
import { compareVersions } from "./version.ts";

export interface IndexedPackage {
  readonly name: string;
  readonly version: string;
  readonly architecture: string;
  readonly priority: string;
  readonly isEssential: boolean;
  /** Pre-Depends and Depends, unread. */
  readonly depends: string;
  readonly provides: string;
  readonly filename: string;
  readonly size: number;
  /** Lower-case hex. */
  readonly sha256: string;
  /** Of the mirror that has it. */
  readonly base: string;
}

export class PackageIndex {
  readonly #packages = new Map<string, IndexedPackage>();
  readonly #providers = new Map<string, IndexedPackage[]>();

  /** Adds a Packages file; of two versions the higher one counts. */
  add(text: string, base: string): void {
    for (const stanza of text.split("\n\n")) {
      if (!stanza.includes("Package: ")) continue;
      const found = readPackage(stanza, base);
      if (!found) continue;
      const before = this.#packages.get(found.name);
      if (before && compareVersions(before.version, found.version) >= 0) continue;
      this.#packages.set(found.name, found);
    }
    this.#providers.clear();
    for (const found of this.#packages.values()) {
      for (const word of found.provides.split(",")) {
        const name = /^\s*([a-z0-9][a-z0-9+.-]*)/.exec(word)?.[1];
        if (name === undefined) continue;
        const others = this.#providers.get(name);
        if (others) others.push(found);
        else this.#providers.set(name, [found]);
      }
    }
  }

  get size(): number {
    return this.#packages.size;
  }

  find(name: string): IndexedPackage | undefined {
    return this.#packages.get(name);
  }

  providers(name: string): readonly IndexedPackage[] {
    return this.#providers.get(name) ?? [];
  }

  *[Symbol.iterator](): IterableIterator<IndexedPackage> {
    yield* this.#packages.values();
  }
}

/** An index has 70,000 stanzas: only the lines that count are read. */
const LINES =
  /^(?:Package|Version|Architecture|Priority|Essential|Pre-Depends|Depends|Provides|Filename|Size|SHA256):.*$/gm;

function readPackage(stanza: string, base: string): IndexedPackage | undefined {
  const fields = parseStanza(stanza.match(LINES)?.join("\n") ?? "");
  const get = (name: string): string => fields.get(name) ?? "";
  const size = Number(get("Size"));
  const sha256 = get("SHA256").toLowerCase();
  const isSound =
    /^[a-z0-9][a-z0-9+.-]+$/.test(get("Package")) &&
    /^[0-9A-Za-z.+~:-]+$/.test(get("Version")) &&
    /^[0-9a-f]{64}$/.test(sha256) &&
    Number.isSafeInteger(size) &&
    size > 0 &&
    get("Filename") !== "";
  if (!isSound) return undefined;
  return {
    name: get("Package"),
    version: get("Version"),
    architecture: get("Architecture"),
    priority: get("Priority"),
    isEssential: get("Essential") === "yes",
    depends: [get("Pre-Depends"), get("Depends")].filter((text) => text !== "").join(", "),
    provides: get("Provides"),
    filename: get("Filename"),
    size,
    sha256,
    base,
  };
}
