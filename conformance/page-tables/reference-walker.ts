/**
 * Paging as the manual tells it, apart from the processor's own walk: what an access to a linear address meets, and what it leaves in the entries.
 * Spec: SDM Vol. 3A, "Paging": 32-bit, PAE and 4-level; "Access Rights", "Page-Fault Exceptions", "Accessed and Dirty Flags".
 *
 * Plain bigints, one level after the other, nothing cached. walk() looks and changes nothing; judge() says what an access with its rights
 * gets; the caller sets the accessed and dirty bits of a walk that succeeded. Protection keys and 5-level paging are not here: the
 * processor does not offer them.
 */

export type PagingMode = "32-bit" | "PAE" | "4-level";

export interface PagingState {
  readonly mode: PagingMode;
  readonly physicalBits: number;
  wp: boolean;
  pse: boolean;
  pge: boolean;
  smep: boolean;
  smap: boolean;
  nxe: boolean;
  /** Physical address of the top table. */
  root: number;
  /** PAE: the four registers. */
  pdptes: readonly bigint[];
}

export interface Access {
  readonly kind: "read" | "write" | "fetch";
  readonly user: boolean;
  /** RFLAGS.AC. */
  readonly ac: boolean;
}

export const Bit = {
  P: 1n,
  W: 2n,
  U: 4n,
  A: 0x20n,
  D: 0x40n,
  PS: 0x80n,
  G: 0x100n,
  NX: 1n << 63n,
} as const;

/** One entry that a walk has read. */
export interface Step {
  readonly at: number;
  readonly value: bigint;
}

/** What a TLB may hold. */
export interface Translation {
  /** Physical address of the byte. */
  readonly physical: number;
  readonly pageBytes: number;
  readonly w: boolean;
  readonly u: boolean;
  readonly nx: boolean;
  readonly global: boolean;
  readonly dirty: boolean;
}

export interface Path {
  readonly steps: readonly Step[];
  /** Error code bits P and RSVD of a walk that ends early. */
  readonly fault: number;
  readonly translation: Translation | null;
}

export type ReadEntry = (at: number, bytes: 4 | 8) => bigint;

interface Level {
  readonly shift: number;
  readonly indexBits: number;
  readonly canBeLeaf: boolean;
}

const LEVELS: Readonly<Record<PagingMode, readonly Level[]>> = {
  "32-bit": [
    { shift: 22, indexBits: 10, canBeLeaf: true },
    { shift: 12, indexBits: 10, canBeLeaf: false },
  ],
  PAE: [
    { shift: 21, indexBits: 9, canBeLeaf: true },
    { shift: 12, indexBits: 9, canBeLeaf: false },
  ],
  "4-level": [
    { shift: 39, indexBits: 9, canBeLeaf: false },
    { shift: 30, indexBits: 9, canBeLeaf: true },
    { shift: 21, indexBits: 9, canBeLeaf: true },
    { shift: 12, indexBits: 9, canBeLeaf: false },
  ],
};

export const entryBytes = (mode: PagingMode): 4 | 8 => (mode === "32-bit" ? 4 : 8);

/** Ones in bits high..low. */
function ones(high: number, low: number): bigint {
  return high < low ? 0n : ((1n << BigInt(high - low + 1)) - 1n) << BigInt(low);
}

/** Bits that must be 0 in a present entry of a level; `leaf`: it maps a large page. */
export function reservedBits(state: PagingState, shift: number, leaf: boolean): bigint {
  const { mode, physicalBits } = state;
  // PSE-36: bits 20:13 are address bits 39:32.
  if (mode === "32-bit") return leaf ? ones(21, physicalBits - 19) : 0n;
  // Ignored above bit 51 in 4-level paging, reserved in PAE paging.
  let bits = ones(mode === "PAE" ? 62 : 51, physicalBits);
  if (!state.nxe) bits |= Bit.NX;
  if (leaf) bits |= ones(shift - 1, 13);
  if (shift === 39) bits |= Bit.PS;
  return bits;
}

function frameOf(mode: PagingMode, entry: bigint, shift: number): bigint {
  if (mode !== "32-bit") return entry & ones(51, shift);
  return shift === 22
    ? (entry & ones(31, 22)) | (((entry >> 13n) & 0xffn) << 32n)
    : entry & ones(31, 12);
}

/** Looks an address up; only the top 48 (or 32) bits matter, it has to be canonical. */
export function walk(state: PagingState, linear: bigint, read: ReadEntry): Path {
  const { mode } = state;
  const steps: Step[] = [];
  let table = state.root;
  if (mode === "PAE") {
    const pdpte = state.pdptes[Number((linear >> 30n) & 3n)]!;
    if ((pdpte & Bit.P) === 0n) return { steps, fault: 0, translation: null };
    table = Number(pdpte & ones(51, 12));
  }
  let w = true;
  let u = true;
  let nx = false;
  for (const { shift, indexBits, canBeLeaf } of LEVELS[mode]) {
    const index = Number((linear >> BigInt(shift)) & ones(indexBits - 1, 0));
    const at = table + index * entryBytes(mode);
    const value = read(at, entryBytes(mode));
    steps.push({ at, value });
    if ((value & Bit.P) === 0n) return { steps, fault: 0, translation: null };
    const large = canBeLeaf && (value & Bit.PS) !== 0n && (mode !== "32-bit" || state.pse);
    if ((value & reservedBits(state, shift, large)) !== 0n)
      return { steps, fault: 9, translation: null };
    w &&= (value & Bit.W) !== 0n;
    u &&= (value & Bit.U) !== 0n;
    nx ||= mode !== "32-bit" && (value & Bit.NX) !== 0n;
    if (large || shift === 12) {
      const offset = linear & ones(shift - 1, 0);
      const translation = {
        physical: Number(frameOf(mode, value, shift) + offset),
        pageBytes: 2 ** shift,
        ...{ w, u, nx },
        global: state.pge && (value & Bit.G) !== 0n,
        dirty: (value & Bit.D) !== 0n,
      };
      return { steps, fault: 0, translation };
    }
    table = Number(frameOf(mode, value, 12));
  }
  throw new Error("a walk ends at the last level");
}

/** Whether the rights of a translation allow an access. */
export function allows(state: PagingState, t: Translation, access: Access): boolean {
  const { kind, user, ac } = access;
  if (kind === "fetch" && t.nx && state.nxe) return false;
  if (user) return t.u && (kind !== "write" || t.w);
  if (t.u) {
    if (kind === "fetch" && state.smep) return false;
    if (kind !== "fetch" && state.smap && !ac) return false;
  }
  return kind !== "write" || t.w || !state.wp;
}

/** Error code of the page fault that an access gets, or -1. */
export function judge(state: PagingState, path: Path, access: Access): number {
  if (path.translation && allows(state, path.translation, access)) return -1;
  const { kind, user } = access;
  const tellsFetch = (state.mode !== "32-bit" && state.nxe) || state.smep;
  return (
    (path.translation ? 1 : path.fault) |
    (kind === "write" ? 2 : 0) |
    (user ? 4 : 0) |
    (kind === "fetch" && tellsFetch ? 16 : 0)
  );
}
