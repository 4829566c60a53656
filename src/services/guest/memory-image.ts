/**
 * The memory image of a service VM: a program with the structures that its processor needs, in 64-bit mode from the first instruction.
 * SDM Vol. 3A, "4-Level Paging and 5-Level Paging", "Segment Descriptors", "TSS Descriptor in 64-bit mode".
 *
 * The same image serves ring 0 and ring 3: GDT and paging structures are the supervisor's alone, code, window and data are user pages. There
 * is no IDT and no entry into ring 0: an exception ends the service, so nothing in the VM has a reason to run there.
 */
import { Assembler } from "../../processor/isa/assemble.ts";
import { Layout } from "./memory-layout.ts";
import type { GuestProgram } from "./service-program.ts";

const PAGE = 4096;
const ENTRIES = 512;
const TSS_BYTES = 0x68;

export const Selector = {
  CODE0: 0x08,
  DATA0: 0x10,
  CODE3: 0x18 | 3,
  DATA3: 0x20 | 3,
  TASK: 0x28,
} as const;
/** Null, four segments, and a task segment of two slots. */
export const GDT_LIMIT = 7 * 8 - 1;
export const TSS_LIMIT = TSS_BYTES - 1;

/** A part of the VM's memory with its rights there, whatever the paging structures say. */
export interface Section {
  readonly name: string;
  readonly at: number;
  readonly bytes: number;
  readonly content: Uint8Array;
  readonly isWritable: boolean;
  readonly isExecutable: boolean;
}

export interface MemoryImage {
  readonly memoryBytes: number;
  readonly sections: readonly Section[];
  readonly window: { readonly at: number; readonly bytes: number };
  readonly entry: number;
  readonly stack: number;
  readonly pageTables: number;
}

export function memoryImage(program: GuestProgram): MemoryImage {
  const { code, entry } = assemble(program);
  const data = (name: string, at: number, end: number, content: Uint8Array): Section => ({
    ...{ name, at, bytes: end - at, content },
    isWritable: true,
    isExecutable: false,
  });
  const { GDT, PAGING, PAGING_END, CODE, CODE_END, WINDOW, WINDOW_BYTES, DATA } = Layout;
  return {
    memoryBytes: Layout.MEMORY_BYTES,
    sections: [
      data("descriptors", GDT, PAGING, descriptors()),
      data("paging", PAGING, PAGING_END, paging()),
      {
        ...{ name: "code", at: CODE, bytes: CODE_END - CODE, content: code },
        isWritable: false,
        isExecutable: true,
      },
      data("window", WINDOW, WINDOW + WINDOW_BYTES, new Uint8Array(0)),
      data("data", DATA, Layout.MEMORY_BYTES, program.data),
    ],
    window: { at: WINDOW, bytes: WINDOW_BYTES },
    entry,
    stack: Layout.STACK,
    pageTables: PAGING,
  };
}

function assemble({ code }: GuestProgram): { code: Uint8Array; entry: number } {
  const a = new Assembler(64, Layout.CODE);
  code(a);
  a.align(8);
  return { code: a.assemble(), entry: a.addressOf("main") };
}

/** GDT and, at Layout.TSS, a TSS without stacks and without an I/O bitmap: at CPL 3 no port may be accessed. */
function descriptors(): Uint8Array {
  const bytes = new Uint8Array(Layout.PAGING - Layout.GDT);
  const view = new DataView(bytes.buffer);
  const BUSY_TSS = 0x8bn;
  const task =
    BigInt(TSS_LIMIT) |
    (BigInt(Layout.TSS & 0xff_ffff) << 16n) |
    (BUSY_TSS << 40n) |
    (BigInt(Layout.TSS >>> 24) << 56n);
  const table = [0n, 0x00af_9b00_0000_ffffn, 0x00cf_9300_0000_ffffn];
  table.push(0x00af_fb00_0000_ffffn, 0x00cf_f300_0000_ffffn, task, 0n);
  for (const [i, entry] of table.entries()) view.setBigUint64(8 * i, entry, true);
  const IO_BITMAP_BASE = 0x66;
  view.setUint16(Layout.TSS - Layout.GDT + IO_BITMAP_BASE, TSS_BYTES, true);
  return bytes;
}

const Pte = {
  PRESENT: 1n,
  WRITE: 2n,
  USER: 4n,
  ACCESSED: 0x20n,
  DIRTY: 0x40n,
  NO_EXECUTE: 1n << 63n,
} as const;

/** The whole memory at its own addresses, in 4 KiB pages; ACCESSED and DIRTY are set, so walks change nothing. */
function paging(): Uint8Array {
  const bytes = new Uint8Array(Layout.PAGING_END - Layout.PAGING);
  const view = new DataView(bytes.buffer);
  const table = Pte.PRESENT | Pte.WRITE | Pte.USER | Pte.ACCESSED;
  for (let level = 0; level < 3; level++)
    view.setBigUint64(PAGE * level, BigInt(Layout.PAGING + PAGE * (level + 1)) | table, true);
  for (let page = 1; page < Layout.MEMORY_BYTES / PAGE; page++) {
    const at = page * PAGE;
    const entry = BigInt(at) | rightsAt(at) | Pte.PRESENT | Pte.ACCESSED | Pte.DIRTY;
    view.setBigUint64(PAGE * 3 + 8 * (page % ENTRIES), entry, true);
  }
  return bytes;
}

function rightsAt(at: number): bigint {
  if (at < Layout.CODE) return Pte.WRITE | Pte.NO_EXECUTE;
  if (at < Layout.CODE_END) return Pte.USER;
  return Pte.USER | Pte.WRITE | Pte.NO_EXECUTE;
}
