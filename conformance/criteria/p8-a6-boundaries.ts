/**
 * P8-A6: virtual interrupts that wait in VIRR while IF is 0: delivered at the first boundary that lets them, behind the shadow of STI, in the
 * order of their priorities; those that the TPR holds back stay. In a guest of a guest hypervisor, at every TPR class.
 */
import { TIERS } from "../../guests/lab.ts";
import { At, VmxLab } from "../../guests/vmx-lab.ts";
import { type Assembler, dword, imm, qword } from "../../src/processor/isa/assemble.ts";
import { ExitReason } from "../../src/processor/isa/exit-reasons.ts";
import { rax, rbx, rdi, rsp } from "../../src/processor/isa/registers.ts";
import { Field, PrimaryControl, SecondaryControl } from "../../src/processor/isa/vmcs-fields.ts";
import { TEST_CONTROLS } from "../../src/processor/vmx/entry-checks/check.ts";
import type { Criterion, CriterionContext, CriterionResult } from "./criterion.ts";
import { Random } from "./random.ts";
import { Complaints } from "./verdict.ts";

const RUNS_OF_CLASS = 6;
const ACCESS = At.DATA + 0x1_0000;
const VIRTUAL = At.DATA + 0x2_0000;
const IDT = At.DATA + 0x4_0000;
/** {vector, return address} of each delivery. */
const LOG = At.DATA + 0x5_0000;
const [TPR, EOI, ISR, IRR] = [0x80, 0xb0, 0x100, 0x200];
const FIRST = 32;
const VECTORS = 256;
const RDI = 7;

function guest(a: Assembler): void {
  a.emit("nop").emit("nop");
  a.emit("sti");
  a.emit("nop");
  a.label("open").emit("hlt");
  for (let v = FIRST; v < VECTORS; v++) {
    a.label(`vector${v}`).emit("push", imm(v));
    a.emit("jmp", "common");
  }
  a.label("common").emit("mov", rax, qword(rsp));
  a.emit("mov", rbx, qword(rsp, 8));
  a.emit("mov", qword(rdi), rax);
  a.emit("mov", qword(rdi, 8), rbx);
  a.emit("add", rdi, imm(16));
  a.emit("add", rsp, imm(8));
  a.emit("mov", dword(ACCESS + EOI), imm(0));
  a.emit("iretq");
}

function labOf(engine: (typeof TIERS)[number]): VmxLab {
  const lab = new VmxLab({ engine, guest });
  const { APIC_ACCESSES, APIC_REGISTERS, VIRTUAL_INTERRUPTS } = SecondaryControl;
  lab.prepare([
    [Field.PRIMARY_CONTROLS, TEST_CONTROLS.primary | BigInt(PrimaryControl.TPR_SHADOW)],
    [
      Field.SECONDARY_CONTROLS,
      TEST_CONTROLS.secondary | BigInt(APIC_ACCESSES | APIC_REGISTERS | VIRTUAL_INTERRUPTS),
    ],
    [Field.VIRTUAL_APIC, BigInt(VIRTUAL)],
    [Field.APIC_ACCESS, BigInt(ACCESS)],
    [Field.GUEST_IDTR_BASE, BigInt(IDT)],
    [Field.GUEST_IDTR_LIMIT, 0xfffn],
  ]);
  for (let v = FIRST; v < VECTORS; v++) {
    const handler = lab.addressOf(`vector${v}`);
    const low = (handler & 0xffffn) | (0x10n << 16n) | (0x8e00n << 32n) | ((handler >> 16n) << 48n);
    lab.write(IDT + 16 * v, low);
    lab.write(IDT + 16 * v + 8, 0n);
  }
  return lab;
}

function readBits(lab: VmxLab, base: number): number[] {
  const vectors: number[] = [];
  for (let v = 0; v < VECTORS; v++) {
    const word = lab.read(VIRTUAL + base + 16 * (v >> 5)) & 0xffff_ffffn;
    if (((word >> BigInt(v & 31)) & 1n) !== 0n) vectors.push(v);
  }
  return vectors;
}

async function run({ seed, progress }: CriterionContext): Promise<CriterionResult> {
  const complaints = new Complaints();
  let delivered = 0;
  let held = 0;
  for (const engine of TIERS) {
    progress(`P8-A6: ${engine}`);
    const random = new Random(seed);
    const lab = labOf(engine);
    for (let i = 0; i < 16 * RUNS_OF_CLASS; i++) {
      const tpr = ((i % 16) << 4) | random.below(16);
      const vectors = new Set<number>();
      for (let n = random.below(7); n >= 0; n--) vectors.add(FIRST + random.below(VECTORS - FIRST));
      const sorted = [...vectors].sort((a, b) => b - a);
      for (let word = 0; word < 8; word++) {
        const bits = sorted
          .filter((v) => v >> 5 === word)
          .reduce((all, v) => all | (1n << BigInt(v & 31)), 0n);
        lab.write(VIRTUAL + IRR + 16 * word, bits);
        lab.write(VIRTUAL + ISR + 16 * word, 0n);
      }
      lab.write(VIRTUAL + TPR, BigInt(tpr));
      for (let n = 0; n < 20; n++) lab.write(LOG + 8 * n, 0n);
      lab.writeFields([
        [Field.GUEST_INTERRUPT_STATUS, BigInt(sorted[0]!)],
        [Field.GUEST_RIP, BigInt(At.CODE)],
        [Field.GUEST_RFLAGS, 2n],
        [Field.GUEST_ACTIVITY, 0n],
        [Field.GUEST_INTERRUPTIBILITY, 0n],
      ]);
      lab.setRegister(RDI, BigInt(LOG));
      if (lab.isLaunched) lab.next();
      else lab.launch();
      const opens = sorted.filter((v) => v >> 4 > tpr >> 4);
      const rest = sorted.filter((v) => v >> 4 <= tpr >> 4);
      const log = opens.map((_, n) => [lab.read(LOG + 16 * n), lab.read(LOG + 16 * n + 8)]);
      const where = lab.addressOf("open");
      const text = (): string => `${engine}, TPR ${tpr.toString(16)}, vectors ${sorted.join(" ")}`;
      complaints.equal(
        Number(lab.field(Field.EXIT_REASON)),
        ExitReason.HLT,
        () => `${text()}: exit`,
      );
      complaints.equal(
        log,
        opens.map((v) => [BigInt(v), where]),
        () => `${text()}: deliveries`,
      );
      complaints.equal(
        lab.register(RDI),
        BigInt(LOG + 16 * opens.length),
        () => `${text()}: count`,
      );
      complaints.equal(
        [readBits(lab, IRR), readBits(lab, ISR)],
        [rest.toReversed(), []],
        () => `${text()}: VIRR, VISR`,
      );
      complaints.equal(
        Number(lab.field(Field.GUEST_INTERRUPT_STATUS)),
        rest[0] ?? 0,
        () => `${text()}: RVI, SVI`,
      );
      delivered += opens.length;
      held += rest.length;
    }
  }
  return complaints.verdict(
    `${delivered} delivered behind the shadow of STI in order, ${held} held back by the TPR`,
  );
}

export const virtualBoundaries: Criterion = {
  id: "P8-A6",
  title: "virtual interrupts under IF = 0, the shadow of STI and the TPR",
  bar: "delivered at the first legal boundary, in priority order",
  timeBase: "none",
  runMode: "nested",
  isSeeded: true,
  run,
};
