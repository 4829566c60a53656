/** Event delivery in 64-bit mode: frames, stacks, error codes, double faults, VM exits. SDM Vol. 3A, "Interrupt and Exception Handling". */
import assert from "node:assert/strict";
import { test } from "node:test";
import { imm } from "../isa/assemble.ts";
import { dr0, rax } from "../isa/registers.ts";
import { Pending, S, Seg, Status } from "../state/layout.ts";
import { At, descriptor, Sel, TestMachine } from "./test-machine.ts";

const m = new TestMachine();
const HARDWARE = 3;
const RF = 0x1_0000;
const TF = 0x100;
const IF = 0x200;
const VALID = 0x8000_0000;
const SCRATCH = At.SCRATCH;

/** Makes an exception pending as a faulting instruction does, and delivers it. */
function raise(vector: number, error = 0, address = 0n, type = HARDWARE): number {
  m.set(S.PENDING, Pending.EVENT);
  m.set(S.PENDING_VECTOR, vector);
  m.set(S.PENDING_ERROR, error);
  m.set(S.PENDING_TYPE, type);
  m.set(S.PENDING_ADDRESS, address);
  return m.call("deliverPending");
}

/** The 64-bit frame at RSP: [error?], RIP, CS, RFLAGS, RSP, SS. */
function frame(hasError: boolean): number[] {
  const sp = m.gpr(4);
  return Array.from({ length: hasError ? 6 : 5 }, (_, i) => Number(m.read64(sp + 8 * i)));
}

test("a fault at ring 0 pushes six items on an aligned stack and sets RF in the image only", () => {
  m.reset("long");
  m.setGpr(4, At.STACK0 - 5);
  m.setFlags(IF | TF | 0x8d5);
  assert.equal(raise(13, 0x18), Status.JUMP);
  assert.deepEqual(frame(true), [
    0x18,
    At.CODE,
    Sel.CODE64,
    IF | TF | 0x8d7 | RF,
    At.STACK0 - 5,
    Sel.DATA,
  ]);
  assert.equal(m.gpr(4), ((At.STACK0 - 5) & ~15) - 48);
  assert.equal(m.flags(), 0x8d7);
  assert.deepEqual([m.vector, m.num(S.PENDING), m.num(S.VECTORING)], [13, 0, 0]);
});

test("an interrupt gate clears IF, a trap gate keeps it; interrupts leave RF alone", () => {
  m.reset("long");
  m.setGate(32, { selector: Sel.CODE64, offset: At.HANDLERS + 512, access: 0x8f });
  m.setFlags(IF | 0x4000);
  assert.equal(raise(32, 0, 0n, 0), Status.JUMP);
  assert.deepEqual([m.flags(), frame(false)[2]], [IF | 2, IF | 0x4002]);
});

test("from ring 3 the stack comes from the TSS, SS becomes null with the new RPL", () => {
  m.reset("long");
  m.enterUser();
  assert.equal(raise(14, 7, 0x1234_5678n), Status.JUMP);
  assert.deepEqual(frame(true), [7, At.CODE, Sel.CODE64_USER, RF | 2, At.STACK3, Sel.DATA_USER]);
  assert.deepEqual([m.gpr(4), m.num(S.CPL), m.segment(Seg.SS).selector], [At.RSP0 - 48, 0, 0]);
  assert.equal(m.segment(Seg.SS).rights, 0x1_0000);
  assert.equal(m.segment(Seg.CS).selector, Sel.CODE64);
  assert.equal(m.get(S.CR2), 0x1234_5678n);
});

test("a conforming handler segment keeps CPL and the user's stack", () => {
  m.reset("long");
  m.setDescriptor(Sel.FREE, descriptor(0xa09f));
  m.setGate(6, { selector: Sel.FREE, offset: At.HANDLERS + 96, access: 0x8e });
  m.enterUser();
  assert.equal(raise(6), Status.JUMP);
  assert.deepEqual(
    [m.num(S.CPL), m.segment(Seg.CS).selector, m.gpr(4)],
    [3, Sel.FREE | 3, At.STACK3 - 40],
  );
});

test("IST selects its stack even without a change of privilege", () => {
  m.reset("long");
  m.setGate(2, { selector: Sel.CODE64, offset: At.HANDLERS + 32, access: 0x8e, extra: 1 });
  assert.equal(raise(2, 0, 0n, 2), Status.JUMP);
  assert.deepEqual([m.gpr(4), m.segment(Seg.SS).selector], [At.IST1 - 40, Sel.DATA]);
  assert.equal(m.num(S.INTERRUPTIBILITY), 8, "NMI blocks further NMIs");
});

test("an NMI or interrupt ends HLT and the interrupt shadow", () => {
  m.reset("long");
  m.set(S.ACTIVITY, 1);
  m.set(S.INTERRUPTIBILITY, 3);
  raise(33, 0, 0n, 0);
  assert.deepEqual([m.num(S.ACTIVITY), m.num(S.INTERRUPTIBILITY)], [0, 0]);
});

test("faults on the way to a handler have the error codes of the manual", () => {
  const cases: [string, () => void, number, number][] = [
    [
      "gate not present",
      () => m.setGate(6, { selector: Sel.CODE64, offset: 0, access: 0x0e }),
      11,
      6 * 8 + 3,
    ],
    [
      "gate type",
      () => m.setGate(6, { selector: Sel.CODE64, offset: 0, access: 0x85 }),
      13,
      6 * 8 + 3,
    ],
    ["IDT limit", () => m.set(S.IDTR_LIMIT, 6 * 16 + 14), -1, 0],
    ["null CS", () => m.setGate(6, { selector: 3, offset: 0, access: 0x8e }), 13, 1],
    [
      "CS beyond GDT",
      () => m.setGate(6, { selector: 0x1ff8, offset: 0, access: 0x8e }),
      13,
      0x1ff9,
    ],
    [
      "CS is data",
      () => m.setGate(6, { selector: Sel.DATA, offset: 0, access: 0x8e }),
      13,
      Sel.DATA | 1,
    ],
    [
      "CS is 32-bit",
      () => m.setGate(6, { selector: Sel.CODE32, offset: 0, access: 0x8e }),
      13,
      Sel.CODE32 | 1,
    ],
    [
      "CS of an outer ring",
      () => m.setGate(6, { selector: Sel.CODE64_USER, offset: 0, access: 0x8e }),
      13,
      0x21,
    ],
    ["CS not present", () => m.setDescriptor(Sel.FREE, descriptor(0xa01b)), 11, Sel.FREE | 1],
  ];
  for (const [name, prepare, vector, error] of cases) {
    m.reset("long");
    if (name === "CS not present") m.setGate(6, { selector: Sel.FREE, offset: 0, access: 0x8e });
    prepare();
    const status = raise(6);
    if (vector < 0) {
      // #GP and #DF are beyond the limit as well.
      assert.deepEqual(
        [status, m.num(S.EXIT_REASON), m.num(S.ACTIVITY)],
        [Status.EXIT, 2, 2],
        name,
      );
    } else {
      assert.deepEqual([status, m.vector, frame(true)[0]], [Status.JUMP, vector, error], name);
      assert.equal(frame(true)[1], At.CODE, name);
    }
  }
});

test("TSS and stack problems are #TS and #SS", () => {
  m.reset("long");
  m.enterUser();
  m.setGate(6, { selector: Sel.CODE64, offset: At.HANDLERS + 96, access: 0x8e, extra: 2 });
  // IST2 is not canonical; #SS gets a good stack.
  m.write64(At.TSS + 0x2c, 0x8000_0000_0000_0000n);
  assert.equal(raise(6), Status.JUMP);
  assert.deepEqual([m.vector, frame(true)[0]], [12, 1]);
  m.reset("long");
  m.enterUser();
  m.setGate(6, { selector: Sel.CODE64, offset: At.HANDLERS + 96, access: 0x8e, extra: 7 });
  m.setSegment(Seg.TR, { limit: 0x5a });
  assert.equal(raise(6), Status.JUMP);
  assert.deepEqual([m.vector, frame(true)[0]], [10, Sel.TSS | 1]);
});

/** SDM Vol. 3A, table "Conditions for Generating a Double Fault". */
test("the double-fault table holds for every pair of exceptions", () => {
  const contributory = new Set([0, 10, 11, 12, 13]);
  const vectors = [0, 1, 3, 4, 5, 6, 7, 10, 11, 12, 13, 14, 16, 17, 19];
  for (const first of vectors) {
    for (const [second, prepare] of [
      [11, () => m.setGate(first, { selector: Sel.CODE64, offset: 0, access: 0x0e })],
      [13, () => m.setGate(first, { selector: 0, offset: 0, access: 0x8e })],
      [
        14,
        () => {
          m.setGate(first, {
            selector: Sel.CODE64,
            offset: At.HANDLERS + 16 * first,
            access: 0x8e,
            extra: 3,
          });
          m.write64(At.TSS + 0x34, 0x1f_0000n);
          m.unmap(0x1e_f000);
        },
      ],
    ] as [number, () => void][]) {
      if (second === first) continue;
      m.reset("long");
      prepare();
      const isPair =
        (contributory.has(first) && contributory.has(second)) ||
        (first === 14 && (contributory.has(second) || second === 14));
      assert.equal(raise(first), Status.JUMP, `${first} then ${second}`);
      assert.equal(m.vector, isPair ? 8 : second, `${first} then ${second}`);
      if (isPair) assert.equal(frame(true)[0], 0);
    }
  }
});

test("a contributory exception during #DF shuts down, a benign one does not", () => {
  m.reset("long");
  m.setGate(8, { selector: Sel.CODE64, offset: 0, access: 0x0e });
  m.setGate(13, { selector: Sel.CODE64, offset: 0, access: 0x0e });
  assert.equal(raise(13), Status.EXIT);
  assert.deepEqual(
    [m.num(S.EXIT_REASON), m.num(S.ACTIVITY), m.num(S.VECTORING), m.num(S.PENDING)],
    [2, 2, 0, 0],
  );
});

test("a page fault in the frame names the item that a processor would push first", () => {
  m.reset("long");
  m.setGpr(4, 0x1e_f010);
  m.unmap(0x1e_f000);
  m.setGate(14, { selector: Sel.CODE64, offset: At.HANDLERS + 14 * 16, access: 0x8e, extra: 1 });
  // The frame of #UD lies in two pages; its top is in the absent one.
  assert.equal(raise(6), Status.JUMP);
  assert.deepEqual([m.vector, m.get(S.CR2)], [14, 0x1e_f008n]);
});

test("#DB updates DR6 and clears DR7.GD; INT1 does neither", () => {
  m.reset("long");
  m.set(S.DR6, 0xffff_0ff1n);
  m.set(S.DR7, 0x2400n);
  raise(1, 0, 0x4000n);
  assert.deepEqual([m.get(S.DR6), m.get(S.DR7), frame(false)[2]], [0xffff_4ff0n, 0x400n, 2]);
  m.reset("long");
  m.set(S.DR7, 0x2400n);
  m.step((a) => a.emit("int1"));
  assert.deepEqual(
    [m.vector, m.get(S.DR6), m.get(S.DR7), frame(false)[0]],
    [1, 0xffff_0ff0n, 0x2400n, At.CODE + 1],
  );
});

test("general detect faults before MOV DR with RF in the image", () => {
  m.reset("long");
  m.set(S.DR7, 0x2400n);
  m.step((a) => a.emit("mov", rax, dr0));
  assert.deepEqual(
    [m.vector, m.get(S.DR6), frame(false)[0], frame(false)[2]],
    [1, 0xffff_2ff0n, At.CODE, RF | 2],
  );
});

test("single step traps after the instruction with BS", () => {
  m.reset("long");
  m.setFlags(TF);
  m.engine.updateMode();
  m.step((a) => a.emit("nop"), 2);
  assert.deepEqual(
    [m.vector, m.get(S.DR6), frame(false)[0], frame(false)[2]],
    [1, 0xffff_4ff0n, At.CODE + 1, TF | 2],
  );
});

// ---- software interrupts ----

test("INT n pushes the next RIP and needs the gate's DPL", () => {
  m.reset("long");
  m.setGate(0x80, { selector: Sel.CODE64, offset: At.HANDLERS + 0x800, access: 0xee });
  m.enterUser();
  m.step((a) => a.emit("int", imm(0x80)));
  assert.deepEqual([m.vector, frame(false)[0]], [0x80, At.CODE + 2]);
  m.reset("long");
  m.enterUser();
  m.step((a) => a.emit("int", imm(0x80)));
  assert.deepEqual([m.vector, frame(true)[0], frame(true)[1]], [13, 0x80 * 8 + 2, At.CODE]);
  m.reset("long");
  m.enterUser();
  m.step((a) => a.emit("int3"));
  assert.deepEqual([m.vector, frame(true)[0]], [13, 3 * 8 + 2]);
});

test("INT1 ignores the gate's DPL", () => {
  m.reset("long");
  m.enterUser();
  m.step((a) => a.emit("int1"));
  assert.equal(m.vector, 1);
});

// ---- VMX non-root operation ----

function enterGuest(bitmap: number): void {
  m.reset("long");
  m.set(S.NON_ROOT, 1);
  m.set(S.CTL_EXCEPTION_BITMAP, bitmap);
}

const exit = (): number[] => [
  m.num(S.EXIT_REASON),
  m.num(S.EXIT_INTERRUPTION),
  m.num(S.EXIT_INTERRUPTION_ERROR),
  m.num(S.EXIT_QUALIFICATION),
];

test("an intercepted exception exits with its information and RF as it would have been pushed", () => {
  enterGuest(1 << 13);
  assert.equal(raise(13, 0x50), Status.EXIT);
  assert.deepEqual(exit(), [0, VALID + 0xb0d, 0x50, 0]);
  assert.deepEqual(
    [m.flags(), m.rip, m.num(S.VECTORING), m.num(S.PENDING)],
    [RF | 2, BigInt(At.CODE), 0, 0],
  );
});

test("an intercepted page fault gives CR2 as qualification and leaves CR2 alone", () => {
  enterGuest(1 << 14);
  assert.equal(raise(14, 2, 0xabc0_0000n), Status.EXIT);
  assert.deepEqual([exit(), m.get(S.CR2)], [[0, VALID + 0xb0e, 2, 0xabc0_0000], 0n]);
});

test("page faults are filtered by error-code mask and match", () => {
  for (const [bit, mask, match, error, exits] of [
    [1, 0, 0, 6, true],
    [1, 4, 4, 6, true],
    [1, 4, 4, 2, false],
    [0, 4, 4, 2, true],
    [0, 4, 4, 6, false],
    [0, 0, 0, 0, false],
    [0, 0, 1, 0, true],
  ] as const) {
    enterGuest(bit << 14);
    m.set(S.CTL_PF_MASK, mask);
    m.set(S.CTL_PF_MATCH, match);
    assert.equal(
      raise(14, error),
      exits ? Status.EXIT : Status.JUMP,
      `${bit} ${mask} ${match} ${error}`,
    );
  }
});

test("a second exception that exits during delivery carries IDT-vectoring information", () => {
  enterGuest(1 << 11);
  m.setGate(32, { selector: Sel.CODE64, offset: 0, access: 0x0e });
  assert.equal(raise(32, 0, 0n, 0), Status.EXIT);
  assert.deepEqual([exit(), m.num(S.VECTORING)], [[0, VALID + 0xb0b, 32 * 8 + 3, 0], VALID + 32]);
});

test("an exception that exits does so before it makes a double fault of the one that it has interrupted", () => {
  enterGuest((1 << 8) | (1 << 11));
  m.setGate(13, { selector: Sel.CODE64, offset: 0, access: 0x0e });
  assert.equal(raise(13, 5), Status.EXIT);
  assert.deepEqual(
    [exit(), m.num(S.VECTORING), m.num(S.VECTORING_ERROR)],
    [[0, VALID + 0xb0b, 13 * 8 + 3, 0], VALID + 0xb0d, 5],
  );
});

test("a double fault that exits does not count as an exit during delivery", () => {
  enterGuest(1 << 8);
  m.setGate(13, { selector: Sel.CODE64, offset: 0, access: 0x0e });
  assert.equal(raise(13), Status.EXIT);
  assert.deepEqual([exit(), m.num(S.VECTORING)], [[0, VALID + 0xb08, 0, 0], 0]);
});

test("a triple fault exits with reason 2 and leaves the activity state alone", () => {
  enterGuest(0);
  m.set(S.IDTR_LIMIT, 0);
  assert.equal(raise(6), Status.EXIT);
  assert.deepEqual([m.num(S.EXIT_REASON), m.num(S.ACTIVITY), m.num(S.VECTORING)], [2, 0, 0]);
});

test("an EPT violation while reading the IDT keeps the event as vectoring information", () => {
  enterGuest(0);
  m.missing.add(At.IDT >> 12);
  assert.equal(raise(13, 5), Status.EXIT);
  assert.deepEqual(
    [m.num(S.EXIT_REASON), m.num(S.VECTORING), m.num(S.VECTORING_ERROR), m.num(S.PENDING)],
    [48, VALID + 0xb0d, 5, 0],
  );
});

test("INT3 and INT1 exit by the bitmap before the gate is looked at, INT n never does", () => {
  for (const [name, info] of [
    ["int3", 0x603],
    ["int1", 0x501],
  ] as const) {
    enterGuest((1 << 3) | (1 << 1));
    m.set(S.IDTR_LIMIT, 0);
    assert.equal(
      m.step((a) => a.emit(name)),
      1,
    );
    assert.deepEqual(
      [exit(), m.num(S.EXIT_LENGTH), m.rip],
      [[0, VALID + info, 0, 0], 1, BigInt(At.CODE)],
    );
  }
  enterGuest(1 << 3);
  m.step((a) => a.bytes([0xcd, 3]));
  assert.equal(m.vector, 3);
});

test("a fault of INT n that exits reports the software interrupt and the instruction's length", () => {
  enterGuest(1 << 11);
  m.setGate(0x40, { selector: Sel.CODE64, offset: 0, access: 0x0e });
  assert.equal(
    m.step((a) => a.emit("int", imm(0x40))),
    1,
  );
  assert.deepEqual(
    [exit(), m.num(S.VECTORING), m.num(S.EXIT_LENGTH)],
    [[0, VALID + 0xb0b, 0x202, 0], VALID + 0x440, 2],
  );
});

test("event injection pushes RIP, or RIP plus length for software events, and touches neither CR2 nor RF", () => {
  m.reset("long");
  m.set(S.CR2, 0x77n);
  assert.equal(m.call("injectEvent", (VALID + 0xb0e) | 0, 5, 0), Status.JUMP);
  assert.deepEqual([frame(true).slice(0, 4), m.get(S.CR2)], [[5, At.CODE, Sel.CODE64, 2], 0x77n]);
  for (const type of [4, 6]) {
    m.reset("long");
    assert.equal(m.call("injectEvent", (VALID + (type << 8) + 0x50) | 0, 0, 2), Status.JUMP);
    assert.equal(frame(false)[0], At.CODE + 2);
  }
});

test("a fault while injecting is combined, delivered, and reported as vectoring", () => {
  m.reset("long");
  m.setGate(14, { selector: Sel.CODE64, offset: 0, access: 0x0e });
  assert.equal(m.call("injectEvent", (VALID + 0xb0e) | 0, 0, 0), Status.JUMP);
  assert.equal(m.vector, 8);
  enterGuest(1 << 13);
  m.setGate(32, { selector: 0, offset: 0, access: 0x8e });
  assert.equal(m.call("injectEvent", (VALID + 32) | 0, 0, 0), Status.EXIT);
  assert.deepEqual([exit().slice(0, 2), m.num(S.VECTORING)], [[0, VALID + 0xb0d], VALID + 32]);
});

test("an IRET that faults after lifting NMI blocking sets bit 12 of the exit's information", () => {
  enterGuest(1 << 13);
  m.set(S.INTERRUPTIBILITY, 8);
  m.setGpr(4, SCRATCH);
  m.write64(SCRATCH + 8, 0n);
  assert.equal(
    m.step((a) => a.emit("iretq")),
    1,
  );
  assert.deepEqual([exit().slice(0, 2), m.num(S.INTERRUPTIBILITY)], [[0, VALID + 0x1b0d], 0]);
});
