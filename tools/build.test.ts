/** The package's files, laid out as npm would lay them, run guests without any of the checkout's sources. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { execPath } from "node:process";
import { test } from "node:test";
import { starKernel } from "../guests/programs.ts";
import { compile } from "./build.ts";

const ROOT = join(import.meta.dirname, "..");

test("the compiled command says its version and runs a guest", (t) => {
  const folder = mkdtempSync(join(tmpdir(), "hypo-package-"));
  t.after(() => rmSync(folder, { recursive: true }));
  const manifest = JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8"));
  for (const name of ["bin", "package.json"])
    cpSync(join(ROOT, name), join(folder, name), { recursive: true });
  assert.ok(["bin", "dist"].every((name) => manifest.files.includes(name)));
  mkdirSync(join(folder, "node_modules"));
  for (const name of Object.keys(manifest.dependencies)) {
    symlinkSync(join(ROOT, "node_modules", name), join(folder, "node_modules", name));
  }
  assert.ok(compile(join(folder, "dist")));
  const hypo = (...words: string[]) =>
    spawnSync(execPath, [join(folder, "bin/hypo"), ...words], {
      encoding: "utf8",
      timeout: 60_000,
    });
  assert.equal(hypo("version").stdout, `hypo ${manifest.version}\n`);
  const kernel = join(folder, "kernel");
  writeFileSync(kernel, starKernel());
  const { stdout, status, stderr } = hypo("run", "--quiet", "--kernel", kernel);
  assert.deepEqual([stdout, status], ["*", 0], stderr);
});
