import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { createInstruction, Decoder, decode } from "./decode.ts";
import { ALL_FEATURES, type Feature } from "./features.ts";
import { DecodeError, type Instruction, type Mode } from "./instruction.ts";

const ins = createInstruction();

function bytesOf(hex: string): Uint8Array {
  return Uint8Array.from(Buffer.from(hex.replaceAll(" ", ""), "hex"));
}

/** Decodes hex that must be one whole instruction. */
function one(hex: string, mode: Mode = 64): Instruction {
  const bytes = bytesOf(hex);
  assert.equal(decode(bytes, 0, mode, ins), bytes.length, hex);
  return ins;
}

function result(hex: string, mode: Mode = 64): number {
  return decode(bytesOf(hex), 0, mode, ins);
}

function without(...features: Feature[]): Decoder {
  return new Decoder(new Set([...ALL_FEATURES].filter((f) => !features.includes(f))));
}

test("REX counts only just before the opcode (SDM Vol. 2, REX Prefixes)", () => {
  assert.equal(one("48 01 c8").opsize, 8);
  assert.equal(one("48 66 01 c8").opsize, 2);
  assert.equal(one("66 48 01 c8").opsize, 8);
  assert.equal(one("48 41 01 c8").opsize, 4);
  assert.equal(one("48 41 01 c8").ops[0].num, 8);
});

test("a REX prefix turns AH..BH into SPL..DIL", () => {
  assert.equal(one("88 e0").ops[1].cls, "gpr8h");
  assert.equal(ins.ops[1].num, 0);
  assert.equal(one("40 88 e0").ops[1].cls, "gpr");
  assert.equal(ins.ops[1].num, 4);
});

test("the last repeat prefix wins, also as part of the opcode", () => {
  assert.equal(one("f2 f3 0f 58 c1").row.mnemonic, "ADDSS");
  assert.equal(one("f3 f2 0f 58 c1").row.mnemonic, "ADDSD");
  assert.equal(one("66 f2 0f 58 c1").row.mnemonic, "ADDSD");
  assert.equal(ins.rep, 0);
  assert.equal(one("f2 f3 a4").rep, 0xf3);
});

test("in 64-bit mode ES, CS, SS, DS overrides neither count nor cancel FS", () => {
  assert.equal(one("64 3e 8b 03").ops[1].seg, 4);
  assert.equal(one("64 65 8b 03").ops[1].seg, 5);
  assert.equal(one("2e 8b 03").ops[1].seg, 3);
  assert.equal(ins.segOverride, -1);
  assert.equal(one("64 3e 8b 03", 32).ops[1].seg, 3);
});

test("stack base registers default to SS", () => {
  assert.equal(one("8b 45 00").ops[1].seg, 2);
  assert.equal(one("8b 04 24").ops[1].seg, 2);
  assert.equal(one("41 8b 45 00").ops[1].seg, 3);
  assert.equal(one("8b 46 00", 16).ops[1].seg, 2);
  assert.equal(one("8b 06 34 12", 16).ops[1].seg, 3);
});

test("LOCK is #UD unless the row allows it and the destination is memory", () => {
  assert.equal(one("f0 01 03").lock, true);
  assert.equal(result("f0 01 c3"), DecodeError.UD);
  assert.equal(result("f0 8b 03"), DecodeError.UD);
  assert.equal(result("f0 3b 03"), DecodeError.UD);
  assert.equal(result("f0 39 03"), DecodeError.UD);
  assert.equal(result("f0 0f c7 4b 00"), 5);
});

test("15 bytes are an instruction, 16 are #GP", () => {
  const prefixes = (n: number): string => "2e".repeat(n);
  assert.equal(result(`${prefixes(14)}90`), 15);
  assert.equal(result(`${prefixes(15)}90`), DecodeError.TOO_LONG);
  assert.equal(result(`${prefixes(13)}b001`), 15);
  assert.equal(result(`${prefixes(14)}b001`), DecodeError.TOO_LONG);
  assert.equal(result(prefixes(20)), DecodeError.TOO_LONG);
  assert.equal(result(prefixes(14)), DecodeError.MORE);
});

test("near branches keep 64 bits in 64-bit mode whatever 66 says (Intel)", () => {
  assert.equal(one("66 e8 01 00 00 00").ops[0].size, 8);
  assert.equal(one("66 e8 01 00", 32).ops[0].size, 2);
  assert.equal(one("66 c3").opsize, 8);
  assert.equal(one("66 ff e0").ops[0].size, 8);
  assert.equal(one("66 50").ops[0].size, 2);
  assert.equal(one("50").ops[0].size, 8);
});

test("C4, C5, 62 are #UD in 64-bit mode and with a register operand", () => {
  for (const opcode of ["c4", "c5", "62"]) {
    assert.equal(result(`${opcode} 03 00 00`), DecodeError.UD);
    assert.equal(result(`${opcode} c3 00 00`, 32), DecodeError.UD);
    assert.equal(result(`${opcode} 03`, 32), 2);
  }
});

test("MOV CR and MOV DR ignore ModRM.mod; registers that do not exist are #UD", () => {
  assert.equal(one("0f 20 00").ops[0].kind, "reg");
  assert.equal(ins.ops[0].size, 8);
  assert.equal(one("0f 22 c0", 32).ops[1].size, 4);
  assert.equal(one("44 0f 20 c0").ops[1].num, 8);
  assert.equal(result("0f 20 c8"), DecodeError.UD);
  assert.equal(result("44 0f 20 d8"), DecodeError.UD);
  assert.equal(result("44 0f 21 c0"), DecodeError.UD);
});

test("MOV to CS and segment registers 6, 7 are #UD", () => {
  assert.equal(result("8e c8"), DecodeError.UD);
  assert.equal(result("8e f0"), DecodeError.UD);
  assert.equal(result("8c f8"), DecodeError.UD);
  assert.equal(one("8c c8").ops[1].num, 1);
});

test("immediates are extended as the row says", () => {
  assert.equal(one("48 83 c0 ff").ops[1].imm, -1);
  assert.equal(ins.ops[1].immHi, -1);
  assert.equal(one("b0 ff").ops[1].imm, 255);
  assert.equal(one("68 00 00 00 80").ops[0].imm, -0x80000000);
  assert.equal(ins.ops[0].size, 8);
  one("48 b8 ef cd ab 89 67 45 23 81");
  assert.equal(ins.ops[1].immLo, 0x89abcdef | 0);
  assert.equal(ins.ops[1].immHi, 0x81234567 | 0);
  assert.equal(one("c8 ff ff 01").ops[0].imm, 0xffff);
});

test("addresses without ModRM have the address size", () => {
  assert.equal(one("a1 01 00 00 00 02 00 00 00").ops[1].dispHi, 2);
  assert.equal(one("67 a1 ff ff ff ff").ops[1].dispHi, 0);
  assert.equal(one("a1 34 12", 16).ops[1].disp, 0x1234);
});

test("a masked feature is #UD, or the older meaning of the bytes", () => {
  const popcnt = bytesOf("f3 0f b8 c1");
  assert.equal(without("popcnt").decode(popcnt, 0, 64, ins), DecodeError.UD);
  assert.equal(without("lahf_lm").decode(bytesOf("9e"), 0, 64, ins), DecodeError.UD);
  assert.equal(without("lahf_lm").decode(bytesOf("9e"), 0, 32, ins), 1);
  assert.equal(one("f3 0f bc c1").row.mnemonic, "BSF");
  assert.equal(one("f3 0f bd c1").row.mnemonic, "BSR");
  assert.equal(one("f3 0f 1e fa").row.sem, "nop");
  assert.equal(one("f3 0f 09").row.mnemonic, "WBINVD");
});

test("90 is NOP, with REX.B it is XCHG", () => {
  assert.equal(one("90").row.mnemonic, "NOP");
  assert.equal(one("48 90").row.mnemonic, "NOP");
  assert.equal(one("f3 90").row.mnemonic, "PAUSE");
  assert.equal(one("41 90").row.mnemonic, "XCHG");
});

test("a cut instruction wants more bytes, and the rest of the buffer does not matter", () => {
  const modes = fc.constantFrom<Mode>(16, 32, 64);
  fc.assert(
    fc.property(
      fc.uint8Array({ minLength: 16, maxLength: 16 }),
      modes,
      fc.nat(40),
      (bytes, mode, at) => {
        const length = decode(bytes, 0, mode, ins);
        if (length <= 0) return;
        const name = ins.row;
        const large = new Uint8Array(at + length + 40).fill(0xcc);
        large.set(bytes.subarray(0, length), at);
        assert.equal(decode(large, at, mode, ins, at + length), length);
        assert.equal(ins.row, name);
        for (let cut = 0; cut < length; cut++) {
          assert.equal(decode(large, at, mode, ins, at + cut), DecodeError.MORE);
          assert.equal(decode(bytes.slice(0, cut), 0, mode, ins), DecodeError.MORE);
        }
      },
    ),
    { numRuns: 2000, seed: 1 },
  );
});
