/**
 * Targets of near jumps, calls and returns: the fault of one that leads outside is the jump's, and the jump has changed nothing.
 * SDM Vol. 2, "JMP", "Jcc", "CALL", "RET", "LOOP": #GP(0).
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { At, Sel, TestMachine } from "../core/test-machine.ts";
import { RAM_BASE, S, Seg } from "../state/layout.ts";
import { Flag } from "./flags.ts";

const m = new TestMachine();
const [RAX, RCX, RSP] = [0, 1, 4];
/** The last and first canonical pages beside the hole, and the frame they are mapped to. */
const LOW = 0x7fff_ffff_f000n;
const HIGH = 0xffff_8000_0000_0000n;
const FRAME = 0x2_0000;

interface Jump {
  readonly name: string;
  readonly opcode: readonly number[];
  readonly relBytes: 1 | 4;
  /** Makes a condition hold or not. */
  readonly taken?: (holds: boolean) => void;
}

const counter = (holds: boolean): void => m.setGpr(RCX, holds ? 5 : 1);
const JUMPS: readonly Jump[] = [
  { name: "JMP rel8", opcode: [0xeb], relBytes: 1 },
  { name: "JMP rel32", opcode: [0xe9], relBytes: 4 },
  { name: "CALL rel32", opcode: [0xe8], relBytes: 4 },
  { name: "JZ rel8", opcode: [0x74], relBytes: 1, taken: (z) => m.setFlags(z ? Flag.ZF : 0) },
  {
    name: "JNZ rel32",
    opcode: [0x0f, 0x85],
    relBytes: 4,
    taken: (z) => m.setFlags(z ? 0 : Flag.ZF),
  },
  { name: "LOOP", opcode: [0xe2], relBytes: 1, taken: counter },
  { name: "LOOPNE", opcode: [0xe0], relBytes: 1, taken: counter },
  { name: "JRCXZ", opcode: [0xe3], relBytes: 1, taken: (z) => m.setGpr(RCX, z ? 0 : 1) },
];

const lengthOf = (j: Jump): number => j.opcode.length + j.relBytes;

function bytesOf(j: Jump, distance: number): number[] {
  const relative = distance - lengthOf(j);
  return [
    ...j.opcode,
    ...Array.from({ length: j.relBytes }, (_, i) => (relative >> (8 * i)) & 255),
  ];
}

/** Both pages beside the hole of the address space. */
function mapBoundary(): void {
  m.reset("long");
  const [pdpt, directory, table] = [0x1_5000, 0x1_6000, 0x1_7000];
  for (const [top, index] of [
    [255, 511],
    [256, 0],
  ] as const) {
    m.write64(At.PML4 + 8 * top, BigInt(pdpt + 7));
    m.write64(pdpt + 8 * index, BigInt(directory + 7));
    m.write64(directory + 8 * index, BigInt(table + 7));
    m.write64(table + 8 * index, BigInt(FRAME + 7));
  }
  new Uint8Array(m.view.buffer).fill(0x90, RAM_BASE + FRAME, RAM_BASE + FRAME + 0x1000);
  m.engine.flushTlb();
}

/** One instruction (or `count`) at `rip`, whose code is at `physical`. Answers vector, error code and pushed RIP of a fault. */
function run(
  rip: bigint,
  physical: number,
  code: readonly number[],
  count = 1,
): [number, bigint, bigint] {
  new Uint8Array(m.view.buffer).set(code, RAM_BASE + physical);
  m.engine.code.flush();
  m.set(S.RIP, rip);
  m.engine.run(count);
  return [m.vector, m.read64(m.gpr(RSP)), m.read64(m.gpr(RSP) + 8)];
}

for (const j of JUMPS) {
  test(`${j.name} in 64-bit mode faults if its target is not canonical`, () => {
    for (const [page, offset, distance] of [
      [LOW, 0xff0, 0x10],
      [LOW, 0xf81, 0x7f],
      [HIGH, 4, -5],
      [HIGH, 0x70, -0x71],
    ] as const) {
      const rip = page + BigInt(offset);
      mapBoundary();
      j.taken?.(true);
      const [rcx, flags] = [m.gpr(RCX), m.flags()];
      const fault = run(rip, FRAME + offset, bytesOf(j, distance));
      assert.deepEqual(fault, [13, 0n, rip]);
      assert.equal(m.gpr(RCX), rcx, "the counter is as it was");
      assert.equal(m.gpr(RSP), At.STACK0 - 48, "nothing but the frame is pushed");
      assert.equal(Number(m.read64(m.gpr(RSP) + 24)) & 0x8d5, flags & 0x8d5);
      // The byte beside the hole can be reached.
      mapBoundary();
      j.taken?.(true);
      run(rip, FRAME + offset, bytesOf(j, distance - Math.sign(distance)));
      assert.notEqual(m.vector, 13);
      if (!j.taken) continue;
      mapBoundary();
      j.taken(false);
      run(rip, FRAME + offset, bytesOf(j, distance));
      assert.equal(m.rip, rip + BigInt(lengthOf(j)), "not taken");
    }
  });
}

test("what runs off the end of the canonical range faults where it has come to", () => {
  mapBoundary();
  const rip = LOW + 0xfffn;
  assert.deepEqual(run(rip, FRAME + 0xfff, [0x90], 2), [13, 0n, LOW + 0x1000n]);
});

// ---- 16- and 32-bit code ----

const LIMIT = 0x4fff;
type Code = "flat" | "limited" | "based" | "16-bit";

/** Code at CODE in segments of a kind. Answers the distance of the first byte beyond the limit of CS from CODE. */
function enterLegacy(kind: Code): number {
  m.reset("protected");
  const base = kind === "based" ? 0x1000n : 0n;
  if (kind !== "flat") {
    const rights = kind === "16-bit" ? 0x009b : 0x409b;
    m.setSegment(Seg.CS, { base, limit: LIMIT - Number(base), rights, selector: Sel.CODE32 });
    m.setSegment(Seg.DS, { limit: 0xf_ffff });
  }
  m.set(S.RIP, BigInt(At.CODE) - base);
  m.engine.updateMode();
  return LIMIT + 1 - At.CODE;
}

/** Vector, error code and pushed EIP. */
function runLegacy(code: readonly number[]): [number, number, number] {
  new Uint8Array(m.view.buffer).set(code, RAM_BASE + At.CODE);
  m.engine.code.flush();
  m.engine.run(1);
  const sp = m.gpr(RSP);
  return [m.vector, m.read32(sp), m.read32(sp + 4)];
}

for (const kind of ["limited", "based", "16-bit"] as const) {
  test(`near jumps in ${kind} code segments fault if they lead beyond the limit`, () => {
    for (const j of JUMPS.filter((x) => x.relBytes === 4)) {
      // In 16-bit code the long form has a 16-bit distance without prefix 66.
      const prefix = kind === "16-bit" ? [0x66] : [];
      const outside = enterLegacy(kind);
      const start = Number(m.rip);
      j.taken?.(true);
      const code = [...prefix, ...bytesOf(j, outside - prefix.length)];
      assert.deepEqual(runLegacy(code), [13, 0, start], j.name);
      assert.equal(m.gpr(RSP), At.STACK0 - 16, j.name);
      enterLegacy(kind);
      j.taken?.(true);
      runLegacy([...prefix, ...bytesOf(j, outside - 1 - prefix.length)]);
      assert.equal(m.rip, BigInt(start + outside - 1), `${j.name} to the last byte`);
      // Backwards over zero: a large offset.
      enterLegacy(kind);
      j.taken?.(true);
      const before = -start - 1;
      assert.deepEqual(
        runLegacy([...prefix, ...bytesOf(j, before - prefix.length)]),
        [13, 0, start],
        `${j.name} below zero`,
      );
    }
    for (const [name, code, prepare] of [
      ["JMP EAX", [0xff, 0xe0], () => m.setGpr(RAX, LIMIT + 1)],
      ["CALL EAX", [0xff, 0xd0], () => m.setGpr(RAX, LIMIT + 1)],
      ["RET", [0xc3], () => m.write32(At.STACK0, LIMIT + 1)],
      ["RET 8", [0xc2, 8, 0], () => m.write32(At.STACK0, LIMIT + 1)],
    ] as const) {
      enterLegacy(kind);
      const start = Number(m.rip);
      prepare();
      const prefix = kind === "16-bit" ? [0x66] : [];
      assert.deepEqual(runLegacy([...prefix, ...code]), [13, 0, start], name);
      assert.equal(m.gpr(RSP), At.STACK0 - 16, name);
    }
  });
}

test("short jumps and loops at the limit of CS fault, and LOOP leaves its counter", () => {
  for (const j of JUMPS.filter((x) => x.relBytes === 1)) {
    m.reset("protected");
    m.setSegment(Seg.CS, { base: 0n, limit: At.CODE + 0x3f, rights: 0x409b });
    m.engine.updateMode();
    j.taken?.(true);
    const rcx = m.gpr(RCX);
    assert.deepEqual(runLegacy(bytesOf(j, 0x40)), [13, 0, At.CODE], j.name);
    assert.equal(m.gpr(RCX), rcx);
    m.reset("protected");
    m.setSegment(Seg.CS, { base: 0n, limit: At.CODE + 0x3f, rights: 0x409b });
    m.engine.updateMode();
    j.taken?.(true);
    runLegacy(bytesOf(j, 0x3f));
    assert.equal(m.rip, BigInt(At.CODE + 0x3f), j.name);
  }
});

test("a 16-bit operand size cuts the target to 64 KiB before it is checked", () => {
  m.reset("protected");
  m.setSegment(Seg.CS, { base: 0n, limit: LIMIT, rights: 0x409b });
  m.engine.updateMode();
  // 66 E9: EIP = (4000h + 4 + 7ffch) & ffffh = c000h, and 4000h + 4 + effch = 3000h.
  assert.deepEqual(runLegacy([0x66, 0xe9, 0xfc, 0x7f]), [13, 0, At.CODE]);
  m.reset("protected");
  m.setSegment(Seg.CS, { base: 0n, limit: LIMIT, rights: 0x409b });
  m.engine.updateMode();
  runLegacy([0x66, 0xe9, 0xfc, 0xef]);
  assert.equal(m.rip, 0x3000n);
});

test("in flat segments every 32-bit target is inside", () => {
  enterLegacy("flat");
  runLegacy([0xe9, ...[0, 0, 0, 0x80]]);
  assert.equal(m.rip, BigInt(At.CODE + 5 + 0x8000_0000));
});
