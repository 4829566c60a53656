import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, readFileSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { coreFor } from "../processor/interpreter/core-cache.ts";
import { hotHandlers } from "../processor/interpreter/hot-set.ts";
import { NodeArtifacts } from "./embedder-node-artifacts.ts";

const shapeOf = (pages: number) => ({ minimum: pages, maximum: pages, shared: false });

test("what was kept is found again as it was; what is damaged, or another code's, is not", (t) => {
  const folder = mkdtempSync(join(tmpdir(), "hypo-artifacts-"));
  t.after(() => rmSync(folder, { recursive: true }));
  const artifacts = new NodeArtifacts(folder);
  assert.equal(artifacts.get("x"), undefined);
  artifacts.put("x", Uint8Array.of(1, 2, 3));
  assert.deepEqual([...new NodeArtifacts(folder).get("x")!], [1, 2, 3]);
  const [file] = readdirSync(folder);
  const bytes = readFileSync(join(folder, file!));
  bytes[5] = 9;
  writeFileSync(join(folder, file!), bytes);
  assert.equal(artifacts.get("x"), undefined);
  const old = join(folder, "0000-x");
  writeFileSync(old, "");
  utimesSync(old, 1, 1);
  artifacts.put("x", Uint8Array.of(4));
  assert.deepEqual(readdirSync(folder), [file]);
  new NodeArtifacts(join(folder, file!, "x")).put("x", Uint8Array.of(1));
});

test("a core module that was kept is the one that was made", () => {
  const kept = new Map<string, Uint8Array>();
  const store = {
    get: (name: string) => kept.get(name),
    put: (name: string, bytes: Uint8Array) => void kept.set(name, bytes),
  };
  const made = coreFor(shapeOf(1030), hotHandlers(), true, store);
  assert.equal(kept.size, 1);
  assert.equal(coreFor(shapeOf(1030), hotHandlers(), true), made, "a thread makes it once");
  // Others come and go, until it is read again.
  for (let pages = 1031; pages < 1035; pages++) coreFor(shapeOf(pages), hotHandlers(), false);
  const read = coreFor(shapeOf(1030), hotHandlers(), true, store);
  assert.notEqual(read, made);
  assert.deepEqual([...read.signatures], [...made.signatures]);
  assert.ok(read.module instanceof WebAssembly.Module);
});
