/**
 * APIC virtualization by VMCSs of our own hypervisor: the same as for a guest hypervisor (vmx-apic.test.ts), on the pCPU itself, and what is
 * beyond the manual: access assist of APIC-access exits.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { TestInterrupts } from "../conformance/criteria/test-interrupts.ts";
import { type Assembler, byte, dword, imm, qword } from "../src/processor/isa/assemble.ts";
import { ExitReason } from "../src/processor/isa/exit-reasons.ts";
import { cr8, eax, ebx, ecx, edx, rax, rbx, rdi, rdx } from "../src/processor/isa/registers.ts";
import { VendorField } from "../src/processor/isa/vendor.ts";
import {
  ExitControl,
  Field,
  PinControl,
  PrimaryControl,
  SecondaryControl,
} from "../src/processor/isa/vmcs-fields.ts";
import { Lab, TIERS } from "./lab.ts";

const ACCESS = 0x80_0000;
const VIRTUAL = 0x81_0000;
const DESCRIPTOR = 0x82_0000;
const [TPR, EOI, ISR, IRR, ICR] = [0x80, 0xb0, 0x100, 0x200, 0x300];
const VECTOR = 0x51;
const INVALID_CONTROLS = -8;
const { APIC_ACCESSES, APIC_REGISTERS, VIRTUAL_INTERRUPTS, X2APIC } = SecondaryControl;

type Tier = (typeof TIERS)[number];

function apicLab(engine: Tier, controls: number, build: (a: Assembler) => void): Lab {
  const lab = new Lab({ engine, build });
  const { vmcs } = lab;
  vmcs.set(
    Field.PRIMARY_CONTROLS,
    (vmcs.number(Field.PRIMARY_CONTROLS) | PrimaryControl.TPR_SHADOW) >>> 0,
  );
  setSecondary(lab, controls);
  vmcs.set(Field.VIRTUAL_APIC, lab.host(VIRTUAL));
  vmcs.set(Field.APIC_ACCESS, lab.host(ACCESS));
  return lab;
}

function setSecondary(lab: Lab, controls: number): void {
  const all = APIC_ACCESSES | APIC_REGISTERS | VIRTUAL_INTERRUPTS | X2APIC;
  const rest = lab.vmcs.number(Field.SECONDARY_CONTROLS) & ~all;
  lab.vmcs.set(Field.SECONDARY_CONTROLS, rest | controls);
}

const word = (lab: Lab, offset: number): number =>
  Number(lab.read(VIRTUAL + offset) & 0xffff_ffffn);
const setWord = (lab: Lab, offset: number, value: number): void =>
  lab.view.setUint32(lab.host(VIRTUAL + offset), value, true);
const bitOf = (lab: Lab, base: number, vector: number): number =>
  (word(lab, base + 16 * (vector >> 5)) >>> (vector & 31)) & 1;
const setBit = (lab: Lab, base: number, vector: number): void => {
  const at = base + 16 * (vector >> 5);
  setWord(lab, at, (word(lab, at) | (1 << (vector & 31))) >>> 0);
};

function apicExit(lab: Lab, reason: number, offset: number, kind: number, label: string): void {
  assert.equal(reason, ExitReason.APIC_ACCESS);
  assert.equal(lab.vmcs.number(Field.EXIT_QUALIFICATION), offset | (kind << 12));
  assert.equal(lab.rip, lab.at(label));
}

for (const engine of TIERS) {
  test(`CR8 is the virtual TPR, and below the threshold the guest is left after the instruction (${engine})`, () => {
    const lab = apicLab(engine, 0, (a) => {
      a.label("start");
      a.emit("mov", rax, imm(9)).emit("mov", cr8, rax).emit("mov", rbx, cr8);
      a.emit("mov", rax, imm(2)).emit("mov", cr8, rax);
      a.label("after").emit("mov", rax, imm(16));
      a.label("bad").emit("mov", cr8, rax);
      a.label("handler").emit("cpuid");
    });
    lab.tables.interrupt(13, 0, lab.at("handler"));
    lab.vmcs.set(Field.TPR_THRESHOLD, 3);
    assert.equal(lab.enter(), INVALID_CONTROLS, "the threshold is above the TPR already");
    setWord(lab, TPR, 0x50);
    assert.equal(lab.enter(), ExitReason.TPR_BELOW_THRESHOLD);
    assert.equal(lab.rip, lab.at("after"));
    assert.equal(lab.register(3), 9n);
    assert.equal(word(lab, TPR), 0x20);
    lab.vmcs.set(Field.TPR_THRESHOLD, 0);
    assert.equal(lab.enter(), ExitReason.CPUID);
    assert.equal(lab.rip, lab.at("handler"), "16 is #GP");
    assert.equal(lab.read(Number(lab.register(4)) + 8), BigInt(lab.at("bad")));
    const primary = lab.vmcs.number(Field.PRIMARY_CONTROLS) | PrimaryControl.CR8_LOAD;
    lab.vmcs.set(Field.PRIMARY_CONTROLS, primary >>> 0);
    lab.place(0, lab.at("start"));
    assert.equal(lab.enter(), ExitReason.CR_ACCESS, "who wants to see it, does");
  });

  test(`accesses to the APIC page: virtualized, exits, and emulated writes (${engine})`, () => {
    const lab = apicLab(engine, APIC_ACCESSES, (a) => {
      a.emit("mov", eax, dword(ACCESS + TPR));
      a.emit("mov", dword(ACCESS + TPR), imm(0x77));
      a.emit("add", dword(ACCESS + TPR), imm(1));
      a.label("id").emit("mov", ebx, dword(ACCESS + 0x20));
      a.label("timer").emit("mov", dword(ACCESS + 0x380), imm(0x1234));
      a.label("after").emit("mov", byte(ACCESS + 0x381), imm(0x56));
      a.label("fetch").emit("mov", rax, imm(ACCESS)).emit("jmp", rax);
    });
    setWord(lab, TPR, 0x33);
    setWord(lab, 0x20, 0x0700_0000);
    lab.write(ACCESS + 0x20, 0xdeadn);
    apicExit(lab, lab.enter(), 0x20, 0, "id");
    assert.equal(lab.register(0), 0x33n);
    assert.equal(word(lab, TPR), 0x78, "also where the instruction reads and writes");
    lab.skip();
    apicExit(lab, lab.enter(), 0x380, 1, "timer");
    assert.equal(lab.vmcs.number(VendorField.DEVICE_ACCESS), 0);
    setSecondary(lab, APIC_ACCESSES | APIC_REGISTERS);
    lab.rip = lab.at("id");
    for (const [value, label] of [
      [0x1234, "after"],
      [0x5634, "fetch"],
    ] as const) {
      assert.equal(lab.enter(), ExitReason.APIC_WRITE);
      assert.equal(lab.vmcs.number(Field.EXIT_QUALIFICATION), 0x380);
      assert.equal(lab.rip, lab.at(label), "the write is done");
      assert.equal(word(lab, 0x380), value);
    }
    assert.equal(lab.register(3), 0x0700_0000n);
    assert.equal(lab.enter(), ExitReason.APIC_ACCESS);
    assert.equal(lab.vmcs.number(Field.EXIT_QUALIFICATION), 2 << 12, "an instruction fetch");
    setSecondary(lab, 0);
    lab.rip = lab.at("id");
    lab.view.setUint8(lab.host(ACCESS), 0xf4);
    assert.equal(lab.enter(), ExitReason.HLT, "without the control the page is memory");
    assert.equal(lab.register(3), 0xdeadn);
    assert.equal(lab.read(ACCESS + 0x380) & 0xffffn, 0x5634n);
  });

  test(`an APIC-access page marked as a device: exits carry the access, writes are done (${engine})`, () => {
    const lab = apicLab(engine, APIC_ACCESSES, (a) => {
      a.emit("mov", dword(ACCESS + TPR), imm(0x20));
      a.label("read").emit("mov", eax, dword(ACCESS + 0x390));
      a.emit("mov", dword(ACCESS + 0x380), imm(0x1234));
      a.label("wide").emit("mov", rbx, qword(ACCESS + TPR));
      a.label("both").emit("add", dword(ACCESS + 0x3e0), imm(3));
      a.label("after").emit("cpuid");
    });
    const { vmcs, ept } = lab;
    ept.markApic(ACCESS, lab.host(ACCESS));
    lab.processor.invalidateEpt();
    const assist = (): number[] =>
      [VendorField.DEVICE_ACCESS, VendorField.DEVICE_SIZE].map((field) => vmcs.number(field));
    const answer = (value: number): number => {
      vmcs.set(VendorField.DEVICE_READ_REPLY, value);
      return lab.enter();
    };
    apicExit(lab, lab.enter(), 0x390, 0, "read");
    assert.equal(word(lab, TPR), 0x20);
    assert.deepEqual(assist(), [1, 4]);
    apicExit(lab, answer(77), 0x380, 1, "wide");
    assert.equal(lab.register(0), 77n);
    assert.deepEqual([...assist(), vmcs.number(VendorField.DEVICE_WRITE_DATA)], [3, 4, 0x1234]);
    apicExit(lab, lab.enter(), TPR, 0, "wide");
    assert.deepEqual(assist(), [1, 8]);
    apicExit(lab, answer(5), 0x3e0, 0, "both");
    assert.equal(lab.register(3), 5n);
    apicExit(lab, answer(8), 0x3e0, 1, "after");
    assert.equal(vmcs.number(VendorField.DEVICE_WRITE_DATA), 11);
    assert.equal(lab.enter(), ExitReason.CPUID);
  });

  test(`virtual interrupts: delivered when the guest lets them, in priority order, ended by EOI (${engine})`, () => {
    const lab = apicLab(engine, APIC_ACCESSES | APIC_REGISTERS | VIRTUAL_INTERRUPTS, (a) => {
      a.label("start").emit("mov", ecx, imm(50));
      a.label("wait").emit("dec", ecx).emit("jne", "wait");
      a.emit("mov", edx, imm(1)).emit("sti").emit("nop");
      a.label("open").emit("hlt");
      a.label("handler").emit("shl", rdi, imm(8)).emit("add", rdi, rdx);
      a.emit("mov", dword(ACCESS + EOI), imm(0));
      a.label("ended").emit("iretq");
    });
    const { vmcs } = lab;
    for (const vector of [VECTOR, 0x61]) {
      lab.tables.interrupt(vector, 0, lab.at("handler"));
      setBit(lab, IRR, vector);
    }
    vmcs.set(Field.GUEST_INTERRUPT_STATUS, 0x61);
    lab.setRegister(7, 0n);
    assert.equal(lab.enter(), ExitReason.HLT);
    assert.equal(lab.rip, lab.at("open"));
    assert.equal(lab.register(7), 0x101n, "two deliveries after STI, none before");
    assert.equal(vmcs.number(Field.GUEST_INTERRUPT_STATUS), 0);
    for (const vector of [VECTOR, 0x61])
      assert.deepEqual([bitOf(lab, IRR, vector), bitOf(lab, ISR, vector)], [0, 0]);
    // The TPR holds one back; the EOI of the other is an exit. A window of the hypervisor's holds both back.
    setWord(lab, TPR, 0x50);
    for (const vector of [VECTOR, 0x61]) setBit(lab, IRR, vector);
    vmcs.set(Field.GUEST_INTERRUPT_STATUS, 0x61);
    vmcs.setBig(Field.EOI_EXIT1, 1n << BigInt(0x61 & 63));
    lab.place(0, lab.at("start"));
    const primary = vmcs.number(Field.PRIMARY_CONTROLS);
    vmcs.set(Field.PRIMARY_CONTROLS, (primary | PrimaryControl.INTERRUPT_WINDOW) >>> 0);
    assert.equal(lab.enter(), ExitReason.INTERRUPT_WINDOW);
    assert.equal(bitOf(lab, IRR, 0x61), 1);
    vmcs.set(Field.PRIMARY_CONTROLS, primary);
    assert.equal(lab.enter(), ExitReason.VIRTUALIZED_EOI);
    assert.equal(vmcs.number(Field.EXIT_QUALIFICATION), 0x61);
    assert.equal(lab.rip, lab.at("ended"));
    assert.equal(lab.enter(), ExitReason.HLT);
    assert.equal(lab.register(7), 0x10101n);
    assert.deepEqual([bitOf(lab, IRR, VECTOR), bitOf(lab, IRR, 0x61)], [1, 0]);
  });

  test(`x2APIC mode: the MSR bitmap decides what exits, the rest is the virtual-APIC page (${engine})`, () => {
    const lab = apicLab(engine, X2APIC | APIC_REGISTERS | VIRTUAL_INTERRUPTS, (a) => {
      a.emit("mov", ecx, imm(0x808)).emit("mov", eax, imm(0x35)).emit("xor", edx, edx);
      a.emit("wrmsr");
      a.emit("mov", ecx, imm(0x80f)).emit("rdmsr").emit("mov", ebx, eax);
      a.emit("sti").emit("nop");
      a.emit("mov", ecx, imm(0x83f)).emit("mov", eax, imm(VECTOR));
      a.emit("wrmsr");
      a.label("id").emit("mov", ecx, imm(0x802)).emit("rdmsr");
      a.label("handler").emit("mov", ecx, imm(0x80b)).emit("xor", eax, eax).emit("xor", edx, edx);
      a.emit("wrmsr").emit("mov", rdi, imm(1)).emit("iretq");
    });
    const { vmcs, view } = lab;
    lab.tables.interrupt(VECTOR, 0, lab.at("handler"));
    const bitmap = vmcs.number(Field.MSR_BITMAP);
    const pass = (msr: number, write: boolean): void => {
      const at = bitmap + (write ? 0x800 : 0) + (msr >> 3);
      view.setUint8(at, view.getUint8(at) & ~(1 << (msr & 7)));
    };
    assert.equal(lab.enter(), ExitReason.WRMSR);
    for (const msr of [0x808, 0x80b, 0x83f]) pass(msr, true);
    pass(0x80f, false);
    setWord(lab, 0xf0, 0x1ff);
    assert.equal(lab.enter(), ExitReason.RDMSR);
    assert.equal(lab.register(1), 0x802n);
    assert.equal(word(lab, TPR), 0x35);
    assert.equal(lab.register(3), 0x1ffn);
    assert.equal(lab.register(7), 1n, "the self-IPI has come and is ended");
    assert.deepEqual([bitOf(lab, IRR, VECTOR), bitOf(lab, ISR, VECTOR)], [0, 0]);
  });

  test(`a posted interrupt ends HLT without an exit, other vectors exit (${engine})`, () => {
    const NOTIFICATION = 0xf2;
    const interrupts = new TestInterrupts();
    const lab = new Lab({
      ...{ engine, interrupts },
      build: (a) => {
        a.emit("sti").emit("hlt");
        a.label("awake").emit("cpuid");
        a.label("handler").emit("mov", dword(ACCESS + EOI), imm(0));
        a.emit("mov", rdx, imm(1)).emit("iretq");
      },
    });
    const { vmcs } = lab;
    interrupts.now = () => lab.tsc;
    lab.tables.interrupt(VECTOR, 0, lab.at("handler"));
    const primary = vmcs.number(Field.PRIMARY_CONTROLS) & ~PrimaryControl.HLT;
    vmcs.set(Field.PRIMARY_CONTROLS, (primary | PrimaryControl.TPR_SHADOW) >>> 0);
    vmcs.set(Field.PIN_CONTROLS, PinControl.EXTERNAL_INTERRUPT | PinControl.POSTED_INTERRUPTS);
    setSecondary(lab, APIC_ACCESSES | VIRTUAL_INTERRUPTS);
    vmcs.set(Field.VIRTUAL_APIC, lab.host(VIRTUAL));
    vmcs.set(Field.APIC_ACCESS, lab.host(ACCESS));
    vmcs.set(Field.POSTED_NOTIFICATION_VECTOR, NOTIFICATION);
    vmcs.set(Field.POSTED_INTERRUPT_DESCRIPTOR, lab.host(DESCRIPTOR));
    assert.notEqual(vmcs.number(Field.EXIT_CONTROLS) & ExitControl.ACKNOWLEDGE_INTERRUPT, 0);
    interrupts.nextAt = 1000;
    interrupts.arrive = () => {
      lab.write(DESCRIPTOR + (VECTOR >> 6) * 8, 1n << BigInt(VECTOR & 63));
      lab.write(DESCRIPTOR + 32, 0xa501n);
      interrupts.pending.push(NOTIFICATION);
    };
    assert.equal(lab.enter(), ExitReason.CPUID);
    assert.equal(lab.rip, lab.at("awake"));
    assert.equal(lab.register(2), 1n);
    assert.deepEqual([interrupts.ends, lab.read(DESCRIPTOR + 32)], [1, 0xa500n]);
    interrupts.pending.push(0x33);
    assert.equal(lab.enter(), ExitReason.EXTERNAL_INTERRUPT);
    assert.equal(vmcs.number(Field.EXIT_INTERRUPTION_INFO), 0x8000_0033);
  });

  test(`only the plain self-IPI of the ICR is virtualized (${engine})`, () => {
    const lab = apicLab(engine, APIC_ACCESSES | VIRTUAL_INTERRUPTS | APIC_REGISTERS, (a) => {
      a.emit("mov", dword(ACCESS + ICR), imm(0x4_0000 | VECTOR));
      a.emit("mov", dword(ACCESS + ICR), imm(0x4_0400));
      a.label("after").emit("hlt");
    });
    assert.equal(lab.enter(), ExitReason.APIC_WRITE);
    assert.equal(lab.vmcs.number(Field.EXIT_QUALIFICATION), ICR);
    assert.equal(lab.rip, lab.at("after"));
    assert.equal(bitOf(lab, IRR, VECTOR), 1);
    assert.equal(lab.vmcs.number(Field.GUEST_INTERRUPT_STATUS), VECTOR);
  });
}
