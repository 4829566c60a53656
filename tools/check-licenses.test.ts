import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { BUNDLED_PACKAGES } from "./bundled-packages.ts";
import { checkLicenses, isAccepted, isInRange, OLDEST_NODE } from "./check-licenses.ts";

const ROOT = join(import.meta.dirname, "..");

test("licences that ask for a notice are accepted, alone and in SPDX expressions", () => {
  for (const good of [
    "MIT",
    "Apache-2.0",
    "(MIT OR GPL-3.0-only)",
    "MIT AND ISC",
    "(MIT AND ISC) OR GPL-2.0-only",
  ]) {
    assert.ok(isAccepted(good), good);
  }
});

test("copyleft, unknown and malformed licences are refused", () => {
  const bad = [
    "GPL-3.0-only",
    "LGPL-2.1-or-later",
    "AGPL-3.0",
    "MPL-2.0",
    "MIT AND GPL-2.0-only",
    "unknown",
    "UNLICENSED",
  ];
  for (const text of [...bad, "", "MIT OR", "(MIT", "SEE LICENSE IN COPYING", "MIT ISC"]) {
    assert.ok(!isAccepted(text), text);
  }
});

test("version ranges mean what they mean to npm", () => {
  const within = [
    "*",
    "",
    ">=20",
    ">= 10.0",
    "^18.0 || >=20.19",
    ">=18 <23",
    "20.x",
    "20",
    "18 - 22",
    "~20.19",
    "^20.1.0",
    ">=0.8",
  ];
  const beyond = [
    ">=22.12",
    "^18",
    ">20",
    "<20",
    "~20.18",
    "<=20.18",
    "22.x",
    "18 - 19",
    "^21 || >=22",
    "20.18.x",
    "nonsense",
  ];
  for (const range of within) assert.ok(isInRange("20.19.0", range), range);
  for (const range of beyond) assert.ok(!isInRange("20.19.0", range), range);
});

/** Problems found in a tree with one runtime package that says `manifest` of itself. */
function problemsOf(manifest: object | null, locked: object = {}): (string | null)[] {
  const root = mkdtempSync(join(tmpdir(), "check-licenses-"));
  try {
    const packages = {
      "": { license: "Apache-2.0" },
      "node_modules/@a/b": { version: "1.0.0", ...locked },
      "node_modules/tool": { version: "1.0.0", dev: true, license: "GPL-3.0-only" },
    };
    writeFileSync(join(root, "package-lock.json"), JSON.stringify({ packages }));
    mkdirSync(join(root, "node_modules/@a/b"), { recursive: true });
    if (manifest)
      writeFileSync(join(root, "node_modules/@a/b/package.json"), JSON.stringify(manifest));
    return checkLicenses(root).map((r) => r.problem);
  } finally {
    rmSync(root, { recursive: true });
  }
}

test("a runtime package is judged by what it says of itself; development tools are not", () => {
  assert.deepEqual(problemsOf({ license: "MIT" }, { license: "MIT" }), [null]);
  assert.deepEqual(problemsOf({ licenses: [{ type: "MIT" }, { type: "GPL-2.0" }] }), [null]);
});

test("each reason to refuse a runtime package is found", () => {
  const refused = (manifest: object | null, locked: object, why: RegExp): void => {
    const [problem] = problemsOf(manifest, locked);
    assert.match(problem ?? "", why);
  };
  refused({ license: "LGPL-3.0-only" }, {}, /licence LGPL-3.0-only/);
  refused({}, {}, /licence unknown/);
  refused({ license: { type: "GPL-2.0" } }, {}, /licence GPL-2.0/);
  refused({ license: "MIT" }, { license: "ISC" }, /package-lock.json ISC/);
  refused({ license: "MIT", engines: { node: ">=22.12" } }, {}, /needs Node >=22.12/);
  refused(null, {}, /not installed/);
});

test("an optional package that is not installed is judged by the lockfile", () => {
  assert.deepEqual(problemsOf(null, { optional: true, license: "MIT" }), [null]);
  assert.match(problemsOf(null, { optional: true, license: "GPL-3.0-only" })[0] ?? "", /licence/);
});

test("the runtime packages of this repository are acceptable", () => {
  const reports = checkLicenses(ROOT);
  assert.ok(reports.length > 0);
  assert.deepEqual(
    reports.filter((r) => r.problem !== null),
    [],
  );
});

test("what is bundled into the page is judged too, although it is a development dependency", () => {
  const names = checkLicenses(ROOT).map((r) => r.name);
  for (const name of BUNDLED_PACKAGES) assert.ok(names.includes(name), name);
});

test("the oldest Node that is checked is the one that package.json promises", () => {
  const { engines } = JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8"));
  assert.ok(isInRange(OLDEST_NODE, engines.node));
  const [major, minor] = OLDEST_NODE.split(".").map(Number) as [number, number];
  assert.ok(!isInRange(`${major}.${minor - 1}.99`, engines.node));
});
