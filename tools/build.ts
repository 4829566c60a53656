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

/** Answers whether the compiler was content; what it had to say is on standard output. */
export function compile(dist: string): boolean {
  for (const part of ["apps", "src"]) rmSync(join(dist, part), { recursive: true, force: true });
  const compiler = join(ROOT, "node_modules/typescript/bin/tsc");
  const words = [compiler, "-p", join(ROOT, "tsconfig.build.json"), "--outDir", dist];
  return spawnSync(execPath, words, { stdio: "inherit" }).status === 0;
}

async function bundle(dist: string): Promise<void> {
  const { files } = await bundleWeb();
  const folder = join(dist, "web");
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  for (const { name, content } of files) {
    writeFileSync(join(folder, name), content);
    const kib = (bytes: number): string => `${(bytes / 1024).toFixed(0)} KiB`;
    const sizes = `${kib(content.length)}, ${kib(gzipSync(content).length)} gzip`;
    stdout.write(`dist/web/${name}  ${sizes}\n`);
  }
}

if (import.meta.main) {
  const dist = join(ROOT, "dist");
  const [part] = argv.slice(2);
  if (part !== undefined && part !== "web") {
    stderr.write(`there is no part '${part}': build.ts [web]\n`);
    exit(2);
  }
  if (part === undefined) {
    if (!compile(dist)) exit(1);
    stdout.write("dist/apps, dist/src\n");
  }
  await bundle(dist);
}
