import assert from "node:assert/strict";
import { test } from "node:test";
import { closest } from "./closest.ts";

test("a slip of the finger finds its word, another word finds none", () => {
  const words = ["run", "doctor", "version", "help"];
  assert.equal(closest("rnu", words), "run");
  assert.equal(closest("dcotor", words), "doctor");
  assert.equal(closest("versoin", words), "version");
  assert.equal(closest("hlp", words), "help");
  assert.equal(closest("banana", words), undefined);
  assert.equal(closest("", words), undefined);
});
