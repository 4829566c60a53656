import assert from "node:assert/strict";
import { test } from "node:test";
import { CRITERIA } from "./all.ts";
import { selectCriteria } from "./select.ts";

const ids = (...words: string[]): string[] => selectCriteria(words, CRITERIA).map(({ id }) => id);

test("criteria are chosen by id, by mechanism, or all", () => {
  assert.deepEqual(ids("P1-A4"), ["P1-A4"]);
  assert.deepEqual(
    ids("P1"),
    CRITERIA.filter(({ id }) => id.startsWith("P1-")).map(({ id }) => id),
  );
  assert.equal(ids("all").length, CRITERIA.length);
});

test("a word that chooses nothing is a mistake, not a pass", () => {
  for (const word of ["P1-A", "P99", "p1", ""]) assert.throws(() => ids(word), { code: "usage" });
  assert.throws(() => ids(), { code: "usage" });
});

test("ids are told apart, and every criterion says what it measures by", () => {
  assert.equal(new Set(CRITERIA.map(({ id }) => id)).size, CRITERIA.length);
  for (const { id, bar, title } of CRITERIA) {
    assert.match(id, /^P\d+-A\d+$/);
    assert.ok(bar !== "" && title !== "");
  }
});
