/** Effective and linear addresses of memory operands that are not of the plain 64-bit form. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { At, TestMachine } from "../core/test-machine.ts";
import { dword } from "../isa/assemble.ts";
import { ebp, ebx, ecx } from "../isa/registers.ts";
import { RAM_BASE, S, Seg } from "../state/layout.ts";

const m = new TestMachine();
const RAX = 0;
const DISPLACEMENT = [0xff, 0xff, 0xff, 0x7f];

test("a RIP-relative displacement near 2 GiB is not wrapped by the instruction's place in its page", () => {
  m.reset("long");
  m.step((a) => a.bytes([0x48, 0x8d, 0x05, ...DISPLACEMENT]));
  assert.equal(m.gpr(RAX), At.CODE + 7 + 0x7fff_ffff);
  m.reset("long");
  m.step((a) => a.bytes([0x8b, 0x05, ...DISPLACEMENT]));
  assert.deepEqual([m.vector, Number(m.get(S.CR2))], [14, At.CODE + 6 + 0x7fff_ffff]);
});

// ---- bit offsets in registers ----

const CF = 1;
const [RCX, RBX] = [1, 3];
const BIT_TESTS = ["bt", "bts", "btr", "btc"] as const;

/** 32-bit code with a DS of 4 KiB at SCRATCH; the word of the bit is set. */
function limitedData(at: number, offset: number): void {
  m.reset("protected");
  m.setSegment(Seg.DS, { base: BigInt(At.SCRATCH), limit: 0xfff, rights: 0x4093 });
  m.engine.updateMode();
  m.setGpr(RBX, at);
  m.setGpr(RCX, offset >>> 0);
  new Uint8Array(m.view.buffer).fill(0xff, RAM_BASE + At.SCRATCH, RAM_BASE + At.SCRATCH + 0x1000);
}

test("the segment is checked where the bit is, not at the address before the bit offset", () => {
  for (const name of BIT_TESTS) {
    limitedData(0x1100, -8 * 0x200);
    m.step((a) => a.emit(name, dword(ebx), ecx));
    assert.deepEqual([m.vector, m.flags() & CF], [-1, CF], `${name}: back into the segment`);
    limitedData(0x800, 8 * 0x800);
    m.step((a) => a.emit(name, dword(ebx), ecx));
    assert.equal(m.vector, 13, `${name}: out of the segment`);
    limitedData(0x1000, -1);
    m.step((a) => a.emit(name, dword(ebx), ecx));
    assert.deepEqual([m.vector, m.flags() & CF], [-1, CF], `${name}: last bit`);
    limitedData(0xffe, 0);
    m.step((a) => a.emit(name, dword(ebx), ecx));
    assert.equal(m.vector, 13, `${name}: the whole element must be inside`);
  }
});

test("an address with a bit offset wraps at its size before the segment is looked at", () => {
  // 67h BT [DI], ECX in 32-bit code: DI + displacement wraps at 64 KiB.
  m.reset("protected");
  m.setSegment(Seg.DS, { base: BigInt(At.SCRATCH), limit: 0xfff, rights: 0x4093 });
  m.engine.updateMode();
  m.setGpr(7, 0xfff0);
  m.setGpr(RCX, 8 * 0x20 + 3);
  m.write32(At.SCRATCH + 0x10, 8);
  m.step((a) => a.bytes([0x67, 0x0f, 0xa3, 0x0d]));
  assert.deepEqual([m.vector, m.flags() & CF], [-1, CF]);
  // 67h in 64-bit mode: at 4 GiB.
  m.reset("long");
  m.setGpr(RBX, 0xffff_fff0);
  m.setGpr(RCX, 8n * (BigInt(At.SCRATCH) + 0x10n) + 3n);
  m.write32(At.SCRATCH, 8);
  m.step((a) => a.bytes([0x67, 0x48, 0x0f, 0xa3, 0x0b]));
  assert.deepEqual([m.vector, m.flags() & CF], [-1, CF]);
  // Through FS the base comes after the wrap.
  m.reset("long");
  m.setSegment(Seg.FS, { base: BigInt(At.SCRATCH) });
  m.setGpr(RBX, 0xffff_fff0);
  m.setGpr(RCX, 8n * 0x20n + 3n);
  m.write32(At.SCRATCH + 0x10, 8);
  m.step((a) => a.bytes([0x64, 0x67, 0x48, 0x0f, 0xa3, 0x0b]));
  assert.deepEqual([m.vector, m.flags() & CF], [-1, CF]);
});

test("a bit offset through SS that leaves the segment is a stack fault, and a write needs a writable one", () => {
  m.reset("protected");
  m.setSegment(Seg.SS, { base: 0n, limit: 0xbfff, rights: 0x4093 });
  m.engine.updateMode();
  m.setGpr(5, At.SCRATCH);
  m.setGpr(RCX, 8 * 0x1000);
  m.step((a) => a.emit("bt", dword(ebp), ecx));
  assert.equal(m.vector, 12);
  limitedData(0x800, 5);
  m.setSegment(Seg.DS, { rights: 0x4091 });
  m.engine.updateMode();
  m.step((a) => a.emit("bt", dword(ebx), ecx));
  assert.deepEqual([m.vector, m.flags() & CF], [-1, CF]);
  m.step((a) => a.emit("bts", dword(ebx), ecx));
  assert.equal(m.vector, 13);
});
