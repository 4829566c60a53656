import assert from "node:assert/strict";
import { test } from "node:test";
import { stanza } from "../testing/fake-packages.ts";
import type { PackageRecord } from "./packages-index.ts";
import { findInIndex, findInRelease, kernelPackageOf, parseStanza } from "./packages-index.ts";

const record = (name: string, depends = ""): PackageRecord => ({
  name,
  version: "1",
  architecture: "amd64",
  depends,
  filename: `pool/${name}.deb`,
  size: 10,
  sha256: "ab".repeat(32),
});

test("a record is found wherever it stands, and only by its whole name", () => {
  const records = ["busybox", "busybox-static", "zz"].map((name) => record(name));
  const index = Buffer.from(records.map(stanza).join("\n"));
  for (const wanted of records) assert.deepEqual(findInIndex(index, wanted.name), wanted);
  assert.equal(findInIndex(index, "busy"), undefined);
  assert.equal(findInIndex(index, "static"), undefined);
});

test("a record without a checksum is refused", () => {
  const text = stanza(record("a")).replace(/SHA256.*/, "MD5sum: 1");
  assert.throws(() => findInIndex(Buffer.from(text), "a"), /incomplete record for 'a'/);
});

test("a meta package names its kernel among other dependencies", () => {
  const cases: ReadonlyArray<readonly [depends: string, kernel: string]> = [
    ["linux-image-6.1.0-56-cloud-amd64 (= 6.1.192-2)", "linux-image-6.1.0-56-cloud-amd64"],
    ["a, linux-image-6.1.0-50-686-pae (= 6.1.176-1), b", "linux-image-6.1.0-50-686-pae"],
    ["linux-image-6.12.9+deb13-amd64 | b", "linux-image-6.12.9+deb13-amd64"],
  ];
  for (const [depends, kernel] of cases) {
    assert.equal(kernelPackageOf(record("meta", depends)), kernel);
  }
  assert.throws(
    () => kernelPackageOf(record("meta", "linux-image-cloud-amd64")),
    /names no kernel/,
  );
});

test("a Release file's checksums are found by path", () => {
  const release = `Origin: Debian\nMD5Sum:\n aa 9 main/x\nSHA256:\n BB 10 main/xx\n CC 11 main/x\n`;
  assert.deepEqual(findInRelease(release, "main/x"), { sha256: "cc", size: 11 });
  assert.equal(findInRelease(release, "main/y"), undefined);
});

test("continuation lines belong to the field before them", () => {
  assert.equal(parseStanza("A: 1\n two\nB: 3").get("A"), "1\ntwo");
});
