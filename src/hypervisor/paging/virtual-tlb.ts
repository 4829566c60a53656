/**
 * The virtual TLB of a vCPU without EPT: the guest's tables are looked at when the active tables have nothing that allows an access, and the
 * active tables forget when the guest flushes. SDM Vol. 3C, "VMX Support for Address Translation"; mechanism P5.
 *
 * A page fault that the guest's tables would give is the guest's; for all others an entry is filled in, accessed and dirty bits are set in the
 * guest's entries, and the access is tried again. Nothing is write-protected: more rights are found at the next fault, less hold from
 * the guest's own flush on, as with hardware. Global pages and PCIDs are flushed more often than they must be.
 * In hardware CR0.WP and EFER.NXE are always 1, CR4.PGE and PCIDE always 0; the guest reads its own values.
 *
 * Guests in 64-bit mode only: the other paging modes, and memory beyond the VM's as a place for page tables, end with an error. Not here:
 * INVPCID (not offered to such a guest), the active tables themselves (active-tables.ts).
 */
import { HypolithError } from "../../base/errors.ts";
import { ExitReason } from "../../processor/isa/exit-reasons.ts";
import { Field, PrimaryControl, SecondaryControl } from "../../processor/isa/vmcs-fields.ts";
import { Cr0, Cr4, Efer } from "../../processor/state/control-bits.ts";
import { GPR, RAM_BASE, S } from "../../processor/state/layout.ts";
import type { Vmcs } from "../../processor/vmx/vmcs.ts";
import type { ActiveTables } from "./active-tables.ts";

/** Host-physical address of a device's page, beyond all memory: guest-physical addresses from here. */
export const DEVICE_SPACE = 2 ** 38;

const P = 1n;
const W = 2n;
const U = 4n;
const A = 0x20n;
const D = 0x40n;
const PS = 0x80n;
const NX = 1n << 63n;
const FRAME = 0x000f_ffff_ffff_f000n;
const AC = 0x4_0000;
const GP = 13;
const PF = 14;
const EFER = 0xc000_0080;
const PCID = 0xfffn;
const KEEP = 1n << 63n;

/** What was done with an exit: nothing, the guest goes on, it goes on behind the instruction, or it gets an exception. */
export type Handled =
  | { readonly kind: "other" | "again" | "next" }
  | { readonly kind: "raise"; readonly vector: number; readonly error: number };

const OTHER: Handled = { kind: "other" };
const AGAIN: Handled = { kind: "again" };
const NEXT: Handled = { kind: "next" };
const raise = (vector: number, error: number): Handled => ({ kind: "raise", vector, error });

/** What the walk of the guest's tables has found. */
interface GuestPage {
  /** Guest-physical address of the byte. */
  readonly physical: bigint;
  readonly w: boolean;
  readonly u: boolean;
  readonly x: boolean;
  readonly d: boolean;
  readonly level: number;
}

export class VirtualTlb {
  readonly #vmcs: Vmcs;
  readonly #view: DataView;
  readonly #tables: ActiveTables;
  readonly #ramBytes: number;
  readonly #flush: () => void;
  /** The guest's own. */
  #cr0: number;
  #cr3: bigint;
  #cr4: number;
  #nxe: boolean;
  /** Addresses that one instruction may write to. */
  #lent: bigint[] = [];

  /** Takes the paging of a VMCS over that is ready for a guest with EPT. `flush` empties the processor's TLB. */
  constructor(
    vmcs: Vmcs,
    view: DataView,
    parts: { tables: ActiveTables; ramBytes: number; flush: () => void },
  ) {
    this.#vmcs = vmcs;
    this.#view = view;
    this.#tables = parts.tables;
    this.#ramBytes = parts.ramBytes;
    this.#flush = parts.flush;
    this.#cr0 = vmcs.number(Field.GUEST_CR0);
    this.#cr3 = vmcs.big(Field.GUEST_CR3);
    this.#cr4 = vmcs.number(Field.GUEST_CR4);
    const efer = vmcs.number(Field.GUEST_EFER);
    this.#nxe = (efer & Efer.NXE) !== 0;
    if ((efer & Efer.LMA) === 0) unsupported("a guest that does not start in 64-bit mode");
    const { EPT, UNRESTRICTED_GUEST, INVPCID } = SecondaryControl;
    const secondary = vmcs.number(Field.SECONDARY_CONTROLS);
    vmcs.set(Field.SECONDARY_CONTROLS, secondary & ~(EPT | UNRESTRICTED_GUEST | INVPCID));
    const { INVLPG, CR3_LOAD, CR3_STORE } = PrimaryControl;
    const primary = vmcs.number(Field.PRIMARY_CONTROLS) | INVLPG | CR3_LOAD | CR3_STORE;
    vmcs.set(Field.PRIMARY_CONTROLS, primary >>> 0);
    vmcs.set(Field.EXCEPTION_BITMAP, vmcs.number(Field.EXCEPTION_BITMAP) | (1 << PF));
    vmcs.set(Field.CR0_MASK, (Cr0.PG | Cr0.WP | Cr0.PE) >>> 0);
    const { PAE, PSE, PGE, PCIDE, SMEP, SMAP, LA57 } = Cr4;
    vmcs.set(Field.CR4_MASK, PAE | PSE | PGE | PCIDE | SMEP | SMAP | LA57);
    const bitmap = vmcs.number(Field.MSR_BITMAP) + 1024 + ((EFER & 0x1fff) >> 3);
    for (const at of [bitmap, bitmap + 2048]) view.setUint8(at, view.getUint8(at) | 1);
    this.#install();
  }

  /** The registers that the processor has. */
  #install(): void {
    const vmcs = this.#vmcs;
    vmcs.set(Field.GUEST_CR0, (this.#cr0 | Cr0.WP) >>> 0);
    vmcs.set(Field.CR0_SHADOW, this.#cr0 >>> 0);
    vmcs.set(Field.GUEST_CR4, (this.#cr4 & ~(Cr4.PGE | Cr4.PCIDE)) >>> 0);
    vmcs.set(Field.CR4_SHADOW, this.#cr4 >>> 0);
    vmcs.set(Field.GUEST_EFER, vmcs.number(Field.GUEST_EFER) | Efer.NXE);
    this.#enterSpace();
  }

  get #space(): number {
    return this.#cr4 & Cr4.PCIDE ? Number(this.#cr3 & PCID) : 0;
  }

  #enterSpace(): void {
    this.#vmcs.set(Field.GUEST_CR3, this.#tables.root(this.#space));
    this.#flush();
  }

  #dropAll(): void {
    this.#tables.dropAll();
    this.#install();
  }

  handle(reason: number): Handled {
    const vmcs = this.#vmcs;
    switch (reason) {
      case ExitReason.EXCEPTION_OR_NMI:
        if ((vmcs.number(Field.EXIT_INTERRUPTION_INFO) & 0xff) !== PF) return OTHER;
        return this.#pageFault(
          vmcs.big(Field.EXIT_QUALIFICATION),
          vmcs.number(Field.EXIT_INTERRUPTION_ERROR),
        );
      case ExitReason.MTF:
        if (this.#lent.length === 0) return OTHER;
        this.#takeBack();
        return AGAIN;
      case ExitReason.INVLPG:
        this.#tables.drop(vmcs.big(Field.EXIT_QUALIFICATION));
        this.#flush();
        return NEXT;
      case ExitReason.CR_ACCESS:
        return this.#control(vmcs.number(Field.EXIT_QUALIFICATION));
      case ExitReason.RDMSR:
      case ExitReason.WRMSR:
        if (this.#view.getUint32(GPR + 8, true) !== EFER) return OTHER;
        return reason === ExitReason.RDMSR ? this.#readEfer() : this.#writeEfer();
      default:
        return OTHER;
    }
  }

  // ---- faults ----

  #pageFault(linear: bigint, error: number): Handled {
    const access = { write: (error & 2) !== 0, user: (error & 4) !== 0, fetch: (error & 16) !== 0 };
    const tellsFetch = access.fetch && (this.#nxe || (this.#cr4 & Cr4.SMEP) !== 0);
    const code = (error & 6) | (tellsFetch ? 16 : 0);
    const page = this.#walk(linear, access);
    if (typeof page === "number") {
      this.#takeBack();
      this.#view.setBigUint64(S.CR2.at, linear, true);
      return raise(PF, code | page);
    }
    this.#fill(linear, page, access);
    return AGAIN;
  }

  /** The guest's tables: a page, or the bits P and RSVD of the fault. Sets accessed and dirty bits. */
  #walk(linear: bigint, access: Access): GuestPage | number {
    let table = this.#cr3 & FRAME;
    let rights = W | U;
    let nx = 0n;
    for (let level = 3; ; level--) {
      const at = this.#host(table + ((linear >> BigInt(12 + 9 * level)) & 511n) * 8n);
      const entry = this.#view.getBigUint64(at, true);
      if ((entry & P) === 0n) return 0;
      const isLeaf = level === 0 || (level < 3 && (entry & PS) !== 0n);
      if ((entry & this.#reserved(level, isLeaf)) !== 0n) return 9;
      rights &= entry;
      nx |= entry & NX;
      if (!isLeaf) {
        if ((entry & A) === 0n) this.#view.setBigUint64(at, entry | A, true);
        table = entry & FRAME;
        continue;
      }
      const found = { w: (rights & W) !== 0n, u: (rights & U) !== 0n, x: nx === 0n };
      if (!this.#allows(found, access)) return 1;
      const used = entry | A | (access.write ? D : 0n);
      if (used !== entry) this.#view.setBigUint64(at, used, true);
      const offset = (1n << BigInt(12 + 9 * level)) - 1n;
      const physical = (entry & FRAME & ~offset) | (linear & offset);
      return { ...found, physical, d: (used & D) !== 0n, level };
    }
  }

  #reserved(level: number, isLeaf: boolean): bigint {
    let bits = this.#view.getBigUint64(S.PHYSICAL_RESERVED.at, true) | (this.#nxe ? 0n : NX);
    if (level === 3) bits |= PS;
    if (isLeaf && level > 0) bits |= ((1n << BigInt(12 + 9 * level)) - 1n) & ~0x1fffn;
    return bits;
  }

  #allows(page: { w: boolean; u: boolean; x: boolean }, access: Access): boolean {
    const { write, user, fetch } = access;
    if (fetch && !page.x) return false;
    if (user) return page.u && (!write || page.w);
    if (page.u && fetch && (this.#cr4 & Cr4.SMEP) !== 0) return false;
    if (page.u && !fetch && (this.#cr4 & Cr4.SMAP) !== 0) {
      // An access of the processor itself (a descriptor table) at CPL 3 is never let through by AC.
      const isImplicit = this.#view.getUint32(S.CPL.at, true) === 3;
      if (isImplicit || (this.#vmcs.number(Field.GUEST_RFLAGS) & AC) === 0) return false;
    }
    return !write || page.w || (this.#cr0 & Cr0.WP) === 0;
  }

  #fill(linear: bigint, page: GuestPage, access: Access): void {
    let { w, u, x } = page;
    let isWritable = w && page.d;
    if (access.write && !w) {
      // CR0.WP = 0: for the supervisor alone, until a user wants it back.
      isWritable = true;
      w = true;
      if (u && (this.#cr4 & Cr4.SMEP) !== 0) x = false;
      // With U = 0 it would escape SMAP: it holds for this one instruction, which has AC set.
      if (u && (this.#cr4 & Cr4.SMAP) !== 0) this.#lend(linear);
      u = false;
    }
    const frame = page.physical & FRAME;
    const isRam = frame < BigInt(this.#ramBytes);
    const host = frame + BigInt(isRam ? RAM_BASE : DEVICE_SPACE);
    const leaf = host | P | A | (isWritable ? W | D : 0n) | (u ? U : 0n) | (x ? 0n : NX);
    if (!this.#tables.map(this.#vmcs.number(Field.GUEST_CR3), linear, leaf, page.level)) {
      this.#dropAll();
      this.#tables.map(this.#vmcs.number(Field.GUEST_CR3), linear, leaf, page.level);
    }
  }

  #lend(linear: bigint): void {
    this.#lent.push(linear);
    this.#setTrap(true);
  }

  /** Takes back what was lent to one instruction. */
  #takeBack(): void {
    if (this.#lent.length === 0) return;
    for (const linear of this.#lent) this.#tables.drop(linear);
    this.#lent = [];
    this.#setTrap(false);
    this.#flush();
  }

  #setTrap(on: boolean): void {
    const others = this.#vmcs.number(Field.PRIMARY_CONTROLS) & ~PrimaryControl.MONITOR_TRAP;
    const controls = others | (on ? PrimaryControl.MONITOR_TRAP : 0);
    this.#vmcs.set(Field.PRIMARY_CONTROLS, controls >>> 0);
  }

  /** Host address of a guest's table entry. */
  #host(physical: bigint): number {
    if (physical + 8n > BigInt(this.#ramBytes)) unsupported("page tables outside of memory");
    return RAM_BASE + Number(physical);
  }

  // ---- control registers ----

  #control(qualification: number): Handled {
    const n = qualification & 15;
    const type = (qualification >> 4) & 3;
    const register = GPR + 8 * ((qualification >> 8) & 15);
    if (type === 1 && n === 3) {
      this.#view.setBigUint64(register, this.#cr3, true);
      return NEXT;
    }
    if (type !== 0) return unsupported("CLTS or LMSW with a change of paging");
    const value = this.#view.getBigUint64(register, true);
    if (n === 3) return this.#writeCr3(value);
    return n === 0 ? this.#writeCr0(value) : this.#writeCr4(value);
  }

  #writeCr3(value: bigint): Handled {
    const hasPcids = (this.#cr4 & Cr4.PCIDE) !== 0;
    const reserved = this.#view.getBigUint64(S.PHYSICAL_RESERVED.at, true) | 0xfff0_0000_0000_0000n;
    if ((value & reserved & ~(hasPcids ? KEEP : 0n)) !== 0n) return raise(GP, 0);
    const keeps = hasPcids && (value & KEEP) !== 0n;
    this.#cr3 = value & ~KEEP;
    // What is kept must have been filled from the same tables.
    if (!keeps) this.#tables.dropSpace(this.#space);
    this.#enterSpace();
    return NEXT;
  }

  #writeCr0(value: bigint): Handled {
    if (value >> 32n !== 0n || (value & BigInt(Cr0.PE)) === 0n) return raise(GP, 0);
    if ((value & BigInt(Cr0.PG)) === 0n) return unsupported("leaving 64-bit mode");
    this.#cr0 = Number(value) | Cr0.ET;
    this.#dropAll();
    return NEXT;
  }

  #writeCr4(value: bigint): Handled {
    const allowed = this.#view.getBigUint64(S.CR4_ALLOWED.at, true);
    if ((value & ~allowed) !== 0n || (value & BigInt(Cr4.PAE)) === 0n) return raise(GP, 0);
    const next = Number(value);
    const enables = (next & ~this.#cr4 & Cr4.PCIDE) !== 0;
    if (enables && (this.#cr3 & PCID) !== 0n) return raise(GP, 0);
    this.#cr4 = next;
    this.#dropAll();
    return NEXT;
  }

  #readEfer(): Handled {
    const value = this.#vmcs.number(Field.GUEST_EFER) & ~(this.#nxe ? 0 : Efer.NXE);
    this.#view.setBigUint64(GPR, BigInt(value), true);
    this.#view.setBigUint64(GPR + 16, 0n, true);
    return NEXT;
  }

  #writeEfer(): Handled {
    const high = this.#view.getUint32(GPR + 16, true);
    const value = this.#view.getUint32(GPR, true);
    const allowed = this.#view.getUint32(S.EFER_ALLOWED.at, true);
    if (high !== 0 || (value & ~allowed) !== 0) return raise(GP, 0);
    if ((value & Efer.LME) === 0) return raise(GP, 0);
    this.#nxe = (value & Efer.NXE) !== 0;
    this.#vmcs.set(Field.GUEST_EFER, value | Efer.NXE | Efer.LMA);
    this.#dropAll();
    return NEXT;
  }
}

interface Access {
  readonly write: boolean;
  readonly user: boolean;
  readonly fetch: boolean;
}

function unsupported(what: string): never {
  throw new HypolithError("active-paging", `active page tables do not serve this yet: ${what}`);
}
