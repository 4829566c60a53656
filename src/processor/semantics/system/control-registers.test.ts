/** MOV CR, LMSW, SMSW, CLTS, MOV DR: checks, transitions, and exits. SDM Vol. 2; Vol. 3C, "Guest/Host Masks and Read Shadows". */
import assert from "node:assert/strict";
import { test } from "node:test";
import { At, TestMachine } from "../../core/test-machine.ts";
import { ax, cr0, cr2, cr3, cr4, cr8, dr4, dr6, dr7, eax, rax, rbx } from "../../isa/registers.ts";
import { Cr0, Cr4, Efer } from "../../state/control-bits.ts";
import { S, Seg } from "../../state/layout.ts";

const m = new TestMachine();
const PG = 0x8000_0000;

function toCr(
  mode: "long" | "protected",
  register: typeof cr0,
  value: number | bigint,
  prepare?: () => void,
): number {
  m.reset(mode);
  prepare?.();
  m.setGpr(0, value);
  m.step((a) => a.emit("mov", register, mode === "long" ? rax : eax));
  return m.vector;
}

const longCr0 = (): number => PG + (Cr0.PE | Cr0.ET | Cr0.NE | Cr0.WP);

test("CR0 keeps its fixed bits and refuses impossible combinations", () => {
  assert.equal(toCr("protected", cr0, 0x1_0000_0000n), -1);
  assert.equal(toCr("protected", cr0, 0x7ff1_ffcf & ~(PG | Cr0.NW)), -1);
  assert.equal(m.num(S.CR0), (Cr0.CD | Cr0.WP | Cr0.PE | Cr0.MP | Cr0.EM | Cr0.TS | Cr0.ET) >>> 0);
  for (const value of [PG, Cr0.NW | Cr0.PE]) assert.equal(toCr("protected", cr0, value), 13);
  assert.equal(toCr("long", cr0, BigInt(longCr0()) | (1n << 40n)), 13);
  assert.equal(toCr("long", cr0, Cr0.PE), 13, "64-bit mode cannot turn paging off");
});

test("paging with EFER.LME activates IA-32e mode, and needs PAE and a 32-bit TSS", () => {
  const enable = (prepare: () => void): number =>
    toCr("protected", cr0, PG + Cr0.PE, () => {
      m.set(S.CR4, BigInt(Cr4.PAE));
      m.set(S.EFER, BigInt(Efer.LME));
      m.set(S.CR3, BigInt(At.PML4));
      m.write64(At.PML4, BigInt(At.PML4 + 0x1007));
      m.write64(At.PML4 + 0x1000, BigInt(At.PML4 + 0x2007));
      m.write64(At.PML4 + 0x2000, 0x87n);
      prepare();
    });
  assert.equal(
    enable(() => {}),
    -1,
  );
  assert.deepEqual([m.num(S.EFER), m.mode & 3], [Efer.LME | Efer.LMA, 1]);
  assert.equal(
    enable(() => m.set(S.CR4, 0n)),
    13,
  );
  assert.equal(
    enable(() => m.setSegment(Seg.TR, { rights: 0x83 })),
    13,
  );
});

test("paging with PAE loads the four page-directory pointers and checks their reserved bits", () => {
  const enable = (entry: bigint): number =>
    toCr("protected", cr0, PG + Cr0.PE, () => {
      m.set(S.CR4, BigInt(Cr4.PAE));
      m.set(S.CR3, BigInt(At.SCRATCH));
      m.write64(At.SCRATCH, BigInt(At.SCRATCH + 0x1001));
      m.write64(At.SCRATCH + 0x1000, 0x87n);
      m.write64(At.SCRATCH + 8, entry);
    });
  assert.equal(enable(0x1f_f001n), -1);
  assert.deepEqual([m.get(S.PDPTE0), m.get(S.PDPTE1)], [BigInt(At.SCRATCH + 0x1001), 0x1f_f001n]);
  assert.equal(enable(0x1f_f003n), 13);
  assert.equal(enable(0x1f_f002n), -1, "not present: nothing is checked");
});

test("CR4 refuses unknown bits and changes that IA-32e mode or PCIDs forbid", () => {
  const base = Cr4.PAE | Cr4.PGE;
  assert.equal(toCr("long", cr4, base | Cr4.OSFXSR), -1);
  assert.equal(m.num(S.CR4), base | Cr4.OSFXSR);
  assert.equal(toCr("long", cr4, base | Cr4.VMXE), 13);
  assert.equal(toCr("long", cr4, Cr4.PGE), 13);
  assert.equal(toCr("long", cr4, base | Cr4.PCIDE), -1);
  assert.equal(
    toCr("long", cr4, base | Cr4.PCIDE, () => m.set(S.CR3, BigInt(At.PML4 | 8))),
    13,
  );
  assert.equal(toCr("protected", cr4, Cr4.PCIDE), 13);
});

test("CR3 takes bit 63 only with PCIDs and no bits above the physical width", () => {
  assert.equal(toCr("long", cr3, BigInt(At.PML4) | (1n << 63n)), 13);
  assert.equal(toCr("long", cr3, BigInt(At.PML4) | (1n << 45n)), 13);
  assert.equal(
    toCr("long", cr3, BigInt(At.PML4) | (1n << 63n), () =>
      m.set(S.CR4, BigInt(Cr4.PAE | Cr4.PCIDE)),
    ),
    -1,
  );
  assert.equal(m.get(S.CR3), BigInt(At.PML4));
});

test("CR1 and ring 3 are refused in that order; CR8 takes four bits", () => {
  m.reset("long");
  m.enterUser();
  m.step((a) => a.bytes([0x0f, 0x22, 0xc8]));
  assert.equal(m.vector, 6);
  m.reset("long");
  m.enterUser();
  m.step((a) => a.emit("mov", cr2, rax));
  assert.equal(m.vector, 13);
  assert.equal(toCr("long", cr8, 15), -1);
  assert.equal(m.num(S.CR8), 15);
  assert.equal(toCr("long", cr8, 16), 13);
});

// ---- VMX non-root operation ----

function guest(
  prepare: () => void,
  run: () => number,
): { exits: number; reason: number; qualification: number } {
  m.reset("long");
  m.set(S.NON_ROOT, 1);
  prepare();
  const exits = run();
  return { exits, reason: m.num(S.EXIT_REASON), qualification: m.num(S.EXIT_QUALIFICATION) };
}

test("a change of a host-owned CR0 or CR4 bit exits; equal bits keep the real value", () => {
  const own = (): void => {
    m.set(S.CTL_CR0_MASK, BigInt(Cr0.TS | Cr0.NE));
    m.set(S.CTL_CR0_SHADOW, BigInt(Cr0.TS));
    m.setGpr(3, longCr0() - Cr0.NE + Cr0.TS);
  };
  const write = (): number => m.step((a) => a.emit("mov", cr0, rbx));
  assert.equal(guest(own, write).exits, 0);
  assert.equal(m.num(S.CR0), longCr0(), "NE and TS as the host has them");
  const changed = guest(() => {
    own();
    m.setGpr(3, longCr0());
  }, write);
  assert.deepEqual(changed, { exits: 1, reason: 28, qualification: 0x300 });
  guest(own, () => m.step((a) => a.emit("mov", rax, cr0)));
  assert.equal(m.gpr(0), longCr0() - Cr0.NE + Cr0.TS, "reads give the shadow");
  const cr4Change = guest(
    () => m.set(S.CTL_CR4_MASK, BigInt(Cr4.PGE)),
    () => {
      m.setGpr(0, Cr4.PAE | Cr4.PGE);
      return m.step((a) => a.emit("mov", cr4, rax));
    },
  );
  assert.deepEqual(cr4Change, { exits: 1, reason: 28, qualification: 4 });
});

test("CR3 exits unless the value is a target; CR3 and CR8 reads and writes by their controls", () => {
  const load = 1 << 15;
  const write = (value: number) => (): number => {
    m.setGpr(0, value);
    return m.step((a) => a.emit("mov", cr3, rax));
  };
  const control = (bit: number) => (): void => {
    m.set(S.CTL_PRIMARY, bit);
    m.set(S.CTL_CR3_TARGETS, 1);
    m.set(S.CTL_CR3_TARGET0, BigInt(At.PML4));
    m.set(S.CTL_CR3_TARGET1, 0x5000n);
  };
  assert.equal(guest(control(load), write(At.PML4)).exits, 0);
  assert.deepEqual(guest(control(load), write(0x5000)), { exits: 1, reason: 28, qualification: 3 });
  assert.deepEqual(
    guest(control(1 << 16), () => m.step((a) => a.emit("mov", rbx, cr3))),
    { exits: 1, reason: 28, qualification: 0x313 },
  );
  assert.deepEqual(
    guest(control(1 << 19), () => m.step((a) => a.emit("mov", cr8, rax))),
    { exits: 1, reason: 28, qualification: 8 },
  );
  assert.deepEqual(
    guest(control(1 << 20), () => m.step((a) => a.emit("mov", rax, cr8))),
    { exits: 1, reason: 28, qualification: 0x18 },
  );
});

test("CLTS and LMSW exit by the host's bits", () => {
  const ts = (shadow: number) => (): void => {
    m.set(S.CTL_CR0_MASK, BigInt(Cr0.TS));
    m.set(S.CTL_CR0_SHADOW, BigInt(shadow));
    m.set(S.CR0, BigInt(longCr0() + Cr0.TS));
  };
  const clts = (): number => m.step((a) => a.emit("clts"));
  assert.deepEqual(guest(ts(Cr0.TS), clts), { exits: 1, reason: 28, qualification: 0x20 });
  assert.equal(guest(ts(0), clts).exits, 0);
  assert.equal(m.num(S.CR0) & Cr0.TS, Cr0.TS, "the host's TS stays");
  const lmsw = (value: number) => (): number => {
    m.setGpr(0, value);
    return m.step((a) => a.emit("lmsw", ax));
  };
  assert.deepEqual(guest(ts(0), lmsw(8)), { exits: 1, reason: 28, qualification: 0x8_0030 });
  assert.equal(guest(ts(0), lmsw(6)).exits, 0);
  assert.equal(m.num(S.CR0) & 0xf, 0xf, "MP and EM set, PE not cleared, TS the host's");
});

test("SMSW is free for all without UMIP", () => {
  m.reset("long");
  m.enterUser();
  m.step((a) => a.emit("smsw", eax));
  assert.equal(m.gpr(0), longCr0());
  m.reset("long");
  m.enterUser();
  m.set(S.CR4, BigInt(Cr4.PAE | Cr4.UMIP));
  m.step((a) => a.emit("smsw", eax));
  assert.equal(m.vector, 13);
});

// ---- debug registers ----

test("DR6 and DR7 keep fixed bits, DR4 and DR5 are their aliases unless CR4.DE", () => {
  m.reset("long");
  m.setGpr(0, 0xffff_ffff);
  m.step((a) => a.emit("mov", dr7, rax));
  assert.equal(m.num(S.DR7), 0xffff_27ff);
  m.reset("long");
  m.step((a) => a.emit("mov", dr4, rax));
  assert.equal(m.num(S.DR6), 0xffff_0ff0);
  m.reset("long");
  m.set(S.CR4, BigInt(Cr4.PAE | Cr4.DE));
  m.step((a) => a.emit("mov", rax, dr4));
  assert.equal(m.vector, 6);
  m.reset("long");
  m.setGpr(0, 1n << 32n);
  m.step((a) => a.emit("mov", dr6, rax));
  assert.equal(m.vector, 13);
});

test("MOV-DR exiting wins over CPL and over #UD of the aliases", () => {
  const r = guest(
    () => {
      m.enterUser();
      m.set(S.CTL_PRIMARY, 1 << 23);
      m.set(S.CR4, BigInt(Cr4.PAE | Cr4.DE));
    },
    () => m.step((a) => a.emit("mov", rbx, dr4)),
  );
  assert.deepEqual(r, { exits: 1, reason: 29, qualification: 0x314 });
});
