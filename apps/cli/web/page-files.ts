/** What `hypo web` serves: the built page, and an image as the page wants it. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { HypolithError } from "../../../src/base/errors.ts";
import type { ImageDescription } from "../../common/image-description.ts";
import { buildInitramfs } from "../guest/initramfs.ts";
import { JOB_ENVIRONMENT } from "../guest/job.ts";
import type { GuestImage } from "../image/guest-image.ts";

/** Content by path below the server's root. */
export type PageFiles = ReadonlyMap<string, Uint8Array>;

/** The window of a terminal that has not said yet how large it is. */
const WINDOW = { rows: 24, columns: 80 };

/** From a checkout (built into dist/) and from a package, whose files lie in dist/. */
function pageFolder(): string {
  const isSource = import.meta.url.endsWith(".ts");
  return fileURLToPath(new URL(isSource ? "../../../dist/web" : "../../../web", import.meta.url));
}

export function pageFiles(folder: string = pageFolder()): PageFiles {
  try {
    const names = readdirSync(folder);
    return new Map(names.map((name) => [name, readFileSync(join(folder, name))]));
  } catch (cause) {
    throw new HypolithError("page-absent", `the page is not built: ${folder} cannot be read`, {
      cause,
      hint: "npm run build",
    });
  }
}

/** Under image/, where the page looks. A shell is at its console; what terminal it is on is xterm.js. */
export function imageFiles(image: GuestImage): PageFiles {
  const description: ImageDescription = {
    title: `Debian, Linux ${image.release}`,
    kernel: "vmlinuz",
    initrd: "initrd.cpio",
    session: true,
  };
  const initrd = buildInitramfs({
    busybox: image.busybox,
    // The page's machine has no devices that need them.
    modules: [],
    job: {
      argv: ["sh", "-l"],
      environment: { ...JOB_ENVIRONMENT, TERM: "xterm-256color" },
      mode: "console",
      input: { kind: "none" },
      window: WINDOW,
    },
  });
  return new Map([
    ["image/image.json", Buffer.from(`${JSON.stringify(description, undefined, 2)}\n`)],
    [`image/${description.kernel}`, image.kernel],
    [`image/${description.initrd}`, initrd],
  ]);
}
