/**
 * The guest of the page-table machine: a monitor that carries out commands and writes down what came of them.
 *
 * A command has 32 bytes: address of its handler (4), A (4), value (8), linear address (8), CS (2), SS (2), flags (4). Results are 8 bytes
 * for a read of memory, 16 for an access: status (0xffff, or the error code of a page fault), and the value or CR2.
 * An access happens at CPL 0 or 3: IRET to an instruction that does it, INT 0x81 back. A fetch goes to the INT 0x81 in the page itself.
 */

import { EXIT_PORT } from "../../guests/bare-metal.ts";
import { dataOf, stackOf } from "../../guests/lab-tables.ts";
import type { Assembler } from "../../src/processor/isa/assemble.ts";
import { dword, imm, mem, qword } from "../../src/processor/isa/assemble.ts";
import {
  ax,
  cr0,
  cr2,
  cr3,
  cr4,
  ds,
  eax,
  ebp,
  ecx,
  edi,
  edx,
  esi,
  esp,
  r14,
  r15,
  rax,
  rdi,
  rsp,
} from "../../src/processor/isa/registers.ts";
import { Place } from "./guest-memory-map.ts";
import type { PagingMode } from "./reference-walker.ts";

export const COMMAND_BYTES = 32;
export const SUCCESS = 0xffff;
export const RETURN_VECTOR = 0x81;
const EFER = 0xc000_0080;

export function monitorProgram(mode: PagingMode): (a: Assembler) => void {
  const isLong = mode === "4-level";
  const [command, result, a0, d0, sp] = isLong
    ? ([r15, r14, rax, rdi, rsp] as const)
    : ([esi, ebp, eax, edi, esp] as const);
  const wide = isLong ? qword : dword;
  const A = dword(command, 4);
  const value = wide(command, 8);
  const linear = wide(command, 16);
  return (a) => {
    const handler = (name: string, ...lines: (() => void)[]): void => {
      a.label(name);
      for (const line of lines) line();
      a.emit("jmp", "next");
    };
    a.emit("mov", eax, imm(dataOf(3)));
    a.emit("mov", ds, ax);
    a.label("batch");
    a.emit("mov", command, imm(Place.COMMANDS));
    a.emit("mov", result, imm(Place.RESULTS));
    a.emit("mov", sp, imm(stackOf(0)));
    a.emit("jmp", "dispatch");
    a.label("next").emit("add", command, imm(COMMAND_BYTES));
    a.label("dispatch").emit("mov", eax, dword(command));
    a.emit("jmp", a0);

    a.label("end").emit("out", imm(EXIT_PORT), eax);
    a.emit("jmp", "batch");
    handler(
      "store",
      () => a.emit("mov", edi, A),
      () => a.emit("mov", a0, value),
      () => a.emit("mov", wide(d0), a0),
      // PAE: entries have 64 bits.
      ...(mode === "PAE"
        ? [() => a.emit("mov", eax, dword(command, 12)), () => a.emit("mov", dword(edi, 4), eax)]
        : []),
    );
    handler(
      "load",
      () => a.emit("mov", edi, A),
      () => a.emit("mov", a0, wide(d0)),
      () => a.emit("mov", wide(result), a0),
      () => a.emit("add", result, imm(8)),
    );
    handler(
      "invlpg",
      () => a.emit("mov", d0, linear),
      () => a.emit("invlpg", mem(0, d0)),
    );
    for (const [name, register] of [
      ["cr0", cr0],
      ["cr3", cr3],
      ["cr4", cr4],
    ] as const)
      handler(
        name,
        () => a.emit("mov", a0, value),
        () => a.emit("mov", register, a0),
      );
    handler(
      "efer",
      () => a.emit("mov", eax, dword(command, 8)),
      () => a.emit("mov", edx, imm(0)),
      () => a.emit("mov", ecx, imm(EFER)),
      () => a.emit("wrmsr"),
    );
    if (isLong)
      handler(
        "invpcid",
        () => a.emit("mov", eax, A),
        () => a.emit("invpcid", rax, mem(16, command, 8)),
      );

    a.label("fetch").emit("mov", d0, linear);
    a.emit("jmp", "go");
    a.label("access").emit("mov", edi, A);
    a.label("go");
    if (!isLong) {
      a.emit("test", dword(command, 24), imm(3));
      a.emit("je", "same-ring");
    }
    a.emit("movzx", eax, mem(2, command, 26));
    a.emit("push", a0);
    a.emit("push", imm(stackOf(0) - 0x1000));
    a.label("same-ring").emit("mov", eax, dword(command, 28));
    a.emit("push", a0);
    a.emit("movzx", eax, mem(2, command, 24));
    a.emit("push", a0);
    a.emit("push", d0);
    a.emit("mov", d0, linear);
    a.emit("mov", a0, value);
    a.emit(isLong ? "iretq" : "iretd");

    a.label("returned").emit("mov", wide(result, 8), a0);
    a.emit("mov", dword(result), imm(SUCCESS));
    a.emit("jmp", "done");
    a.label("page-fault").emit("pop", a0);
    a.emit("mov", dword(result), eax);
    a.emit("mov", a0, cr2);
    a.emit("mov", wide(result, 8), a0);
    a.label("done").emit("mov", sp, imm(stackOf(0)));
    a.emit("add", result, imm(16));
    a.emit("jmp", "next");

    // Copied to a page for ring 3.
    a.label("stubs");
    a.label("read-stub").emit("mov", a0, wide(d0));
    a.emit("int", imm(RETURN_VECTOR));
    a.label("write-stub").emit("mov", wide(d0), a0);
    a.emit("int", imm(RETURN_VECTOR));
    a.label("stubs-end").emit("nop");
  };
}
