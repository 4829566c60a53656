/**
 * Random steps on page tables, by a seed: entries written and cleared, large pages, tables shared between parents and levels and mapped into
 * themselves, flushes of all kinds or none, changes of the control bits, and accesses of every kind to all that.
 */
import type { EngineName } from "../../src/control/protocol.ts";
import { Random } from "../criteria/random.ts";
import { ARENA_PAGES, Place, pageAt, ROOTS, TABLES } from "./guest-memory-map.ts";
import { PageTableMachine, PCIDS, PDPTS } from "./page-table-machine.ts";
import { type Access, Bit, type PagingMode } from "./reference-walker.ts";
import { LabTarget, type PagingSource } from "./target.ts";

const SLOTS = 40;
/** Page-table indices in use, from the top. 2 (and 4) lead large pages into the arena; the last but one maps the tables into themselves. */
const INDICES: Readonly<Record<PagingMode, readonly (readonly number[])[]>> = {
  "4-level": [
    [1, 256, 510],
    [0, 3, 510],
    [2, 5, 510],
    [0, 1, 37, 63, 90, 510],
  ],
  PAE: [
    [1, 2, 3],
    [2, 5, 510],
    [0, 1, 37, 63, 90, 510],
  ],
  "32-bit": [
    [4, 300, 700, 1020],
    [0, 1, 37, 63, 90, 300, 1020],
  ],
};
const SHIFTS: Readonly<Record<PagingMode, readonly number[]>> = {
  "4-level": [39, 30, 21, 12],
  PAE: [30, 21, 12],
  "32-bit": [22, 12],
};
/** Where an entry of this level maps a large page of the arena: PAE and 4-level 2 MiB and 4 MiB there, 1 GiB from 0. */
const largeFrame = (mode: PagingMode, level: number): bigint =>
  mode === "4-level" && level === 1 ? 0n : BigInt(Place.ARENA);

function linears(mode: PagingMode, random: Random): bigint[] {
  const found = new Set<bigint>();
  const indices = INDICES[mode];
  while (found.size < SLOTS && found.size < indices.reduce((n, list) => n * list.length, 1)) {
    let linear = 0n;
    indices.forEach((list, level) => {
      linear |= BigInt(random.pick(list)) << BigInt(SHIFTS[mode][level]!);
    });
    if (mode === "4-level" && linear >> 47n !== 0n) linear |= 0xffff_0000_0000_0000n;
    found.add(linear);
  }
  return [...found];
}

export class RandomSteps {
  readonly machine: PageTableMachine;
  readonly #random: Random;
  readonly #mode: PagingMode;

  readonly target: LabTarget;

  constructor(mode: PagingMode, engine: EngineName, seed: number, source: PagingSource = "ept") {
    this.#mode = mode;
    this.#random = new Random(seed);
    this.target = new LabTarget(mode, engine, source);
    this.machine = new PageTableMachine(mode, this.target, linears(mode, this.#random));
    for (let n = 0; n < 400; n++) this.#storeEntry();
  }

  /** Takes steps; differences are thrown. */
  run(steps: number): void {
    for (let n = 0; n < steps; n++) {
      this.#step();
      if (this.machine.isFull) this.machine.flush();
    }
    this.machine.flush();
  }

  #step(): void {
    const kind = this.#random.below(1000);
    if (kind < 560) this.#access();
    else if (kind < 790) this.#storeEntry();
    else if (kind < 940) this.machine.invlpg(this.#random.pick(this.machine.slots));
    else if (kind < 975) this.#loadCr3();
    else if (kind < 987) this.#invpcid();
    else this.#control();
  }

  #access(): void {
    const random = this.#random;
    const slot = random.pick(this.machine.slots);
    if (this.machine.staleOf(slot).length > (random.chance(50) ? 0 : 4)) this.machine.invlpg(slot);
    const access: Access = {
      kind: random.pick(["read", "read", "write", "write", "fetch"] as const),
      user: random.chance(50),
      ac: random.chance(25),
    };
    const size = this.#mode === "32-bit" ? 4 : 8;
    const index = random.chance(70) ? random.pick(INDICES[this.#mode].at(-1)!) : random.below(500);
    const value = random.chance(60) ? this.#entry(random.below(4)) : BigInt(random.word());
    this.machine.access(slot, index * size, access, value);
  }

  /** An entry for a level (0 = top table in memory) of which most are useful. */
  #entry(level: number): bigint {
    const random = this.#random;
    const mode = this.#mode;
    const levels = mode === "4-level" ? 4 : 2;
    if (random.chance(6)) return random.chance(50) ? 0n : BigInt(random.word() & ~1);
    const isLast = level >= levels - 1;
    let entry = Bit.P;
    const maybe = (bit: bigint, percent: number): void => {
      if (random.chance(percent)) entry |= bit;
    };
    maybe(Bit.W, isLast ? 65 : 85);
    maybe(Bit.U, isLast ? 65 : 85);
    maybe(Bit.A, 50);
    maybe(Bit.D, 50);
    maybe(Bit.G, 25);
    if (mode !== "32-bit") {
      maybe(Bit.NX, this.machine.state.nxe ? 10 : 1);
      maybe(1n << BigInt(40 + random.below(12)), 1);
      maybe(1n << BigInt(52 + random.below(11)), 3);
    }
    if (isLast) {
      const data = random.below(ARENA_PAGES - TABLES) + TABLES;
      const frame = random.chance(75) ? data : random.below(TABLES);
      if (random.chance(10)) entry |= Bit.PS;
      return entry | BigInt(pageAt(frame));
    }
    const canBeLarge = mode !== "4-level" || level > 0;
    if (canBeLarge && random.chance(20)) {
      if (random.chance(4)) entry |= 1n << BigInt(13 + random.below(9));
      return entry | Bit.PS | largeFrame(mode, level);
    }
    if (!canBeLarge) maybe(Bit.PS, 1);
    return entry | BigInt(pageAt(ROOTS + random.below(TABLES - ROOTS)));
  }

  #storeEntry(): void {
    const random = this.#random;
    const mode = this.#mode;
    const { machine } = this;
    if (mode === "PAE" && random.chance(10)) {
      const table = BigInt(pageAt(random.below(TABLES)));
      const value = random.chance(90) ? table | 1n : 0n;
      machine.storePdpte(random.below(PDPTS), 1 + random.below(3), value);
      return;
    }
    const size = mode === "32-bit" ? 4 : 8;
    const lists = mode === "PAE" ? INDICES.PAE.slice(1) : INDICES[mode];
    // Mostly an entry that matters: one that the walk of a page in use reads.
    const { entries } = random.pick(machine.slots);
    if (entries.length > 0 && random.chance(75)) {
      const level = random.chance(60) ? entries.length - 1 : random.below(entries.length);
      const at = entries[level]!;
      if (!machine.isFree(at)) return;
      const flipped =
        machine.peek(at) ^ random.pick([Bit.P, Bit.W, Bit.U, Bit.A, Bit.D, Bit.G, Bit.A | Bit.D]);
      machine.store(at, random.chance(40) ? flipped : this.#entry(level));
      return;
    }
    const level = random.below(lists.length);
    const table = level === 0 ? random.below(ROOTS) : ROOTS + random.below(TABLES - ROOTS);
    const at = pageAt(table) + random.pick(lists[level]!) * size;
    const isSelf = level === 0 && mode !== "PAE" && random.chance(15);
    const value = isSelf ? BigInt(pageAt(table)) | 0x67n : this.#entry(level);
    if (machine.isFree(at)) machine.store(at, value);
  }

  #loadCr3(): void {
    const random = this.#random;
    const root =
      this.#mode === "PAE" ? Place.PDPTS + 32 * random.below(PDPTS) : pageAt(random.below(ROOTS));
    this.machine.loadCr3(root, random.below(PCIDS), random.chance(70));
  }

  #invpcid(): void {
    const { machine } = this;
    if (this.#mode !== "4-level" || !this.target.hasInvpcid) return;
    const type = this.#random.below(4) as 0 | 1 | 2 | 3;
    const pcid = machine.hasPcids ? this.#random.below(PCIDS) : 0;
    machine.invpcid(type, pcid, this.#random.pick(machine.slots));
  }

  #control(): void {
    const random = this.#random;
    const on = random.chance(50);
    const { machine } = this;
    const choice = random.below(7);
    if (choice === 0) machine.setWp(on);
    else if (choice === 1) machine.setNxe(random.chance(75));
    else if (choice === 2) machine.setCr4({ pge: on });
    else if (choice === 3) machine.setCr4({ smep: on });
    else if (choice === 4) machine.setCr4({ smap: on });
    else if (choice === 5 && this.#mode === "4-level") machine.setCr4({ pcids: random.chance(75) });
    else if (choice === 5 && this.#mode === "32-bit") machine.setCr4({ pse: random.chance(75) });
    else machine.setCr4({ pge: !machine.state.pge });
  }
}
