import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { test } from "node:test";
import { choosePackages } from "./package-choice.ts";
import { PackageIndex } from "./package-index.ts";
import { compareVersions } from "./version.ts";

const HASH = "a".repeat(64);

/** "name priority; depends; provides; version" */
function indexOf(...rows: string[]): PackageIndex {
  const index = new PackageIndex();
  index.add(rows.map(stanzaOf).join("\n"), "http://m");
  return index;
}

function stanzaOf(row: string): string {
  const [head = "", depends = "", provides = "", version = "1"] = row
    .split(";")
    .map((part) => part.trim());
  const [name, priority = "optional"] = head.split(" ");
  return [
    `Package: ${name}`,
    ...(priority === "essential" ? ["Essential: yes"] : []),
    `Version: ${version}`,
    "Architecture: amd64",
    `Priority: ${priority}`,
    `Depends: ${depends}`,
    `Provides: ${provides}`,
    "Description: Depends: nothing",
    ` Filename: in a second line`,
    `Filename: pool/${name}.deb`,
    "Size: 10",
    `SHA256: ${HASH}`,
    "",
  ].join("\n");
}

const names = (index: PackageIndex, ...wanted: string[]): string[] =>
  choosePackages(index, wanted).map(({ name }) => name);

test("what is essential, required or wanted is chosen, with all that it depends on", () => {
  const index = indexOf(
    "base essential; libc (>= 2.3), tool:any",
    "init required",
    "libc; gcc-base (= 1)",
    "gcc-base",
    "tool",
    "apt important; keyring",
    "keyring",
    "other standard",
  );
  const expected = ["apt", "base", "gcc-base", "init", "keyring", "libc", "tool"];
  assert.deepEqual(names(index, "apt"), expected);
});

test("of alternatives the one that is chosen already counts, else the first that is there", () => {
  assert.deepEqual(names(indexOf("aa required; gone | bb | cc", "bb", "cc")), ["aa", "bb"]);
  const chosen = indexOf("aa required; bb | cc", "bb", "cc required");
  assert.deepEqual(names(chosen), ["aa", "cc"]);
});

test("a virtual package is there if something provides it, else its first provider comes", () => {
  const there = indexOf("aa required; awk", "mawk required;; awk (= 5)", "gawk;; awk");
  assert.deepEqual(names(there), ["aa", "mawk"]);
  assert.deepEqual(names(indexOf("aa required; awk", "mawk;; awk", "gawk;; awk")), ["aa", "gawk"]);
});

test("circles end, and what is nowhere is an error that says who wants it", () => {
  assert.deepEqual(names(indexOf("aa required; bb", "bb; aa")), ["aa", "bb"]);
  const absent = indexOf("aa required; bb | cc");
  assert.throws(() => names(absent), /no package bb or cc, which aa depends on/);
  assert.throws(() => names(indexOf(), "apt"), /no package apt/);
});

test("of two versions in two archives the higher one is taken, from where it is", () => {
  const index = indexOf("aa required;;;1.0-1");
  index.add(stanzaOf("aa required;;;1.0-1+deb13u1"), "http://security");
  index.add(stanzaOf("aa required;;;1.0-1~bpo1"), "http://older");
  assert.equal(choosePackages(index, [])[0]?.base, "http://security");
});

test("records that are not whole are no packages", () => {
  const index = new PackageIndex();
  index.add("Package: a\nVersion: 1\n\nPackage: ../b\n\nnonsense\n\n", "http://m");
  assert.equal(index.size, 0);
});

const VERSIONS = [
  ...["0", "1~~", "1~~a", "1~", "1", "1a", "1+", "1.", "1-1", "1-1.1", "1.0", "1.0-1~bpo1"],
  ...["1.0-1", "1.0-1+b1", "1.2", "1.10", "1:0.1", "2:0", "1.0+dfsg-2", "1.0~rc1", "1.0.a", "01.1"],
];

test("versions are ordered as dpkg orders them", {
  skip: spawnSync("dpkg", ["--version"]).status === 0 ? false : "there is no dpkg",
}, () => {
  const script = VERSIONS.flatMap((a) =>
    VERSIONS.map(
      (b) =>
        `if dpkg --compare-versions '${a}' lt '${b}'; then echo -1; elif dpkg --compare-versions '${a}' gt '${b}'; then echo 1; else echo 0; fi`,
    ),
  ).join("\n");
  const { stdout } = spawnSync("sh", ["-c", script], { encoding: "utf8" });
  const ours = VERSIONS.flatMap((a) => VERSIONS.map((b) => Math.sign(compareVersions(a, b))));
  assert.deepEqual(stdout.trim().split("\n").map(Number), ours);
});
