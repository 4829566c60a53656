/** VM-exit instruction information and the exit qualification beside it. SDM Vol. 3C, "Information for VM Exits Due to Instruction Execution". */
import assert from "node:assert/strict";
import { test } from "node:test";
import { At, Sel, TestMachine } from "../../core/test-machine.ts";
import { S, Seg } from "../../state/layout.ts";
import { Primary, Secondary } from "./common.ts";
import { Blocking } from "./state.ts";

const m = new TestMachine();
const RSP = 4;
/** Numbers as in ModRM. */
const R = { AX: 0, CX: 1, DX: 2, BX: 3, SP: 4, BP: 5, SI: 6, DI: 7, R9: 9, R10: 10, R12: 12 };
const Reason = {
  IO: 30,
  GDTR_IDTR: 46,
  LDTR_TR: 47,
  EPT: 48,
  INVEPT: 50,
  INVVPID: 53,
  RDRAND: 57,
  INVPCID: 58,
  RDSEED: 61,
} as const;

interface Memory {
  readonly scale?: number;
  /** Bits. */
  readonly address?: 16 | 32 | 64;
  readonly segment?: number;
  readonly index?: number;
  readonly base?: number;
}

/** The bits of a memory operand. */
function memory(o: Memory): number {
  const address = { 16: 0, 32: 1, 64: 2 }[o.address ?? 64];
  const index = o.index === undefined ? 1 << 22 : o.index << 18;
  const base = o.base === undefined ? 1 << 27 : o.base << 23;
  return (o.scale ?? 0) | (address << 7) | ((o.segment ?? Seg.DS) << 15) | index | base;
}

type Mode = "long" | "protected";

/** One instruction in VMX non-root operation with everything exiting: reason, instruction information, qualification. */
function exitOf(
  code: readonly number[],
  mode: Mode = "long",
  rip = At.CODE,
): [number, number, bigint] {
  m.reset(mode);
  m.set(S.NON_ROOT, 1);
  m.set(S.CTL_PRIMARY, Primary.SECONDARY | Primary.UNCONDITIONAL_IO | Primary.INVLPG);
  m.set(
    S.CTL_SECONDARY,
    Secondary.DESCRIPTOR_TABLE | Secondary.RDRAND | Secondary.RDSEED | Secondary.INVPCID,
  );
  m.set(S.RIP, BigInt(rip));
  m.engine.updateMode();
  assert.equal(
    m.step((a) => a.bytes(code)),
    1,
  );
  const qualification = BigInt.asIntN(64, m.get(S.EXIT_QUALIFICATION) as bigint);
  return [m.num(S.EXIT_REASON), m.num(S.EXIT_INSTRUCTION_INFO) >>> 0, qualification];
}

const u32 = (v: number): number => v >>> 0;

test("LGDT, LIDT, SGDT, SIDT tell their operand and themselves, and the displacement", () => {
  const cases: [string, number[], number, bigint, Mode?][] = [
    [
      "SGDT [RBX + 4 RCX + 10h]",
      [0x0f, 0x01, 0x44, 0x8b, 0x10],
      memory({ scale: 2, index: R.CX, base: R.BX }),
      0x10n,
    ],
    [
      "SIDT [RSP - 80h]",
      [0x0f, 0x01, 0x4c, 0x24, 0x80],
      memory({ segment: Seg.SS, base: R.SP }) | (1 << 28),
      -0x80n,
    ],
    [
      "LGDT FS:[R9]",
      [0x64, 0x41, 0x0f, 0x01, 0x11],
      memory({ segment: Seg.FS, base: R.R9 }) | (2 << 28),
      0n,
    ],
    [
      "LIDT GS:[8 R12 + 12345678h]",
      [0x65, 0x42, 0x0f, 0x01, 0x1c, 0xe5, 0x78, 0x56, 0x34, 0x12],
      memory({ scale: 3, segment: Seg.GS, index: R.R12 }) | (3 << 28),
      0x1234_5678n,
    ],
    [
      "LGDT [EBX], 67h",
      [0x67, 0x0f, 0x01, 0x13],
      memory({ address: 32, base: R.BX }) | (2 << 28),
      0n,
    ],
    ["SGDT [-8]", [0x0f, 0x01, 0x04, 0x25, 0xf8, 0xff, 0xff, 0xff], memory({}), -8n],
    ["SGDT [RIP + 100h]", [0x0f, 0x01, 0x05, 0, 1, 0, 0], memory({}), BigInt(At.CODE + 7 + 0x100)],
    [
      "SGDT [RIP + 7fffffffh]",
      [0x0f, 0x01, 0x05, 0xff, 0xff, 0xff, 0x7f],
      memory({}),
      BigInt(At.CODE + 7 + 0x7fff_ffff),
    ],
    [
      "LGDT [EBP + 4]",
      [0x0f, 0x01, 0x55, 4],
      memory({ address: 32, segment: Seg.SS, base: R.BP }) | (1 << 11) | (2 << 28),
      4n,
      "protected",
    ],
    [
      "LIDT ES:[EAX], 66h",
      [0x26, 0x66, 0x0f, 0x01, 0x18],
      memory({ address: 32, segment: Seg.ES, base: R.AX }) | (3 << 28),
      0n,
      "protected",
    ],
    [
      "SIDT [BX + DI - 2], 67h",
      [0x67, 0x0f, 0x01, 0x49, 0xfe],
      memory({ address: 16, index: R.DI, base: R.BX }) | (1 << 11) | (1 << 28),
      -2n,
      "protected",
    ],
  ];
  for (const [name, code, information, qualification, mode] of cases) {
    assert.deepEqual(exitOf(code, mode), [Reason.GDTR_IDTR, u32(information), qualification], name);
  }
});

test("SLDT, STR, LLDT, LTR tell a register or memory operand", () => {
  const register = (n: number): number => (n << 3) | (1 << 10);
  const cases: [string, number[], number, bigint][] = [
    ["SLDT R10D", [0x41, 0x0f, 0x00, 0xc2], register(R.R10), 0n],
    ["STR AX", [0x66, 0x0f, 0x00, 0xc8], register(R.AX) | (1 << 28), 0n],
    ["LLDT DX", [0x0f, 0x00, 0xd2], register(R.DX) | (2 << 28), 0n],
    ["LTR SI", [0x0f, 0x00, 0xde], register(R.SI) | (3 << 28), 0n],
    ["SLDT [RDI + 7]", [0x0f, 0x00, 0x47, 7], memory({ base: R.DI }), 7n],
    [
      "LTR [RAX + RSI]",
      [0x0f, 0x00, 0x1c, 0x30],
      memory({ base: R.AX, index: R.SI }) | (3 << 28),
      0n,
    ],
  ];
  for (const [name, code, information, qualification] of cases)
    assert.deepEqual(exitOf(code), [Reason.LDTR_TR, u32(information), qualification], name);
});

test("RDRAND and RDSEED tell their register and operand size", () => {
  assert.deepEqual(exitOf([0x66, 0x0f, 0xc7, 0xf1]), [Reason.RDRAND, R.CX << 3, 0n]);
  assert.deepEqual(exitOf([0x0f, 0xc7, 0xf0]), [Reason.RDRAND, 1 << 11, 0n]);
  assert.deepEqual(exitOf([0x49, 0x0f, 0xc7, 0xf4]), [Reason.RDRAND, (R.R12 << 3) | (2 << 11), 0n]);
  assert.deepEqual(exitOf([0x48, 0x0f, 0xc7, 0xfb]), [Reason.RDSEED, (R.BX << 3) | (2 << 11), 0n]);
});

test("INVEPT, INVVPID and INVPCID tell the type's register and the descriptor", () => {
  for (const [opcode, reason] of [
    [0x80, Reason.INVEPT],
    [0x81, Reason.INVVPID],
    [0x82, Reason.INVPCID],
  ] as const) {
    assert.deepEqual(
      exitOf([0x66, 0x44, 0x0f, 0x38, opcode, 0x54, 0x4b, 0x20]),
      [reason, u32(memory({ scale: 1, index: R.CX, base: R.BX }) | (R.R10 << 28)), 0x20n],
      `${reason}`,
    );
  }
});

test("VMCLEAR, VMPTRLD, VMPTRST, VMXON, VMREAD and VMWRITE tell their operands", () => {
  const at = memory({ base: R.DX });
  const register = (place: number, second: number): number =>
    (place << 3) | (1 << 10) | (second << 28);
  const cases: [string, number[], number, number, bigint][] = [
    ["VMCLEAR", [0x66, 0x0f, 0xc7, 0x72, 1], 19, at, 1n],
    ["VMPTRLD", [0x0f, 0xc7, 0x72, 2], 21, at, 2n],
    ["VMPTRST", [0x0f, 0xc7, 0x7a, 3], 22, at, 3n],
    ["VMXON", [0xf3, 0x0f, 0xc7, 0x72, 4], 27, at, 4n],
    ["VMREAD [RDX + 5], R9", [0x44, 0x0f, 0x78, 0x4a, 5], 23, at | (R.R9 << 28), 5n],
    ["VMREAD RSI, RBX", [0x0f, 0x78, 0xde], 23, register(R.SI, R.BX), 0n],
    ["VMWRITE RBX, [RDX + 6]", [0x0f, 0x79, 0x5a, 6], 25, at | (R.BX << 28), 6n],
    ["VMWRITE RCX, R12", [0x41, 0x0f, 0x79, 0xcc], 25, register(R.R12, R.CX), 0n],
  ];
  for (const [name, code, reason, information, qualification] of cases)
    assert.deepEqual(exitOf(code), [reason, u32(information), qualification], name);
});

test("INS and OUTS tell the address size, OUTS also its segment", () => {
  const information = (code: readonly number[], mode?: Mode): number => {
    const [reason, info] = exitOf(code, mode);
    assert.equal(reason, Reason.IO);
    return info;
  };
  const of = (size: number, segment: number): number => (size << 7) | (segment << 15);
  assert.equal(information([0x6e]), of(2, Seg.DS));
  assert.equal(information([0x64, 0x6e]), of(2, Seg.FS));
  assert.equal(information([0x67, 0x65, 0x6f]), of(1, Seg.GS));
  assert.equal(information([0x6c]), of(2, 0));
  assert.equal(information([0x67, 0x6d]), of(1, 0));
  assert.equal(information([0x6e], "protected"), of(1, Seg.DS));
  assert.equal(information([0x36, 0x67, 0x6e], "protected"), of(0, Seg.SS));
  assert.equal(information([0x2e, 0x66, 0x6f], "protected"), of(1, Seg.CS));
});

// ---- NMI unblocking due to IRET ----

/** An IRETQ under blocking by NMI, after `prepare`. Answers 1 for a VM exit. */
function returnFromNmi(prepare: () => void): number {
  m.reset("long");
  m.set(S.NON_ROOT, 1);
  m.set(S.INTERRUPTIBILITY, Blocking.NMI);
  m.setGpr(RSP, At.SCRATCH);
  [At.CODE + 0x10, Sel.CODE64, 2, At.STACK0, Sel.DATA].forEach((v, i) => {
    m.write64(At.SCRATCH + 8 * i, BigInt(v));
  });
  prepare();
  m.engine.updateMode();
  return m.step((a) => a.emit("iretq"));
}

test("an EPT violation of an IRET that has lifted blocking by NMI sets bit 12 of the qualification", () => {
  for (const [name, page] of [
    ["its frame", At.SCRATCH],
    ["a descriptor", At.GDT],
    ["a paging structure", At.PAGE_TABLE_HIGH],
  ] as const) {
    const prepare = (): void => {
      m.missing.add(page >> 12);
      if (page !== At.PAGE_TABLE_HIGH) return;
      // A stack in a part of the address space with a table of its own.
      m.write64(At.PML4 + 8, 0x1_5007n);
      m.write64(0x1_5000, 0x1_6007n);
      m.write64(0x1_6000, BigInt(At.PAGE_TABLE_HIGH + 7));
      m.setGpr(RSP, 0x80_0000_0000n);
    };
    assert.equal(returnFromNmi(prepare), 1, name);
    assert.equal(m.num(S.EXIT_REASON), Reason.EPT, name);
    assert.equal(m.num(S.EXIT_QUALIFICATION) & 0x1000, 0x1000, name);
    assert.equal(m.num(S.INTERRUPTIBILITY), 0, name);
    // It is told once.
    m.missing.clear();
    m.missing.add(0x1e);
    m.step((a) => a.bytes([0x8b, 0x04, 0x25, 0x00, 0xe0, 0x01, 0x00]));
    assert.equal(m.num(S.EXIT_REASON), Reason.EPT, name);
    assert.equal(m.num(S.EXIT_QUALIFICATION) & 0x1000, 0, name);
  }
});

test("bit 12 is clear if blocking was not lifted, or the exit happens during the delivery of the IRET's fault", () => {
  returnFromNmi(() => {
    m.set(S.INTERRUPTIBILITY, 0);
    m.missing.add(At.SCRATCH >> 12);
  });
  assert.equal(m.num(S.EXIT_QUALIFICATION) & 0x1000, 0);
  returnFromNmi(() => {
    // Under "NMI exiting" without virtual NMIs blocking is the VMM's.
    m.set(S.CTL_PIN, 1 << 3);
    m.missing.add(At.SCRATCH >> 12);
  });
  assert.deepEqual([m.num(S.EXIT_QUALIFICATION) & 0x1000, m.num(S.INTERRUPTIBILITY)], [0, 8]);
  returnFromNmi(() => {
    m.write64(At.SCRATCH + 8, 0n);
    m.missing.add(At.IDT >> 12);
  });
  assert.equal(m.num(S.EXIT_REASON), Reason.EPT);
  assert.equal(m.num(S.EXIT_QUALIFICATION) & 0x1000, 0);
  assert.equal(m.num(S.VECTORING) >>> 0, 0x8000_0b0d);
});

test("a page fault or #GP of such an IRET that exits sets bit 12 of the interruption information", () => {
  returnFromNmi(() => {
    m.set(S.CTL_EXCEPTION_BITMAP, 1 << 14);
    m.unmap(At.SCRATCH);
  });
  assert.equal(m.num(S.EXIT_INTERRUPTION) >>> 0, 0x8000_1b0e);
  returnFromNmi(() => {
    m.set(S.CTL_EXCEPTION_BITMAP, 1 << 13);
    m.write64(At.SCRATCH + 8, 0n);
  });
  assert.equal(m.num(S.EXIT_INTERRUPTION) >>> 0, 0x8000_1b0d);
});
