import assert from "node:assert/strict";
import { test } from "node:test";
import { makeBzImage, makeElf } from "../../src/machine/boot/testing/synthetic-kernels.ts";
import { HEAD_BYTES, roleOf } from "./file-role.ts";

const head = (file: Uint8Array): Uint8Array => file.subarray(0, HEAD_BYTES);

test("bzImages, ELF images and files with a Multiboot header are kernels", () => {
  assert.equal(roleOf(head(makeBzImage())), "kernel");
  assert.equal(roleOf(head(makeElf())), "kernel");
  const flat = new Uint8Array(HEAD_BYTES);
  new DataView(flat.buffer).setUint32(4096, 0x1bad_b002, true);
  new DataView(flat.buffer).setUint32(4104, -0x1bad_b002, true);
  assert.equal(roleOf(flat), "kernel");
});

test("everything else is an initrd, however short", () => {
  const text = (t: string) => new TextEncoder().encode(t);
  for (const bytes of [text(""), text("x"), text("070701"), Uint8Array.of(0x1f, 0x8b, 8)]) {
    assert.equal(roleOf(bytes), "initrd");
  }
  const unchecked = new Uint8Array(64);
  new DataView(unchecked.buffer).setUint32(0, 0x1bad_b002, true);
  assert.equal(roleOf(unchecked), "initrd");
});
