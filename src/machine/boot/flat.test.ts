import assert from "node:assert/strict";
import { test } from "node:test";
import { loadFlat } from "./flat.ts";
import { MIB, TestRam } from "./testing/synthetic-kernels.ts";

const CODE = Uint8Array.of(0xeb, 0xfe);

test("real mode: a boot sector at 0x7C00 has CS 0 and its stack below itself", () => {
  const ram = new TestRam(MIB);
  const state = loadFlat(ram, CODE, 0x7c00, "real16");
  assert.equal(state.mode, "real16");
  assert.equal(state.protocol, "flat");
  assert.deepEqual([state.rip, state.rsp, state.rflags], [0x7c00, 0x7c00, 2]);
  assert.deepEqual([state.cr0, state.cr4, state.efer], [0x10, 0, 0]);
  assert.deepEqual(state.segments.cs, { selector: 0, base: 0, limit: 0xffff, accessRights: 0x9b });
  assert.equal(state.segments.ss.accessRights, 0x93);
  assert.deepEqual(state.idtr, { base: 0, limit: 0x3ff });
  assert.deepEqual([...ram.bytes.subarray(0x7c00, 0x7c02)], [...CODE]);
  assert.equal(ram.writes, 1);
});

test("real mode above 64 KiB: CS holds the paragraph", () => {
  const state = loadFlat(new TestRam(MIB), CODE, 0xf_fff5, "real16");
  assert.deepEqual(state.segments.cs.selector, 0xffff);
  assert.deepEqual(state.segments.cs.base + state.rip, 0xf_fff5);
});

test("protected and 64-bit mode start at the image's first byte with flat segments", () => {
  for (const mode of ["protected32", "long64"] as const) {
    const ram = new TestRam(2 * MIB);
    const state = loadFlat(ram, CODE, MIB, mode);
    assert.equal(state.mode, mode);
    assert.equal(state.rip, MIB);
    assert.equal(state.segments.cs.accessRights, mode === "long64" ? 0xa09b : 0xc09b);
    assert.equal(state.cr3, mode === "long64" ? 0x9000 : 0);
    assert.deepEqual([...ram.bytes.subarray(MIB, MIB + 2)], [...CODE]);
  }
});

test("images that do not fit are refused", () => {
  const refuse = (image: Uint8Array, address: number, mode: "real16" | "long64", code: string) => {
    const ram = new TestRam(2 * MIB);
    assert.throws(() => loadFlat(ram, image, address, mode), { code });
    assert.equal(ram.writes, 0);
  };
  refuse(new Uint8Array(0), 0x7c00, "real16", "kernel-empty");
  refuse(CODE, 2 * MIB - 1, "long64", "memory-too-small");
  refuse(CODE, 0x9000, "long64", "memory-overlap");
  refuse(CODE, MIB, "real16", "kernel-address");
  refuse(CODE, -1, "long64", "kernel-address");
  refuse(CODE, 0.5, "long64", "kernel-address");
});
