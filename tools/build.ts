/**
 * `npm run build`: what is published, from the sources of a checkout.
 *
 *   dist/apps, dist/src   the command line and the machine as JavaScript, file by file (tsconfig.build.json)
 *   dist/web              the page (bundle-web.ts)
 *
 *   node tools/build.ts [web]     "web": the page alone
 */
import { spawnSync } from "node:child_process";
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { argv, execPath, exit, stderr, stdout } from "node:process";
import { gzipSync } from "node:zlib";
import { bundleWeb } from "./bundle-web.ts";

const ROOT = join(import.meta.dirname, "..");
const DIST = join(ROOT, "dist");

function compile(): void {
  for (const part of ["apps", "src"]) rmSync(join(DIST, part), { recursive: true, force: true });
  const compiler = join(ROOT, "node_modules/typescript/bin/tsc");
  const arguments_ = [compiler, "-p", join(ROOT, "tsconfig.build.json")];
  const { status } = spawnSync(execPath, arguments_, { stdio: "inherit" });
  if (status !== 0) exit(status ?? 1);
  stdout.write("dist/apps, dist/src\n");
}

async function bundle(): Promise<void> {
  const { files } = await bundleWeb();
  const folder = join(DIST, "web");
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  for (const { name, content } of files) {
    writeFileSync(join(folder, name), content);
    const kib = (bytes: number): string => `${(bytes / 1024).toFixed(0)} KiB`;
    stdout.write(
      `dist/web/${name}  ${kib(content.length)}, ${kib(gzipSync(content).length)} gzip\n`,
    );
  }
}

const [part] = argv.slice(2);
if (part !== undefined && part !== "web") {
  stderr.write(`there is no part '${part}': build.ts [web]\n`);
  exit(2);
}
if (part === undefined) compile();
await bundle();
