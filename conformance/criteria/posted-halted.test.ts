/**
 * Posted interrupts to the guest of a guest hypervisor, notified through the pCPU's local APIC while it runs and while it halts, at every TPR
 * class, its EOI by memory and by MSR: what is delivered and what is left is what the reference model has. And behind the EOI exits a level
 * line of an I/O APIC.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { TIERS } from "../../guests/lab.ts";
import { At, VmxLab } from "../../guests/vmx-lab.ts";
import { Ioapic } from "../../src/devices/platform/ioapic.ts";
import { type Assembler, dword, imm, qword } from "../../src/processor/isa/assemble.ts";
import { ExitReason } from "../../src/processor/isa/exit-reasons.ts";
import { eax, ecx, edx, rax, rcx, rdi, rsp } from "../../src/processor/isa/registers.ts";
import {
  ExitControl,
  Field,
  PinControl,
  PrimaryControl,
  SecondaryControl,
} from "../../src/processor/isa/vmcs-fields.ts";
import { TEST_CONTROLS } from "../../src/processor/vmx/entry-checks/check.ts";
import { Apic, PhysicalInterrupts } from "./physical-interrupts.ts";
import { Random } from "./random.ts";
import { VirtualApicModel } from "./virtual-apic-model.ts";

const ACCESS = At.DATA + 0x1_0000;
const VIRTUAL = At.DATA + 0x2_0000;
const DESCRIPTOR = At.DATA + 0x3_0000;
const IDT = At.DATA + 0x4_0000;
const LOG = At.DATA + 0x5_0000;
const [TPR, EOI, ISR, IRR] = [0x80, 0xb0, 0x100, 0x200];
const X2APIC_EOI = 0x80b;
const NOTIFICATION = 0xf2;
const OUTSTANDING = 32;
const FIRST = 32;
const VECTORS = 256;
const RDI = 7;
const [ACTIVE, HLT] = [0, 1];
const RUNS_OF_CLASS = 3;
/** 32 ns each: far behind the latest notification. */
const TIMER = 100n;

const guestOf = (isX2apic: boolean) => (a: Assembler) => {
  a.label("run").emit("sti");
  a.emit("mov", ecx, imm(500));
  a.label("wait").emit("dec", ecx).emit("jne", "wait");
  a.emit("cpuid");
  a.label("halt").emit("sti").emit("hlt");
  a.label("awake").emit("cpuid");
  for (let v = FIRST; v < VECTORS; v++) {
    a.label(`vector${v}`).emit("push", imm(v));
    a.emit("jmp", "common");
  }
  a.label("common").emit("mov", rax, qword(rsp));
  a.emit("mov", qword(rdi), rax);
  a.emit("add", rdi, imm(8));
  a.emit("mov", qword(rsp), rcx);
  if (isX2apic) {
    a.emit("mov", ecx, imm(X2APIC_EOI)).emit("xor", eax, eax).emit("xor", edx, edx);
    a.emit("wrmsr");
  } else a.emit("mov", dword(ACCESS + EOI), imm(0));
  a.emit("pop", rcx);
  a.emit("iretq");
};

function labOf(
  engine: (typeof TIERS)[number],
  isX2apic: boolean,
  interrupts: PhysicalInterrupts,
): VmxLab {
  const lab = new VmxLab({ engine, guest: guestOf(isX2apic), interrupts });
  interrupts.now = () => lab.processor.tsc();
  const { APIC_ACCESSES, APIC_REGISTERS, VIRTUAL_INTERRUPTS, X2APIC } = SecondaryControl;
  const mode = (isX2apic ? X2APIC : APIC_ACCESSES) | APIC_REGISTERS | VIRTUAL_INTERRUPTS;
  const { EXTERNAL_INTERRUPT, POSTED_INTERRUPTS, PREEMPTION_TIMER } = PinControl;
  const pin = EXTERNAL_INTERRUPT | POSTED_INTERRUPTS | PREEMPTION_TIMER;
  const primary = TEST_CONTROLS.primary & ~BigInt(PrimaryControl.HLT);
  lab.prepare([
    [Field.PIN_CONTROLS, TEST_CONTROLS.pin | BigInt(pin)],
    [
      Field.PRIMARY_CONTROLS,
      primary | BigInt(PrimaryControl.TPR_SHADOW | PrimaryControl.MSR_BITMAPS),
    ],
    [Field.SECONDARY_CONTROLS, TEST_CONTROLS.secondary | BigInt(mode)],
    [Field.EXIT_CONTROLS, TEST_CONTROLS.exit | BigInt(ExitControl.ACKNOWLEDGE_INTERRUPT)],
    [Field.MSR_BITMAP, BigInt(At.MSR_BITMAP)],
    [Field.VIRTUAL_APIC, BigInt(VIRTUAL)],
    [Field.APIC_ACCESS, BigInt(ACCESS)],
    [Field.POSTED_NOTIFICATION_VECTOR, BigInt(NOTIFICATION)],
    [Field.POSTED_INTERRUPT_DESCRIPTOR, BigInt(DESCRIPTOR)],
    [Field.GUEST_IDTR_BASE, BigInt(IDT)],
    [Field.GUEST_IDTR_LIMIT, 0xfffn],
  ]);
  for (let v = FIRST; v < VECTORS; v++) {
    const to = lab.addressOf(`vector${v}`);
    const low = (to & 0xffffn) | (0x10n << 16n) | (0x8e00n << 32n) | ((to >> 16n) << 48n);
    lab.write(IDT + 16 * v, low);
    lab.write(IDT + 16 * v + 8, 0n);
  }
  return lab;
}

function setOf(lab: VmxLab, base: number): number[] {
  const all: number[] = [];
  for (let v = 0; v < VECTORS; v++)
    if (((lab.read(VIRTUAL + base + 16 * (v >> 5)) >> BigInt(v & 31)) & 1n) !== 0n) all.push(v);
  return all;
}

const sorted = (set: Iterable<number>): number[] => [...set].sort((a, b) => a - b);

for (const engine of TIERS)
  for (const isX2apic of [false, true])
    test(`posted to a guest that runs or halts: as the model (${engine}, ${isX2apic ? "x2APIC" : "memory"})`, () => {
      const random = new Random(5);
      const hardware = new PhysicalInterrupts();
      const lab = labOf(engine, isX2apic, hardware);
      let delivered = 0;
      for (let i = 0; i < 16 * 2 * RUNS_OF_CLASS; i++) {
        const tpr = ((i % 16) << 4) | random.below(16);
        const halts = (i >> 4) % 2 === 1;
        const service = random.chance(30) ? [FIRST + random.below(VECTORS - FIRST)] : [];
        const posted = new Set<number>();
        for (let n = random.below(4); n >= 0; n--)
          posted.add(FIRST + random.below(VECTORS - FIRST));
        const exits = [...posted].filter(() => random.chance(30));
        for (let word = 0; word < 8; word++) {
          lab.write(VIRTUAL + IRR + 16 * word, 0n);
          lab.write(VIRTUAL + ISR + 16 * word, 0n);
        }
        for (const v of service) lab.write(VIRTUAL + ISR + 16 * (v >> 5), 1n << BigInt(v & 31));
        lab.write(VIRTUAL + TPR, BigInt(tpr));
        const bitmap = (word: number): bigint =>
          exits.filter((v) => v >> 6 === word).reduce((all, v) => all | (1n << BigInt(v & 63)), 0n);
        lab.writeFields([
          [Field.GUEST_INTERRUPT_STATUS, BigInt(service[0] ?? 0) << 8n],
          [Field.EOI_EXIT0, bitmap(0)],
          [Field.EOI_EXIT1, bitmap(1)],
          [Field.EOI_EXIT2, bitmap(2)],
          [Field.EOI_EXIT3, bitmap(3)],
          [Field.GUEST_RIP, lab.addressOf(halts ? "halt" : "run")],
          [Field.GUEST_RSP, BigInt(At.STACK)],
          [Field.GUEST_RFLAGS, 2n],
          [Field.GUEST_ACTIVITY, 0n],
          [Field.GUEST_INTERRUPTIBILITY, 0n],
          [Field.PREEMPTION_TIMER, TIMER],
        ]);
        lab.setRegister(RDI, BigInt(LOG));
        hardware.nextAt = lab.processor.tsc() + random.below(400);
        hardware.arrive = () => {
          for (const v of posted) {
            const at = DESCRIPTOR + 8 * (v >> 6);
            lab.write(at, lab.read(at) | (1n << BigInt(v & 63)));
          }
          lab.write(DESCRIPTOR + OUTSTANDING, 1n);
          hardware.post(NOTIFICATION);
        };

        const model = new VirtualApicModel(new Set(exits));
        for (const v of service) model.isr.add(v);
        model.svi = service[0] ?? 0;
        model.writeTpr(tpr);
        model.post([...posted]);
        const wanted: number[] = [];
        const wantedExits: number[] = [];
        while (model.isRecognized) {
          wanted.push(model.deliver());
          const exit = model.end();
          if (exit === null) continue;
          wantedExits.push(exit);
          model.enter();
        }

        const seen: number[] = [];
        if (lab.isLaunched) lab.resume();
        else lab.launch();
        let reason = Number(lab.field(Field.EXIT_REASON));
        while (reason === ExitReason.VIRTUALIZED_EOI) {
          seen.push(Number(lab.field(Field.EXIT_QUALIFICATION)));
          reason = lab.next();
        }
        const text = `run ${i}: TPR ${tpr}, ${halts ? "halts" : "runs"}, in service ${service}, posted ${[...posted]}`;
        const stays = halts && wanted.length === 0;
        const end = [reason, Number(lab.field(Field.GUEST_ACTIVITY))];
        assert.deepEqual(
          end,
          stays ? [ExitReason.PREEMPTION_TIMER, HLT] : [ExitReason.CPUID, ACTIVE],
          text,
        );
        const count = Number(lab.register(RDI) - BigInt(LOG)) / 8;
        const log = Array.from({ length: count }, (_, n) => Number(lab.read(LOG + 8 * n)));
        assert.deepEqual(log, wanted, text);
        assert.deepEqual(seen, wantedExits, text);
        assert.deepEqual(setOf(lab, IRR), sorted(model.irr), text);
        assert.deepEqual(setOf(lab, ISR), sorted(model.isr), text);
        const status = Number(lab.field(Field.GUEST_INTERRUPT_STATUS));
        assert.deepEqual([status & 0xff, status >> 8], [model.rvi, model.svi], text);
        assert.equal(lab.read(DESCRIPTOR + OUTSTANDING) & 1n, 0n, "ON is cleared");
        const physical = [hardware.bits(Apic.IRR), hardware.bits(Apic.ISR)];
        assert.deepEqual(physical, [0n, 0n], "the notification has been ended");
        delivered += wanted.length;
      }
      assert.ok(delivered > 50, `${delivered} delivered`);
    });

/** I/O APIC: index, data; the redirection entry of a pin, level-triggered. */
const [INDEX, DATA, ENTRIES] = [0x00, 0x10, 0x10];
const LEVEL = 1 << 15;

for (const engine of TIERS)
  for (const isX2apic of [false, true])
    test(`a level line of a virtual I/O APIC comes again after each EOI exit until it is low (${engine}, ${isX2apic ? "x2APIC" : "memory"})`, () => {
      const [PIN, LINE_VECTOR, TIMES] = [9, 0x71, 4];
      const hardware = new PhysicalInterrupts();
      const lab = labOf(engine, isX2apic, hardware);
      let messages = 0;
      const ioapic = new Ioapic({
        deliver: ({ vector, trigger }) => {
          assert.deepEqual([vector, trigger], [LINE_VECTOR, 1]);
          messages++;
          const at = DESCRIPTOR + 8 * (vector >> 6);
          lab.write(at, lab.read(at) | (1n << BigInt(vector & 63)));
          lab.write(DESCRIPTOR + OUTSTANDING, 1n);
          hardware.post(NOTIFICATION);
        },
      });
      ioapic.writeMmio(INDEX, 4, ENTRIES + 2 * PIN + 1);
      ioapic.writeMmio(DATA, 4, 0);
      ioapic.writeMmio(INDEX, 4, ENTRIES + 2 * PIN);
      ioapic.writeMmio(DATA, 4, LEVEL | LINE_VECTOR);
      lab.writeFields([
        [Field.EOI_EXIT1, 1n << BigInt(LINE_VECTOR & 63)],
        [Field.GUEST_RIP, lab.addressOf("halt")],
        [Field.GUEST_RSP, BigInt(At.STACK)],
        [Field.PREEMPTION_TIMER, TIMER],
      ]);
      lab.setRegister(RDI, BigInt(LOG));
      hardware.nextAt = lab.processor.tsc() + 300;
      hardware.arrive = () => ioapic.line(PIN).set(true);
      lab.launch();
      for (let n = 1; n <= TIMES; n++) {
        assert.equal(Number(lab.field(Field.EXIT_REASON)), ExitReason.VIRTUALIZED_EOI);
        assert.equal(lab.field(Field.EXIT_QUALIFICATION), BigInt(LINE_VECTOR));
        assert.equal(messages, n, "not again before the EOI");
        assert.equal(lab.register(RDI), BigInt(LOG + 8 * n));
        if (n === TIMES) ioapic.line(PIN).set(false);
        ioapic.eoi(LINE_VECTOR);
        lab.resume();
      }
      assert.equal(Number(lab.field(Field.EXIT_REASON)), ExitReason.CPUID);
      assert.equal(messages, TIMES);
      assert.deepEqual([setOf(lab, IRR), setOf(lab, ISR)], [[], []]);
    });
