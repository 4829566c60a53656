import assert from "node:assert/strict";
import { test } from "node:test";
import type { HypolithError } from "../../../src/base/errors.ts";
import { readImageWord } from "./image-word.ts";
import { formatReference, parseReference } from "./reference.ts";

const DIGEST = `sha256:${"a".repeat(64)}`;

test("short names are docker's: registry, folder and tag by default", () => {
  const full = (text: string) => formatReference(parseReference(text));
  assert.equal(full("alpine"), "docker.io/library/alpine:latest");
  assert.equal(full("alpine:3.20"), "docker.io/library/alpine:3.20");
  assert.equal(full("team/app"), "docker.io/team/app:latest");
  assert.equal(full("index.docker.io/alpine"), "docker.io/library/alpine:latest");
  assert.equal(full("localhost/app"), "localhost/app:latest");
  assert.equal(full("localhost:5000/a/b:c"), "localhost:5000/a/b:c");
  assert.equal(full("registry.example/app"), "registry.example/app:latest");
  assert.equal(full("[::1]:5000/app"), "[::1]:5000/app:latest");
  assert.equal(full(`alpine@${DIGEST}`), `docker.io/library/alpine@${DIGEST}`);
  assert.equal(full(`a.b/c:d@${DIGEST}`), `a.b/c:d@${DIGEST}`);
});

test("what is no name is refused, and said why", () => {
  const bad = [
    "",
    "Alpine",
    "a//b",
    "a/../b",
    "/a",
    "a:",
    "a:b c",
    "a@sha256:12",
    "a b",
    "a:-x",
    "é",
    "h:99999999/a",
    "../a",
    "a/b?x=1",
    "a#b",
  ];
  for (const text of bad) {
    assert.throws(() => parseReference(text), { code: "reference-invalid" }, text);
  }
  assert.throws(
    () => parseReference("Alpine"),
    (error: HypolithError) => /lower case/.test(error.hint!),
  );
});

test("a word names one of our own images, files, or an image in a registry, by one rule", () => {
  const kind = (word: string): string => readImageWord(word).kind;
  for (const word of ["debian:cloud-amd64", "debian:686-pae"]) assert.equal(kind(word), "own");
  assert.deepEqual(readImageWord("debian"), { kind: "debian", suite: "stable" });
  for (const suite of ["stable", "bookworm", "sid"])
    assert.deepEqual(readImageWord(`debian:${suite}`), { kind: "debian", suite });
  for (const word of ["debian:12-slim", "debian:latest", "debian:buster", "library/debian"])
    assert.equal(kind(word), "registry");
  for (const word of ["docker.io/library/debian", "alpine"]) assert.equal(kind(word), "registry");
  assert.throws(
    () => readImageWord("debian:trixy"),
    (error: HypolithError) => /^did you mean 'debian:trixie'\?/.test(error.hint!),
  );
  for (const word of ["./x", "../x", "/x", ".", "saved.tar", "a/b.tgz"])
    assert.equal(kind(word), "local");
  assert.deepEqual(readImageWord("oci:a/b:tag"), { kind: "local", path: "a/b", tag: "tag" });
  assert.deepEqual(readImageWord("docker-archive:s.tar:team/app:1"), {
    kind: "local",
    path: "s.tar",
    tag: "team/app:1",
  });
  assert.deepEqual(readImageWord("oci:a/b"), { kind: "local", path: "a/b", tag: undefined });
});
