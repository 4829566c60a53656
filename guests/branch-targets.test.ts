/** A relative jump out of the canonical range from code that has become hot. SDM Vol. 2, "Jcc": #GP(0) at the jump. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { asm64, imm } from "../src/processor/isa/assemble.ts";
import { ecx, rax } from "../src/processor/isa/registers.ts";
import { Field } from "../src/processor/isa/vmcs-fields.ts";
import { gprAt, RAM_BASE } from "../src/processor/state/layout.ts";
import { runBareMetal } from "./bare-metal.ts";

const ORIGIN = 0x10_0000;
const FRAME = 0x20_0000;
const TABLES = 0x30_0000;
/** The last canonical page below the hole. */
const LOW = 0x7fff_ffff_f000n;
const GP_EXITING = 1 << 13;
/** DEC ECX; JZ 8000_0000_0000h; JMP to the start. */
const LOOP = [0xff, 0xc9, 0x0f, 0x84, 0xf8, 0x0f, 0, 0, 0xeb, 0xf6];
const JZ = 2n;

for (const engine of ["interpreter", "jit"] as const) {
  test(`a hot jump to a target that is not canonical faults at the jump (${engine})`, () => {
    const r = runBareMetal({
      image: asm64(ORIGIN, (a) => {
        a.emit("mov", ecx, imm(20_000));
        a.emit("mov", rax, imm(LOW));
        a.emit("jmp", rax);
      }),
      mode: "long64",
      engine,
      prepare: (vmcs, view) => {
        vmcs.set(Field.EXCEPTION_BITMAP, GP_EXITING);
        const entry = (at: number, value: number): void =>
          view.setBigUint64(RAM_BASE + at, BigInt(value), true);
        entry(vmcs.number(Field.GUEST_CR3) + 8 * 255, TABLES + 3);
        entry(TABLES + 8 * 511, TABLES + 0x1003);
        entry(TABLES + 0x1000 + 8 * 511, TABLES + 0x2003);
        entry(TABLES + 0x2000 + 8 * 511, FRAME + 3);
        new Uint8Array(view.buffer).set(LOOP, RAM_BASE + FRAME);
      },
    });
    assert.equal(r.vmcs.big(Field.GUEST_RIP), LOW + JZ);
    assert.deepEqual(
      [r.vmcs.number(Field.EXIT_INTERRUPTION_INFO), r.vmcs.number(Field.EXIT_INTERRUPTION_ERROR)],
      [0x8000_0b0d, 0],
    );
    assert.equal(r.vmcs.state.getUint32(gprAt(1), true), 0);
    assert.equal(r.instructions, 3 + 3 * 20_000 - 2);
  });
}
