/** The other system instructions: flags, descriptor tables, inspection, MSRs, time, invalidation, VMX. SDM Vol. 2, one entry per test. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { At, descriptor, Sel, TestMachine } from "../../core/test-machine.ts";
import type { Assembler } from "../../isa/assemble.ts";
import { mem, xmmword } from "../../isa/assemble.ts";
import { ax, bx, eax, rax, rbx, rcx } from "../../isa/registers.ts";
import { Cr4, Efer } from "../../state/control-bits.ts";
import { gprAt, NO_BUDGET, RAM_BASE, S, Seg } from "../../state/layout.ts";
import { Flag } from "../flags.ts";

const m = new TestMachine();
const { IF, VIF, VIP, AC, RF, ID } = Flag;
const CF_TO_OF = 0x8d5;
const FREE = Sel.FREE;
const NON_CANONICAL = 0x8000_0000_0000n;

type Mode = "long" | "protected" | "real";

function one(mode: Mode, prepare: () => void, build: (a: Assembler) => void): number {
  m.reset(mode);
  prepare();
  m.engine.updateMode();
  return m.step(build);
}

/** Exit reason and qualification of one instruction in VMX non-root operation, or the vector it raises (negative), or null. */
function exitOf(
  primary: number,
  secondary: number,
  build: (a: Assembler) => void,
  prepare = (): void => {},
): [number, number] | number | null {
  const exits = one(
    "long",
    () => {
      m.set(S.NON_ROOT, 1);
      m.set(S.CTL_PRIMARY, primary | (secondary ? 1 << 31 : 0));
      m.set(S.CTL_SECONDARY, secondary);
      prepare();
    },
    build,
  );
  if (exits) return [m.num(S.EXIT_REASON), m.num(S.EXIT_QUALIFICATION)];
  return m.vector >= 0 ? -m.vector : null;
}

const emit =
  (name: string) =>
  (a: Assembler): void => {
    a.emit(name);
  };

// ---- flags ----

test("CLI and STI obey IOPL; STI opens a shadow only if IF was clear", () => {
  one("long", () => m.setFlags(IF), emit("cli"));
  assert.equal(m.flags(), 2);
  one("long", () => m.set(S.STI_BUDGET, NO_BUDGET), emit("sti"));
  assert.deepEqual([m.flags(), m.num(S.INTERRUPTIBILITY)], [IF | 2, 0]);
  assert.equal(m.num(S.STI_BUDGET), m.num(S.BUDGET));
  const INTERRUPT_WINDOW = 1 << 2;
  one("long", () => m.set(S.CTL_PRIMARY, INTERRUPT_WINDOW), emit("sti"));
  assert.deepEqual([m.flags(), m.num(S.INTERRUPTIBILITY)], [IF | 2, 1]);
  m.step(emit("nop"));
  m.step(emit("nop"));
  assert.equal(m.num(S.INTERRUPTIBILITY), 0);
  const ifSet = (): void => {
    m.setFlags(IF);
    m.set(S.STI_BUDGET, NO_BUDGET);
  };
  one("long", ifSet, emit("sti"));
  assert.deepEqual([m.num(S.INTERRUPTIBILITY), m.num(S.STI_BUDGET)], [0, NO_BUDGET]);
  for (const name of ["cli", "sti"]) {
    one("long", () => m.enterUser(), emit(name));
    assert.equal(m.vector, 13, name);
    one(
      "long",
      () => {
        m.enterUser();
        m.setFlags(0x3000);
      },
      emit(name),
    );
    assert.equal(m.vector, -1, name);
  }
});

test("with CR4.PVI ring 3 sets and clears VIF, and VIP faults STI", () => {
  const user = (flags: number) => (): void => {
    m.enterUser(Sel.CODE32_USER);
    m.set(S.CR4, 2n);
    m.setFlags(flags);
  };
  one("protected", user(IF), emit("sti"));
  assert.equal(m.flags(), IF | VIF | 2);
  one("protected", user(IF | VIF | VIP), emit("cli"));
  assert.equal(m.flags(), IF | VIP | 2);
  one("protected", user(IF | VIP), emit("sti"));
  assert.equal(m.vector, 13);
});

test("PUSHF hides VM and RF; POPF changes what CPL and IOPL allow", () => {
  one("long", () => m.setFlags(IF | RF | AC | ID | CF_TO_OF), emit("pushfq"));
  assert.equal(Number(m.read64(m.gpr(4))), IF | AC | ID | CF_TO_OF | 2);
  const popf = (prepare: () => void, image: number): number => {
    one(
      "long",
      () => {
        prepare();
        m.write64(m.gpr(4), BigInt(image));
      },
      emit("popfq"),
    );
    return m.flags();
  };
  assert.equal(
    popf(() => {}, 0xffff_ffff),
    0x3f_7fd7 & ~(RF | 0x2_0000 | VIF | VIP),
  );
  assert.equal(
    popf(() => m.enterUser(), 0xffff_ffff),
    (0x3f_7fd7 & ~(RF | 0x2_0000 | VIF | VIP | IF | 0x3000)) | 0,
  );
  assert.equal(
    popf(() => {
      m.enterUser();
      m.setFlags(0x3000);
    }, IF),
    IF | 0x3002,
  );
  assert.equal(m.gpr(4), At.STACK3 + 8);
});

test("POPF of 16 bits keeps the upper half", () => {
  one(
    "long",
    () => {
      m.setFlags(AC | ID);
      m.write64(m.gpr(4), BigInt(0xffff & ~0x100));
    },
    (a) => a.bytes([0x66, 0x9d]),
  );
  assert.equal(m.flags(), AC | ID | (0x7fd7 & ~0x100));
});

test("CLAC and STAC are #UD outside ring 0", () => {
  one("long", () => {}, emit("stac"));
  assert.equal(m.flags(), AC | 2);
  one("long", () => m.setFlags(AC), emit("clac"));
  assert.equal(m.flags(), 2);
  one("long", () => m.enterUser(), emit("stac"));
  assert.equal(m.vector, 6);
});

test("HLT exits, or halts with the next RIP", () => {
  assert.deepEqual(exitOf(1 << 7, 0, emit("hlt")), [12, 0]);
  assert.equal(m.num(S.RIP), At.CODE);
  one("long", () => {}, emit("hlt"));
  assert.deepEqual([m.num(S.ACTIVITY), m.num(S.RIP)], [1, At.CODE + 1]);
  one("long", () => m.enterUser(), emit("hlt"));
  assert.equal(m.vector, 13);
});

// ---- descriptor tables ----

test("LGDT and LIDT load 10, 6 or 5 significant bytes; SGDT and SIDT store them", () => {
  const data = (): void => {
    m.write64(At.SCRATCH, 0x2233_4455_6677_0fffn);
    m.write16(At.SCRATCH + 8, 0);
    m.setGpr(3, At.SCRATCH);
  };
  one("long", data, (a) => a.emit("lgdt", mem(0, rbx)));
  assert.deepEqual([m.get(S.GDTR_BASE), m.num(S.GDTR_LIMIT)], [0x2233_4455_6677n, 0xfff]);
  m.step((a) => a.bytes([0x0f, 0x01, 0x43, 0x10]));
  assert.deepEqual(
    [m.read16(At.SCRATCH + 16), m.read64(At.SCRATCH + 18)],
    [0xfff, 0x2233_4455_6677n],
  );
  one("protected", data, (a) => a.bytes([0x0f, 0x01, 0x1b]));
  assert.equal(m.get(S.IDTR_BASE), 0x4455_6677n);
  one("protected", data, (a) => a.bytes([0x66, 0x0f, 0x01, 0x1b]));
  assert.equal(m.get(S.IDTR_BASE), 0x55_6677n);
  one(
    "long",
    () => {
      m.write64(At.SCRATCH, NON_CANONICAL << 16n);
      m.setGpr(3, At.SCRATCH);
    },
    (a) => a.bytes([0x0f, 0x01, 0x13]),
  );
  assert.equal(m.vector, 13);
});

test("descriptor-table exits come after CPL and UMIP and name the instruction", () => {
  const at =
    (modrm: number) =>
    (a: Assembler): void => {
      a.bytes([0x0f, modrm >= 0x100 ? 0 : 1, modrm & 0xff]);
    };
  const info = (): number => m.num(S.EXIT_INSTRUCTION_INFO) >>> 28;
  for (const [code, reason, identity] of [
    [0x03, 46, 0],
    [0x0b, 46, 1],
    [0x13, 46, 2],
    [0x1b, 46, 3],
    [0x103, 47, 0],
    [0x10b, 47, 1],
    [0x113, 47, 2],
    [0x11b, 47, 3],
  ] as const) {
    assert.deepEqual(exitOf(0, 4, at(code)), [reason, 0]);
    assert.equal(info(), identity);
  }
  assert.equal(
    exitOf(0, 4, at(0x13), () => m.enterUser()),
    -13,
  );
  assert.equal(
    exitOf(0, 4, at(0x03), () => {
      m.enterUser();
      m.set(S.CR4, BigInt(Cr4.PAE | Cr4.UMIP));
    }),
    -13,
  );
});

test("SLDT and STR are undefined in real mode", () => {
  for (const modrm of [0xc0, 0xc8, 0xd0, 0xe0]) {
    one(
      "real",
      () => {},
      (a) => a.bytes([0x0f, 0x00, modrm]),
    );
    assert.equal(m.vector, 6);
  }
});

// ---- inspection ----

test("LAR, LSL, VERR and VERW set ZF by type, privilege and mode", () => {
  // [rights, selector, user, LAR, LSL, VERR, VERW] in protected mode
  const cases: [number, number, boolean, number, number, number, number][] = [
    [0xc093, FREE, false, 1, 1, 1, 1],
    [0xc091, FREE, false, 1, 1, 1, 0],
    [0xc099, FREE, false, 1, 1, 0, 0],
    [0xc09b, FREE, false, 1, 1, 1, 0],
    [0xc093, FREE, true, 0, 0, 0, 0],
    [0xc09f, FREE, true, 1, 1, 1, 0],
    [0xc093, FREE | 1, false, 0, 0, 0, 0],
    [0x89, FREE, false, 1, 1, 0, 0],
    [0x81, FREE, false, 1, 1, 0, 0],
    [0x8c, FREE, false, 1, 0, 0, 0],
    [0x85, FREE, false, 1, 0, 0, 0],
    [0x8e, FREE, false, 0, 0, 0, 0],
    [0xc013, FREE, false, 1, 1, 1, 1],
    [0, 0, false, 0, 0, 0, 0],
    [0, 0x1ff8, false, 0, 0, 0, 0],
  ];
  const run = (mode: "long" | "protected", c: (typeof cases)[number], bytes: number[]): number => {
    one(
      mode,
      () => {
        if (c[2]) m.enterUser(mode === "long" ? Sel.CODE64_USER : Sel.CODE32_USER);
        m.setDescriptor(FREE, descriptor(c[0], 0, 0x1_2345));
        m.setGpr(0, c[1]);
        m.setGpr(3, 0xdead_beef);
        m.setFlags(0x895);
      },
      (a) => a.bytes(bytes),
    );
    assert.equal(m.flags() & ~Flag.ZF, 0x897);
    return (m.flags() >> 6) & 1;
  };
  for (const c of cases) {
    const found = [
      [0x0f, 0x02, 0xd8],
      [0x0f, 0x03, 0xd8],
      [0x0f, 0x00, 0xe0],
      [0x0f, 0x00, 0xe8],
    ].map((bytes) => run("protected", c, bytes));
    assert.deepEqual(found, c.slice(3), `${c[0].toString(16)} ${c[1].toString(16)} ${c[2]}`);
  }
  assert.equal(
    run("long", [0x81, FREE, false, 0, 0, 0, 0], [0x0f, 0x02, 0xd8]),
    0,
    "no 16-bit TSS in IA-32e mode",
  );
  run("long", cases[0]!, [0x0f, 0x02, 0xd8]);
  assert.equal(m.gpr(3), 0xc0_9300);
  run("long", cases[0]!, [0x0f, 0x03, 0xd8]);
  assert.equal(m.gpr(3), 0x1234_5fff);
});

test("ARPL raises RPL and tells by ZF", () => {
  for (const [d, s, result, zf] of [
    [0x10, 3, 0x13, 1],
    [0x13, 1, 0x13, 0],
  ] as const) {
    one(
      "protected",
      () => {
        m.setGpr(0, d);
        m.setGpr(3, s);
      },
      (a) => a.emit("arpl", ax, bx),
    );
    assert.deepEqual([m.gpr(0), (m.flags() >> 6) & 1], [result, zf]);
  }
});

// ---- MSRs and bases ----

function wrmsr(index: number, value: bigint, prepare = (): void => {}): number {
  one(
    "long",
    () => {
      prepare();
      m.setGpr(1, index);
      m.setGpr(0, value & 0xffff_ffffn);
      m.setGpr(2, value >> 32n);
    },
    emit("wrmsr"),
  );
  return m.vector;
}

test("the processor's own MSRs check their values and read back", () => {
  const canonical = [0xc000_0082, 0xc000_0083, 0xc000_0100, 0xc000_0101, 0xc000_0102, 0x175, 0x176];
  for (const index of canonical) assert.equal(wrmsr(index, NON_CANONICAL), 13, index.toString(16));
  for (const index of [...canonical, 0xc000_0081, 0xc000_0084]) {
    const value = 0xffff_8000_1234_5678n;
    assert.equal(wrmsr(index, value), -1);
    m.setGpr(0, 0);
    m.setGpr(2, 0);
    m.step(emit("rdmsr"));
    assert.deepEqual([m.gpr(0), m.gpr(2)], [0x1234_5678, 0xffff_8000], index.toString(16));
  }
  assert.equal(wrmsr(0xc000_0103, 1n << 32n), 13);
  assert.equal(wrmsr(0xda0, 1n), 13);
  for (const [pat, vector] of [
    [0x0007_0406_0007_0406n, -1],
    [0x0105_0406_0007_0406n, -1],
    [0x02n, 13],
    [0x03n, 13],
    [0x08n, 13],
    [0x0300_0000_0000_0000n, 13],
  ] as const) {
    assert.equal(wrmsr(0x277, pat), vector, pat.toString(16));
  }
  assert.equal(wrmsr(0x1b, 0n), 13, "not ours, on the bare processor");
  assert.equal(
    wrmsr(0xc000_0100, 0n, () => m.enterUser()),
    13,
  );
});

test("EFER keeps LMA, refuses unknown bits, and LME changes only without paging", () => {
  const old = Efer.LME | Efer.LMA | Efer.SCE | Efer.NXE;
  assert.equal(wrmsr(0xc000_0080, BigInt(Efer.LME | Efer.SCE)), -1);
  assert.equal(m.num(S.EFER), Efer.LME | Efer.LMA | Efer.SCE);
  assert.equal(wrmsr(0xc000_0080, BigInt(old & ~Efer.LME)), 13);
  assert.equal(wrmsr(0xc000_0080, BigInt(old | 0x4000)), 13);
});

test("MSR accesses exit by the bitmap, outside its ranges always, and after the CPL check", () => {
  const bitmap = 0x1_8000 + RAM_BASE;
  const access = (name: string, index: number, set: number[] = [], user = false): unknown =>
    exitOf(1 << 28, 0, emit(name), () => {
      for (let i = 0; i < 4096; i += 4) m.view.setUint32(bitmap + i, 0, true);
      for (const at of set) m.view.setUint8(bitmap + (at >> 3), 1 << (at & 7));
      m.set(S.CTL_MSR_BITMAP, bitmap);
      m.setGpr(1, index);
      if (user) m.enterUser();
    });
  assert.equal(access("rdmsr", 0xc000_0100), null);
  assert.deepEqual(access("rdmsr", 0xc000_0100, [0x400 * 8 + 0x100]), [31, 0]);
  assert.deepEqual(access("wrmsr", 0xc000_0100, [0xc00 * 8 + 0x100]), [32, 0]);
  assert.deepEqual(access("rdmsr", 0x277, [0x277]), [31, 0]);
  assert.deepEqual(access("wrmsr", 0x174, [0x800 * 8 + 0x174]), [32, 0]);
  assert.equal(access("wrmsr", 0x174, [0x174]), null);
  assert.deepEqual(access("rdmsr", 0x4000_0000), [31, 0]);
  assert.deepEqual(access("rdmsr", 0x1b), [31, 0], "not ours");
  assert.equal(access("rdmsr", 0x1b, [], true), -13);
  assert.deepEqual(
    exitOf(0, 0, emit("rdmsr"), () => m.setGpr(1, 0xc000_0100)),
    [31, 0],
    "no bitmap: all",
  );
});

test("SWAPGS exchanges, RDFSBASE and WRGSBASE need CR4.FSGSBASE", () => {
  one(
    "long",
    () => {
      m.setSegment(Seg.GS, { base: 0x1111n });
      m.set(S.KERNEL_GS_BASE, 0x2222n);
    },
    emit("swapgs"),
  );
  assert.deepEqual([m.segment(Seg.GS).base, m.get(S.KERNEL_GS_BASE)], [0x2222n, 0x1111n]);
  one(
    "long",
    () => {},
    (a) => a.emit("rdfsbase", rax),
  );
  assert.equal(m.vector, 6);
  const on = (): void => {
    m.set(S.CR4, BigInt(Cr4.PAE | Cr4.FSGSBASE));
    m.setGpr(0, NON_CANONICAL | 0x1234n);
    m.setSegment(Seg.FS, { base: 0xffff_8000_0000_0001n });
  };
  one("long", on, (a) => a.emit("wrgsbase", rax));
  assert.equal(m.vector, 13);
  one("long", on, (a) => a.emit("wrgsbase", eax));
  assert.equal(m.segment(Seg.GS).base, 0x1234n);
  one("long", on, (a) => a.emit("rdfsbase", rbx));
  assert.equal(m.view.getBigUint64(gprAt(3), true), 0xffff_8000_0000_0001n);
});

// ---- time, identification, hints ----

test("CPUID, RDTSC, RDTSCP, RDPMC: exits, privileges, enabling", () => {
  assert.deepEqual(exitOf(0, 0, emit("cpuid")), [10, 0]);
  m.tsc = 0x1_0000_0002n;
  one("long", () => m.set(S.TSC_AUX, 7n), emit("rdtscp"));
  assert.deepEqual([m.gpr(0), m.gpr(2), m.gpr(1)], [2, 1, 7]);
  one(
    "long",
    () => {
      m.enterUser();
      m.set(S.CR4, BigInt(Cr4.PAE | Cr4.TSD));
    },
    emit("rdtsc"),
  );
  assert.equal(m.vector, 13);
  assert.deepEqual(exitOf(1 << 12, 0, emit("rdtsc")), [16, 0]);
  assert.deepEqual(exitOf(1 << 12, 1 << 3, emit("rdtscp")), [51, 0]);
  assert.equal(exitOf(1 << 12, 0, emit("rdtscp")), -6);
  assert.deepEqual(exitOf(1 << 11, 0, emit("rdpmc")), [15, 0]);
  assert.equal(exitOf(0, 0, emit("rdpmc")), -13);
  assert.equal(
    exitOf(0, 0, (a) => a.bytes([0xf3, 0x0f, 0xc7, 0xf8])),
    -6,
    "RDPID goes with RDTSCP",
  );
});

test("conditional and unconditional exits of ring-0 instructions come after the CPL check", () => {
  const cases: [string, number, number, number][] = [
    ["invd", 0, 0, 13],
    ["wbinvd", 0, 1 << 6, 54],
    ["xsetbv", 0, 0, 55],
  ];
  for (const [name, primary, secondary, reason] of cases) {
    const xsave = (): void => m.set(S.CR4, BigInt(Cr4.PAE | Cr4.OSXSAVE));
    assert.deepEqual(exitOf(primary, secondary, emit(name), xsave), [reason, 0]);
    assert.equal(
      exitOf(primary, secondary, emit(name), () => {
        xsave();
        m.enterUser();
      }),
      -13,
      name,
    );
  }
  assert.equal(exitOf(0, 0, emit("wbinvd")), null);
  assert.deepEqual(
    exitOf(1 << 30, 0, emit("pause"), () => m.enterUser()),
    [40, 0],
  );
  assert.deepEqual(exitOf(1 << 29, 0, emit("monitor")), [39, 0]);
  assert.deepEqual(exitOf(1 << 10, 0, emit("mwait")), [36, 0]);
  assert.equal(
    exitOf(1 << 10, 0, emit("mwait"), () => m.enterUser()),
    -6,
  );
});

test("RDRAND and RDSEED give random bits with CF, or exit", () => {
  one(
    "long",
    () => m.setFlags(CF_TO_OF),
    (a) => a.emit("rdrand", rbx),
  );
  assert.deepEqual([m.view.getBigUint64(gprAt(3), true), m.flags()], [0x1234_5678_9abc_def0n, 3]);
  one(
    "long",
    () => {},
    (a) => a.emit("rdseed", bx),
  );
  assert.equal(m.gpr(3), 0xdef0);
  assert.deepEqual(
    exitOf(0, 1 << 11, (a) => a.emit("rdrand", eax)),
    [57, 0],
  );
  assert.deepEqual(
    exitOf(0, 1 << 16, (a) => a.emit("rdseed", eax)),
    [61, 0],
  );
});

test("XGETBV and XSETBV need CR4.OSXSAVE; XCR0 keeps x87 and has no AVX", () => {
  one("long", () => {}, emit("xgetbv"));
  assert.equal(m.vector, 6);
  const set = (value: number): number => {
    one(
      "long",
      () => {
        m.set(S.CR4, BigInt(Cr4.PAE | Cr4.OSXSAVE));
        m.setGpr(0, value);
      },
      emit("xsetbv"),
    );
    return m.vector;
  };
  assert.deepEqual([set(3), set(1), set(2), set(7)], [-1, -1, 13, 13]);
});

// ---- translations ----

test("INVLPG exits with its address, and ignores non-canonical ones", () => {
  assert.deepEqual(
    exitOf(
      1 << 9,
      0,
      (a) => a.emit("invlpg", mem(0, rbx)),
      () => m.setGpr(3, 0x1_2345),
    ),
    [14, 0x1_2345],
  );
  one(
    "long",
    () => m.setGpr(3, NON_CANONICAL),
    (a) => a.emit("invlpg", mem(0, rbx)),
  );
  assert.equal(m.vector, -1);
});

test("INVPCID checks type and descriptor", () => {
  const run = (type: number, low: bigint, high: bigint): number => {
    one(
      "long",
      () => {
        m.write64(At.SCRATCH, low);
        m.write64(At.SCRATCH + 8, high);
        m.setGpr(3, At.SCRATCH);
        m.setGpr(0, type);
      },
      (a) => a.emit("invpcid", rax, xmmword(rbx)),
    );
    return m.vector;
  };
  assert.deepEqual(
    [run(0, 0n, 0n), run(1, 0n, 0n), run(2, 0n, 0n), run(3, 5n, 0n)],
    [-1, -1, -1, -1],
  );
  assert.deepEqual(
    [run(4, 0n, 0n), run(0, 0x1000n, 0n), run(0, 0n, NON_CANONICAL), run(1, 5n, 0n)],
    [13, 13, 13, 13],
  );
  assert.deepEqual(
    exitOf(1 << 9, 1 << 12, (a) => a.emit("invpcid", rcx, xmmword(rbx))),
    [58, 0],
  );
  assert.equal(m.num(S.EXIT_INSTRUCTION_INFO) >>> 28, 1);
  assert.equal(
    exitOf(1 << 9, 0, (a) => a.emit("invpcid", rcx, xmmword(rbx))),
    -6,
  );
});

// ---- VMX instructions ----

test("VMX instructions exit at any CPL in a guest and are undefined on the bare processor", () => {
  const cases: [string, number][] = [
    ["vmcall", 18],
    ["vmlaunch", 20],
    ["vmresume", 24],
    ["vmxoff", 26],
  ];
  for (const [name, reason] of cases) {
    assert.deepEqual(
      exitOf(0, 0, emit(name), () => m.enterUser()),
      [reason, 0],
      name,
    );
    one("long", () => {}, emit(name));
    assert.equal(m.vector, 6, name);
  }
  one("protected", () => m.set(S.NON_ROOT, 1), emit("vmxoff"));
  assert.equal(m.num(S.EXIT_REASON), 26);
  one(
    "long",
    () => {
      m.set(S.NON_ROOT, 1);
      m.enterUser(Sel.CODE32_USER);
    },
    emit("vmxoff"),
  );
  assert.equal(m.vector, 6, "compatibility mode");
  assert.equal(exitOf(0, 0, emit("vmfunc")), -6);
  assert.deepEqual(exitOf(0, 1 << 13, emit("vmfunc")), [59, 0]);
});
