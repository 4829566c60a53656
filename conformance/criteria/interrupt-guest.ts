/** A guest for interrupts: its handlers count by vector, and note the order; the rest waits in the ways that there are. */
import { Lab, type TIERS } from "../../guests/lab.ts";
import { type Assembler, addr, imm, qword, times } from "../../src/processor/isa/assemble.ts";
import { r8, r9, r10, rsp } from "../../src/processor/isa/registers.ts";
import type { PhysicalInterrupts } from "./physical-interrupts.ts";

/** Where the handlers count: a quadword for each vector. */
export const COUNTS = 0x40_0000;
const VECTORS = 256;
const FIRST_EXTERNAL = 32;

/** Each vector's stub pushes its number; the common part counts. */
export function interruptGuest(a: Assembler): void {
  a.label("spin").emit("nop").emit("nop").emit("nop").emit("nop");
  a.emit("jmp", "spin");
  a.label("halt").emit("sti");
  a.label("halted").emit("hlt");
  a.label("awake").emit("nop");
  a.emit("cpuid");
  a.label("closed").emit("nop").emit("nop").emit("nop");
  a.label("opens").emit("sti");
  a.label("shadow").emit("nop");
  a.label("open").emit("nop");
  a.emit("cpuid");
  a.align(16);
  for (let v = FIRST_EXTERNAL; v < VECTORS; v++) {
    a.label(`vector${v}`).emit("push", imm(v));
    a.emit("jmp", "common");
  }
  a.label("nmi").emit("push", imm(2));
  a.label("common").emit("mov", r8, qword(rsp));
  a.emit("mov", r9, imm(COUNTS));
  a.emit("mov", r10, qword(r9, times(r8, 8)));
  a.emit("inc", r10);
  a.emit("mov", qword(r9, times(r8, 8)), r10);
  a.emit("mov", qword(addr("last")), r8);
  a.emit("add", rsp, imm(8));
  a.emit("iretq");
  a.align(16);
  a.label("last").dq(0);
}

export function interruptLab(engine: (typeof TIERS)[number], interrupts: PhysicalInterrupts): Lab {
  const lab = new Lab({ engine, build: interruptGuest, interrupts });
  interrupts.now = () => lab.tsc;
  for (let v = FIRST_EXTERNAL; v < VECTORS; v++) lab.tables.interrupt(v, 0, lab.at(`vector${v}`));
  lab.tables.interrupt(2, 0, lab.at("nmi"));
  return lab;
}

export const countOf = (lab: Lab, vector: number): number => Number(lab.read(COUNTS + 8 * vector));
