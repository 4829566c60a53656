/** IN, OUT, INS, OUTS: permissions and exits. SDM Vol. 1, "I/O Permission Bit Map"; Vol. 3C, "Exit Qualification for I/O Instructions". */
import assert from "node:assert/strict";
import { test } from "node:test";
import { At, TestMachine } from "../../core/test-machine.ts";
import { type Assembler, imm } from "../../isa/assemble.ts";
import { al, ax, dx, eax } from "../../isa/registers.ts";
import { RAM_BASE, S, Seg } from "../../state/layout.ts";

const m = new TestMachine();
const [UNCONDITIONAL, BITMAPS] = [1 << 24, 1 << 25];
const BITMAP_A = RAM_BASE + 0x1_9000;
const BITMAP_B = RAM_BASE + 0x1_a000;

type Build = (a: Assembler) => void;

const inDx: Build = (a) => a.emit("in", al, dx);

function guest(
  primary: number,
  port: number,
  build: Build,
  prepare = (): void => {},
): [number, number] | null {
  m.reset("long");
  m.set(S.NON_ROOT, 1);
  m.set(S.CTL_PRIMARY, primary);
  m.setGpr(2, port);
  prepare();
  return m.step(build) ? [m.num(S.EXIT_REASON), m.num(S.EXIT_QUALIFICATION)] : null;
}

test("qualifications name port, size, direction, encoding", () => {
  const at = (port: number, low: number): [number, number] => [30, port * 0x1_0000 + low];
  assert.deepEqual(guest(UNCONDITIONAL, 0x3f8, inDx), at(0x3f8, 8));
  assert.deepEqual(
    guest(UNCONDITIONAL, 0xfff0, (a) => a.emit("out", dx, ax)),
    at(0xfff0, 1),
  );
  assert.deepEqual(
    guest(UNCONDITIONAL, 0, (a) => a.emit("in", eax, imm(0x80))),
    at(0x80, 0x4b),
  );
  assert.deepEqual(
    guest(UNCONDITIONAL, 0, (a) => a.emit("out", imm(0x21), al)),
    at(0x21, 0x40),
  );
});

test("bitmaps decide per byte and replace the unconditional control", () => {
  const withBit = (port: number) => (): void => {
    for (let i = 0; i < 4096; i += 4)
      for (const map of [BITMAP_A, BITMAP_B]) m.view.setUint32(map + i, 0, true);
    const at = (port < 0x8000 ? BITMAP_A : BITMAP_B) + ((port & 0x7fff) >> 3);
    m.view.setUint8(at, 1 << (port & 7));
    m.set(S.CTL_IO_BITMAP_A, BITMAP_A);
    m.set(S.CTL_IO_BITMAP_B, BITMAP_B);
  };
  const both = UNCONDITIONAL | BITMAPS;
  assert.equal(guest(both, 0x60, inDx, withBit(0x61)), null);
  assert.notEqual(guest(both, 0x61, inDx, withBit(0x61)), null);
  assert.notEqual(
    guest(both, 0x7ffe, (a) => a.emit("in", eax, dx), withBit(0x8001)),
    null,
  );
  assert.notEqual(
    guest(both, 0xffff, (a) => a.emit("in", ax, dx), withBit(0)),
    null,
    "around the end: always",
  );
  assert.equal(guest(both, 0xffff, inDx, withBit(0)), null);
});

test("a port that nobody intercepts reads ones; a 32-bit read clears the upper half", () => {
  m.reset("long");
  m.setGpr(0, -1n & 0xffff_ffff_1234_5678n);
  m.step((a) => a.emit("in", eax, imm(0x10)));
  assert.equal(m.gpr(0), 0xffff_ffff);
  m.reset("long");
  m.setGpr(0, 0x1234_5600);
  m.step((a) => a.emit("in", al, imm(0x10)));
  assert.equal(m.gpr(0), 0x1234_56ff);
});

test("outside IOPL the TSS bitmap decides, and its end counts as denied", () => {
  const user = (
    limit: number,
    base: number,
    set: [number, number] | null,
    port: number,
    build: Build,
  ): number => {
    m.reset("long");
    m.enterUser();
    m.setSegment(Seg.TR, { limit });
    m.write16(At.TSS + 0x66, base);
    if (set) m.write16(At.TSS + set[0], set[1]);
    m.setGpr(2, port);
    m.step(build);
    return m.vector;
  };
  const word: Build = (a) => a.emit("in", ax, dx);
  assert.equal(user(0x67, 0x68, null, 0x10, inDx), 13, "no bitmap");
  assert.equal(user(0x200, 0x68, null, 0x10, inDx), -1);
  assert.equal(user(0x200, 0x68, [0x6a, 1], 0x10, inDx), 13);
  assert.equal(user(0x200, 0x68, [0x6a, 2], 0x10, inDx), -1);
  assert.equal(user(0x200, 0x68, [0x6a, 2], 0x10, word), 13);
  assert.equal(user(0x200, 0x68, [0x6b, 1], 0x17, word), 13, "the second byte of the map");
  assert.equal(user(0x6a, 0x68, null, 0x10, inDx), 13, "two bytes are read always");
  assert.equal(user(0x6b, 0x68, null, 0x10, inDx), -1);
  assert.equal(user(0x66, 0x40, null, 0x10, inDx), 13);
});

test("permission faults come before exits", () => {
  assert.equal(
    guest(UNCONDITIONAL, 0x3f8, inDx, () => m.enterUser()),
    null,
  );
  assert.equal(m.vector, 13);
});

test("string instructions exit with linear address and information before any memory check", () => {
  const set = (): void => {
    m.setGpr(7, 0x8000_0000_0000n);
    m.setGpr(6, At.SCRATCH);
    m.setGpr(1, 3);
  };
  assert.deepEqual(
    guest(UNCONDITIONAL, 0x1f0, (a) => a.emit("rep insw"), set),
    [30, 0x1f0_0000 + 0x39],
  );
  assert.deepEqual(
    [m.get(S.EXIT_LINEAR), m.num(S.EXIT_INSTRUCTION_INFO)],
    [0x8000_0000_0000n, 2 << 7],
  );
  assert.deepEqual(
    guest(UNCONDITIONAL, 0x1f0, (a) => a.emit("outsb"), set),
    [30, 0x1f0_0000 + 0x10],
  );
  assert.deepEqual(
    [m.num(S.EXIT_LINEAR), m.num(S.EXIT_INSTRUCTION_INFO)],
    [At.SCRATCH, (2 << 7) | (3 << 15)],
  );
  assert.equal(
    guest(
      UNCONDITIONAL,
      0x1f0,
      (a) => a.emit("rep outsb"),
      () => m.setGpr(1, 0),
    ),
    null,
    "count zero does nothing",
  );
  assert.equal(m.num(S.RIP), At.CODE + 2);
});

test("REP INS without an intercept stores ones, element by element, in the direction of DF", () => {
  m.reset("long");
  m.setGpr(7, At.SCRATCH + 8);
  m.setGpr(1, 3);
  m.setFlags(0x400);
  m.step((a) => a.emit("rep insw"), 3);
  assert.deepEqual([m.gpr(7), m.gpr(1), m.num(S.RIP)], [At.SCRATCH + 2, 0, At.CODE + 3]);
  assert.equal(m.read64(At.SCRATCH + 2), 0xffff_ffff_ffff_0000n);
  assert.equal(m.read16(At.SCRATCH + 10), 0);
});

test("INS faults on its destination before anything has moved", () => {
  m.reset("long");
  m.unmap(0x1e_f000);
  m.setGpr(7, 0x1e_f000);
  m.setGpr(1, 2);
  m.step((a) => a.emit("rep insb"));
  assert.deepEqual([m.vector, m.gpr(7), m.gpr(1)], [14, 0x1e_f000, 2]);
});

test("16-bit addresses wrap and leave the upper parts of the registers", () => {
  m.reset("real");
  m.setGpr(7, 0xabcd_ffff);
  m.setGpr(1, 0x5678_0001);
  m.step((a) => a.bytes([0xf3, 0x6c]));
  assert.deepEqual([m.gpr(7), m.gpr(1)], [0xabcd_0000, 0x5678_0000]);
});
