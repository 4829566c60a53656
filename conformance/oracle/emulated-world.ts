/**
 * The emulated machine around the tests: page tables, descriptor tables and control registers that give ring 3 the same world as Linux gives
 * the native process (world.ts).
 */
import { Cr0, Cr4, Efer } from "../../src/processor/state/control-bits.ts";
import {
  RAM_BASE,
  S,
  SEG_BASE,
  SEG_LIMIT,
  SEG_RIGHTS,
  SEG_SELECTOR,
  Seg,
  segmentAt,
} from "../../src/processor/state/layout.ts";
import type { Facts } from "./native.ts";
import {
  CODE,
  DATA,
  descriptorOf,
  GLOBAL_SEGMENTS,
  LOCAL_TABLE,
  PAGE,
  READ_ONLY,
  Selector,
} from "./world.ts";

export const RAM_BYTES = 1 << 20;

/** Guest-physical places. */
const Place = {
  PML4: 0x1000,
  GDT: 0x2000,
  IDT: 0x3000,
  TSS: 0x4000,
  LDT: 0x5000,
  CODE: 0x8000,
  DATA: 0xa000,
  READ_ONLY: 0xc000,
  TABLES: 0x10000,
} as const;
const GDT_LINEAR = 0xffff_fe00_0000_1000n;
const IDT_LINEAR = 0xffff_fe00_0000_2000n;
const TSS_LINEAR = 0xffff_fe00_0010_0000n;
const LDT_LINEAR = 0xffff_fe00_0020_0000n;
const GDT_LIMIT = 0x7f;
const IDT_LIMIT = 0xfff;
const TSS_LIMIT = 0x206f;

/** Addresses in the engine's memory. */
export const CODE_HOST = RAM_BASE + Place.CODE;
export const DATA_HOST = RAM_BASE + Place.DATA;
export const READ_ONLY_HOST = RAM_BASE + Place.READ_ONLY;

/** Byte-granular, expand-down, read-only, for ring 3; the limit is 0. */
const PROCESSOR_SEGMENT = 0x0040_f500_0000_0000n;
export const UNUSABLE = 0x1_0000;
const Pte = { PRESENT: 1n, WRITE: 2n, USER: 4n, NX: 1n << 63n } as const;

class Tables {
  readonly #view: DataView;
  #next: number = Place.TABLES;

  constructor(view: DataView) {
    this.#view = view;
  }

  map(linear: bigint, physical: number, rights: bigint): void {
    let table: number = Place.PML4;
    for (const shift of [39n, 30n, 21n]) {
      const at = RAM_BASE + table + 8 * Number((linear >> shift) & 511n);
      let entry = this.#view.getBigUint64(at, true);
      if (entry === 0n) {
        entry = BigInt(this.#next) | Pte.PRESENT | Pte.WRITE | Pte.USER;
        this.#next += PAGE;
        this.#view.setBigUint64(at, entry, true);
      }
      table = Number(entry & 0xf_ffff_f000n);
    }
    this.#view.setBigUint64(
      RAM_BASE + table + 8 * Number((linear >> 12n) & 511n),
      BigInt(physical) | rights | Pte.PRESENT,
      true,
    );
  }
}

function mapPages(view: DataView): void {
  const tables = new Tables(view);
  const data = Pte.USER | Pte.WRITE | Pte.NX;
  for (const i of [0, 1]) {
    tables.map(BigInt(CODE + i * PAGE), Place.CODE + i * PAGE, Pte.USER);
    tables.map(BigInt(DATA + i * PAGE), Place.DATA + i * PAGE, data);
  }
  tables.map(BigInt(READ_ONLY), Place.READ_ONLY, Pte.USER | Pte.NX);
  const system = Pte.WRITE | Pte.NX;
  tables.map(GDT_LINEAR, Place.GDT, system);
  tables.map(IDT_LINEAR, Place.IDT, system);
  for (const i of [0, 1, 2]) tables.map(TSS_LINEAR + BigInt(i * PAGE), Place.TSS, system);
  tables.map(LDT_LINEAR, Place.LDT, system);
}

/** Descriptor of 16 bytes: TSS and LDT. */
function systemDescriptor(base: bigint, limit: number, type: number): readonly [bigint, bigint] {
  const low =
    BigInt(limit & 0xffff) |
    ((base & 0xff_ffffn) << 16n) |
    (BigInt(0x80 | type) << 40n) |
    (((base >> 24n) & 0xffn) << 56n);
  return [low, base >> 32n];
}

function fillDescriptorTables(view: DataView, facts: Facts): void {
  const global = RAM_BASE + Place.GDT;
  const put = (selector: number, value: bigint): void =>
    view.setBigUint64(global + (selector & ~7), value, true);
  put(0x08, 0x00cf_9b00_0000_ffffn);
  put(Selector.KERNEL_CODE, 0x00af_9b00_0000_ffffn);
  put(Selector.KERNEL_DATA, 0x00cf_9300_0000_ffffn);
  put(Selector.PROCESSOR, PROCESSOR_SEGMENT);
  for (const s of GLOBAL_SEGMENTS) {
    if (s.selector !== Selector.USER_CODE32 || facts.hasCode32) put(s.selector, descriptorOf(s));
  }
  for (const [selector, base, limit, type] of [
    [facts.taskSelector, TSS_LINEAR, TSS_LIMIT, 0xb],
    [Selector.LDT, LDT_LINEAR, 8 * LOCAL_TABLE.length - 1, 2],
  ] as const) {
    const [low, high] = systemDescriptor(base, limit, type);
    put(selector, low);
    put(selector + 8, high);
  }
  LOCAL_TABLE.forEach((s, i) => {
    view.setBigUint64(RAM_BASE + Place.LDT + 8 * i, descriptorOf(s), true);
  });
  const gates = RAM_BASE + Place.IDT;
  for (let vector = 0; vector < 256; vector++) {
    const dpl = vector === 3 || vector === 4 || vector === 0x80 ? 3 : 0;
    const rights = 0x8e00 | (dpl << 13);
    view.setBigUint64(
      gates + 16 * vector,
      (BigInt(rights) << 32n) | (BigInt(Selector.KERNEL_CODE) << 16n),
      true,
    );
    view.setBigUint64(gates + 16 * vector + 8, 0xffff_ffffn, true);
  }
  // No I/O permission bitmap.
  view.setUint16(RAM_BASE + Place.TSS + 0x66, TSS_LIMIT + 1, true);
}

export function writeSegment(
  view: DataView,
  number: number,
  s: { selector: number; base: bigint; limit: number; rights: number },
): void {
  const at = segmentAt(number);
  view.setBigUint64(at + SEG_BASE, s.base, true);
  view.setUint32(at + SEG_LIMIT, s.limit, true);
  view.setUint32(at + SEG_RIGHTS, s.rights, true);
  view.setUint16(at + SEG_SELECTOR, s.selector, true);
}

/** Makes the world in a fresh engine's memory. What tests change is set by emulated.ts before each. */
export function makeWorld(view: DataView, facts: Facts): void {
  mapPages(view);
  fillDescriptorTables(view, facts);
  writeSegment(view, Seg.TR, {
    selector: facts.taskSelector,
    base: TSS_LINEAR,
    limit: TSS_LIMIT,
    rights: 0x8b,
  });
  const limit = 8 * LOCAL_TABLE.length - 1;
  if (facts.hasLocalTable)
    writeSegment(view, Seg.LDTR, {
      selector: facts.localTableSelector,
      base: LDT_LINEAR,
      limit,
      rights: 0x82,
    });
  else writeSegment(view, Seg.LDTR, { selector: 0, base: 0n, limit: 0, rights: UNUSABLE });
  view.setBigUint64(S.GDTR_BASE.at, GDT_LINEAR, true);
  view.setUint32(S.GDTR_LIMIT.at, GDT_LIMIT, true);
  view.setBigUint64(S.IDTR_BASE.at, IDT_LINEAR, true);
  view.setUint32(S.IDTR_LIMIT.at, IDT_LIMIT, true);
  const cr0 = Cr0.PE | Cr0.MP | Cr0.ET | Cr0.NE | Cr0.WP | Cr0.AM | Cr0.PG;
  view.setBigUint64(S.CR0.at, BigInt(cr0 >>> 0), true);
  view.setBigUint64(S.CR3.at, BigInt(Place.PML4), true);
  view.setBigUint64(
    S.CR4.at,
    BigInt(
      Cr4.DE |
        Cr4.PSE |
        Cr4.PAE |
        Cr4.MCE |
        Cr4.PGE |
        Cr4.OSFXSR |
        Cr4.OSXMMEXCPT |
        Cr4.OSXSAVE |
        (facts.hasFsGsBase ? Cr4.FSGSBASE : 0),
    ),
    true,
  );
  view.setBigUint64(S.EFER.at, BigInt(Efer.SCE | Efer.LME | Efer.LMA | Efer.NXE), true);
  view.setBigUint64(S.XCR0.at, 3n, true);
  view.setBigUint64(S.DR7.at, 0x400n, true);
  view.setBigUint64(S.DR6.at, 0xffff_0ff0n, true);
  view.setBigUint64(S.PHYSICAL_RESERVED.at, 0x000f_ff00_0000_0000n, true);
  view.setUint32(S.NON_ROOT.at, 1, true);
  view.setUint32(S.CTL_EXCEPTION_BITMAP.at, 0xffff_ffff, true);
}
