/** The upper half of the address space is cached for all address spaces at once; where they differ there, each must see its own. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { asm64, imm, qword } from "../src/processor/isa/assemble.ts";
import { al, cr3, cr4, ecx, r8, r9, rax, rbx, rdi, rsi } from "../src/processor/isa/registers.ts";
import { Field } from "../src/processor/isa/vmcs-fields.ts";
import { gprAt, RAM_BASE } from "../src/processor/state/layout.ts";
import { EXIT_PORT, runBareMetal } from "./bare-metal.ts";

const ORIGIN = 0x10_0000;
const HIGH = -0x8000_0000_0000n;
const OTHER_ROOT = 0x30_0000;
const TABLES = [0x31_0000, 0x32_0000] as const;
const PAGES = [0x20_0000, 0x21_0000] as const;
const PRESENT_WRITABLE = 3;
const GLOBAL = 0x100;
const PGE = 0x80;
const ROOT_ENTRIES = 512;

/** Maps HIGH to another page in each of two address spaces, whose lower halves are alike. Answers their CR3 values. */
function mapBoth(view: DataView, root: number, flags: number): void {
  const set = (at: number, value: number): void =>
    view.setBigUint64(RAM_BASE + at, BigInt(value), true);
  for (let i = 0; i < ROOT_ENTRIES / 2; i++)
    set(OTHER_ROOT + 8 * i, Number(view.getBigUint64(RAM_BASE + root + 8 * i, true)));
  [root, OTHER_ROOT].forEach((space, i) => {
    const tables = TABLES[i]!;
    set(space + (8 * ROOT_ENTRIES) / 2, tables + PRESENT_WRITABLE);
    set(tables, tables + 0x1000 + PRESENT_WRITABLE);
    set(tables + 0x1000, tables + 0x2000 + PRESENT_WRITABLE);
    set(tables + 0x2000, PAGES[i]! + PRESENT_WRITABLE + flags);
    set(PAGES[i]!, i + 1);
  });
}

for (const engine of ["interpreter", "jit"] as const) {
  test(`pages of the upper half that are not global follow CR3, 1,000 times over (${engine})`, () => {
    const r = runBareMetal({
      engine,
      mode: "long64",
      image: asm64(ORIGIN, (a) => {
        a.emit("mov", rdi, imm(HIGH));
        a.emit("mov", r8, cr3);
        a.emit("mov", r9, imm(OTHER_ROOT));
        a.emit("mov", ecx, imm(1000));
        a.emit("xor", rbx, rbx);
        a.emit("xor", rsi, rsi);
        a.label("again").emit("add", rbx, qword(rdi));
        a.emit("mov", cr3, r9);
        a.emit("add", rsi, qword(rdi));
        a.emit("mov", cr3, r8);
        a.emit("dec", ecx);
        a.emit("jne", "again");
        a.emit("out", imm(EXIT_PORT), al);
      }),
      prepare: (vmcs, view) => mapBoth(view, vmcs.number(Field.GUEST_CR3), 0),
    });
    const register = (n: number): number => r.vmcs.state.getUint32(gprAt(n), true);
    assert.deepEqual([register(3), register(6)], [1000, 2000]);
  });

  test(`a global page is forgotten when CR4.PGE changes (${engine})`, () => {
    const r = runBareMetal({
      engine,
      mode: "long64",
      image: asm64(ORIGIN, (a) => {
        a.emit("mov", rax, cr4);
        a.emit("or", rax, imm(PGE));
        a.emit("mov", cr4, rax);
        a.emit("mov", rdi, imm(HIGH));
        a.emit("mov", r8, cr3);
        a.emit("mov", r9, imm(OTHER_ROOT));
        a.emit("mov", rbx, qword(rdi));
        a.emit("mov", cr3, r9);
        a.emit("xor", rax, imm(PGE));
        a.emit("mov", cr4, rax);
        a.emit("mov", rsi, qword(rdi));
        a.emit("out", imm(EXIT_PORT), al);
      }),
      prepare: (vmcs, view) => mapBoth(view, vmcs.number(Field.GUEST_CR3), GLOBAL),
    });
    const register = (n: number): number => r.vmcs.state.getUint32(gprAt(n), true);
    assert.deepEqual([register(3), register(6)], [1, 2]);
  });
}
