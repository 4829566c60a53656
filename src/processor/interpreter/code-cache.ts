/**
 * Decoded blocks: made when first executed, found by physical address and mode, dropped when their bytes are written.
 *
 * Blocks live in the arena (state/layout.ts); this class is the writer of the arena, the block hash and the code map. A block lies in one page;
 * only an instruction that crosses a page end makes a block of its own that also names the second page. Dropping a block turns its
 * records into RESYNC, so that chains into it and its own execution find their way; the arena is reused only as a whole.
 */

import type { Decoder } from "../isa/decode.ts";
import { DecodeError, type Mode as DecodeMode, Instruction } from "../isa/instruction.ts";
import { ROWS } from "../isa/table.ts";
import { FAR_TRANSFERS, NEAR_TRANSFERS } from "../semantics/transfers.ts";
import {
  ARENA,
  ARENA_BYTES,
  BLOCK_BUCKETS,
  BLOCK_HASH,
  CODE_MAP,
  COLD,
  Ea,
  Head,
  hostPageOf,
  MAX_BLOCK,
  Mode,
  Mode as ModeBits,
  RECORD_BYTES,
  Rec,
  S,
  SEG_BASE,
  segmentAt,
  TLB_ENTRIES,
  TLB_ENTRY_BYTES,
  TLB_PAGE,
  TLB_WRITE,
} from "../state/layout.ts";
import type { Handlers } from "./handlers.ts";
import { writeRecord } from "./lower.ts";
import { Handler } from "./run-loop.ts";
import { ShapeTable } from "./shape-table.ts";

const PAGE = 4096;
const GRANULE_SHIFT = 6;
const GRANULE = 1 << GRANULE_SHIFT;
const MAX_INSTRUCTION = 15;
const ENDS_BLOCK = new Set([...NEAR_TRANSFERS, ...FAR_TRANSFERS, "rsm"]);
/**
 * What fills the arena before it is first emptied; each emptying doubles what it may take. A boot runs most of its code once: what stays
 * beyond this size is memory of the host's for nothing. Regions count on their blocks' heat: with a region tier all of it is used at once.
 */
const FIRST_FILL_BYTES = 12 << 20;
const DECODE_MODES: readonly DecodeMode[] = [16, 32, 64, 64];

/** What makes code of hot blocks. */
export interface RegionTier {
  /** Instructions executed from a block's entry after which it is hot. */
  readonly threshold: number;
  hot(block: number): void;
  /** Called now and then between instructions: code that was made elsewhere may be taken in. */
  service(): void;
  /** Table slot of the region that begins at a host address, or -1. */
  slotAt(physical: number, mode: number): number;
  /** Bytes [from, to) of a page are about to change. */
  written(page: number, from: number, to: number): void;
  /** Host bytes that the regions of a page were made from. */
  extents(page: number): readonly { from: number; to: number }[];
}

export interface CodeCacheStats {
  blocks: number;
  instructions: number;
  invalidatedBlocks: number;
  flushes: number;
}

export class CodeCache {
  readonly stats: CodeCacheStats = { blocks: 0, instructions: 0, invalidatedBlocks: 0, flushes: 0 };
  readonly #view: DataView;
  readonly #bytes: Uint8Array;
  readonly #words: Uint32Array;
  readonly #decoder: Decoder;
  readonly #handlers: Handlers;
  /** Host address of the byte at a linear address, or 0 with a fault pending. */
  readonly #fetchHost: (linear: bigint) => number;
  readonly #instruction = new Instruction(ROWS[0]!);
  readonly #crossing = new Uint8Array(32);
  readonly #shapes = new ShapeTable();
  /** Blocks by host page. */
  readonly #pages = new Map<number, number[]>();
  #next = ARENA;
  #limit = ARENA + FIRST_FILL_BYTES;
  #regions: RegionTier | null = null;

  constructor(
    memory: ArrayBuffer,
    decoder: Decoder,
    handlers: Handlers,
    fetchHost: (linear: bigint) => number,
  ) {
    this.#view = new DataView(memory);
    this.#bytes = new Uint8Array(memory);
    this.#words = new Uint32Array(memory);
    this.#decoder = decoder;
    this.#handlers = handlers;
    this.#fetchHost = fetchHost;
  }

  /** Gives hot blocks to a region tier. */
  useRegions(tier: RegionTier): void {
    this.#regions = tier;
    this.#limit = ARENA + ARENA_BYTES;
  }

  /** A block's heat is used up. */
  hot(block: number): void {
    this.#view.setInt32(block + Head.HEAT, COLD, true);
    this.#regions?.hot(block);
  }

  service(): void {
    this.#regions?.service();
  }

  /** The block at a host address enters a region from now on. */
  enterRegion(physical: number, mode: number, slot: number): void {
    const block = this.#find(physical, mode);
    if (block !== 0) this.#enter(block, slot);
  }

  #enter(block: number, slot: number): void {
    const view = this.#view;
    const handler = view.getUint16(block + Rec.HANDLER, true);
    if (handler !== Handler.REGION) view.setUint16(block + Head.HANDLER, handler, true);
    view.setUint16(block + Rec.HANDLER, Handler.REGION, true);
    view.setUint32(block + Head.REGION, slot, true);
  }

  /** Its region is gone: the block is interpreted again. */
  leaveRegion(physical: number, mode: number): void {
    const block = this.#find(physical, mode);
    if (block === 0) return;
    const view = this.#view;
    if (view.getUint16(block + Rec.HANDLER, true) === Handler.REGION)
      view.setUint16(block + Rec.HANDLER, view.getUint16(block + Head.HANDLER, true), true);
    view.setInt32(block + Head.HEAT, this.#regions?.threshold ?? COLD, true);
  }

  /** The block that begins at a host address and was found without a second page, or 0. */
  #find(physical: number, mode: number): number {
    const view = this.#view;
    let block = this.#words[this.#bucket(physical, mode) >>> 2]!;
    while (block !== 0) {
      const isIt =
        view.getUint32(block + Head.PHYSICAL, true) === physical &&
        view.getUint32(block + Head.MODE, true) === mode;
      if (isIt) return view.getUint32(block + Head.SECOND, true) === 0 ? block : 0;
      block = view.getUint32(block + Head.NEXT, true);
    }
    return 0;
  }

  /** Offsets in a host page at which blocks of `mode` begin, and how often each was executed, counted until it was hot. */
  blockStarts(page: number, mode: number): Map<number, number> {
    const starts = new Map<number, number>();
    for (const block of this.#pages.get(page) ?? []) {
      if (this.#view.getUint32(block + Head.MODE, true) !== mode) continue;
      const physical = this.#view.getUint32(block + Head.PHYSICAL, true);
      if (hostPageOf(physical) === page) starts.set(physical & (PAGE - 1), this.#executions(block));
    }
    return starts;
  }

  #executions(block: number): number {
    const view = this.#view;
    const threshold = this.#regions?.threshold ?? COLD;
    const heat = view.getInt32(block + Head.HEAT, true);
    const executed = heat > threshold ? threshold : threshold - heat;
    return Math.max(1, executed / view.getUint16(block + Head.COUNT, true));
  }

  /** Marks bytes of a page as code from which something was made. */
  mark(from: number, to: number): void {
    const map = (CODE_MAP + (from >>> 12) * 8) >>> 2;
    if (this.#words[map] === 0 && this.#words[map + 1] === 0)
      this.#closeToFastWrites(hostPageOf(from));
    this.#mark(from, to);
  }

  /** Bytes of the arena in use. */
  get used(): number {
    return this.#next - ARENA;
  }

  #bucket(physical: number, mode: number): number {
    const h = physical ^ (physical >>> 15) ^ (mode << 11);
    return BLOCK_HASH + (h & (BLOCK_BUCKETS - 1)) * 4;
  }

  /** Decodes the block at a host address. Answers its address, or 0 with a fault pending. */
  translate(host: number, mode: number): number {
    if (this.#next + (MAX_BLOCK + 2) * RECORD_BYTES > this.#limit) this.flush();
    const block = this.#next + RECORD_BYTES;
    const page = hostPageOf(host);
    const end = page + PAGE;
    const decodeMode = DECODE_MODES[mode & ModeBits.CODE_MASK]!;
    const insn = this.#instruction;
    let second = 0;
    let at = host;
    let count = 0;
    let ended = false;
    while (count < MAX_BLOCK && at < end && !ended) {
      let length = this.#decoder.decode(this.#bytes, at, decodeMode, insn, end);
      if (length === DecodeError.MORE) {
        if (count > 0) break;
        second = this.#fetchSecondPage();
        if (second === 0) return 0;
        length = this.#decodeCrossing(at, second, decodeMode, insn);
        ended = true;
      }
      const record = block + count * RECORD_BYTES;
      if (length >= 0 && insn.row.noReal && (mode & ModeBits.REAL) !== 0) length = DecodeError.UD;
      if (length < 0) {
        this.#writeFault(record, length, mode, at - page);
        at += 1;
        ended = true;
      } else {
        this.#writeInstruction(record, insn, mode, at - page);
        ended ||= ENDS_BLOCK.has(insn.row.sem);
        at += length;
      }
      count++;
    }
    this.#handlers.flush();
    this.#finish(block, host, mode, count, at, second);
    return block;
  }

  #writeInstruction(record: number, insn: Instruction, mode: number, offset: number): void {
    const codeSize = mode & ModeBits.CODE_MASK;
    const shape = this.#shapes.of(insn, codeSize);
    const allowHot =
      codeSize === Mode.CODE64 || (mode & Mode.FLAT) !== 0 || shape.mode === Mode.CODE64;
    let handler = this.#handlers.number(shape, allowHot);
    if (handler < 0) {
      handler = this.#faultHandler("unsupported");
    }
    writeRecord(this.#view, record, insn, mode, handler, offset);
  }

  #faultHandler(sem: string): number {
    return this.#handlers.number(
      { sem, cc: -1, operands: [], opsize: 4, addrSize: 8, mode: Mode.CODE64, rep: 0 },
      false,
    );
  }

  #writeFault(record: number, error: number, _mode: number, offset: number): void {
    const view = this.#view;
    this.#bytes.fill(0, record, record + RECORD_BYTES);
    const sem = error === DecodeError.TOO_LONG ? "instruction_too_long" : "undefined_opcode";
    view.setUint16(record + Rec.HANDLER, this.#faultHandler(sem), true);
    view.setUint8(record + Rec.LENGTH, 1);
    view.setUint16(record + Rec.OFFSET, offset, true);
  }

  #fetchSecondPage(): number {
    const rip = this.#view.getBigUint64(S.RIP.at, true);
    const isLong = (this.#view.getUint32(S.MODE.at, true) & ModeBits.CODE_MASK) === Mode.CODE64;
    const base = isLong ? 0n : this.#view.getBigUint64(segmentAt(1) + SEG_BASE, true);
    const linear = ((rip + base) & ~0xfffn) + 4096n;
    return this.#fetchHost(isLong ? BigInt.asIntN(64, linear) : linear & 0xffff_ffffn);
  }

  #decodeCrossing(at: number, second: number, mode: DecodeMode, insn: Instruction): number {
    const buffer = this.#crossing;
    const first = PAGE - (at & (PAGE - 1));
    buffer.set(this.#bytes.subarray(at, at + first));
    buffer.set(this.#bytes.subarray(second, second + MAX_INSTRUCTION), first);
    return this.#decoder.decode(buffer, 0, mode, insn, first + MAX_INSTRUCTION);
  }

  #finish(
    block: number,
    host: number,
    mode: number,
    count: number,
    end: number,
    second: number,
  ): void {
    const view = this.#view;
    const page = hostPageOf(host);
    for (let i = 0; i < count; i++)
      view.setUint8(block + i * RECORD_BYTES + Rec.REMAINING, count - 1 - i);
    const stop = block + count * RECORD_BYTES;
    this.#bytes.fill(0, stop, stop + RECORD_BYTES);
    view.setUint16(stop + Rec.HANDLER, Handler.GOTO, true);
    view.setUint16(stop + Rec.OFFSET, end - page, true);
    view.setUint8(stop + Rec.EA, Ea.BRANCH);
    const bucket = this.#bucket(host, mode);
    view.setUint32(block + Head.PHYSICAL, host, true);
    view.setUint32(block + Head.MODE, mode, true);
    view.setUint32(block + Head.NEXT, this.#words[bucket >>> 2]!, true);
    view.setUint16(block + Head.COUNT, count, true);
    view.setUint16(block + Head.BYTES, end - host, true);
    view.setUint32(block + Head.SECOND, second, true);
    view.setInt32(block + Head.HEAT, this.#regions?.threshold ?? COLD, true);
    const slot = second === 0 ? (this.#regions?.slotAt(host, mode) ?? -1) : -1;
    if (slot >= 0) this.#enter(block, slot);
    this.#words[bucket >>> 2] = block;
    this.#next = stop + RECORD_BYTES;
    this.stats.blocks++;
    this.stats.instructions += count;
    this.#own(page, block);
    this.#mark(host, Math.min(end, page + PAGE));
    if (second !== 0) {
      const secondPage = hostPageOf(second);
      this.#own(secondPage, block);
      this.#mark(secondPage, secondPage + Math.max(1, end - page - PAGE));
    }
  }

  #own(page: number, block: number): void {
    const list = this.#pages.get(page);
    if (list) list.push(block);
    else {
      this.#pages.set(page, [block]);
      this.#closeToFastWrites(page);
    }
  }

  /** Writes to a page with code must take the slow path from now on. */
  #closeToFastWrites(page: number): void {
    const words = this.#words;
    for (let i = 0; i < TLB_ENTRIES; i++) {
      const entry = (TLB_WRITE + i * TLB_ENTRY_BYTES) >>> 2;
      if (words[entry + (TLB_PAGE >>> 2)] === page) {
        words[entry] = 0xffff_ffff;
        words[entry + 1] = 0xffff_ffff;
      }
    }
  }

  #mark(from: number, to: number): void {
    const map = (CODE_MAP + (from >>> 12) * 8) >>> 2;
    for (
      let g = (from & (PAGE - 1)) >>> GRANULE_SHIFT;
      g <= ((to - 1) & (PAGE - 1)) >>> GRANULE_SHIFT;
      g++
    ) {
      const word = map + (g >>> 5);
      this.#words[word] = this.#words[word]! | (1 << (g & 31));
    }
  }

  /** Bytes [host, host + bytes) are about to be written and share a granule with decoded code. */
  written(host: number, bytes: number): void {
    const page = hostPageOf(host);
    const blocks = this.#pages.get(page);
    const from = page + ((host - page) & -GRANULE);
    const to = page + ((host - page + bytes + GRANULE - 1) & -GRANULE);
    const map = (CODE_MAP + (page >>> 12) * 8) >>> 2;
    this.#words[map] = 0;
    this.#words[map + 1] = 0;
    this.#regions?.written(page, from, to);
    for (const { from: first, to: last } of this.#regions?.extents(page) ?? [])
      this.#mark(first, last);
    if (!blocks) return;
    const kept: number[] = [];
    for (const block of blocks) {
      const [first, last] = this.#extent(block, page);
      if (first < to && last > from) this.#drop(block, page);
      else {
        kept.push(block);
        this.#mark(first, last);
      }
    }
    if (kept.length === 0) this.#pages.delete(page);
    else this.#pages.set(page, kept);
  }

  /** Host bytes of a block that lie in `page`. */
  #extent(block: number, page: number): readonly [number, number] {
    const view = this.#view;
    const start = view.getUint32(block + Head.PHYSICAL, true);
    const end = start + view.getUint16(block + Head.BYTES, true);
    const own = hostPageOf(start);
    if (own === page) return [start, Math.min(end, page + PAGE)];
    return [page, page + Math.max(1, end - own - PAGE)];
  }

  #drop(block: number, page: number): void {
    const view = this.#view;
    const physical = view.getUint32(block + Head.PHYSICAL, true);
    const second = view.getUint32(block + Head.SECOND, true);
    let link = this.#bucket(physical, view.getUint32(block + Head.MODE, true));
    for (;;) {
      const candidate = view.getUint32(link, true);
      if (candidate === 0) break;
      if (candidate === block) {
        view.setUint32(link, view.getUint32(block + Head.NEXT, true), true);
        break;
      }
      link = candidate + Head.NEXT;
    }
    const count = view.getUint16(block + Head.COUNT, true);
    for (let i = 0; i <= count; i++) {
      const record = block + i * RECORD_BYTES;
      // The end record is no instruction: as RESYNC it would give back one too many, so it stays a GOTO without chain.
      if (i === count) view.setUint32(record + Rec.CHAIN, 0, true);
      else view.setUint16(record + Rec.HANDLER, Handler.RESYNC, true);
    }
    this.stats.invalidatedBlocks++;
    if (second === 0) return;
    const other = hostPageOf(page === hostPageOf(physical) ? second : physical);
    const list = this.#pages.get(other);
    if (list) {
      const i = list.indexOf(block);
      if (i >= 0) list.splice(i, 1);
      if (list.length === 0) this.#pages.delete(other);
    }
  }

  /** Drops everything. */
  flush(): void {
    this.#words.fill(0, BLOCK_HASH >>> 2, (BLOCK_HASH >>> 2) + BLOCK_BUCKETS);
    for (const page of this.#pages.keys()) {
      const map = (CODE_MAP + (page >>> 12) * 8) >>> 2;
      this.#words[map] = 0;
      this.#words[map + 1] = 0;
      for (const { from, to } of this.#regions?.extents(page) ?? []) this.#mark(from, to);
    }
    this.#pages.clear();
    this.#next = ARENA;
    this.#limit = Math.min(ARENA + 2 * (this.#limit - ARENA), ARENA + ARENA_BYTES);
    this.#view.setUint32(S.ARENA_EMPTIED.at, 1, true);
    this.stats.flushes++;
  }
}
