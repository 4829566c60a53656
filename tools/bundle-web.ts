/**
 * The page of apps/web as files for any web server: index.html, its style, and two scripts, the page's and the machine's worker.
 *
 * The scripts name each other relative to themselves, so the folder can be served from anywhere. Nothing of Node can get into them: esbuild
 * refuses what a browser does not have.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { type BuildOptions, build, type Metafile } from "esbuild";
import { BUNDLED_PACKAGES } from "./bundled-packages.ts";

export interface WebFile {
  readonly name: string;
  readonly content: Uint8Array;
}

export interface WebBundle {
  readonly files: readonly WebFile[];
  /** What the scripts were made of, by path from the root. */
  readonly sources: Readonly<Record<"page.js" | "machine-worker.js", readonly string[]>>;
}

const ROOT = join(import.meta.dirname, "..");
/** Browsers of 2023: what the WebAssembly that the machine makes needs. */
const TARGETS = ["chrome111", "edge111", "firefox115", "safari16.4"];

export async function bundleWeb(): Promise<WebBundle> {
  const options = {
    absWorkingDir: ROOT,
    bundle: true,
    minify: true,
    write: false,
    metafile: true,
    format: "esm",
    platform: "browser",
    target: TARGETS,
    legalComments: "none",
    logLevel: "silent",
    outdir: "/",
    entryNames: "[name]",
    // The icons in the terminal's style.
    loader: { ".svg": "dataurl" },
  } as const satisfies BuildOptions;
  const { outputFiles, metafile } = await build({
    ...options,
    entryPoints: ["page.ts", "machine-worker.ts", "style.css"].map((name) => `apps/web/${name}`),
  });
  const sourcesOf = (name: string): readonly string[] => inputsOf(metafile, name);
  refuseStrangers([...sourcesOf("page.js"), ...sourcesOf("style.css")]);
  const files = outputFiles.map(({ path, contents }) => ({
    name: path.slice(path.lastIndexOf("/") + 1),
    content: contents,
  }));
  files.push({ name: "index.html", content: readFileSync(join(ROOT, "apps/web/index.html")) });
  files.push({ name: "LICENSES.txt", content: Buffer.from(licenses()) });
  return {
    files,
    sources: {
      "page.js": sourcesOf("page.js"),
      "machine-worker.js": sourcesOf("machine-worker.js"),
    },
  };
}

function inputsOf({ outputs }: Metafile, name: string): string[] {
  const found = Object.entries(outputs).find(
    ([path]) => path.endsWith(`/${name}`) || path === name,
  );
  if (!found) throw new Error(`esbuild made no ${name}`);
  return Object.keys(found[1].inputs);
}

function refuseStrangers(sources: readonly string[]): void {
  for (const source of sources) {
    const path = /(?:^|\/)node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(source);
    if (path && !BUNDLED_PACKAGES.includes(path[1]!)) {
      throw new Error(`${source} would be published: add ${path[1]} to BUNDLED_PACKAGES`);
    }
  }
}

/** The terms of our own and of all that is bundled, which have to travel with it. */
function licenses(): string {
  const own = `hypolith\n\n${readFileSync(join(ROOT, "LICENSE"), "utf8")}`;
  const others = BUNDLED_PACKAGES.map((name) => {
    const text = readFileSync(join(ROOT, "node_modules", name, "LICENSE"), "utf8");
    return `${name}\n\n${text}`;
  });
  return [...others, own].join(`\n${"-".repeat(72)}\n\n`);
}
