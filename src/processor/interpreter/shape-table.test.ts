import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { parseCpuModel } from "../isa/cpuid.ts";
import { Decoder } from "../isa/decode.ts";
import { Instruction } from "../isa/instruction.ts";
import { ROWS } from "../isa/table.ts";
import { Mode } from "../state/layout.ts";
import { ShapeTable } from "./shape-table.ts";
import { shapeOf } from "./shapes.ts";

test("a shape that has been met is the shape that the instruction has", () => {
  const decoder = new Decoder(parseCpuModel("max").features);
  const table = new ShapeTable();
  const insn = new Instruction(ROWS[0]!);
  const modes = [
    [16, Mode.CODE16],
    [32, Mode.CODE32],
    [64, Mode.CODE64],
  ] as const;
  const bytes = fc.uint8Array({ minLength: 15, maxLength: 15 });
  const opcode = fc.constantFrom([], [0x0f], [0x66, 0x0f], [0xf3, 0x0f], [0x66], [0x48], [0xf2]);
  fc.assert(
    fc.property(fc.constantFrom(...modes), opcode, bytes, ([bits, mode], first, rest) => {
      const code = Uint8Array.of(...first, ...rest);
      if (decoder.decode(code, 0, bits, insn, code.length) < 0) return;
      const shape = table.of(insn, mode);
      assert.deepEqual(shape, shapeOf(insn, mode));
      assert.deepEqual(table.of(insn, mode), shape);
    }),
    { numRuns: 20_000 },
  );
});
