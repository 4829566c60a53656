/**
 * Descriptor tables of guests on the bench: code and stack for every ring, call gates into every ring, a TSS with a stack for each, an IDT.
 * The same selectors in 64-bit and in 32-bit mode. SDM Vol. 3A, "Segment Descriptors", "Call Gates", "Task-State Segment (TSS)".
 */
export const Table = { GDT: 0x20_0000, IDT: 0x20_1000, TSS: 0x20_2000 } as const;
export const GDT_LIMIT = 0xff;
export const IDT_LIMIT = 0xfff;
export const TSS_LIMIT = 0x1067;
export const TSS_SELECTOR = 0x70;
/** Base of the selectors that SYSRET loads from: SS = base + 8, 64-bit CS = base + 16. */
export const SYSRET_BASE = 0x48;
/** Conforming code of ring 0. */
export const CONFORMING = 0x60;
const CALL_GATES = 0x80;

export type Ring = 0 | 1 | 2 | 3;
export const RINGS: readonly Ring[] = [0, 1, 2, 3];

/** Selectors with the ring as RPL. */
export const codeOf = (ring: Ring): number => 0x08 + 0x10 * ring + ring;
export const dataOf = (ring: Ring): number => 0x10 + 0x10 * ring + ring;
export const callGateOf = (ring: Ring): number => CALL_GATES + 0x10 * ring;
/** Top of the stack that events, and calls through gates, switch to for a ring. */
export const stackOf = (ring: Ring): number => 0x22_0000 + 0x1_0000 * ring;

const PRESENT = 0x80;
const CODE = 0x1b;
const DATA = 0x13;

/** Access byte, flags nibble (G D L) over 4 GiB from 0. */
function flat(access: number, flags: number): bigint {
  return 0x000f_0000_0000_ffffn | (BigInt(access) << 40n) | (BigInt(flags) << 52n);
}

function gate(selector: number, offset: number, type: number, dpl: number, parameters = 0): bigint {
  const low = BigInt(offset & 0xffff) | (BigInt(selector) << 16n);
  const middle = BigInt(parameters) | (BigInt(PRESENT | (dpl << 5) | type) << 8n);
  return low | (middle << 32n) | (BigInt(offset >>> 16) << 48n);
}

export class LabTables {
  readonly #write: (at: number, value: bigint) => void;
  readonly #isLong: boolean;

  constructor(write: (at: number, value: bigint) => void, isLong: boolean) {
    this.#write = write;
    this.#isLong = isLong;
    const code = isLong ? 0xa : 0xc;
    for (const ring of RINGS) {
      const dpl = PRESENT | (ring << 5);
      write(Table.GDT + (codeOf(ring) & ~3), flat(dpl | CODE, code));
      write(Table.GDT + (dataOf(ring) & ~3), flat(dpl | DATA, 0xc));
    }
    write(Table.GDT + SYSRET_BASE, flat(PRESENT | 0x60 | CODE, 0xc));
    write(Table.GDT + SYSRET_BASE + 8, flat(PRESENT | 0x60 | DATA, 0xc));
    write(Table.GDT + SYSRET_BASE + 16, flat(PRESENT | 0x60 | CODE, code));
    write(Table.GDT + CONFORMING, flat(PRESENT | CODE | 4, code));
    const base = BigInt(Table.TSS);
    const limit = BigInt(TSS_LIMIT);
    write(
      Table.GDT + TSS_SELECTOR,
      limit | ((base & 0xff_ffffn) << 16n) | (0x8bn << 40n) | ((base >> 24n) << 56n),
    );
    this.#fillTss();
  }

  /** RSP0..2 (or ESP, SS pairs). */
  #fillTss(): void {
    for (const ring of [0, 1, 2] as const) {
      const top = BigInt(stackOf(ring));
      if (this.#isLong) {
        this.#write(Table.TSS + 4 + 8 * ring, top);
      } else this.#write(Table.TSS + 4 + 8 * ring, top | (BigInt(dataOf(ring)) << 32n));
    }
  }

  /** An interrupt gate, callable from ring 3. */
  interrupt(vector: number, ring: Ring, handler: number): void {
    const size = this.#isLong ? 16 : 8;
    this.#write(Table.IDT + size * vector, gate(codeOf(ring) & ~3, handler, 0xe, 3));
    if (this.#isLong) this.#write(Table.IDT + size * vector + 8, 0n);
  }

  /** The call gate into a ring. */
  call(ring: Ring, target: number): void {
    this.#write(Table.GDT + callGateOf(ring), gate(codeOf(ring) & ~3, target, 0xc, 3));
    this.#write(Table.GDT + callGateOf(ring) + 8, 0n);
  }
}
