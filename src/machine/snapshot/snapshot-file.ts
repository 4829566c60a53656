/**
 * The file of a snapshot: a header, a table of sections, the sections. docs/snapshot-format.md describes it.
 *
 *   0 "HYPOSNAP" · 8 version u32 · 12 bytes of header and table u32 · 16 bytes of the file u64 · 24 sections u32 ·
 *   28 CRC-32 of header and table, with zero here, u32 · 32 zeros · 64 table, 32 bytes a section:
 *   0 name, 8 ASCII characters, zeros behind · 8 offset u64 · 16 bytes u64 · 24 CRC-32 u32 · 28 zero
 *
 * All numbers are little-endian. The header is written last, so a file that was not finished is none. Who opens one has header, table and
 * length checked; a section is checked when it is read. "pages" has no checksum of its own: each of its granules has (stored-memory.ts).
 */
import { HypolithError } from "../../base/errors.ts";
import { type BlockPort, runNow } from "../../storage/block-port.ts";
import type { Checksum } from "./crc32.ts";

export const VERSION = 1;
export const SECTIONS = ["about", "machine", "state", "vcpu", "tlb", "granules"] as const;
export type SectionName = (typeof SECTIONS)[number];
const PAGES = "pages";

const MAGIC = 0x50_41_4e_53_4f_50_59_48n;
const HEADER_BYTES = 64;
const ENTRY_BYTES = 32;
const NAME_BYTES = 8;
const MAX_SECTIONS = 64;
/** No section but the pages is anywhere near so large. */
const MAX_SECTION_BYTES = 64 << 20;
const PAGE = 4096;
const At = { MAGIC: 0, VERSION: 8, HEADER: 12, FILE: 16, COUNT: 24, CRC: 28 } as const;

interface Entry {
  readonly name: string;
  readonly offset: number;
  readonly length: number;
  readonly crc: number;
}

/** Where the pages of a snapshot with these sections begin: behind them all, whatever they come to. */
export class SnapshotWriter {
  readonly #port: BlockPort;
  readonly #checksum: Checksum;
  readonly #entries: Entry[] = [];
  #end = HEADER_BYTES + ENTRY_BYTES * (SECTIONS.length + 1);

  constructor(port: BlockPort, checksum: Checksum) {
    this.#port = port;
    this.#checksum = checksum;
    // A file that is written again is none until it is whole.
    put(port, 0, new Uint8Array(HEADER_BYTES));
  }

  add(name: SectionName, bytes: Uint8Array): void {
    put(this.#port, this.#end, bytes);
    const entry = { name, offset: this.#end, length: bytes.length, crc: this.#checksum(bytes, 0) };
    this.#entries.push(entry);
    this.#end += bytes.length;
  }

  /** The place of the pages, which `write` puts there; it answers how many bytes. */
  addPages(write: (offset: number) => number): void {
    const offset = Math.ceil(this.#end / PAGE) * PAGE;
    const length = write(offset);
    this.#entries.push({ name: PAGES, offset, length, crc: 0 });
    this.#end = offset + length;
  }

  /** Everything is safe, and then the file is a snapshot. */
  finish(): void {
    const port = this.#port;
    if (port.size < this.#end) done(port.truncate(this.#end));
    done(port.flush());
    put(port, 0, encodeHeader(this.#entries, this.#end, this.#checksum));
    done(port.flush());
  }
}

function encodeHeader(
  entries: readonly Entry[],
  fileBytes: number,
  checksum: Checksum,
): Uint8Array {
  const bytes = new Uint8Array(HEADER_BYTES + ENTRY_BYTES * entries.length);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(At.MAGIC, MAGIC, true);
  view.setUint32(At.VERSION, VERSION, true);
  view.setUint32(At.HEADER, bytes.length, true);
  view.setBigUint64(At.FILE, BigInt(fileBytes), true);
  view.setUint32(At.COUNT, entries.length, true);
  for (const [i, { name, offset, length, crc }] of entries.entries()) {
    const at = HEADER_BYTES + ENTRY_BYTES * i;
    for (let c = 0; c < name.length; c++) bytes[at + c] = name.charCodeAt(c);
    view.setBigUint64(at + 8, BigInt(offset), true);
    view.setBigUint64(at + 16, BigInt(length), true);
    view.setUint32(at + 24, crc, true);
  }
  view.setUint32(At.CRC, checksum(bytes, 0), true);
  return bytes;
}

export class SnapshotFile {
  readonly port: BlockPort;
  readonly checksum: Checksum;
  readonly #entries: ReadonlyMap<string, Entry>;

  private constructor(port: BlockPort, checksum: Checksum, entries: ReadonlyMap<string, Entry>) {
    this.port = port;
    this.checksum = checksum;
    this.#entries = entries;
  }

  /** Throws HypolithError: "snapshot-foreign", "snapshot-version", "snapshot-truncated", "snapshot-corrupt". */
  static open(port: BlockPort, checksum: Checksum): SnapshotFile {
    const { size } = port;
    const header = get(port, 0, HEADER_BYTES);
    const view = new DataView(header.buffer);
    if (view.getBigUint64(At.MAGIC, true) !== MAGIC)
      throw new HypolithError(
        "snapshot-foreign",
        "the file is no snapshot of Hypolith, or half of one",
      );
    const version = view.getUint32(At.VERSION, true);
    if (version !== VERSION)
      throw new HypolithError(
        "snapshot-version",
        `the snapshot has format ${version}, this Hypolith reads format ${VERSION}`,
        { hint: version > VERSION ? "a newer Hypolith made it" : "an older Hypolith made it" },
      );
    const fileBytes = Number(view.getBigUint64(At.FILE, true));
    const count = view.getUint32(At.COUNT, true);
    const headerBytes = view.getUint32(At.HEADER, true);
    if (count > MAX_SECTIONS || headerBytes !== HEADER_BYTES + ENTRY_BYTES * count)
      throw corrupt("its header");
    const whole = get(port, 0, headerBytes);
    const wholeView = new DataView(whole.buffer);
    const crc = wholeView.getUint32(At.CRC, true);
    wholeView.setUint32(At.CRC, 0, true);
    if (checksum(whole, 0) !== crc) throw corrupt("its header");
    if (size !== fileBytes)
      throw new HypolithError(
        "snapshot-truncated",
        `the snapshot is ${size} bytes long and was ${fileBytes}`,
        { hint: "it was cut off, or copied in part" },
      );
    const entries = new Map<string, Entry>();
    for (let i = 0; i < count; i++) {
      const entry = decodeEntry(wholeView, HEADER_BYTES + ENTRY_BYTES * i);
      if (entry.offset < headerBytes || entry.offset > size - entry.length)
        throw corrupt("its table");
      entries.set(entry.name, entry);
    }
    return new SnapshotFile(port, checksum, entries);
  }

  has(name: SectionName): boolean {
    return this.#entries.has(name);
  }

  /** A section's content. Throws HypolithError "snapshot-corrupt". */
  read(name: SectionName): Uint8Array {
    const { offset, length, crc } = this.#entry(name);
    if (length > MAX_SECTION_BYTES) throw corrupt(`its section ${name}`);
    const bytes = get(this.port, offset, length);
    if (this.checksum(bytes, 0) !== crc) throw corrupt(`its section ${name}`);
    return bytes;
  }

  /** Where the pages are. */
  get pages(): { readonly offset: number; readonly length: number } {
    return this.#entry(PAGES);
  }

  #entry(name: string): Entry {
    const entry = this.#entries.get(name);
    if (!entry) throw corrupt(`its section ${name} is missing:`);
    return entry;
  }
}

function decodeEntry(view: DataView, at: number): Entry {
  let name = "";
  for (let i = 0; i < NAME_BYTES; i++) {
    const code = view.getUint8(at + i);
    if (code !== 0) name += String.fromCharCode(code);
  }
  return {
    name,
    offset: Number(view.getBigUint64(at + 8, true)),
    length: Number(view.getBigUint64(at + 16, true)),
    crc: view.getUint32(at + 24, true),
  };
}

/** `what`: a part of it. */
export function corrupt(what: string, cause?: unknown): HypolithError {
  return new HypolithError(
    "snapshot-corrupt",
    `the snapshot is damaged: ${what} is not what was written`,
    {
      ...(cause === undefined ? {} : { cause }),
      hint: "take it again, or copy it again from where it is whole",
    },
  );
}

function get(port: BlockPort, offset: number, length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  done(port.read(offset, bytes));
  return bytes;
}

function put(port: BlockPort, offset: number, bytes: Uint8Array): void {
  done(port.write(offset, bytes));
}

/** Snapshots are taken and read by threads that can wait: their ports answer at once. */
function done(pending: ReturnType<BlockPort["flush"]>): void {
  runNow(wait(pending));
}

function* wait(pending: ReturnType<BlockPort["flush"]>): Generator<PromiseLike<void>, void, void> {
  if (pending) yield pending;
}
