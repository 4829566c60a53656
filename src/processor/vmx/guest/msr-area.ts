/**
 * MSR areas of VM entry and VM exit, and the processor's own MSRs by number. SDM Vol. 3C, "Loading MSRs" (VM entries and VM exits), "Saving MSRs".
 */
import { type Field, S } from "../../state/layout.ts";

/** MSRs that the processor serves itself, by number. FS and GS base may not be in an area. */
const OWN: ReadonlyMap<number, Field> = new Map([
  [0x174, S.SYSENTER_CS],
  [0x175, S.SYSENTER_ESP],
  [0x176, S.SYSENTER_EIP],
  [0x277, S.PAT],
  [0xda0, S.XSS],
  [0xc000_0080, S.EFER],
  [0xc000_0081, S.STAR],
  [0xc000_0082, S.LSTAR],
  [0xc000_0083, S.CSTAR],
  [0xc000_0084, S.SFMASK],
  [0xc000_0102, S.KERNEL_GS_BASE],
  [0xc000_0103, S.TSC_AUX],
]);
const FS_BASE = 0xc000_0100;
const GS_BASE = 0xc000_0101;
const X2APIC = 0x8;

/** MSRs that somebody else keeps: our own hypervisor. */
export interface OtherMsrs {
  read(index: number): bigint | null;
  write(index: number, value: bigint): boolean;
}

export class MsrAreas {
  readonly #view: DataView;
  readonly #others: OtherMsrs;
  readonly #eferAllowed: bigint;

  constructor(view: DataView, others: OtherMsrs, eferAllowed: bigint) {
    this.#view = view;
    this.#others = others;
    this.#eferAllowed = eferAllowed;
  }

  /** Loads entries; `hostOf` answers a host address for the physical address of an entry. Answers 0, or the number (from 1) of the entry that fails. */
  load(address: bigint, count: number, hostOf: (physical: bigint) => number): number {
    for (let i = 0; i < count; i++) {
      const at = hostOf(address + BigInt(16 * i));
      if (at === 0) return i + 1;
      const index = this.#view.getUint32(at, true);
      const reserved = this.#view.getUint32(at + 4, true);
      if (reserved !== 0 || index === FS_BASE || index === GS_BASE || index >>> 8 === X2APIC)
        return i + 1;
      if (!this.#write(index, this.#view.getBigUint64(at + 8, true))) return i + 1;
    }
    return 0;
  }

  /** Stores entries; answers false if one cannot be. */
  store(address: bigint, count: number, hostOf: (physical: bigint) => number): boolean {
    for (let i = 0; i < count; i++) {
      const at = hostOf(address + BigInt(16 * i));
      if (at === 0) return false;
      const index = this.#view.getUint32(at, true);
      const field = OWN.get(index);
      const value = field ? this.#view.getBigUint64(field.at, true) : this.#others.read(index);
      if (value === null) return false;
      this.#view.setBigUint64(at + 8, value, true);
    }
    return true;
  }

  #write(index: number, value: bigint): boolean {
    const field = OWN.get(index);
    if (!field) return this.#others.write(index, value);
    if (field === S.EFER) {
      const LME_LMA = 0x500n;
      const old = this.#view.getBigUint64(S.EFER.at, true);
      if ((value & ~(this.#eferAllowed | 0x400n)) !== 0n) return false;
      // While paging is on these two go together with what the controls have loaded.
      if (((value ^ old) & LME_LMA) !== 0n) return false;
    }
    this.#view.setBigUint64(field.at, value, true);
    return true;
  }
}
