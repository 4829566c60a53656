/**
 * APIC virtualization for guests of a guest hypervisor. SDM Vol. 3C, "APIC Virtualization and Virtual Interrupts".
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { type Assembler, dword, imm } from "../src/processor/isa/assemble.ts";
import { ExitReason } from "../src/processor/isa/exit-reasons.ts";
import { cr8, eax, ebx, ecx, edx, rax, rbx, rdi, rdx } from "../src/processor/isa/registers.ts";
import {
  Field,
  PinControl,
  PrimaryControl,
  SecondaryControl,
} from "../src/processor/isa/vmcs-fields.ts";
import { TEST_CONTROLS } from "../src/processor/vmx/entry-checks/check.ts";
import { At, VmxLab } from "./vmx-lab.ts";

const TIERS = ["interpreter", "jit"] as const;
/** The page that stands for the APIC, in the guest's guest's own memory; and the virtual-APIC page. */
const ACCESS = At.DATA + 0x1_0000;
const VIRTUAL = At.DATA + 0x2_0000;
const DESCRIPTOR = At.DATA + 0x3_0000;
const IDT = At.DATA + 0x4_0000;
const [TPR, EOI, ISR, IRR, ICR] = [0x80, 0xb0, 0x100, 0x200, 0x300];
const HANDLER_VECTOR = 0x51;

const primary = TEST_CONTROLS.primary | BigInt(PrimaryControl.TPR_SHADOW);
const secondary = (...bits: number[]): [number, bigint] => [
  Field.SECONDARY_CONTROLS,
  bits.reduce<bigint>((all, bit) => all | BigInt(bit), TEST_CONTROLS.secondary),
];
const { APIC_ACCESSES, APIC_REGISTERS, VIRTUAL_INTERRUPTS, X2APIC } = SecondaryControl;

function labOf(engine: "interpreter" | "jit", guest: (a: Assembler) => void): VmxLab {
  const lab = new VmxLab({ engine, guest });
  lab.prepare([
    [Field.PRIMARY_CONTROLS, primary],
    [Field.VIRTUAL_APIC, BigInt(VIRTUAL)],
    [Field.APIC_ACCESS, BigInt(ACCESS)],
  ]);
  return lab;
}

const word = (lab: VmxLab, offset: number): number =>
  Number(lab.read(VIRTUAL + offset) & 0xffff_ffffn);
const bitOf = (lab: VmxLab, base: number, vector: number): number =>
  (word(lab, base + 16 * (vector >> 5)) >>> (vector & 31)) & 1;

/** An interrupt gate for HANDLER_VECTOR at the label "handler". */
function setGate(lab: VmxLab, vector = HANDLER_VECTOR): void {
  const handler = lab.addressOf("handler");
  const low = (handler & 0xffffn) | (0x10n << 16n) | (0x8e00n << 32n) | ((handler >> 16n) << 48n);
  lab.write(IDT + 16 * vector, low);
  lab.write(IDT + 16 * vector + 8, 0n);
  lab.writeFields([
    [Field.GUEST_IDTR_BASE, BigInt(IDT)],
    [Field.GUEST_IDTR_LIMIT, 0xfffn],
  ]);
}

for (const engine of TIERS) {
  test(`CR8 is the virtual TPR, and below the threshold the guest is left after the instruction (${engine})`, () => {
    const lab = labOf(engine, (a) => {
      a.emit("mov", rax, imm(9)).emit("mov", cr8, rax).emit("mov", rbx, cr8);
      a.emit("mov", rax, imm(2)).emit("mov", cr8, rax);
      a.label("after").emit("hlt");
    });
    lab.vmwrite(Field.TPR_THRESHOLD, 3n);
    assert.equal(lab.launch(), "fail", "the threshold is above the TPR already");
    assert.equal(lab.field(Field.INSTRUCTION_ERROR), 7n);
    lab.write(VIRTUAL + TPR, 0x50n);
    lab.launch();
    assert.equal(Number(lab.field(Field.EXIT_REASON)), ExitReason.TPR_BELOW_THRESHOLD);
    assert.equal(lab.field(Field.GUEST_RIP), lab.addressOf("after"));
    assert.equal(lab.register(3), 9n);
    assert.equal(word(lab, TPR), 0x20);
  });

  test(`accesses to the APIC page: virtualized, exits, and emulated writes (${engine})`, () => {
    const lab = labOf(engine, (a) => {
      a.emit("mov", eax, dword(ACCESS + TPR));
      a.emit("mov", dword(ACCESS + TPR), imm(0x77));
      a.emit("add", dword(ACCESS + TPR), imm(1));
      a.label("id").emit("mov", ebx, dword(ACCESS + 0x20));
      a.label("timer").emit("mov", dword(ACCESS + 0x380), imm(0x1234));
      a.label("after").emit("hlt");
    });
    lab.writeFields([secondary(APIC_ACCESSES)]);
    lab.write(VIRTUAL + TPR, 0x33n);
    lab.write(VIRTUAL + 0x20, 0x0700_0000n);
    lab.write(ACCESS + 0x20, 0xdeadn);
    lab.launch();
    assert.equal(lab.register(0), 0x33n);
    assert.equal(word(lab, TPR), 0x78, "also where the instruction reads and writes");
    const apicExit = (offset: number, kind: number, label: string): void => {
      assert.equal(Number(lab.field(Field.EXIT_REASON)), ExitReason.APIC_ACCESS);
      assert.equal(lab.field(Field.EXIT_QUALIFICATION), BigInt(offset | (kind << 12)));
      assert.equal(lab.field(Field.GUEST_RIP), lab.addressOf(label));
    };
    apicExit(0x20, 0, "id");
    lab.skip();
    lab.resume();
    apicExit(0x380, 1, "timer");
    lab.writeFields([
      secondary(APIC_ACCESSES, APIC_REGISTERS),
      [Field.GUEST_RIP, lab.addressOf("id")],
    ]);
    assert.equal(lab.next(), ExitReason.APIC_WRITE);
    assert.equal(lab.register(3), 0x0700_0000n);
    assert.equal(lab.field(Field.EXIT_QUALIFICATION), 0x380n);
    assert.equal(lab.field(Field.GUEST_RIP), lab.addressOf("after"), "the write is done");
    assert.equal(word(lab, 0x380), 0x1234);
    assert.equal(lab.next(), ExitReason.HLT);
  });

  test(`virtual interrupts: delivered when the guest lets them, in priority order, ended by EOI (${engine})`, () => {
    const lab = labOf(engine, (a) => {
      a.emit("mov", ecx, imm(50));
      a.label("wait").emit("dec", ecx).emit("jne", "wait");
      a.emit("mov", edx, imm(1)).emit("sti").emit("nop");
      a.label("open").emit("hlt");
      a.label("handler").emit("shl", rdi, imm(8)).emit("add", rdi, rdx);
      a.emit("mov", dword(ACCESS + EOI), imm(0));
      a.emit("iretq");
    });
    setGate(lab);
    setGate(lab, 0x61);
    lab.writeFields([secondary(APIC_ACCESSES, APIC_REGISTERS, VIRTUAL_INTERRUPTS)]);
    for (const vector of [HANDLER_VECTOR, 0x61])
      lab.write(
        VIRTUAL + IRR + 16 * (vector >> 5),
        lab.read(VIRTUAL + IRR + 16 * (vector >> 5)) | (1n << BigInt(vector & 31)),
      );
    lab.vmwrite(Field.GUEST_INTERRUPT_STATUS, 0x61n);
    lab.setRegister(7, 0n);
    lab.launch();
    assert.equal(Number(lab.field(Field.EXIT_REASON)), ExitReason.HLT);
    assert.equal(lab.register(7), 0x101n, "two deliveries after STI, none before");
    assert.equal(lab.field(Field.GUEST_INTERRUPT_STATUS), 0n);
    for (const vector of [HANDLER_VECTOR, 0x61])
      assert.deepEqual([bitOf(lab, IRR, vector), bitOf(lab, ISR, vector)], [0, 0]);
    // The TPR holds one back; the EOI of the other is an exit.
    lab.write(VIRTUAL + TPR, 0x60n);
    lab.write(VIRTUAL + IRR + 0x20, 1n << BigInt(HANDLER_VECTOR & 31));
    lab.write(VIRTUAL + IRR + 0x30, 0n);
    lab.writeFields([
      [Field.GUEST_INTERRUPT_STATUS, BigInt(HANDLER_VECTOR)],
      [Field.GUEST_RIP, BigInt(At.CODE)],
      [Field.GUEST_RFLAGS, 2n],
    ]);
    assert.equal(lab.next(), ExitReason.HLT);
    assert.equal(lab.field(Field.GUEST_INTERRUPT_STATUS), BigInt(HANDLER_VECTOR), "still waiting");
    lab.write(VIRTUAL + TPR, 0x40n);
    lab.vmwrite(Field.EOI_EXIT1, 1n << BigInt(HANDLER_VECTOR & 63));
    assert.equal(lab.next(), ExitReason.VIRTUALIZED_EOI);
    assert.equal(lab.field(Field.EXIT_QUALIFICATION), BigInt(HANDLER_VECTOR));
    assert.equal(bitOf(lab, ISR, HANDLER_VECTOR), 0);
  });

  test(`x2APIC mode: TPR, EOI and self-IPI by MSRs, and the plain self-IPI of the ICR (${engine})`, () => {
    const lab = labOf(engine, (a) => {
      a.emit("mov", ecx, imm(0x808))
        .emit("xor", edx, edx)
        .emit("mov", eax, imm(0x20))
        .emit("wrmsr");
      a.emit("rdmsr").emit("mov", ebx, eax);
      a.emit("sti");
      a.emit("mov", ecx, imm(0x83f)).emit("mov", eax, imm(HANDLER_VECTOR)).emit("wrmsr");
      a.label("short").emit("nop");
      a.emit("mov", eax, imm(3)).emit("wrmsr");
      a.label("after").emit("hlt");
      a.label("handler").emit("inc", rdi);
      a.emit("mov", ecx, imm(0x80b)).emit("xor", eax, eax).emit("xor", edx, edx).emit("wrmsr");
      a.emit("mov", ecx, imm(0x83f)).emit("iretq");
    });
    setGate(lab);
    lab.writeFields([
      secondary(X2APIC, APIC_REGISTERS, VIRTUAL_INTERRUPTS),
      [Field.PRIMARY_CONTROLS, primary | BigInt(PrimaryControl.MSR_BITMAPS)],
      [Field.MSR_BITMAP, BigInt(At.MSR_BITMAP)],
    ]);
    lab.setRegister(7, 0n);
    lab.launch();
    assert.equal(Number(lab.field(Field.EXIT_REASON)), ExitReason.APIC_WRITE, "a vector below 16");
    assert.equal(lab.field(Field.GUEST_RIP), lab.addressOf("after"));
    assert.deepEqual([lab.register(3), lab.register(7)], [0x20n, 1n]);
  });
}

test("a posted interrupt reaches the guest's guest without an exit; an empty notification changes nothing", () => {
  const lab = labOf("interpreter", (a) => {
    a.emit("cpuid").emit("sti").emit("nop").emit("nop").emit("hlt");
    a.label("handler").emit("inc", rdi).emit("iretq");
  });
  setGate(lab);
  lab.writeFields([
    secondary(APIC_ACCESSES, APIC_REGISTERS, VIRTUAL_INTERRUPTS),
    [Field.PIN_CONTROLS, TEST_CONTROLS.pin | BigInt(PinControl.POSTED_INTERRUPTS)],
    [Field.EXIT_CONTROLS, TEST_CONTROLS.exit | (1n << 15n)],
    [Field.POSTED_NOTIFICATION_VECTOR, 0xf2n],
    [Field.POSTED_INTERRUPT_DESCRIPTOR, BigInt(DESCRIPTOR)],
  ]);
  lab.setRegister(7, 0n);
  const guest = lab.processor.guestVmx!;
  let calls = 0;
  // CPUID is an exit: at the next one the notification comes in.
  lab.launch();
  assert.equal(guest.takePosted(0xf2), false, "no guest of the guest hypervisor runs");
  lab.write(DESCRIPTOR + 8 * (HANDLER_VECTOR >> 6), 1n << BigInt(HANDLER_VECTOR & 63));
  lab.write(DESCRIPTOR + 32, 1n);
  lab.skip();
  lab.between = () => {
    if (!guest.isInside) return false;
    calls++;
    assert.equal(guest.takePosted(0xf1), false, "another vector is an exit");
    assert.equal(guest.takePosted(0xf2), true);
    assert.equal(guest.takePosted(0xf2), true, "empty");
    return true;
  };
  assert.equal(lab.next(), ExitReason.HLT);
  assert.equal(calls, 1);
  assert.equal(lab.register(7), 1n);
  assert.equal(lab.read(DESCRIPTOR + 32) & 1n, 0n, "ON is cleared");
  assert.equal(lab.read(DESCRIPTOR + 8 * (HANDLER_VECTOR >> 6)), 0n);
  assert.equal(lab.field(Field.GUEST_INTERRUPT_STATUS), BigInt(HANDLER_VECTOR) << 8n);
});

test("the ICR's plain self-IPI is virtualized, every other command is an APIC-write exit", () => {
  const lab = labOf("interpreter", (a) => {
    a.emit("mov", dword(ACCESS + ICR), imm(0x4_4000 | HANDLER_VECTOR));
    a.emit("mov", dword(ACCESS + ICR), imm(0x8_4000 | HANDLER_VECTOR));
    a.emit("hlt");
  });
  lab.writeFields([secondary(APIC_ACCESSES, APIC_REGISTERS, VIRTUAL_INTERRUPTS)]);
  lab.launch();
  assert.equal(Number(lab.field(Field.EXIT_REASON)), ExitReason.APIC_WRITE);
  assert.equal(lab.field(Field.EXIT_QUALIFICATION), BigInt(ICR));
  assert.equal(word(lab, ICR), 0x8_4000 | HANDLER_VECTOR);
  assert.equal(bitOf(lab, IRR, HANDLER_VECTOR), 1);
  assert.equal(lab.field(Field.GUEST_INTERRUPT_STATUS), BigInt(HANDLER_VECTOR));
});
