import assert from "node:assert/strict";
import { test } from "node:test";
import { Mode, S, Seg, Status } from "../state/layout.ts";
import { Vector } from "./cpu.ts";
import type { OperandShape } from "./insn.ts";
import { STACK } from "./stack.ts";
import { Bench, type BenchEntry, LENGTH } from "./test-bench.ts";

const [RAX, RCX, RSP, RBP] = [0, 1, 4, 5];
const SIZES = [2, 4, 8] as const;
const NEXT = 0x1000n + BigInt(LENGTH);
/** Nothing is mapped here, so that an access leaves with FAULT (an EPT violation). */
const NOWHERE = 0x9000_0000n;
const VALUE = 0x1122_3344_5566_7788n;

const entries: Record<string, BenchEntry> = {};
function define(
  name: string,
  key: string,
  kind: OperandShape["kind"] | "",
  more: Partial<BenchEntry> = {},
): void {
  for (const opsize of SIZES) {
    for (const mode of [Mode.CODE32, Mode.CODE64]) {
      // Near branches have 64-bit operands in 64-bit mode, whatever the prefixes.
      const isBranch = key.startsWith("call") || key === "ret";
      if ((opsize !== 2 || isBranch) && (opsize === 8) !== (mode === Mode.CODE64)) continue;
      const operands = kind === "" ? [] : [{ kind, bytes: opsize }];
      const suffix = mode === Mode.CODE64 ? "" : " legacy";
      entries[`${name}${opsize}${suffix}`] = {
        semantics: STACK[key]!,
        operands,
        opsize,
        mode,
        ...more,
      };
    }
  }
}
define("push r", "push", "r");
define("push sp", "push", "r", { registers: [RSP] });
define("push i", "push", "i");
define("push m", "push", "m", { base: RSP });
define("push seg", "push_sreg", "s", { registers: [Seg.FS] });
define("pop r", "pop", "r");
define("pop sp", "pop", "r", { registers: [RSP] });
define("pop m", "pop", "m", { base: RSP });
define("pusha", "pusha", "");
define("popa", "popa", "");
define("leave", "leave", "");
define("call", "call", "j");
define("call_ind", "call_ind", "r");
define("ret", "ret", "");
define("ret i", "ret", "i", { operands: [{ kind: "i", bytes: 2 }] });
define("enter", "enter", "", {
  operands: [
    { kind: "i", bytes: 2 },
    { kind: "i", bytes: 1 },
  ],
});
const bench = new Bench(entries);

function ram(at: bigint | number, bytes: number): bigint {
  let v = 0n;
  for (const b of [...bench.ram(Number(at), bytes)].reverse()) v = (v << 8n) | BigInt(b);
  return v;
}

function poke(at: bigint | number, bytes: number, v: bigint): void {
  const to = bench.ram(Number(at), bytes);
  for (let i = 0; i < bytes; i++) to[i] = Number((v >> BigInt(8 * i)) & 0xffn);
}

const cut = (v: bigint, bytes: number): bigint => BigInt.asUintN(8 * bytes, v);

/** Runs an entry that must fault and checks that no register has changed. */
function faults(name: string): void {
  const before = Array.from({ length: 16 }, (_, n) => bench.gpr(n));
  assert.equal(bench.run(name), Status.FAULT);
  assert.deepEqual(
    Array.from({ length: 16 }, (_, n) => bench.gpr(n)),
    before,
  );
}

test("PUSH writes below the stack pointer and moves it by the operand size", () => {
  for (const bytes of [2, 8] as const) {
    bench.reset();
    bench.setGpr(RAX, VALUE);
    assert.equal(bench.run(`push r${bytes}`), Status.NEXT);
    const top = 0x8000n - BigInt(bytes);
    assert.equal(bench.gpr(RSP), top);
    assert.equal(ram(top, bytes), cut(VALUE, bytes));
    bench.setImmediate(0, -2);
    assert.equal(bench.run(`push i${bytes}`), Status.NEXT);
    assert.equal(ram(top - BigInt(bytes), bytes), cut(-2n, bytes));
    bench.setOffset(BigInt(bytes));
    assert.equal(bench.run(`push m${bytes}`), Status.NEXT);
    assert.equal(ram(top - 2n * BigInt(bytes), bytes), cut(VALUE, bytes), "address by the old RSP");
  }
});

test("PUSH RSP pushes the value before, POP RSP ends with the popped value", () => {
  bench.reset();
  bench.run("push sp8");
  assert.equal(ram(0x7ff8, 8), 0x8000n);
  poke(0x7ff8, 8, 0x1234_5678_9abcn);
  bench.run("pop sp8");
  assert.equal(bench.gpr(RSP), 0x1234_5678_9abcn);
  bench.setGpr(RSP, 0x7ff8n);
  bench.run("pop sp2");
  assert.equal(bench.gpr(RSP), 0x9abcn);
});

test("PUSH of a segment register is zero-extended", () => {
  bench.reset();
  bench.view.setUint16(0x200 + 32 * Seg.FS + 16, 0xfffb, true);
  bench.ram(0x7ff0, 16).fill(0xee);
  bench.run("push seg8");
  assert.equal(ram(0x7ff8, 8), 0xfffbn);
});

test("POP to memory computes the address with the stack pointer moved, and is restartable", () => {
  bench.reset();
  poke(0x8000, 8, VALUE);
  bench.setOffset(0x10n);
  assert.equal(bench.run("pop m8"), Status.NEXT);
  assert.equal(bench.gpr(RSP), 0x8008n);
  assert.equal(ram(0x8018, 8), VALUE);
  bench.setOffset(NOWHERE);
  faults("pop m8");
});

test("A stack access that faults moves nothing", () => {
  bench.reset();
  bench.setGpr(RSP, NOWHERE);
  bench.setGpr(RBP, NOWHERE);
  for (const name of ["push r8", "pop r8", "call8", "call_ind8", "ret8", "leave8", "enter8"])
    faults(name);
});

test("Outside 64-bit mode SS.B gives the width of the stack pointer, and SS its base and limit", () => {
  bench.reset();
  bench.enterLegacy(Mode.CODE32, false);
  bench.setSegment(Seg.SS, 0xffff_5000n, 0xffff, 0x93);
  bench.setGpr(RAX, VALUE);
  bench.setGpr(RSP, 0xdead_0000n);
  assert.equal(bench.run("push r4 legacy"), Status.NEXT);
  assert.equal(bench.gpr(RSP), 0xdead_fffcn);
  assert.equal(ram(0x4ffc, 4), cut(VALUE, 4));
  assert.equal(bench.run("pop r2 legacy"), Status.NEXT);
  assert.equal(bench.gpr(RSP), 0xdead_fffen);
});

test("A push beyond the limit of SS is #SS(0)", () => {
  bench.reset();
  bench.enterLegacy(Mode.CODE32, true);
  bench.setSegment(Seg.SS, 0x1000n, 0xfff, 0x4093);
  bench.setGpr(RSP, 0x1000n);
  assert.equal(bench.run("push r4 legacy"), Status.NEXT);
  bench.setGpr(RSP, 0x1001n);
  faults("push r4 legacy");
  assert.equal(bench.get(S.PENDING_VECTOR), Vector.SS);
});

test("PUSHA and POPA carry all registers but the stack pointer", () => {
  for (const opsize of [2, 4] as const) {
    bench.reset();
    bench.enterLegacy(Mode.CODE32, true);
    for (let n = 0; n < 8; n++) if (n !== RSP) bench.setGpr(n, 0x1111_1111n * BigInt(n + 1));
    assert.equal(bench.run(`pusha${opsize} legacy`), Status.NEXT);
    const top = 0x8000n - 8n * BigInt(opsize);
    assert.equal(bench.gpr(RSP), top);
    for (let n = 0; n < 8; n++) {
      const v = n === RSP ? 0x8000n : cut(0x1111_1111n * BigInt(n + 1), opsize);
      assert.equal(ram(0x8000 - opsize * (n + 1), opsize), v);
    }
    for (let n = 0; n < 8; n++) if (n !== RSP) bench.setGpr(n, 0xaaaa_aaaan);
    assert.equal(bench.run(`popa${opsize} legacy`), Status.NEXT);
    assert.equal(bench.gpr(RSP), 0x8000n);
    for (let n = 0; n < 8; n++) {
      if (n === RSP) continue;
      const upper = opsize === 2 ? 0xaaaa_0000n : 0n;
      assert.equal(bench.gpr(n), upper | cut(0x1111_1111n * BigInt(n + 1), opsize));
    }
  }
});

test("POPA that faults in the middle has loaded nothing", () => {
  bench.reset();
  bench.enterLegacy(Mode.CODE32, true);
  bench.setGpr(RSP, 0xfff0n);
  faults("popa4 legacy");
});

test("CALL pushes the next instruction pointer and RET takes it back", () => {
  bench.reset();
  bench.setImmediate(0, 0x100);
  assert.equal(bench.run("call8"), Status.JUMP);
  assert.equal(bench.get(S.RIP), NEXT + 0x100n);
  assert.equal(ram(0x7ff8, 8), NEXT);
  assert.equal(bench.run("ret8"), Status.JUMP);
  assert.equal(bench.get(S.RIP), NEXT);
  assert.equal(bench.gpr(RSP), 0x8000n);
  bench.setGpr(RAX, 0xffff_8000_0000_0000n);
  assert.equal(bench.run("call_ind8"), Status.JUMP);
  assert.equal(bench.get(S.RIP), 0xffff_8000_0000_0000n);
  bench.setImmediate(0, 0xfff0);
  assert.equal(bench.run("ret i8"), Status.JUMP);
  assert.equal(bench.gpr(RSP), 0x8000n + 0xfff0n);
});

test("CALL and RET check their target before anything changes", () => {
  bench.reset();
  bench.setGpr(RAX, 0x8000_0000_0000n);
  faults("call_ind8");
  assert.equal(ram(0x7ff8, 8), 0n);
  poke(0x8000, 8, 0x8000_0000_0000n);
  faults("ret8");
  assert.equal(bench.get(S.PENDING_VECTOR), Vector.GP);
  bench.enterLegacy(Mode.CODE32, true);
  bench.setSegment(Seg.CS, 0n, 0x1fff, 0x409b);
  bench.setImmediate(0, 0x1000);
  faults("call4 legacy");
  poke(0x8000, 4, 0x2000n);
  faults("ret4 legacy");
  assert.equal(bench.run("ret2 legacy"), Status.FAULT);
  poke(0x8000, 4, 0x1_1fffn);
  assert.equal(bench.run("ret2 legacy"), Status.JUMP);
  assert.equal(bench.get(S.RIP), 0x1fffn);
});

test("ENTER of level 0 makes a frame, LEAVE removes it", () => {
  bench.reset();
  bench.setGpr(RBP, VALUE);
  bench.setImmediate(0, 0x20);
  bench.setImmediate(1, 0);
  assert.equal(bench.run("enter8"), Status.NEXT);
  assert.equal(bench.gpr(RBP), 0x7ff8n);
  assert.equal(bench.gpr(RSP), 0x7fd8n);
  assert.equal(ram(0x7ff8, 8), VALUE);
  assert.equal(bench.run("leave8"), Status.NEXT);
  assert.deepEqual([bench.gpr(RSP), bench.gpr(RBP)], [0x8000n, VALUE]);
});

test("ENTER of a deeper level copies the display of the outer frame, and masks the level to 5 bits", () => {
  for (const [opsize, suffix] of [
    [8, ""],
    [4, " legacy"],
    [2, " legacy"],
  ] as const) {
    bench.reset();
    if (opsize !== 8) bench.enterLegacy(Mode.CODE32, true);
    bench.setGpr(RBP, 0x9000n);
    for (let i = 1; i < 4; i++) poke(0x9000 - i * opsize, opsize, BigInt(0x100 * i));
    bench.setImmediate(0, 0x10);
    bench.setImmediate(1, 0x20 | 4);
    assert.equal(bench.run(`enter${opsize}${suffix}`), Status.NEXT);
    const frame = 0x8000 - opsize;
    const pushed = [0x9000n, 0x100n, 0x200n, 0x300n, BigInt(frame)];
    pushed.forEach((v, i) => {
      assert.equal(ram(frame - i * opsize, opsize), v);
    });
    assert.equal(bench.gpr(RBP), BigInt(frame));
    assert.equal(bench.gpr(RSP), BigInt(frame - 4 * opsize - 0x10));
  }
});

test("ENTER faults where the last stack element could not be written", () => {
  bench.reset();
  bench.setGpr(RSP, 0x20n);
  bench.setImmediate(0, 0x40);
  bench.setImmediate(1, 0);
  faults("enter8");
});

test("An operand of 16 bits keeps the rest of its register", () => {
  bench.reset();
  poke(0x8000, 2, 0xbeefn);
  bench.setGpr(RCX, 0n);
  bench.setGpr(RAX, VALUE);
  bench.run("pop r2");
  assert.equal(bench.gpr(RAX), (VALUE & ~0xffffn) | 0xbeefn);
  assert.equal(bench.gpr(RSP), 0x8002n);
});
