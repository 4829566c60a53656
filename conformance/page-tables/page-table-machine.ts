/**
 * Steps on page tables, each carried out by the guest and by the reference: what an access must give, and what it must leave in the entries.
 *
 * A TLB may know more than the tables say: until the guest flushes it, any translation that has been valid since is allowed, too (SDM Vol. 3A,
 * "Caching Translation Information"). So the machine keeps, by linear page and address space, the translations that were replaced. A page
 * fault must be one by the tables of the moment: the processor does not report those of stale entries.
 * Where the manual leaves it open (accessed bits of a walk that faults, both bits when an old translation may have been used) the guest reads
 * the entry, and then stores what is to go on with.
 *
 * Commands are gathered; flush() has the guest run them, then compares its results and its tables. Differences are thrown.
 */
import { codeOf, dataOf } from "../../guests/lab-tables.ts";
import {
  ARENA_END,
  ARENA_PAGES,
  CODE_OFFSET,
  PAGE,
  Place,
  pageAt,
  ROOTS,
} from "./guest-memory-map.ts";
import { COMMAND_BYTES, SUCCESS } from "./monitor-program.ts";
import {
  type Access,
  allows,
  Bit,
  entryBytes,
  judge,
  type PagingMode,
  type PagingState,
  type Path,
  type Translation,
  walk,
} from "./reference-walker.ts";
import { fixedEntries, fixedEntry, type LabTarget } from "./target.ts";

const MOST_COMMANDS = 0x40_0000 / COMMAND_BYTES - 64;
const MOST_RESULT_BYTES = 0x20_0000 - 4096;
const PHYSICAL_BITS = 40;
export const PCIDS = 4;
export const PDPTS = 4;
const AC = 0x4_0000;

/** An address outside of the arena: what is there is not to be touched. */
class Outside extends Error {}
const OUTSIDE = new Outside("outside of the arena");

/** What an access may give. */
interface Expected {
  readonly what: string;
  readonly bytes: 8 | 16;
  /** Status and value, or the value alone. */
  readonly allowed: readonly (readonly [number, bigint])[];
  readonly path: Path;
}

interface Slot {
  readonly linear: bigint;
  /** Physical addresses of the entries that its walk reads. */
  entries: readonly number[];
  /** Translations that were replaced and may be cached, by PCID. */
  readonly stale: Translation[][];
  globalStale: Translation[];
}

const same = (a: Translation, b: Translation): boolean =>
  a.physical === b.physical &&
  a.pageBytes === b.pageBytes &&
  a.w === b.w &&
  a.u === b.u &&
  a.nx === b.nx &&
  a.dirty === b.dirty;

const hex = (value: bigint | number): string => `0x${value.toString(16)}`;

export const counts = (): Record<string, number> => ({
  accesses: 0,
  faults: 0,
  stale: 0,
  stores: 0,
  flushes: 0,
});

export class PageTableMachine {
  readonly state: PagingState;
  readonly slots: readonly Slot[];
  readonly counts = counts();
  /** PAE: what is in memory; the registers follow at MOV CR3. */
  readonly pdpts: bigint[][] = Array.from({ length: PDPTS }, () => [0n, 0n, 0n, 0n]);
  pcid = 0;
  hasPcids = false;
  readonly #target: LabTarget;
  readonly #arena = new DataView(new ArrayBuffer(ARENA_PAGES * PAGE));
  readonly #handlers = new Map<string, number>();
  readonly #bytes: 4 | 8;
  /** What an access of the guest reads or writes: the registers of its mode. */
  readonly #dataBits: 32 | 64;
  /** Slots whose walk reads an entry, by its address. */
  readonly #users = new Map<number, Set<Slot>>();
  /** Slots with translations that were replaced. */
  readonly #holders = new Set<Slot>();
  #commands = 0;
  #resultBytes = 0;
  #expected: Expected[] = [];

  constructor(mode: PagingMode, target: LabTarget, linears: readonly bigint[]) {
    this.#target = target;
    this.#bytes = entryBytes(mode);
    this.state = {
      mode,
      physicalBits: PHYSICAL_BITS,
      ...{ wp: false, pse: mode === "32-bit", pge: false, smep: false, smap: false, nxe: false },
      root: mode === "PAE" ? Place.PDPTS : pageAt(0),
      pdptes: [fixedEntry("PAE", 0), 0n, 0n, 0n],
    };
    this.#dataBits = mode === "4-level" ? 64 : 32;
    this.slots = linears.map((linear) => ({
      linear,
      entries: [],
      stale: Array.from({ length: PCIDS }, () => []),
      globalStale: [],
    }));
    for (let n = 0; n < ARENA_PAGES; n++)
      this.#arena.setUint16(
        n * PAGE + CODE_OFFSET,
        target.memory.getUint16(pageAt(n) + CODE_OFFSET),
      );
    for (let root = 0; root < ROOTS; root++)
      for (let i = 0; i < fixedEntries(mode); i++)
        if (mode !== "PAE") this.#poke(pageAt(root) + i * this.#bytes, fixedEntry(mode, i));
    for (let n = 0; n < PDPTS; n++) {
      this.pdpts[n]![0] = fixedEntry("PAE", 0);
      if (mode === "PAE")
        target.memory.setBigUint64(Place.PDPTS + n * 32, fixedEntry("PAE", 0), true);
    }
    new Uint8Array(target.memory.buffer, target.memory.byteOffset + Place.ARENA).set(
      new Uint8Array(this.#arena.buffer),
    );
    for (const name of [
      "store",
      "load",
      "invlpg",
      "cr0",
      "cr3",
      "cr4",
      "efer",
      "fetch",
      "access",
      "end",
    ])
      this.#handlers.set(name, target.handler(name));
    if (mode === "4-level") this.#handlers.set("invpcid", target.handler("invpcid"));
    target.begin(this.#cr0(), this.state.root, this.#cr4());
    for (const slot of this.slots) this.#follow(slot);
  }

  // --- the reference's memory

  readonly #read = (at: number, bytes: 4 | 8): bigint => {
    if (at < Place.ARENA || at + bytes > ARENA_END) throw OUTSIDE;
    const offset = at - Place.ARENA;
    return bytes === 8
      ? this.#arena.getBigUint64(offset, true)
      : BigInt(this.#arena.getUint32(offset, true));
  };

  peek(at: number): bigint {
    return this.#read(at, this.#bytes);
  }

  #poke(at: number, value: bigint): void {
    const offset = at - Place.ARENA;
    if (this.#bytes === 8) this.#arena.setBigUint64(offset, value, true);
    else this.#arena.setUint32(offset, Number(BigInt.asUintN(32, value)), true);
  }

  /** True if a step may write there: neither the monitor's entries nor the code at the end of a page. */
  isFree(at: number): boolean {
    if (at < Place.ARENA || at >= ARENA_END) return false;
    const offset = at & (PAGE - 1);
    if (offset >= CODE_OFFSET) return false;
    return at >= pageAt(ROOTS) || offset >= fixedEntries(this.state.mode) * this.#bytes;
  }

  /** The walk of a linear address, or null if it leads out of the arena. */
  #walk(linear: bigint): Path | null {
    try {
      const path = walk(this.state, linear, this.#read);
      const t = path.translation;
      return t && (t.physical < Place.ARENA || t.physical >= ARENA_END) ? null : path;
    } catch (error) {
      if (error instanceof Outside) return null;
      throw error;
    }
  }

  #follow(slot: Slot): void {
    const entries: number[] = [];
    try {
      walk(this.state, slot.linear, (at, bytes) => {
        entries.push(at);
        return this.#read(at, bytes);
      });
    } catch (error) {
      if (!(error instanceof Outside)) throw error;
    }
    for (const at of slot.entries) this.#users.get(at)?.delete(slot);
    slot.entries = entries;
    for (const at of entries) {
      const users = this.#users.get(at) ?? new Set();
      users.add(slot);
      this.#users.set(at, users);
    }
  }

  /** What translates a page now may stay cached. */
  #remember(slot: Slot): void {
    let t: Translation | null = null;
    try {
      ({ translation: t } = walk(this.state, slot.linear, this.#read));
    } catch (error) {
      if (!(error instanceof Outside)) throw error;
    }
    if (!t) return;
    const list = t.global ? slot.globalStale : slot.stale[this.pcid]!;
    const found = t;
    this.#holders.add(slot);
    if (!list.some((old) => same(old, found))) list.push(found);
  }

  /** Changes what all walks depend on. */
  #change(body: () => void): void {
    for (const slot of this.slots) this.#remember(slot);
    body();
    for (const slot of this.slots) this.#follow(slot);
  }

  #write(at: number, value: bigint): void {
    const affected = [...(this.#users.get(at) ?? [])];
    for (const slot of affected) this.#remember(slot);
    this.#poke(at, value);
    for (const slot of affected) this.#follow(slot);
  }

  // --- commands

  #command(name: string, fields: { a?: number; value?: bigint; linear?: bigint } = {}): number {
    const { memory } = this.#target;
    const at = Place.COMMANDS + this.#commands++ * COMMAND_BYTES;
    memory.setUint32(at, this.#handlers.get(name)!, true);
    memory.setUint32(at + 4, fields.a ?? 0, true);
    memory.setBigUint64(at + 8, BigInt.asUintN(64, fields.value ?? 0n), true);
    memory.setBigUint64(at + 16, BigInt.asUintN(64, fields.linear ?? 0n), true);
    return at;
  }

  #expect(expected: Expected): void {
    this.#expected.push(expected);
    this.#resultBytes += expected.bytes;
  }

  get isFull(): boolean {
    return this.#commands > MOST_COMMANDS || this.#resultBytes > MOST_RESULT_BYTES;
  }

  /** The guest stores to an entry or a datum. */
  store(at: number, value: bigint): void {
    this.counts.stores!++;
    this.#command("store", { a: at, value });
    this.#write(at, value);
  }

  /** The guest reads an entry. */
  #load(at: number, values: readonly bigint[], what: string, path: Path): void {
    this.#command("load", { a: at });
    this.#expect({ what, bytes: 8, allowed: values.map((v) => [0, v] as const), path });
  }

  #settle(at: number, value: bigint): void {
    this.#command("store", { a: at, value });
    this.#poke(at, value);
  }

  /** Translations of a page that may be cached and that the tables do not say (any more). */
  staleOf(slot: Slot): readonly Translation[] {
    return [...slot.stale[this.pcid]!, ...slot.globalStale];
  }

  invlpg(slot: Slot): void {
    this.counts.flushes!++;
    this.#command("invlpg", { linear: slot.linear });
    const { linear } = slot;
    const lasts =
      (other: Slot) =>
      (t: Translation): boolean =>
        other.linear / BigInt(t.pageBytes) !== linear / BigInt(t.pageBytes);
    for (const other of this.#holders) {
      other.stale[this.pcid] = other.stale[this.pcid]!.filter(lasts(other));
      other.globalStale = other.globalStale.filter(lasts(other));
      this.#release(other);
    }
  }

  #release(slot: Slot): void {
    if (slot.globalStale.length === 0 && slot.stale.every((list) => list.length === 0))
      this.#holders.delete(slot);
  }

  #forget(pcids: readonly number[], globals: boolean): void {
    this.counts.flushes!++;
    for (const slot of this.#holders) {
      for (const pcid of pcids) slot.stale[pcid] = [];
      if (globals) slot.globalStale = [];
      this.#release(slot);
    }
  }

  loadCr3(root: number, pcid: number, keep: boolean): void {
    const value =
      BigInt(root | (this.hasPcids ? pcid : 0)) | (keep && this.hasPcids ? 1n << 63n : 0n);
    this.#command("cr3", { value });
    this.#change(() => {
      this.state.root = root;
      this.#loadPdptes();
    });
    if (this.hasPcids) this.pcid = pcid;
    if (!(keep && this.hasPcids)) this.#forget([this.pcid], false);
  }

  #loadPdptes(): void {
    if (this.state.mode === "PAE")
      this.state.pdptes = [...this.pdpts[(this.state.root - Place.PDPTS) / 32]!];
  }

  /** PAE: a top entry in memory; nothing happens until MOV CR3. */
  storePdpte(table: number, index: number, value: bigint): void {
    this.#command("store", { a: Place.PDPTS + table * 32 + index * 8, value });
    this.pdpts[table]![index] = value;
  }

  #cr0(): number {
    return (0x8000_0031 | (this.state.wp ? 0x1_0000 : 0)) >>> 0;
  }

  #cr4(): number {
    const { mode, pse, pge, smep, smap } = this.state;
    return (
      (mode === "32-bit" ? 0 : 0x20) |
      (pse ? 0x10 : 0) |
      (pge ? 0x80 : 0) |
      (smep ? 0x10_0000 : 0) |
      (smap ? 0x20_0000 : 0) |
      (this.hasPcids ? 0x2_0000 : 0)
    );
  }

  setWp(wp: boolean): void {
    this.state.wp = wp;
    this.#command("cr0", { value: BigInt(this.#cr0()) });
  }

  setNxe(nxe: boolean): void {
    this.#change(() => {
      this.state.nxe = nxe;
    });
    this.#command("efer", {
      value: (this.state.mode === "4-level" ? 0x500n : 0n) | (nxe ? 0x800n : 0n),
    });
  }

  /** Bits of CR4 by name. SDM Vol. 3A, "Operations that Invalidate TLBs and Paging-Structure Caches". */
  setCr4(
    bits: Partial<Pick<PagingState, "pse" | "pge" | "smep" | "smap">> & { pcids?: boolean },
  ): void {
    const { pcids = this.hasPcids, ...rest } = bits;
    const before = { ...this.state, pcids: this.hasPcids };
    if (before.pcids && !pcids) this.loadCr3(this.state.root, 0, false);
    this.#change(() => {
      Object.assign(this.state, rest);
      // Loaded again where the manual says so: PAE, PGE, PSE or SMEP changes.
      const { pge, pse, smep } = this.state;
      if (pge !== before.pge || pse !== before.pse || smep !== before.smep) this.#loadPdptes();
    });
    this.hasPcids = pcids;
    this.#command("cr4", { value: BigInt(this.#cr4()) });
    const all = Array.from({ length: PCIDS }, (_, n) => n);
    if (before.pge !== this.state.pge || (before.pcids && !pcids)) this.#forget(all, true);
  }

  /** 4-level only. */
  invpcid(type: 0 | 1 | 2 | 3, pcid: number, slot: Slot): void {
    this.#command("invpcid", {
      a: type,
      value: BigInt(type < 2 ? pcid : 0),
      linear: type === 0 ? slot.linear : 0n,
    });
    const all = Array.from({ length: PCIDS }, (_, n) => n);
    if (type === 1) this.#forget([pcid], false);
    if (type === 2) this.#forget(all, true);
    if (type === 3) this.#forget(all, false);
    if (type !== 0) return;
    const { linear } = slot;
    for (const other of this.#holders)
      other.stale[pcid] = other.stale[pcid]!.filter(
        (t) => other.linear / BigInt(t.pageBytes) !== linear / BigInt(t.pageBytes),
      );
  }

  // --- accesses

  /**
   * An access at an offset (a multiple of the entry size; fetches are where the code is), and all that must come of it. False if the step
   * would touch what is the monitor's or could not be judged: then nothing is done.
   */
  access(slot: Slot, offset: number, access: Access, value: bigint): boolean {
    const path = this.#walk(slot.linear);
    if (!path) return false;
    const { kind, user, ac } = access;
    const at = kind === "fetch" ? CODE_OFFSET : offset;
    const code = judge(this.state, path, access);
    const current = code < 0 ? path.translation!.physical + at : -1;
    const old = this.staleOf(slot)
      .filter((t) => allows(this.state, t, access) && (kind !== "write" || t.dirty))
      .map(({ physical }) => physical + at);
    const entries = path.steps.map((step) => step.at);
    for (const p of [...old, ...(code < 0 ? [current] : [])]) {
      if (kind === "fetch" ? p < Place.ARENA || p >= ARENA_END : !this.isFree(p)) return false;
      if (old.length > 0 && kind !== "fetch" && entries.includes(p)) return false;
    }
    this.counts.accesses!++;
    if (code >= 0) this.counts.faults!++;
    if (old.length > 0) this.counts.stale!++;
    const what = `${kind} at CPL ${user ? 3 : 0}${ac ? " with AC" : ""}, ${hex(slot.linear + BigInt(at))}`;
    this.#issue(slot, at, access, value);
    const writes = kind === "write";
    const touched = (v: bigint, leaf: boolean): bigint => v | Bit.A | (leaf && writes ? Bit.D : 0n);
    const before = path.steps.map((step) => step.value);
    const last = path.steps.length - 1;
    if (code < 0 && old.length === 0)
      path.steps.forEach((step, i) => {
        this.#poke(step.at, touched(this.peek(step.at), i === last));
      });
    const success = (p: number): readonly [number, bigint] => [
      SUCCESS,
      writes ? value : kind === "fetch" ? -1n : this.#datum(this.peek(p)),
    ];
    const allowed = [
      code < 0 ? success(current) : ([code, this.#datum(slot.linear + BigInt(at))] as const),
      ...old.map(success),
    ];
    this.#expect({ what, bytes: 16, allowed, path });
    this.#openBits(path, before, code < 0, old.length > 0, writes);
    if (writes)
      this.#written(code < 0 ? [current, ...old] : old, value, code < 0 && old.length === 0, path);
    return true;
  }

  #datum(value: bigint): bigint {
    return BigInt.asUintN(this.#dataBits, value);
  }

  /** The entry at an address once the guest has written there. */
  #merged(at: number, value: bigint): bigint {
    const kept = this.peek(at) & ~((1n << BigInt(this.#dataBits)) - 1n);
    return kept | this.#datum(value);
  }

  #issue(slot: Slot, at: number, { kind, user, ac }: Access, value: bigint): void {
    const linear = slot.linear + BigInt(at);
    const command = this.#command(kind === "fetch" ? "fetch" : "access", {
      a: kind === "fetch" ? 0 : this.#target.stub(kind, user),
      value,
      linear,
    });
    const ring = user ? 3 : 0;
    this.#target.memory.setUint16(command + 24, codeOf(ring), true);
    this.#target.memory.setUint16(command + 26, dataOf(ring), true);
    this.#target.memory.setUint32(command + 28, 2 | (ac ? AC : 0), true);
  }

  /** Accessed and dirty bits that may be or not be set: looked at, then set. */
  #openBits(
    path: Path,
    before: readonly bigint[],
    ok: boolean,
    stale: boolean,
    writes: boolean,
  ): void {
    if (ok && !stale) return;
    const last = path.steps.length - 1;
    const open = new Map<number, { value: bigint; bits: bigint[] }>();
    path.steps.forEach(({ at }, i) => {
      // The entry that ends a walk that faults stays as it is, but for what it is on other levels.
      if (i === last && !ok) return;
      const entry = open.get(at) ?? { value: before[i]!, bits: [] };
      entry.bits.push(Bit.A, ...(i === last && writes ? [Bit.D] : []));
      open.set(at, entry);
    });
    for (const [at, { value, bits }] of open) {
      const all = bits.reduce((sum, bit) => sum | bit, value);
      if (all === value) continue;
      this.#load(at, [value, value | Bit.A, all], `entry at ${hex(at)} after it`, path);
      this.#settle(at, all);
    }
  }

  #written(places: readonly number[], value: bigint, isExact: boolean, path: Path): void {
    if (isExact) {
      this.#write(places[0]!, this.#merged(places[0]!, value));
      return;
    }
    for (const at of new Set(places)) {
      this.#load(at, [this.peek(at), value], `datum at ${hex(at)} after it`, path);
      this.store(at, this.#merged(at, value));
    }
  }

  // --- judging

  /** Runs what has been gathered. */
  flush(): void {
    this.#command("end");
    this.#target.run();
    const { memory } = this.#target;
    let at = Place.RESULTS;
    for (const expected of this.#expected) {
      const status = expected.bytes === 16 ? memory.getUint32(at, true) : 0;
      const datum = at + expected.bytes - 8;
      const value = this.#datum(memory.getBigUint64(datum, true));
      const fits = expected.allowed.some(
        ([s, v]) => s === status && (v === -1n || this.#datum(v) === value),
      );
      if (!fits) this.#complain(expected, status, value);
      at += expected.bytes;
    }
    this.#compareArena();
    this.#commands = 0;
    this.#resultBytes = 0;
    this.#expected = [];
  }

  #complain({ what, allowed, path }: Expected, status: number, value: bigint): never {
    const show = ([s, v]: readonly [number, bigint]): string =>
      s === SUCCESS ? `success, ${hex(v)}` : `${hex(s)}, ${hex(v)}`;
    const steps = path.steps.map((step) => `${hex(step.at)}: ${hex(step.value)}`).join(", ");
    const { wp, pse, pge, smep, smap, nxe, mode } = this.state;
    throw new Error(
      `${mode}: ${what}: ${show([status, value])}; not ${allowed.map(show).join(" or ")}; walk ${steps}; at the end of the batch ${JSON.stringify({ wp, pse, pge, smep, smap, nxe })}`,
    );
  }

  #compareArena(): void {
    const { memory } = this.#target;
    for (let i = 0; i < ARENA_PAGES * PAGE; i += 8) {
      const got = memory.getBigUint64(Place.ARENA + i, true);
      const wanted = this.#arena.getBigUint64(i, true);
      if (got !== wanted)
        throw new Error(
          `${this.state.mode}: memory at ${hex(Place.ARENA + i)} is ${hex(got)}, not ${hex(wanted)}`,
        );
    }
  }
}
