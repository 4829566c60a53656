import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { test } from "node:test";
import { PROGRAMS } from "./program-table.ts";
import { REAL, SCRIPTS } from "./real-table.ts";
import { select } from "./selection.ts";

const here = (path: string): string => new URL(path, import.meta.url).pathname;

test("without a name everything is chosen", () => {
  const all = select([]);
  assert.deepEqual(all.programs, PROGRAMS);
  assert.deepEqual(all.real, REAL);
  assert.ok(all.hasBoot && all.hasCold && all.v86Programs.length > 0 && all.v86Real.length > 0);
});

test("a group is all its rows and a row is itself", () => {
  const { programs, real, hasBoot, v86Programs } = select(["system", "crc", "gzip"]);
  const names = programs.map(({ name }) => name);
  assert.ok(names.includes("crc") && names.includes("fork") && !names.includes("sort"));
  assert.deepEqual(
    real.map(({ name }) => name),
    ["gzip"],
  );
  assert.equal(hasBoot, false);
  assert.equal(v86Programs.length, 0);
});

test("a name that is none is an error which lists the names", () => {
  assert.throws(() => select(["crcc"]), /no benchmark is called crcc/);
});

test("names are unique, and every program and script has its file", () => {
  const names = [...PROGRAMS, ...REAL].map(({ name }) => name);
  assert.equal(new Set(names).size, names.length);
  for (const { name } of PROGRAMS) assert.ok(existsSync(here(`programs/${name}.c`)), name);
  for (const script of SCRIPTS) assert.ok(existsSync(here(`scripts/${script}`)), script);
});
