/**
 * An apt for tests: shell scripts that answer from a folder, in place of apt-cache, apt-get and apt-helper.
 */
import { chmodSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { AptCommands } from "../image/apt.ts";
import { type FakePackage, stanza } from "./fake-packages.ts";

export interface FakeAptOptions {
  /** What `apt-get indextargets` prints. */
  readonly targets?: string;
  /** How `apt-get download` begins: "sleep 60", "echo E: no >&2; exit 100". */
  readonly beforeDownload?: string;
}

/** Makes the scripts below `folder`; a PATH that begins with `folder` finds them. */
export function makeFakeApt(
  folder: string,
  packages: readonly FakePackage[],
  { targets = "", beforeDownload = ":" }: FakeAptOptions = {},
): AptCommands {
  const store = join(folder, "store");
  mkdirSync(store, { recursive: true });
  for (const { record, deb } of packages) {
    writeFileSync(join(store, `${record.name}:${record.architecture}`), stanza(record));
    const key = `${record.name}:${record.architecture}=${record.version}`;
    writeFileSync(join(store, `${key}.deb`), deb);
  }
  writeFileSync(join(store, "targets"), targets);
  return {
    cache: script(
      folder,
      "apt-cache",
      `for last; do :; done\nexec cat "${store}/$last" 2>/dev/null`,
    ),
    get: script(
      folder,
      "apt-get",
      `for last; do :; done
case " $* " in
  *" --version "*) echo apt 2.6.1 ;;
  *" indextargets "*) cat "${store}/targets" ;;
  *" download "*)
    ${beforeDownload}
    cp "${store}/$last.deb" . ;;
esac`,
    ),
    helper: join(folder, "no-apt-helper"),
  };
}

function script(folder: string, name: string, body: string): string {
  const path = join(folder, name);
  writeFileSync(path, `#!/bin/sh\n${body}\n`);
  chmodSync(path, 0o755);
  return path;
}
