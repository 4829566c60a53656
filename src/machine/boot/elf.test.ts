import assert from "node:assert/strict";
import { test } from "node:test";
import { parseElf, physicalEntry } from "./elf.ts";
import { type ElfShape, makeElf } from "./testing/synthetic-kernels.ts";

const damage = (shape: ElfShape, edit: (view: DataView) => void) => {
  const file = makeElf(shape);
  edit(new DataView(file.buffer));
  return file;
};

test("both classes give segments, entry and the PVH note (Xen elfnote.h: 4 or 8 bytes)", () => {
  for (const bits of [32, 64] as const) {
    for (const noteBytes of [4, 8] as const) {
      const elf = parseElf(makeElf({ bits, noteBytes, physical: 0x20_0000, pvhEntry: 0x20_0040 }));
      assert.equal(elf.bits, bits);
      assert.equal(elf.pvhEntry, 0x20_0040);
      assert.equal(elf.segments.length, 1);
      assert.equal(elf.segments[0]!.physicalAddress, 0x20_0000);
      assert.deepEqual([...elf.segments[0]!.bytes], [0xf4, 0xeb, 0xfd]);
    }
  }
});

test("an image without the note has no PVH entry", () => {
  assert.equal(parseElf(makeElf()).pvhEntry, undefined);
  const otherOwner = damage({ pvhEntry: 0x100_0000 }, (view) => view.setUint8(0x180 + 12, 0x59));
  assert.equal(parseElf(otherOwner).pvhEntry, undefined);
});

test("the entry may be physical, as Linux's is, or virtual", () => {
  const high = { physical: 0x100_0000, virtual: 0xffff_ffff_8100_0000n };
  const at = (entry: bigint) => physicalEntry(parseElf(makeElf({ ...high, entry })));
  assert.equal(at(0x100_0002n), 0x100_0002);
  assert.equal(at(0xffff_ffff_8100_0002n), 0x100_0002);
  assert.throws(() => at(0x10n), { code: "kernel-damaged" });
});

test("what is not an x86 executable is named", () => {
  const refuse = (file: Uint8Array, message: RegExp) =>
    assert.throws(() => parseElf(file), { code: "kernel-unsupported", message });
  refuse(makeElf({ machine: 183 }), /AArch64 \(64-bit\)/);
  refuse(makeElf({ bits: 32, machine: 40 }), /ARM \(32-bit\)/);
  refuse(makeElf({ bits: 32, machine: 62 }), /x86-64 \(32-bit\)/);
  refuse(makeElf({ type: 1 }), /kernel module/);
  refuse(
    damage({}, (view) => view.setUint8(5, 2)),
    /big-endian/,
  );
  refuse(
    damage({ pvhEntry: 1 }, (view) => view.setUint32(64 + 56, 3, true)),
    /program for an operating system/,
  );
  refuse(makeElf({ physical: 0xffff_ff00, memorySize: 0x1000 }), /outside the first 4 GiB/);
});

test("a file shorter than its headers say is cut off, with both sizes named", () => {
  const file = makeElf();
  assert.throws(() => parseElf(file.subarray(0, file.length - 1)), {
    code: "kernel-truncated",
    message: /515 bytes, the file has 514/,
  });
  for (const length of [4, 51, 63, 100]) {
    assert.throws(() => parseElf(file.subarray(0, length)), { code: "kernel-truncated" });
  }
});

test("headers that contradict themselves are damage", () => {
  const edits: ((view: DataView) => void)[] = [
    (view) => view.setUint8(4, 9),
    (view) => view.setUint16(56, 0, true),
    (view) => view.setUint16(56, 0xffff, true),
    (view) => view.setUint16(54, 8, true),
    (view) => view.setUint16(16, 4, true),
    (view) => view.setBigUint64(32, 1n << 60n, true),
    (view) => view.setBigUint64(64 + 24, 0xffff_ffff_8100_0000n, true),
    (view) => view.setBigUint64(64 + 40, 1n, true),
    (view) => view.setUint32(64, 0, true),
    (view) => view.setUint32(0x184, 5, true),
  ];
  for (const edit of edits) {
    assert.throws(() => parseElf(damage({ pvhEntry: 0x100_0000 }, edit)), {
      code: "kernel-damaged",
    });
  }
});

test("a note that leaves its segment ends the search", () => {
  const file = damage({ pvhEntry: 0x100_0000 }, (view) => view.setUint32(0x184, 0xffff_ffff, true));
  assert.equal(parseElf(file).pvhEntry, undefined);
});
