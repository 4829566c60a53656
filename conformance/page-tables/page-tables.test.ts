/** The processor's paging against the reference walker: random steps on page tables. The long run: npm run conformance -- page-tables. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { tablePoison } from "../criteria/p5-paging.ts";
import { PAGE, pageAt } from "./guest-memory-map.ts";
import { PageTableMachine } from "./page-table-machine.ts";
import { RandomSteps } from "./random-steps.ts";
import { Bit } from "./reference-walker.ts";
import { LabTarget } from "./target.ts";

const STEPS = 6000;
const MODES = ["4-level", "PAE", "32-bit"] as const;
const READ = { kind: "read", user: false, ac: false } as const;

for (const mode of MODES)
  for (const engine of ["interpreter", "jit"] as const)
    test(`accesses after random changes of page tables are as the manual says: ${mode}, ${engine}`, () => {
      const steps = new RandomSteps(mode, engine, 7);
      steps.run(STEPS);
      const { accesses, faults, stale } = steps.machine.counts;
      // Something has come of it: accesses of all three kinds.
      assert.ok(faults! > STEPS / 10 && accesses! - faults! > STEPS / 10 && stale! > STEPS / 100);
    });

for (const engine of ["interpreter", "jit"] as const)
  test(`active page tables give what the guest's tables say: 4-level, ${engine}`, () => {
    const steps = new RandomSteps("4-level", engine, 11, "active");
    steps.run(STEPS);
    const { accesses, faults } = steps.machine.counts;
    assert.ok(accesses! - faults! > STEPS / 10 && steps.target.exits > STEPS / 2);
  });

test("active page tables go on when their memory runs out", () => {
  const target = new LabTarget("4-level", "interpreter", "active", 16 * PAGE);
  const linears = Array.from({ length: 64 }, (_, n) => 0x80_0000_0000n | (BigInt(n) << 21n));
  const machine = new PageTableMachine("4-level", target, linears);
  machine.store(pageAt(0) + 8, BigInt(pageAt(2)) | 7n);
  machine.store(pageAt(2), BigInt(pageAt(3)) | 7n);
  machine.store(pageAt(4), BigInt(pageAt(40)) | 7n);
  for (let n = 0; n < 64; n++) machine.store(pageAt(3) + n * 8, BigInt(pageAt(4)) | 7n);
  for (let round = 0; round < 20; round++)
    for (const slot of machine.slots) machine.access(slot, 8 * round, READ, 0n);
  assert.equal(machine.counts.accesses, 20 * 64);
  machine.flush();
});

test("P5-A6 holds with EPT and with active tables on the bench", async () => {
  const { measured } = await tablePoison.run({ seed: 3, progress: () => {} });
  assert.match(measured, /ept: 2000 tables freed.*active: 2000 tables freed/);
});

/** One page at PDE 5, PTE 1 in PAE paging. */
function paeMachine(): { machine: PageTableMachine; target: LabTarget; entry: number } {
  const target = new LabTarget("PAE", "interpreter");
  const machine = new PageTableMachine("PAE", target, [0x40a0_1000n]);
  machine.storePdpte(1, 1, BigInt(pageAt(2)) | 1n);
  machine.store(pageAt(2) + 5 * 8, BigInt(pageAt(3)) | 7n);
  machine.store(pageAt(3) + 8, BigInt(pageAt(40)) | 7n);
  machine.loadCr3(0x31_0020, 0, false);
  return { machine, target, entry: pageAt(3) + 8 };
}

test("an entry that is not what the reference thinks is found", () => {
  const { machine, target, entry } = paeMachine();
  machine.access(machine.slots[0]!, 0, READ, 0n);
  machine.flush();
  target.memory.setBigUint64(entry, 0n, true);
  machine.invlpg(machine.slots[0]!);
  machine.access(machine.slots[0]!, 0, READ, 0n);
  assert.throws(
    () => machine.flush(),
    /PAE: read at CPL 0, 0x40a01000: 0x0, 0x40a01000; not success/,
  );
});

test("a flush that the guest does not make leaves what was cached: both answers are right, a third is not", () => {
  const { machine, target, entry } = paeMachine();
  const [slot] = machine.slots;
  machine.store(pageAt(40), 40n);
  machine.store(pageAt(41), 41n);
  machine.store(pageAt(42), 42n);
  machine.access(slot!, 0, READ, 0n);
  machine.store(entry, BigInt(pageAt(41)) | 7n | Bit.A);
  machine.access(slot!, 0, READ, 0n);
  machine.flush();
  machine.access(slot!, 0, READ, 0n);
  target.memory.setUint32(pageAt(40), 42, true);
  target.memory.setUint32(pageAt(41), 42, true);
  assert.throws(() => machine.flush(), /0x2a; not success, 0x29 or success, 0x28/);
});

test("PAE entries have bits 62:52 reserved, and MOV CR3 alone loads the top ones", () => {
  const { machine, entry } = paeMachine();
  const [slot] = machine.slots;
  for (let bit = 52n; bit < 63n; bit++) {
    machine.store(entry, BigInt(pageAt(40)) | 7n | (1n << bit));
    machine.invlpg(slot!);
    assert.ok(machine.access(slot!, PAGE / 2, READ, 0n));
  }
  assert.equal(machine.counts.faults, 11);
  machine.store(entry, BigInt(pageAt(40)) | 7n);
  machine.storePdpte(1, 1, 0n);
  machine.invlpg(slot!);
  machine.access(slot!, 0, READ, 0n);
  assert.equal(machine.counts.faults, 11);
  machine.loadCr3(0x31_0020, 0, false);
  machine.access(slot!, 0, READ, 0n);
  assert.equal(machine.counts.faults, 12);
  machine.flush();
});

test("in 32-bit paging EFER.NXE alone does not make a fault tell a fetch, SMEP does", () => {
  const machine = new PageTableMachine("32-bit", new LabTarget("32-bit", "interpreter"), [
    0x4010_0000n,
  ]);
  const fetch = { kind: "fetch", user: true, ac: false } as const;
  machine.setNxe(true);
  machine.access(machine.slots[0]!, 0, fetch, 0n);
  machine.setCr4({ smep: true });
  machine.access(machine.slots[0]!, 0, fetch, 0n);
  assert.equal(machine.counts.faults, 2);
  machine.flush();
});
