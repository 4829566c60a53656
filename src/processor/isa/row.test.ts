import assert from "node:assert/strict";
import { test } from "node:test";
import { InvariantError } from "../../base/invariant.ts";
import { CONDITIONS, defineRows, type RowText } from "./row.ts";
import { ROWS } from "./table.ts";

test("a row in the manual's notation says where everything is", () => {
  const [row] = defineRows("base", [["NFx 0F 38 F0 /r", "MOVBE", "Gv,Mv", "feature:movbe"]]);
  assert.ok(row);
  assert.equal(row.prefix, "NFx");
  assert.equal(row.map, "0F38");
  assert.equal(row.opcode, 0xf0);
  assert.equal(row.mod, "mem");
  assert.equal(row.feature, "movbe");
  assert.equal(row.sem, "movbe");
});

test("fixed ModRM bytes, opcode extensions and condition codes", () => {
  const [xgetbv] = defineRows("base", [["NP 0F 01 D0", "XGETBV"]]);
  assert.deepEqual([xgetbv?.ext, xgetbv?.rm, xgetbv?.mod], [2, 0, "reg"]);
  const [fld] = defineRows("fpu", [["D9 C0+i", "FLD", "STi"]]);
  assert.deepEqual([fld?.ext, fld?.rm, fld?.mod], [0, -1, "reg"]);
  const setcc = defineRows("base", [["0F 90+cc /r", "SET{cc}", "Eb"]]);
  assert.equal(setcc.length, CONDITIONS.length);
  assert.deepEqual([setcc[5]?.mnemonic, setcc[5]?.sem, setcc[5]?.cc], ["SETNE", "setcc", 5]);
});

test("wrong rows break at load", () => {
  const wrong: RowText[] = [
    ["0G", "BAD"],
    ["00", "ADD", "Eb,Gb"],
    ["00 /0", "ADD", "Eb,Gb"],
    ["41+r", "INC", "Zv"],
    ["00 /r", "ADD", "Ek,Gb"],
    ["00 /r", "ADD", "Eb,Gb", "frob"],
    ["00 /r", "ADD", "Eb,Gb", "feature:frob"],
    ["00 /r", "ADD", "Gb,Eb", "lock"],
    ["00", "ADD", "", "i64 o64"],
    ["0F 3A 00 /r", "BAD", "Ib,Ev,Gv"],
  ];
  for (const line of wrong) {
    assert.throws(() => defineRows("base", [line]), InvariantError, line.join(" "));
  }
});

test("rows are numbered, and rows of one meaning agree about conditions", () => {
  for (const [id, row] of ROWS.entries()) {
    assert.equal(row.id, id);
    assert.equal(row.cc >= 0, /^(jcc|setcc|cmovcc)$/.test(row.sem), row.mnemonic);
  }
});

test("no two rows are the same encoding for the same operand size, address size and mode", () => {
  const seen = new Map<string, string>();
  for (const r of ROWS) {
    const modes = [r.o64 ? "" : "legacy", r.i64 ? "" : "64"].filter((m) => m !== "");
    for (const mode of modes) {
      for (const size of [2, 4, 8]) {
        if ((r.opsizes & size) === 0) continue;
        const where = [
          r.prefix,
          r.map,
          r.opcode,
          r.ext,
          r.rm,
          r.mod,
          r.rexB,
          r.addrSizes,
          size,
          mode,
        ].join();
        assert.equal(seen.get(where), undefined, `${where} ${r.mnemonic}`);
        seen.set(where, r.mnemonic);
      }
    }
  }
});
