/** Breakpoints against accesses, and what else rides on the slow path with them. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { TestMachine } from "../core/test-machine.ts";
import { S } from "../state/layout.ts";

const m = new TestMachine();

test("matchBreakpoints finds enabled breakpoints by kind, length and overlap", () => {
  const hit = (
    dr7: number,
    address: bigint,
    access: bigint,
    bytes: number,
    kind: number,
  ): number => {
    m.reset("long");
    m.set(S.DR7, dr7 >>> 0);
    m.set(S.DR1, address);
    return m.call("matchBreakpoints", access, bytes, kind);
  };
  const [WRITE, IO, READ] = [1, 2, 3];
  const dr7 = (rw: number, len: number): number => 4 | (rw << 20) | (len << 22);
  assert.equal(hit(dr7(WRITE, 3), 0x1000n, 0x1003n, 1, WRITE), 2);
  assert.equal(
    hit(dr7(WRITE, 3), 0x1002n, 0x1000n, 1, WRITE),
    2,
    "the address is aligned to the length",
  );
  assert.equal(hit(dr7(WRITE, 3), 0x1000n, 0x1004n, 1, WRITE), 0);
  assert.equal(hit(dr7(WRITE, 0), 0x1003n, 0x1000n, 4, WRITE), 2);
  assert.equal(hit(dr7(WRITE, 0), 0x1000n, 0x1000n, 1, READ), 0);
  assert.equal(hit(dr7(READ, 0), 0x1000n, 0x1000n, 1, WRITE), 2);
  assert.equal(hit(dr7(READ, 2), 0x1000n, 0x1007n, 1, READ), 2);
  assert.equal(hit(dr7(IO, 0), 0x60n, 0x60n, 1, IO), 2);
  assert.equal(hit(dr7(IO, 0), 0x60n, 0x60n, 1, READ), 0);
  assert.equal(hit(dr7(WRITE, 3) & ~4, 0x1000n, 0x1000n, 4, WRITE), 0, "not enabled");
});
