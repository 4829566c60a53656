import { existsSync, readFileSync } from "node:fs";

interface PackageFile {
  readonly name: string;
  readonly version: string;
}

/** The version of this package: its package.json lies above this file, from a checkout and from a package alike. */
export function packageVersion(): string {
  for (const up of ["../..", "../../.."]) {
    const url = new URL(`${up}/package.json`, import.meta.url);
    if (!existsSync(url)) continue;
    const found = JSON.parse(readFileSync(url, "utf8")) as PackageFile;
    if (found.name === "hypolith") return found.version;
  }
  return "unknown";
}
