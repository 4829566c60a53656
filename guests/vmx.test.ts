/**
 * VMX for guest software, on the processor alone: every instruction, entries, exits, and what they leave. SDM Vol. 3C.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { offerVmx } from "../src/machine/offer-vmx.ts";
import { type Assembler, asm16, asm64, imm, qword } from "../src/processor/isa/assemble.ts";
import { parseCpuModel } from "../src/processor/isa/cpuid.ts";
import { ExitReason } from "../src/processor/isa/exit-reasons.ts";
import { al, cr0, cr4, dx, eax, ecx, rax, rbx, rcx, rdi } from "../src/processor/isa/registers.ts";
import {
  ExitControl,
  Field,
  fieldWidth,
  PinControl,
  PrimaryControl,
  SecondaryControl,
} from "../src/processor/isa/vmcs-fields.ts";
import { S } from "../src/processor/state/layout.ts";
import { REVISION } from "../src/processor/vmx/capabilities.ts";
import { TEST_CONTROLS } from "../src/processor/vmx/entry-checks/check.ts";
import { supportedFields } from "../src/processor/vmx/guest/guest-vmcs.ts";
import { runBareMetal } from "./bare-metal.ts";
import { At, PAGE_TABLE, VmxLab } from "./vmx-lab.ts";

const TIERS = ["interpreter", "jit"] as const;

for (const engine of TIERS) {
  test(`a guest hypervisor serves CPUID, I/O, EPT violations and HLT of its guest (${engine})`, () => {
    const lab = new VmxLab({
      engine,
      guest: (a) => {
        a.emit("mov", eax, imm(7));
        a.emit("xor", ecx, ecx);
        a.emit("cpuid");
        a.emit("mov", dx, imm(0x3f8));
        a.emit("mov", al, imm(0x41));
        a.emit("out", dx, al);
        a.emit("mov", rax, imm(0x1234));
        a.label("store");
        a.emit("mov", qword(At.DATA + 0x3008), rax);
        a.emit("mov", rbx, qword(At.DATA + 0x3008));
        a.emit("hlt");
      },
    });
    lab.prepare([[Field.PRIMARY_CONTROLS, 0x8500_6172n | 0x80n]]);
    lab.write(lab.eptEntry(3), 0n);
    assert.equal(lab.launch(), "ok");
    assert.equal(Number(lab.field(Field.EXIT_REASON)), ExitReason.CPUID);
    assert.equal(lab.register(0), 7n);
    assert.equal(lab.field(Field.EXIT_INSTRUCTION_LENGTH), 2n);
    lab.setRegister(0, 0xabcdn);
    lab.skip();
    assert.equal(lab.next(), ExitReason.IO);
    assert.equal(lab.field(Field.EXIT_QUALIFICATION), 0x3f8_0000n);
    assert.equal(lab.register(0) & 0xffn, 0x41n);
    lab.skip();
    assert.equal(lab.next(), ExitReason.EPT_VIOLATION);
    assert.equal(lab.field(Field.GUEST_PHYSICAL_ADDRESS), BigInt(At.DATA + 0x3008));
    assert.equal(lab.field(Field.GUEST_LINEAR_ADDRESS), BigInt(At.DATA + 0x3008));
    assert.equal(lab.field(Field.EXIT_QUALIFICATION), 0x182n);
    assert.equal(lab.field(Field.GUEST_RIP), lab.addressOf("store"));
    lab.write(lab.eptEntry(3), BigInt(At.DATA + 0x5000) | 0x37n);
    assert.equal(lab.next(), ExitReason.HLT);
    assert.equal(lab.read(At.DATA + 0x5008), 0x1234n);
    assert.equal(lab.register(3), 0x1234n);
    assert.deepEqual(lab.own, [], "nothing of it has come to our own hypervisor");
  });
}

const ENTRY_FAILED_STATE = 0x8000_0021;
const lone = (options: Partial<ConstructorParameters<typeof VmxLab>[0]> = {}): VmxLab =>
  new VmxLab({ engine: "interpreter", guest: (a) => a.emit("hlt"), ...options });

/** A VM entry that is expected to end in this exit. */
function exitOf(lab: VmxLab, which: "launch" | "resume" = "launch"): number {
  assert.equal(lab[which](), "ok");
  return Number(lab.field(Field.EXIT_REASON));
}

test("the instructions that manage VMCSs succeed and fail by the manual's numbers", () => {
  const lab = lone();
  const error = (): bigint => lab.field(Field.INSTRUCTION_ERROR);
  assert.equal(lab.vmxon(At.VMXON + 8), "invalid", "VMXON region is not aligned");
  assert.equal(lab.vmxon(1n << 45n), "invalid", "VMXON region beyond the physical addresses");
  lab.write(At.SHADOW, 0x1234n);
  assert.equal(lab.vmxon(At.SHADOW), "invalid", "VMXON region without the revision");
  assert.equal(lab.vmxon(), "ok");
  assert.equal(lab.vmxon(), "invalid", "VMXON again, without a current VMCS");
  assert.equal(lab.vmptrst(), 0xffff_ffff_ffff_ffffn);
  assert.equal(lab.vmread(Field.GUEST_RIP).ending, "invalid");
  assert.equal(lab.vmwrite(Field.GUEST_RIP, 1n), "invalid");
  assert.equal(lab.launch(), "invalid");
  assert.equal(lab.vmclear(At.VMCS), "ok");
  assert.equal(lab.vmptrld(At.VMCS), "ok");
  assert.equal(lab.vmptrst(), BigInt(At.VMCS));
  const refused: readonly (readonly [() => string, bigint, string])[] = [
    [() => lab.vmcall(), 1n, "VMCALL in root operation"],
    [() => lab.vmclear(At.VMCS + 16), 2n, "VMCLEAR, not aligned"],
    [() => lab.vmclear(At.VMXON), 3n, "VMCLEAR of the VMXON region"],
    [() => lab.resume(), 5n, "VMRESUME of what is not launched"],
    [() => lab.vmptrld(At.VMCS + 16), 9n, "VMPTRLD, not aligned"],
    [() => lab.vmptrld(At.VMXON), 10n, "VMPTRLD of the VMXON region"],
    [() => lab.vmptrld(At.SHADOW), 11n, "VMPTRLD of another revision"],
    [() => lab.vmread(0x1234).ending, 12n, "VMREAD of no field"],
    [() => lab.vmwrite(0x7ffe, 0n), 12n, "VMWRITE of no field"],
    [() => lab.vmread(Field.VIRTUAL_APIC + 0x1_0000).ending, 12n, "VMREAD of a wide encoding"],
    [() => lab.vmxon(), 15n, "VMXON in root operation"],
    [() => lab.invalidate("INVEPT", 0n, [0n, 0n]), 28n, "INVEPT of no type"],
    [() => lab.invalidate("INVEPT", 1n, [7n, 0n]), 28n, "INVEPT of a bad EPTP"],
    [() => lab.invalidate("INVVPID", 4n, [1n, 0n]), 28n, "INVVPID of no type"],
    [() => lab.invalidate("INVVPID", 1n, [0n, 0n]), 28n, "INVVPID of VPID 0"],
    [() => lab.invalidate("INVVPID", 0n, [1n, 1n << 63n]), 28n, "INVVPID, not canonical"],
  ];
  for (const [run, number, what] of refused) {
    assert.equal(run(), "fail", what);
    assert.equal(error(), number, what);
  }
  assert.equal(lab.invalidate("INVEPT", 1n, [lab.eptp, 0n]), "ok");
  assert.equal(lab.invalidate("INVEPT", 2n, [0n, 0n]), "ok");
  assert.equal(lab.invalidate("INVVPID", 2n, [0n, 0n]), "ok");
  lab.prepare();
  assert.equal(exitOf(lab), ExitReason.HLT);
  assert.equal(lab.launch(), "fail", "VMLAUNCH of what is launched");
  assert.equal(error(), 4n);
  assert.equal(lab.vmclear(At.VMCS), "ok");
  assert.equal(lab.vmptrst(), 0xffff_ffff_ffff_ffffn, "VMCLEAR of the current VMCS leaves none");
  assert.equal(lab.vmxoff(), "ok");
});

test("VMX instructions outside VMX operation are #UD, outside ring 0 #GP, and none exist in a VM without them", () => {
  const vectorOf = (cpuModel: string, build: (a: Assembler) => void): number => {
    const image = asm64(0x10_0000, build);
    const result = runBareMetal({
      ...{ image, mode: "long64", cpuModel },
      prepare: (vmcs, _, processor) => {
        vmcs.set(Field.EXCEPTION_BITMAP, 0xffff_ffff);
        offerVmx(processor, parseCpuModel(cpuModel), { read: () => null, write: () => false });
      },
    });
    assert.equal(result.reason, "EXCEPTION_OR_NMI");
    return result.vmcs.number(Field.EXIT_INTERRUPTION_INFO) & 0xff;
  };
  const UD = 6;
  const setVmxe = (a: Assembler): void => {
    a.emit("mov", rax, cr4).emit("or", rax, imm(0x2000)).emit("mov", cr4, rax);
  };
  const withVmx = "max,+vmx";
  for (const name of ["vmxoff", "vmlaunch", "vmresume", "vmcall"])
    assert.equal(
      vectorOf(withVmx, (a) => a.emit(name)),
      UD,
      `${name} without VMXON`,
    );
  assert.equal(
    vectorOf(withVmx, (a) => a.emit("vmxon", qword(At.VMXON))),
    UD,
    "CR4.VMXE is clear",
  );
  assert.equal(
    vectorOf("max", (a) => a.emit("vmxon", qword(At.VMXON))),
    UD,
    "no VMX",
  );
  const GP = 13;
  assert.equal(vectorOf("max", setVmxe), GP, "CR4.VMXE without VMX");
  const clearVmxe = (a: Assembler): void => {
    setVmxe(a);
    a.emit("mov", rax, cr0).emit("or", rax, imm(0x20)).emit("mov", cr0, rax);
    a.emit("mov", rax, imm(REVISION)).emit("mov", qword(At.VMXON), rax);
    a.emit("mov", rax, imm(At.VMXON)).emit("mov", qword(0x1f_0000), rax);
    a.emit("vmxon", qword(0x1f_0000));
    a.emit("mov", rax, cr4).emit("and", rax, imm(~0x2000)).emit("mov", cr4, rax);
  };
  assert.equal(vectorOf(withVmx, clearVmxe), GP, "CR4.VMXE is fixed in VMX operation");
});

test("every field of the VMCS keeps what is written, 64-bit ones also by their upper half", () => {
  const lab = lone();
  lab.prepare();
  const { limits } = lab.processor.guestVmx!;
  for (const field of supportedFields(limits)) {
    const value = BigInt.asUintN(8 * fieldWidth(field), 0x8123_4567_89ab_cdefn);
    assert.equal(lab.vmwrite(field, value), "ok", field.toString(16));
    assert.equal(lab.field(field), value, field.toString(16));
    if (((field >> 13) & 3) !== 1) continue;
    assert.equal(lab.field(field + 1), 0x8123_4567n);
    assert.equal(lab.vmwrite(field + 1, 0x1_7654_3210n), "ok");
    assert.equal(lab.field(field), 0x7654_3210_89ab_cdefn);
  }
});

for (const engine of TIERS) {
  test(`EPT: what entries forbid, misconfigurations, execute-only pages and paging structures (${engine})`, () => {
    const data = (page: number): number => At.DATA + page * 4096;
    const lab = new VmxLab({
      engine,
      guest: (a) => {
        a.emit("mov", rax, qword(data(1)));
        a.emit("mov", qword(data(2)), rax);
        a.emit("mov", rax, qword(data(3)));
        a.emit("mov", rax, imm(data(4)));
        a.emit("call", rax);
        a.emit("mov", rax, qword(data(4)));
        a.emit("hlt");
      },
    });
    lab.prepare();
    lab.writeBytes(data(4), Uint8Array.of(0xc3));
    const set = (page: number, rights: bigint): void =>
      lab.write(lab.eptEntry(page), BigInt(data(page)) | (6n << 3n) | rights);
    set(1, 4n);
    set(2, 1n);
    set(3, 2n);
    set(4, 4n);
    const violation = (address: number, qualification: bigint): void => {
      assert.equal(Number(lab.field(Field.EXIT_REASON)), ExitReason.EPT_VIOLATION);
      assert.equal(lab.field(Field.GUEST_PHYSICAL_ADDRESS), BigInt(address));
      assert.equal(lab.field(Field.EXIT_QUALIFICATION), qualification);
    };
    lab.launch();
    violation(data(1), 0x181n | 0x20n);
    set(1, 7n);
    // A right more needs no INVEPT.
    lab.resume();
    violation(data(2), 0x182n | 0x08n);
    set(2, 7n);
    assert.equal(lab.next(), ExitReason.EPT_MISCONFIGURATION);
    assert.equal(lab.field(Field.GUEST_PHYSICAL_ADDRESS), BigInt(data(3)));
    set(3, 7n);
    lab.resume();
    violation(data(4), 0x181n | 0x20n);
    set(4, 7n);
    assert.equal(lab.next(), ExitReason.HLT);
    // The guest's page tables out of reach.
    lab.write(At.EPT_DATA, BigInt(At.DATA) | 0x37n);
    const tables = At.EPT + 0x2000;
    lab.write(tables, 0n);
    lab.invalidate("INVEPT", 2n, [0n, 0n]);
    lab.vmwrite(Field.GUEST_RIP, BigInt(At.CODE));
    lab.resume();
    assert.equal(Number(lab.field(Field.EXIT_REASON)), ExitReason.EPT_VIOLATION);
    assert.equal(lab.field(Field.EXIT_QUALIFICATION) & 0x180n, 0x80n, "not the final translation");
    assert.equal(lab.field(Field.GUEST_PHYSICAL_ADDRESS) & ~0xfffn, BigInt(PAGE_TABLE));
  });

  test(`EPT accessed and dirty flags, and the page-modification log up to its end (${engine})`, () => {
    const data = (page: number): number => At.DATA + page * 4096;
    const lab = new VmxLab({
      engine,
      guest: (a) => {
        a.emit("mov", rax, qword(data(1)));
        a.emit("mov", qword(data(2)), rax);
        a.emit("mov", qword(data(2) + 8), rax);
        a.emit("mov", qword(data(3)), rax);
        a.label("full");
        a.emit("mov", qword(data(4)), rax);
        a.emit("hlt");
      },
    });
    lab.prepare([
      [Field.EPTP, lab.eptp | 0x40n],
      [Field.SECONDARY_CONTROLS, TEST_CONTROLS.secondary | BigInt(SecondaryControl.PML)],
      [Field.PML_ADDRESS, BigInt(At.PML)],
      [Field.PML_INDEX, 511n],
    ]);
    const flags = (page: number): bigint => (lab.read(lab.eptEntry(page)) >> 8n) & 3n;
    assert.equal(exitOf(lab), ExitReason.HLT);
    assert.deepEqual([0, 1, 2, 3].map(flags), [0n, 1n, 3n, 3n]);
    const logged = 511 - Number(lab.field(Field.PML_INDEX));
    const log = Array.from({ length: logged }, (_, i) => lab.read(At.PML + 8 * (511 - i)));
    for (const page of [2, 3, 4])
      assert.equal(log.filter((address) => address === BigInt(data(page))).length, 1);
    // Paging structures count as written.
    assert.ok(log.includes(BigInt(PAGE_TABLE)));
    for (const page of [2, 3, 4])
      lab.write(lab.eptEntry(page), lab.read(lab.eptEntry(page)) & ~0x200n);
    lab.invalidate("INVEPT", 2n, [0n, 0n]);
    lab.writeFields([
      [Field.PML_INDEX, 1n],
      [Field.GUEST_RIP, BigInt(At.CODE)],
    ]);
    assert.equal(lab.next(), ExitReason.PML_FULL);
    assert.equal(lab.field(Field.GUEST_RIP), lab.addressOf("full"));
    assert.equal(lab.field(Field.PML_INDEX), 0xffffn);
    assert.equal(flags(4), 1n, "nothing is dirty that is not in the log");
    lab.vmwrite(Field.PML_INDEX, 511n);
    assert.equal(lab.next(), ExitReason.HLT);
    assert.equal(flags(4), 3n);
  });

  test(`without EPT the guest's guest runs on page tables of the guest hypervisor's, with and without VPID (${engine})`, () => {
    // Tables of its own at 0x75_0000: the page at DATA leads elsewhere.
    const lab = new VmxLab({
      engine,
      guest: (a) => {
        a.emit("mov", rbx, qword(At.DATA));
        a.emit("cpuid");
        a.emit("mov", rbx, qword(At.DATA));
        a.emit("hlt");
      },
    });
    const [top, second, third] = [0x75_0000, 0x75_1000, 0x75_2000];
    lab.write(top, BigInt(second) | 3n);
    lab.write(second, BigInt(third) | 3n);
    for (let i = 0; i < 8; i++) lab.write(third + 8 * i, BigInt(i * 0x20_0000) | 0x83n);
    const map = (to: number): void => lab.write(third + 8 * (At.DATA >> 21), BigInt(to) | 0x83n);
    lab.write(At.DATA, 0x1111n);
    lab.write(0x80_0000, 0x2222n);
    lab.write(0xa0_0000, 0x3333n);
    for (const vpid of [0n, BigInt(SecondaryControl.VPID)]) {
      map(0x80_0000);
      lab.prepare([
        [Field.SECONDARY_CONTROLS, vpid],
        [Field.GUEST_CR3, BigInt(top)],
      ]);
      assert.equal(exitOf(lab), ExitReason.CPUID);
      assert.equal(lab.register(3), 0x2222n);
      map(0xa0_0000);
      if (vpid !== 0n) lab.invalidate("INVVPID", 1n, [1n, 0n]);
      lab.setRegister(3, 0n);
      lab.skip();
      assert.equal(lab.next(), ExitReason.HLT);
      assert.equal(lab.register(3), 0x3333n);
    }
  });

  test(`the VMX-preemption timer and the monitor trap flag of a guest hypervisor (${engine})`, () => {
    const lab = new VmxLab({
      engine,
      guest: (a) => {
        a.label("spin").emit("inc", rbx).emit("jmp", "spin");
      },
    });
    const pin = TEST_CONTROLS.pin | BigInt(PinControl.PREEMPTION_TIMER);
    const exit = TEST_CONTROLS.exit | BigInt(ExitControl.SAVE_PREEMPTION_TIMER);
    lab.prepare([
      [Field.PIN_CONTROLS, pin],
      [Field.EXIT_CONTROLS, exit],
      [Field.PREEMPTION_TIMER, 1000n],
    ]);
    const before = lab.processor.retired;
    assert.equal(exitOf(lab), ExitReason.PREEMPTION_TIMER);
    const spent = lab.processor.retired - before;
    assert.ok(spent >= 1000 * 32 - 32 && spent < 1000 * 32 + 200, `${spent} instructions`);
    assert.equal(lab.field(Field.PREEMPTION_TIMER), 0n);
    const rip = lab.field(Field.GUEST_RIP);
    assert.equal(lab.next(), ExitReason.PREEMPTION_TIMER, "value 0 is over at once");
    assert.equal(lab.field(Field.GUEST_RIP), rip);
    lab.writeFields([
      [Field.PIN_CONTROLS, TEST_CONTROLS.pin],
      [Field.EXIT_CONTROLS, TEST_CONTROLS.exit],
      [Field.PRIMARY_CONTROLS, TEST_CONTROLS.primary | BigInt(PrimaryControl.MONITOR_TRAP)],
      [Field.GUEST_RIP, lab.addressOf("spin")],
    ]);
    lab.setRegister(3, 7n);
    assert.equal(lab.next(), ExitReason.MTF);
    assert.equal(lab.register(3), 8n);
    assert.equal(lab.next(), ExitReason.MTF);
    assert.equal(lab.register(3), 8n);
    assert.equal(lab.field(Field.GUEST_RIP), lab.addressOf("spin"));
    lab.vmwrite(Field.ENTRY_INTERRUPTION_INFO, 0x8000_0700n);
    assert.equal(lab.next(), ExitReason.MTF, "a pending MTF exit is injected");
    assert.equal(lab.register(3), 8n);
  });
}

for (const engine of TIERS) {
  test(`TSC offset and scaling of a guest hypervisor: 64 bits, and none without offsetting (${engine})`, () => {
    const lab = new VmxLab({
      engine,
      guest: (a) => {
        a.emit("rdtsc").emit("hlt");
      },
    });
    const SCALE = 1n << 48n;
    /** RDTSC of the guest's guest and the plain counter, between `before` and `after`, through what is to be done to it. */
    const read = (isOffset: boolean, offset: bigint, multiplier: bigint | null): void => {
      const bits = (isOffset ? PrimaryControl.TSC_OFFSETTING : 0) | PrimaryControl.SECONDARY;
      lab.prepare();
      const secondary = lab.field(Field.SECONDARY_CONTROLS);
      const scaling = multiplier === null ? 0n : BigInt(SecondaryControl.TSC_SCALING);
      lab.writeFields([
        [Field.PRIMARY_CONTROLS, TEST_CONTROLS.primary | BigInt(bits)],
        [Field.SECONDARY_CONTROLS, secondary | scaling],
        [Field.TSC_OFFSET, BigInt.asUintN(64, offset)],
        [Field.TSC_MULTIPLIER, multiplier ?? 3n * SCALE],
      ]);
      const before = BigInt(lab.processor.tsc());
      assert.equal(exitOf(lab), ExitReason.HLT);
      const after = BigInt(lab.processor.tsc());
      const value = (lab.register(2) << 32n) | lab.register(0);
      const shown = (tsc: bigint): bigint =>
        isOffset ? ((tsc * (multiplier ?? SCALE)) >> 48n) + offset : tsc;
      const distance = BigInt.asUintN(64, value - shown(before));
      assert.ok(after > before && distance <= shown(after) - shown(before), `${value}`);
    };
    read(true, 0n, null);
    read(true, -5_000_000n, null);
    read(true, 0x7fff_ffff_ffff_0123n, null);
    read(true, 7n, 2n * SCALE);
    read(true, -(1n << 60n), (5n * SCALE) / 2n);
    read(true, 0n, 40_000n * SCALE + 1n);
    read(true, 12n, SCALE / 3n);
    read(false, 1n << 40n, 2n * SCALE);
  });
}

test("bitmaps of a guest hypervisor decide about I/O and MSRs; what it leaves is our own hypervisor's", () => {
  const lab = lone({
    guest: (a) => {
      a.emit("mov", dx, imm(0x3f8)).emit("out", dx, al);
      a.emit("mov", dx, imm(0x3f9)).emit("out", dx, al);
      a.emit("mov", ecx, imm(0xc000_0081 | 0)).emit("rdmsr");
      a.emit("mov", ecx, imm(0x10)).emit("rdmsr");
      a.emit("hlt");
    },
    onExit: (vmcs, reason) => {
      vmcs.setBig(
        Field.GUEST_RIP,
        vmcs.big(Field.GUEST_RIP) + BigInt(vmcs.number(Field.EXIT_INSTRUCTION_LENGTH)),
      );
      return reason === ExitReason.IO || reason === ExitReason.RDMSR;
    },
  });
  const bitmaps = PrimaryControl.IO_BITMAPS | PrimaryControl.MSR_BITMAPS;
  lab.prepare([
    [Field.PRIMARY_CONTROLS, TEST_CONTROLS.primary | BigInt(bitmaps)],
    [Field.IO_BITMAP_A, BigInt(At.IO_BITMAP)],
    [Field.IO_BITMAP_B, BigInt(At.IO_BITMAP + 4096)],
    [Field.MSR_BITMAP, BigInt(At.MSR_BITMAP)],
  ]);
  lab.write(At.IO_BITMAP + (0x3f8 >> 3), 2n);
  // STAR is at bit 0x81 of the high range.
  lab.write(At.MSR_BITMAP + 0x400 + (0x81 >> 3), 2n);
  assert.equal(exitOf(lab), ExitReason.IO);
  assert.equal(lab.field(Field.EXIT_QUALIFICATION), 0x3f9_0000n);
  assert.deepEqual(lab.own, [ExitReason.IO]);
  lab.skip();
  assert.equal(lab.next(), ExitReason.RDMSR);
  assert.equal(lab.register(1), 0xc000_0081n);
  lab.skip();
  assert.equal(lab.next(), ExitReason.HLT);
  assert.deepEqual(lab.own, [ExitReason.IO, ExitReason.RDMSR]);
});

test("exceptions of the guest's guest: by the bitmap and the masks of page faults, else through its own IDT", () => {
  const IDT = At.DATA + 0x8000;
  const lab = lone({
    guest: (a) => {
      a.emit("ud2");
      a.label("read").emit("mov", rax, qword(0x7fff_0000));
      a.emit("hlt");
      a.label("handler").emit("pop", rcx).emit("add", rcx, imm(2)).emit("push", rcx).emit("iretq");
    },
  });
  const handler = lab.addressOf("handler");
  const gate = (vector: number): void => {
    lab.write(
      IDT + 16 * vector,
      (handler & 0xffffn) | (0x10n << 16n) | (0x8e00n << 32n) | ((handler >> 16n) << 48n),
    );
    lab.write(IDT + 16 * vector + 8, 0n);
  };
  gate(6);
  // The page at 0x7fff_0000 is not present in tables of its own.
  const [top, second] = [0x75_0000, 0x75_1000];
  lab.write(top, BigInt(second) | 3n);
  lab.write(second, 0x83n);
  lab.prepare([
    [Field.EXCEPTION_BITMAP, BigInt(1 << 14)],
    [Field.PF_ERROR_MASK, 2n],
    [Field.PF_ERROR_MATCH, 0n],
    [Field.GUEST_CR3, BigInt(top)],
    [Field.GUEST_IDTR_BASE, BigInt(IDT)],
    [Field.GUEST_IDTR_LIMIT, 0xfffn],
  ]);
  assert.equal(exitOf(lab), ExitReason.EXCEPTION_OR_NMI);
  assert.equal(lab.field(Field.EXIT_INTERRUPTION_INFO), 0x8000_0b0en);
  assert.equal(lab.field(Field.EXIT_INTERRUPTION_ERROR), 0n);
  assert.equal(lab.field(Field.EXIT_QUALIFICATION), 0x7fff_0000n);
  assert.equal(lab.field(Field.GUEST_RIP), lab.addressOf("read"), "#UD was the guest's own");
  // Injection with an error code, into a gate that is not present: the fault of that is a double fault, and of that the end.
  lab.vmwrite(Field.PF_ERROR_MASK, 0n);
  lab.writeFields([
    [Field.EXCEPTION_BITMAP, 0n],
    [Field.ENTRY_INTERRUPTION_INFO, 0x8000_0b0en],
    [Field.ENTRY_ERROR_CODE, 0n],
  ]);
  assert.equal(lab.next(), ExitReason.TRIPLE_FAULT);
  assert.equal(lab.field(Field.ENTRY_INTERRUPTION_INFO), 0xb0en, "the valid bit is cleared");
});

test("an exit during the delivery of an injected event has it in the IDT-vectoring information", () => {
  const lab = lone();
  lab.prepare([
    [Field.GUEST_IDTR_BASE, BigInt(At.DATA + 0x3000)],
    [Field.GUEST_IDTR_LIMIT, 0xfffn],
    [Field.GUEST_RFLAGS, 0x202n],
    [Field.ENTRY_INTERRUPTION_INFO, 0x8000_0030n],
  ]);
  lab.write(lab.eptEntry(3), 0n);
  assert.equal(exitOf(lab), ExitReason.EPT_VIOLATION);
  assert.equal(lab.field(Field.IDT_VECTORING_INFO), 0x8000_0030n);
  assert.equal(lab.field(Field.GUEST_RIP), BigInt(At.CODE));
  assert.equal(exitOf(lab, "resume"), ExitReason.HLT);
  assert.equal(lab.field(Field.IDT_VECTORING_INFO), 0n);
});

test("MSR areas: stored and loaded in order; an entry that cannot be loaded fails with its number", () => {
  const STAR = 0xc000_0081n;
  const lab = lone({
    guest: (a) => {
      a.emit("mov", ecx, imm(0xc000_0081 | 0))
        .emit("rdmsr")
        .emit("mov", rbx, rax);
      a.emit("mov", eax, imm(0x55)).emit("wrmsr");
      a.emit("hlt");
    },
  });
  const entry = (i: number, msr: bigint, value: bigint): void => {
    lab.write(At.MSR_AREA + 16 * i, msr);
    lab.write(At.MSR_AREA + 16 * i + 8, value);
  };
  entry(0, STAR, 0x1234n);
  entry(1, STAR, 0n);
  entry(2, STAR, 0x777n);
  lab.prepare([
    [Field.PRIMARY_CONTROLS, TEST_CONTROLS.primary | BigInt(PrimaryControl.MSR_BITMAPS)],
    [Field.MSR_BITMAP, BigInt(At.MSR_BITMAP)],
    [Field.ENTRY_MSR_LOAD, BigInt(At.MSR_AREA)],
    [Field.ENTRY_MSR_LOAD_COUNT, 1n],
    [Field.EXIT_MSR_STORE, BigInt(At.MSR_AREA + 16)],
    [Field.EXIT_MSR_STORE_COUNT, 1n],
    [Field.EXIT_MSR_LOAD, BigInt(At.MSR_AREA + 32)],
    [Field.EXIT_MSR_LOAD_COUNT, 1n],
  ]);
  assert.equal(exitOf(lab), ExitReason.HLT);
  assert.equal(lab.register(3), 0x1234n);
  assert.equal(lab.read(At.MSR_AREA + 24), 0x55n);
  assert.equal(lab.view.getBigUint64(S.STAR.at, true), 0x777n);
  entry(1, 0xc000_0100n, 0n);
  lab.prepare([
    [Field.ENTRY_MSR_LOAD, BigInt(At.MSR_AREA)],
    [Field.ENTRY_MSR_LOAD_COUNT, 2n],
  ]);
  lab.launch();
  assert.equal(Number(lab.field(Field.EXIT_REASON)), 0x8000_0000 + ExitReason.ENTRY_MSR_LOAD);
  assert.equal(lab.field(Field.EXIT_QUALIFICATION), 2n);
  lab.prepare([[Field.GUEST_ACTIVITY, 3n]]);
  lab.launch();
  assert.equal(Number(lab.field(Field.EXIT_REASON)), ENTRY_FAILED_STATE);
});

test("VMFUNC switches between the EPTs of a list, and exits for what is not there", () => {
  const lab = lone({
    guest: (a) => {
      a.emit("mov", rbx, qword(At.DATA));
      a.emit("xor", eax, eax).emit("mov", ecx, imm(1)).emit("vmfunc");
      a.emit("mov", rdi, qword(At.DATA));
      a.emit("mov", ecx, imm(2)).emit("vmfunc");
      a.emit("hlt");
    },
  });
  lab.write(At.DATA, 0xaan);
  lab.write(0xa0_0000, 0xbbn);
  // A second hierarchy in which the 2 MiB of DATA lead elsewhere.
  const [top, second, third] = [0x76_0000, 0x76_1000, 0x76_2000];
  lab.write(top, BigInt(second) | 7n);
  lab.write(second, BigInt(third) | 7n);
  for (let i = 0; i < 8; i++) lab.write(third + 8 * i, BigInt(i * 0x20_0000) | 0xb7n);
  lab.write(third + 8 * (At.DATA >> 21), 0xa0_00b7n);
  lab.write(At.EPTP_LIST + 8, BigInt(top) | 0x1en);
  lab.prepare([
    [Field.SECONDARY_CONTROLS, TEST_CONTROLS.secondary | BigInt(SecondaryControl.VM_FUNCTIONS)],
    [Field.VM_FUNCTION_CONTROLS, 1n],
    [Field.EPTP_LIST, BigInt(At.EPTP_LIST)],
  ]);
  assert.equal(exitOf(lab), ExitReason.VMFUNC);
  assert.deepEqual([lab.register(3), lab.register(7)], [0xaan, 0xbbn]);
  assert.equal(lab.field(Field.EPTP), BigInt(top) | 0x1en);
});

test("VMCS shadowing: VMREAD and VMWRITE of the guest's guest reach the shadow VMCS where the bitmaps let them", () => {
  const lab = lone({
    guest: (a) => {
      a.emit("mov", rax, imm(Field.GUEST_RIP)).emit("vmread", rbx, rax);
      a.emit("mov", rcx, imm(0x4321)).emit("vmwrite", rax, rcx);
      a.emit("mov", rax, imm(Field.GUEST_RSP)).emit("vmread", rbx, rax);
      a.emit("hlt");
    },
  });
  lab.prepare();
  lab.vmclear(At.SHADOW);
  lab.vmptrld(At.SHADOW);
  lab.vmwrite(Field.GUEST_RIP, 0x99n);
  lab.vmclear(At.SHADOW);
  lab.write(At.SHADOW, BigInt(REVISION) | (1n << 31n));
  lab.prepare([
    [Field.SECONDARY_CONTROLS, TEST_CONTROLS.secondary | BigInt(SecondaryControl.VMCS_SHADOWING)],
    [Field.VMREAD_BITMAP, BigInt(At.VMREAD_BITMAP)],
    [Field.VMWRITE_BITMAP, BigInt(At.VMWRITE_BITMAP)],
    [Field.VMCS_LINK, BigInt(At.SHADOW)],
  ]);
  for (const page of [At.VMREAD_BITMAP, At.VMWRITE_BITMAP])
    for (let at = 0; at < 4096; at += 8) lab.write(page + at, 0xffff_ffff_ffff_ffffn);
  const byteOf = Field.GUEST_RIP >> 3;
  for (const page of [At.VMREAD_BITMAP, At.VMWRITE_BITMAP])
    lab.writeBytes(page + byteOf, Uint8Array.of(0xff & ~(1 << (Field.GUEST_RIP & 7))));
  assert.equal(exitOf(lab), ExitReason.VMREAD);
  assert.equal(lab.register(3), 0x99n);
  assert.equal(lab.register(0), BigInt(Field.GUEST_RSP));
  lab.write(At.SHADOW, BigInt(REVISION));
  lab.vmptrld(At.SHADOW);
  assert.equal(lab.field(Field.GUEST_RIP), 0x4321n);
});

test("an unrestricted guest begins in real mode and goes to protected mode by itself", () => {
  const lab = lone({ guest: (a) => a.emit("hlt") });
  const code = asm16(0x9_0000, (a) => {
    a.emit("mov", eax, cr0).emit("or", eax, imm(1)).emit("mov", cr0, eax);
    a.emit("hlt");
  });
  lab.writeBytes(0x9_0000, code);
  const real: [number, bigint][] = [
    [Field.ENTRY_CONTROLS, TEST_CONTROLS.entry & ~0x200n],
    [Field.GUEST_CR0, 0x30n],
    [Field.GUEST_CR4, 0x2000n],
    [Field.CR0_MASK, 0x20n],
    [Field.CR0_SHADOW, 0n],
    [Field.GUEST_CS_SELECTOR, 0x9000n],
    [Field.GUEST_CS_BASE, 0x9_0000n],
    [Field.GUEST_CS_LIMIT, 0xffffn],
    [Field.GUEST_CS_RIGHTS, 0x9bn],
    [Field.GUEST_RIP, 0n],
  ];
  for (const name of ["ES", "SS", "DS", "FS", "GS"] as const)
    real.push(
      [Field[`GUEST_${name}_RIGHTS`], 0x93n],
      [Field[`GUEST_${name}_LIMIT`], 0xffffn],
      [Field[`GUEST_${name}_SELECTOR`], 0n],
    );
  lab.prepare(real);
  assert.equal(exitOf(lab), ExitReason.HLT);
  assert.equal(lab.field(Field.GUEST_CR0), 0x31n, "NE is the host's and stays");
  assert.equal(lab.register(0) & 0xffffn, 0x11n, "and reads as the shadow says");
});

test("the capability MSRs say of each control whether it may be 0 and 1, and VM entry agrees", () => {
  const lab = lone();
  const words: readonly (readonly [number, number, bigint])[] = [
    [Field.PIN_CONTROLS, 0x48d, TEST_CONTROLS.pin],
    [Field.PRIMARY_CONTROLS, 0x48e, TEST_CONTROLS.primary],
    [Field.EXIT_CONTROLS, 0x48f, TEST_CONTROLS.exit],
    [Field.ENTRY_CONTROLS, 0x490, TEST_CONTROLS.entry],
  ];
  for (const [field, msr, base] of words) {
    const truth = lab.capabilities.get(msr)!;
    for (let bit = 0n; bit < 32n; bit++) {
      const mayClear = ((truth >> bit) & 1n) === 0n;
      const maySet = ((truth >> (32n + bit)) & 1n) === 1n;
      const isSet = ((base >> bit) & 1n) === 1n;
      if (isSet ? mayClear : maySet) continue;
      lab.prepare([[field, base ^ (1n << bit)]]);
      assert.equal(lab.launch(), "fail", `field ${field.toString(16)}, bit ${bit}`);
      assert.equal(lab.field(Field.INSTRUCTION_ERROR), 7n);
    }
  }
  assert.equal((lab.capabilities.get(0x480)! >> 48n) & 1n, 0n);
  assert.equal(lab.capabilities.get(0x3a), 5n);
});

test("a guest hypervisor whose VMCS is taken away reads and writes what is nobody's", () => {
  const lab = lone();
  lab.prepare();
  lab.ept.unmap(At.VMCS, 4096);
  lab.processor.invalidateEpt();
  const state = new Uint8Array(lab.view.buffer, 0, 0x100).slice();
  assert.deepEqual(lab.vmread(Field.GUEST_RIP), { ending: "ok", value: 0n });
  for (const field of supportedFields(lab.processor.guestVmx!.limits))
    assert.equal(lab.vmwrite(field, 0xffff_ffff_ffff_ffffn), "ok");
  assert.deepEqual(new Uint8Array(lab.view.buffer, 0, 0x100).slice(), state);
  assert.equal(lab.launch(), "fail");
  assert.equal(lab.vmptrld(At.VMCS), "fail");
});

test("both tiers execute a guest hypervisor and its guest alike, to the instruction, and every time", () => {
  const outcome = (engine: "interpreter" | "jit"): string => {
    const lab = new VmxLab({
      engine,
      guest: (a) => {
        a.label("again").emit("mov", ecx, imm(20_000));
        a.label("spin").emit("add", rbx, rcx).emit("rol", rbx, imm(3));
        a.emit("dec", ecx).emit("jne", "spin");
        a.emit("rdtsc").emit("add", rbx, rax);
        a.emit("cpuid").emit("jmp", "again");
      },
    });
    const pin = TEST_CONTROLS.pin | BigInt(PinControl.PREEMPTION_TIMER);
    lab.prepare([
      [Field.PIN_CONTROLS, pin],
      [Field.PREEMPTION_TIMER, 1500n],
    ]);
    lab.launch();
    const seen: unknown[] = [];
    for (let i = 0; i < 12; i++) {
      const reason = Number(lab.field(Field.EXIT_REASON));
      seen.push(
        [reason, lab.field(Field.GUEST_RIP), lab.register(3), lab.processor.retired].join(),
      );
      if (reason === ExitReason.CPUID) lab.skip();
      lab.resume();
    }
    return seen.join("\n");
  };
  const first = outcome("interpreter");
  assert.match(first, new RegExp(`^${ExitReason.PREEMPTION_TIMER},`, "m"));
  assert.match(first, new RegExp(`^${ExitReason.CPUID},`, "m"));
  assert.equal(outcome("jit"), first);
  assert.equal(outcome("interpreter"), first);
});
