/** Guest programs that several tests run on a whole machine. */
import { type Assembler, imm } from "../src/processor/isa/assemble.ts";
import { al, dx, eax, ebx, ecx, edi } from "../src/processor/isa/registers.ts";
import { hostedKernel, powerOff } from "./hosted.ts";

const COM1 = 0x3f8;

/** Serial output, timer reads and arithmetic on a whole machine. */
export function chatter(a: Assembler): void {
  a.emit("mov", edi, imm(50));
  a.label("again");
  a.emit("rdtsc");
  a.emit("add", ebx, eax);
  a.emit("mov", ecx, imm(3000));
  a.label("spin");
  a.emit("rol", ebx, imm(3));
  a.emit("xor", ebx, ecx);
  a.emit("dec", ecx);
  a.emit("jne", "spin");
  a.emit("mov", eax, ebx);
  a.emit("and", eax, imm(15));
  a.emit("add", eax, imm(0x41));
  a.emit("mov", dx, imm(COM1));
  a.emit("out", dx, al);
  a.emit("dec", edi);
  a.emit("jne", "again");
  powerOff(a);
}

/** Prints one star and turns itself off. */
export function starKernel(): Uint8Array {
  return hostedKernel((a) => {
    a.emit("mov", dx, imm(COM1));
    a.emit("mov", al, imm(0x2a));
    a.emit("out", dx, al);
    powerOff(a);
  });
}
