/**
 * P5-A1, A3, A6: page tables in all combinations, harvested and reused, against the reference walker: with EPT, and with the kernel's virtual
 * TLB on the bench. No VM of the kernel runs with EPT off yet, so these have not passed, whatever the bench gives.
 */
import { PAGE, pageAt } from "../page-tables/guest-memory-map.ts";
import { PageTableMachine } from "../page-tables/page-table-machine.ts";
import { type Access, Bit } from "../page-tables/reference-walker.ts";
import { LabTarget } from "../page-tables/target.ts";
import type { Criterion, CriterionContext, CriterionResult } from "./criterion.ts";
import { Random } from "./random.ts";

const NOT_THERE =
  "not tried: in a VM of the kernel (it has EPT always), and other modes with active tables";
const SOURCES = ["ept", "active"] as const;
/** PML4E 1, PDPTE 3, PDE 2, PTE 37: with large pages it leads into the arena, too. */
const LINEAR = 0x80_c042_5000n;
const [ROOT, PDPT, PD, PT, DATA] = [0, 2, 3, 4, 40];
const ENTRY_OF_LEVEL = [
  pageAt(ROOT) + 8,
  pageAt(PDPT) + 3 * 8,
  pageAt(PD) + 2 * 8,
  pageAt(PT) + 37 * 8,
] as const;
const ALL = Bit.P | Bit.W | Bit.U | Bit.A;
const OPEN = [
  BigInt(pageAt(PDPT)) | ALL,
  BigInt(pageAt(PD)) | ALL,
  BigInt(pageAt(PT)) | ALL,
  BigInt(pageAt(DATA)) | ALL,
] as const;
/** Leaf of a level: 1 GiB from 0, 2 MiB, 4 KiB. */
const LEAF = [0n, Bit.PS, BigInt(pageAt(0)) | Bit.PS, BigInt(pageAt(DATA))] as const;

const ACCESSES: readonly Access[] = (["read", "write", "fetch"] as const).flatMap((kind) =>
  [false, true].flatMap((user) => [false, true].map((ac) => ({ kind, user, ac }))),
);

/** Tries `body` with both sources of translations: what it measured or what was wrong. */
function onBench(
  linears: readonly bigint[],
  body: (machine: PageTableMachine) => string,
): Promise<CriterionResult> {
  const texts = SOURCES.map((source) => {
    const target = new LabTarget("4-level", "interpreter", source);
    const machine = new PageTableMachine("4-level", target, linears);
    try {
      const measured = body(machine);
      machine.flush();
      return `${source}: ${measured}${source === "active" ? `, ${target.exits} exits` : ""}`;
    } catch (error) {
      return `${source}: FAILS: ${error instanceof Error ? error.message : String(error)}`;
    }
  });
  return Promise.resolve({ passed: false, measured: [...texts, NOT_THERE].join("; ") });
}

function pick(bits: readonly bigint[], n: number): bigint {
  return bits.reduce((sum, bit, i) => (n & (1 << i) ? sum | bit : sum), 0n);
}

/** A leaf with all combinations of its bits below parents with one right less. */
function tryLeaves(machine: PageTableMachine, level: number): void {
  const [slot] = machine.slots;
  const at = ENTRY_OF_LEVEL[level]!;
  for (let n = 0; n < 128; n++) {
    const leaf = LEAF[level]! | pick([Bit.P, Bit.W, Bit.U, Bit.A, Bit.D, Bit.NX, Bit.G], n);
    for (const access of ACCESSES) {
      machine.store(at, leaf);
      machine.invlpg(slot!);
      machine.access(slot!, 0x100, access, 0x1234n);
    }
    if (machine.isFull) machine.flush();
  }
}

function tryReserved(machine: PageTableMachine): void {
  const [slot] = machine.slots;
  for (let level = 0; level < 4; level++)
    for (const isLeaf of [false, true])
      for (let bit = 7n; bit < 64n; bit++) {
        if (isLeaf && (level === 0 || (bit >= 12n && bit < 40n && level === 3))) continue;
        // Address bits lead out of the arena.
        if (bit >= (isLeaf ? (level === 1 ? 30n : level === 2 ? 21n : 12n) : 12n) && bit < 40n)
          continue;
        if (!isLeaf && (level === 3 || (bit === 7n && level > 0))) continue;
        machine.store(
          ENTRY_OF_LEVEL[level]!,
          (isLeaf ? LEAF[level]! | ALL : OPEN[level]!) | (1n << bit),
        );
        machine.invlpg(slot!);
        for (const access of ACCESSES) machine.access(slot!, 0x100, access, 0x1234n);
        machine.store(ENTRY_OF_LEVEL[level]!, OPEN[level]!);
        machine.invlpg(slot!);
        if (machine.isFull) machine.flush();
      }
}

function permutations({ progress }: CriterionContext): Promise<CriterionResult> {
  return onBench([LINEAR], (machine) => {
    for (const [level, entry] of OPEN.entries()) machine.store(ENTRY_OF_LEVEL[level]!, entry);
    for (let n = 0; n < 32; n++) {
      progress(`P5-A1: control bits ${n} of 32`);
      const [wp, smep, smap, nxe, pcids] = [1, 2, 4, 8, 16].map((bit) => (n & bit) !== 0);
      machine.setWp(wp!);
      machine.setNxe(nxe!);
      machine.setCr4({ smep: smep!, smap: smap!, pge: !machine.state.pge, pcids: pcids! });
      tryReserved(machine);
      for (let level = 1; level < 4; level++) {
        tryLeaves(machine, level);
        for (let parent = 0; parent < level; parent++)
          for (const without of [
            OPEN[parent]! & ~Bit.W,
            OPEN[parent]! & ~Bit.U,
            OPEN[parent]! | Bit.NX,
          ]) {
            // NX in a parent is a reserved bit without NXE: tried above.
            if (without & Bit.NX && !nxe) continue;
            machine.store(ENTRY_OF_LEVEL[parent]!, without & ~Bit.A);
            tryLeaves(machine, level);
            machine.store(ENTRY_OF_LEVEL[parent]!, OPEN[parent]!);
          }
        machine.store(ENTRY_OF_LEVEL[level]!, OPEN[level]!);
      }
    }
    const { accesses, faults } = machine.counts;
    return `${accesses} accesses (${faults} faults), 0 differences; protection keys and 5-level paging: not offered by the processor`;
  });
}

const HARVEST_TABLES = 20;
const HARVEST_ROUNDS = 10;
const ENTRIES_OF_TABLE = 500;

/** The guest clears A and D of all entries of its tables, flushes, and touches some: only these have them again. */
function harvest({ seed, progress }: CriterionContext): Promise<CriterionResult> {
  const random = new Random(seed);
  const linears: bigint[] = [];
  for (let t = 0; t < HARVEST_TABLES; t++)
    for (let i = 0; i < ENTRIES_OF_TABLE; i++)
      linears.push(0x80_c000_0000n | (BigInt(t) << 21n) | (BigInt(i) << 12n));
  const entryOf = (n: number): number =>
    pageAt(PT + Math.floor(n / ENTRIES_OF_TABLE)) + (n % ENTRIES_OF_TABLE) * 8;
  return onBench(linears, (machine) => {
    let cleared = 0;
    let touched = 0;
    machine.store(ENTRY_OF_LEVEL[0], OPEN[0]);
    machine.store(ENTRY_OF_LEVEL[1], OPEN[1]);
    for (let t = 0; t < HARVEST_TABLES; t++)
      machine.store(pageAt(PD) + t * 8, BigInt(pageAt(PT + t)) | ALL);
    for (let round = 0; round < HARVEST_ROUNDS; round++) {
      progress(`P5-A3: round ${round} of ${HARVEST_ROUNDS}`);
      machine.slots.forEach((slot, n) => {
        cleared++;
        machine.store(entryOf(n), BigInt(pageAt(DATA + (n % 50))) | Bit.P | Bit.W | Bit.U);
        machine.invlpg(slot);
        if (machine.isFull) machine.flush();
      });
      machine.flush();
      for (const slot of machine.slots) {
        if (!random.chance(30)) continue;
        touched++;
        const kind = random.pick(["read", "write"] as const);
        machine.access(
          slot,
          random.below(500) * 8,
          { kind, user: random.chance(50), ac: false },
          BigInt(touched),
        );
        if (machine.isFull) machine.flush();
      }
      machine.flush();
    }
    return `${cleared} entries cleared, ${touched} pages touched: accessed and dirty bits of exactly these`;
  });
}

const POISON_ROUNDS = 2000;

/** A table is taken out, used as data and as a stack, and becomes a table again. */
function poison({ seed }: CriterionContext): Promise<CriterionResult> {
  const random = new Random(seed);
  const window = 0x80_c020_0000n;
  const access = (kind: "read" | "write"): Access => ({ kind, user: random.chance(50), ac: false });
  return onBench([LINEAR, window], (machine) => {
    const [page, alias] = machine.slots;
    let reused = 0;
    machine.store(ENTRY_OF_LEVEL[0], OPEN[0]);
    machine.store(ENTRY_OF_LEVEL[1], OPEN[1]);
    machine.store(pageAt(PD) + 8, BigInt(pageAt(5)) | ALL);
    for (let round = 0; round < POISON_ROUNDS; round++) {
      const table = 6 + random.below(10);
      machine.store(pageAt(table) + 37 * 8, BigInt(pageAt(DATA + random.below(50))) | ALL);
      machine.store(pageAt(PD) + 2 * 8, BigInt(pageAt(table)) | ALL);
      machine.invlpg(page!);
      machine.access(page!, 0, access("write"), BigInt(round));
      // Freed; the frame is now data, written from top to bottom as a stack is.
      machine.store(pageAt(PD) + 2 * 8, 0n);
      machine.invlpg(page!);
      machine.store(pageAt(5), BigInt(pageAt(table)) | ALL);
      machine.invlpg(alias!);
      for (let slot = 40; slot > 34; slot--) {
        const words = BigInt(random.word()) | (BigInt(random.word()) << 32n);
        const value = random.chance(50) ? words : BigInt(pageAt(DATA + random.below(50))) | ALL;
        machine.access(alias!, slot * 8, access("write"), value);
      }
      machine.access(page!, 0, access("read"), 0n);
      // And a table again, with what the stack has left in it.
      machine.store(pageAt(PD) + 2 * 8, BigInt(pageAt(table)) | ALL);
      if (random.chance(50)) machine.invlpg(page!);
      if (machine.access(page!, PAGE / 2, access("read"), 0n)) reused++;
      if (machine.isFull) machine.flush();
    }
    return `${POISON_ROUNDS} tables freed, ${reused} reused: 0 stale translations`;
  });
}

const REST = { timeBase: "none", runMode: "mh-noept" } as const;

export const pagingPermutations: Criterion = {
  id: "P5-A1",
  title: "all combinations of bits in entries, control bits, rings and accesses",
  bar: "result, error code, CR2 and A/D as the reference walker's; 0 differences; with EPT off",
  ...REST,
  isSeeded: false,
  run: permutations,
};
export const accessedHarvest: Criterion = {
  id: "P5-A3",
  title: "the guest clears A and D of 100 000 entries and touches some pages",
  bar: "the bits are those of the reference; with EPT off",
  ...REST,
  isSeeded: true,
  run: harvest,
};
export const tablePoison: Criterion = {
  id: "P5-A6",
  title: "a page-table page used as data, freed, reused as a stack",
  bar: "no stale translation; with EPT off",
  ...REST,
  isSeeded: true,
  run: poison,
};
