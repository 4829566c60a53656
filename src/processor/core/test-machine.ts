/**
 * Test support: one engine with descriptor tables, a TSS, page tables and handlers laid out in its memory, for tests of the system side.
 *
 *   0x1000 GDT · 0x2000 IDT (also vector table of real mode) · 0x3000 TSS · 0x4000 code · 0x6000 handlers, 16 bytes of NOP per vector
 *   0x8000 stack of ring 0 (top) · 0x9000 TSS.RSP0 · 0x9800 IST1 · 0xA000 stack of ring 3 · 0xB000.. scratch
 *   0x1_0000 page tables: identity of the first 2 MiB in 4 KiB pages, user accessible, table at PAGE_TABLE
 *
 * step() executes one instruction at S.RIP. If it faults, the event is delivered and the handler's first NOP runs in its place, so
 * `vector` tells which one.
 */

import { Interpreter } from "../interpreter/interpreter.ts";
import { type Assembler, asm16, asm32, asm64 } from "../isa/assemble.ts";
import { ALL_FEATURES } from "../isa/features.ts";
import { Cr0, Cr4, Efer } from "../state/control-bits.ts";
import {
  type Field,
  GPR,
  Page,
  PHYSICAL_MAP,
  PHYSICAL_MAP_PAGES,
  RAM_BASE,
  S,
  SEG_BASE,
  SEG_LIMIT,
  SEG_RIGHTS,
  SEG_SELECTOR,
  Seg,
  segmentAt,
} from "../state/layout.ts";
import { readRflags, writeRflags } from "../vmx/rflags.ts";

export const At = {
  GDT: 0x1000,
  IDT: 0x2000,
  TSS: 0x3000,
  CODE: 0x4000,
  HANDLERS: 0x6000,
  STACK0: 0x8000,
  RSP0: 0x9000,
  IST1: 0x9800,
  STACK3: 0xa000,
  SCRATCH: 0xb000,
  PML4: 0x1_0000,
  PAGE_TABLE: 0x1_3000,
  PAGE_TABLE_HIGH: 0x1_4000,
} as const;

/** Selectors of the standard GDT. */
export const Sel = {
  CODE64: 0x08,
  DATA: 0x10,
  CODE32: 0x18,
  CODE64_USER: 0x23,
  DATA_USER: 0x2b,
  CODE32_USER: 0x33,
  CODE16: 0x38,
  TSS: 0x40,
  FREE: 0x60,
} as const;

const RAM_BYTES = 0x20_0000;
const ALL_CR4 = 0x3f_ffff & ~(Cr4.LA57 | Cr4.VMXE);

export interface Segment {
  base: bigint;
  limit: number;
  rights: number;
  selector: number;
}

/** A descriptor from base, limit in units of its granularity, and rights in VMCS format. */
export function descriptor(rights: number, base = 0, limit = 0xf_ffff): bigint {
  const b = BigInt(base);
  const l = BigInt(limit);
  const r = BigInt(rights);
  return (
    (l & 0xffffn) |
    ((b & 0xff_ffffn) << 16n) |
    ((r & 0xf0ffn) << 40n) |
    ((l >> 16n) << 48n) |
    ((b >> 24n) << 56n)
  );
}

export interface Gate {
  selector: number;
  offset: number;
  /** Type and DPL and presence as in the access byte, e.g. 0x8e. */
  access: number;
  /** IST, or parameter count. */
  extra?: number;
}

export function gateLow(g: Gate): bigint {
  const offset = BigInt(g.offset);
  return (
    (offset & 0xffffn) |
    (BigInt(g.selector) << 16n) |
    (BigInt(g.extra ?? 0) << 32n) |
    (BigInt(g.access) << 40n) |
    (((offset >> 16n) & 0xffffn) << 48n)
  );
}

export class TestMachine {
  readonly engine: Interpreter;
  readonly view: DataView;
  /** Physical pages whose access is an EPT violation. */
  readonly missing = new Set<number>();
  tsc = 0n;

  constructor() {
    const fill = (page: number): number => {
      const rights = Page.READ | Page.WRITE | Page.EXECUTE;
      const present = page < RAM_BYTES / 4096 && !this.missing.has(page);
      const entry = present ? (RAM_BASE + page * 4096) | rights | Page.KNOWN : Page.KNOWN;
      this.view.setUint32(PHYSICAL_MAP + 4 * page, entry, true);
      return entry;
    };
    this.engine = new Interpreter({
      ramBytes: RAM_BYTES,
      features: ALL_FEATURES,
      services: {
        physicalFill: fill,
        readTsc: () => this.set(S.TSC, this.tsc),
        random: () => 0x1234_5678_9abc_def0n,
      },
    });
    this.view = this.engine.view;
  }

  /** Ring 0 in the given mode, everything laid out, interrupts off. */
  reset(mode: "long" | "protected" | "real"): void {
    const bytes = new Uint8Array(this.view.buffer);
    bytes.fill(0, GPR, 0x1000);
    bytes.fill(0, RAM_BASE, RAM_BASE + 0x1_8000);
    bytes.fill(0, PHYSICAL_MAP, PHYSICAL_MAP + 4 * Math.min(PHYSICAL_MAP_PAGES, 0x1000));
    this.missing.clear();
    this.engine.code.flush();
    this.set(S.MXCSR_MASK, 0xffff);
    this.set(S.CR4_ALLOWED, BigInt(ALL_CR4));
    this.set(S.EFER_ALLOWED, BigInt(Efer.SCE | Efer.LME | Efer.LMA | Efer.NXE));
    this.set(S.PHYSICAL_RESERVED, 0x000f_ff00_0000_0000n);
    this.set(S.DR6, 0xffff_0ff0n);
    this.set(S.DR7, 0x400n);
    this.set(S.RFLAGS_REST, 2);
    this.set(S.XCR0, 1n);
    this.set(S.RIP, BigInt(At.CODE));
    this.setGpr(4, At.STACK0);
    this.set(S.GDTR_BASE, BigInt(At.GDT));
    this.set(S.GDTR_LIMIT, 0xfff);
    this.set(S.IDTR_BASE, BigInt(At.IDT));
    this.set(S.IDTR_LIMIT, 0xfff);
    this.setFlags(2);
    this.#tables(mode === "long");
    if (mode === "long") this.#enterLong();
    else if (mode === "protected") this.#enterProtected();
    else this.#enterReal();
    this.engine.flushTlb();
    this.engine.updateMode();
  }

  #tables(isLong: boolean): void {
    const gdt = [0n, 0xa09bn, 0xc093n, 0xc09bn, 0xa0fbn, 0xc0f3n, 0xc0fbn, 0x809bn].map((r) =>
      r === 0n ? 0n : descriptor(Number(r)),
    );
    gdt.forEach((d, i) => {
      this.write64(At.GDT + 8 * i, d);
    });
    this.write64(At.GDT + Sel.TSS, descriptor(0x8b, At.TSS, 0x67));
    if (isLong) {
      this.write64(At.TSS + 4, BigInt(At.RSP0));
      this.write64(At.TSS + 0x24, BigInt(At.IST1));
    } else {
      this.write32(At.TSS + 4, At.RSP0);
      this.write32(At.TSS + 8, Sel.DATA);
    }
    const bytes = new Uint8Array(this.view.buffer, RAM_BASE + At.HANDLERS, 0x1000);
    bytes.fill(0x90);
    for (let v = 0; v < 256; v++) {
      const gate = {
        selector: isLong ? Sel.CODE64 : Sel.CODE32,
        offset: At.HANDLERS + 16 * v,
        access: 0x8e,
      };
      this.setGate(v, gate, isLong);
    }
  }

  setGate(vector: number, gate: Gate, isLong = this.get(S.EFER) !== 0n): void {
    const at = At.IDT + vector * (isLong ? 16 : 8);
    this.write64(at, gateLow(gate));
    if (isLong) this.write64(at + 8, 0n);
  }

  #loadSegments(code: number, codeRights: number): void {
    for (const seg of [Seg.ES, Seg.SS, Seg.DS, Seg.FS, Seg.GS]) {
      this.setSegment(seg, { base: 0n, limit: 0xffff_ffff, rights: 0xc093, selector: Sel.DATA });
    }
    this.setSegment(Seg.CS, { base: 0n, limit: 0xffff_ffff, rights: codeRights, selector: code });
    this.setSegment(Seg.TR, { base: BigInt(At.TSS), limit: 0x67, rights: 0x8b, selector: Sel.TSS });
    this.setSegment(Seg.LDTR, { base: 0n, limit: 0, rights: 0x1_0000, selector: 0 });
  }

  #enterLong(): void {
    this.write64(At.PML4, BigInt(At.PML4 + 0x1007));
    this.write64(At.PML4 + 0x1000, BigInt(At.PML4 + 0x2007));
    this.write64(At.PML4 + 0x2000, BigInt(At.PAGE_TABLE + 7));
    for (let i = 0; i < 512; i++) this.write64(At.PAGE_TABLE + 8 * i, BigInt(i * 4096 + 7));
    this.set(S.CR0, BigInt(Cr0.PG | Cr0.PE | Cr0.ET | Cr0.NE | Cr0.WP) & 0xffff_ffffn);
    this.set(S.CR3, BigInt(At.PML4));
    this.set(S.CR4, BigInt(Cr4.PAE | Cr4.PGE));
    this.set(S.EFER, BigInt(Efer.LME | Efer.LMA | Efer.SCE | Efer.NXE));
    this.#loadSegments(Sel.CODE64, 0xa09b);
  }

  #enterProtected(): void {
    this.set(S.CR0, BigInt(Cr0.PE | Cr0.ET | Cr0.NE));
    this.#loadSegments(Sel.CODE32, 0xc09b);
  }

  #enterReal(): void {
    this.set(S.CR0, BigInt(Cr0.ET));
    this.set(S.IDTR_LIMIT, 0x3ff);
    this.#loadSegments(0, 0x9b);
    for (let seg = 0; seg < 6; seg++)
      this.setSegment(seg, {
        base: 0n,
        limit: 0xffff,
        rights: seg === Seg.CS ? 0x9b : 0x93,
        selector: 0,
      });
    for (let v = 0; v < 256; v++) this.write32(At.IDT + 4 * v, At.HANDLERS + 16 * v);
  }

  /** Ring 3 code and stack. */
  enterUser(code: number = Sel.CODE64_USER): void {
    this.setSegment(Seg.CS, {
      base: 0n,
      limit: 0xffff_ffff,
      rights: code === Sel.CODE64_USER ? 0xa0fb : 0xc0fb,
      selector: code,
    });
    for (const seg of [Seg.SS, Seg.DS, Seg.ES]) {
      this.setSegment(seg, {
        base: 0n,
        limit: 0xffff_ffff,
        rights: 0xc0f3,
        selector: Sel.DATA_USER,
      });
    }
    this.set(S.CPL, 3);
    this.setGpr(4, At.STACK3);
    this.engine.updateMode();
  }

  // ---- running ----

  /** Puts code at S.RIP's linear address and executes `count` instructions. Answers 1 after a VM exit. */
  step(build: (a: Assembler) => void, count = 1): number {
    const mode = this.mode & 3;
    const rip = Number(this.rip);
    const assemble = mode === 2 ? asm64 : mode === 1 ? asm32 : asm16;
    const code = assemble(rip, build);
    const linear = mode === 2 ? rip : rip + Number(this.segment(Seg.CS).base);
    new Uint8Array(this.view.buffer).set(code, RAM_BASE + linear);
    this.engine.code.flush();
    return this.engine.run(count);
  }

  call(name: string, ...args: (number | bigint)[]): number {
    return (this.engine.exports[name] as (...a: (number | bigint)[]) => number)(...args);
  }

  /** Vector of the handler that has just been entered, or -1. */
  get vector(): number {
    const offset = Number(this.rip) - At.HANDLERS;
    return offset >= 0 && offset < 0x1000 ? offset >> 4 : -1;
  }

  get mode(): number {
    return this.get(S.MODE) as number;
  }

  get rip(): bigint {
    return this.get(S.RIP) as bigint;
  }

  // ---- state ----

  get(field: Field): number | bigint {
    if (field.type === "i64") return this.view.getBigUint64(field.at, true);
    return this.view.getUint32(field.at, true);
  }

  num(field: Field): number {
    return Number(this.get(field));
  }

  set(field: Field, v: number | bigint): void {
    if (field.type === "i64") this.view.setBigUint64(field.at, BigInt(v), true);
    else this.view.setInt32(field.at, Number(v), true);
  }

  gpr(n: number): number {
    return Number(this.view.getBigUint64(GPR + 8 * n, true));
  }

  setGpr(n: number, v: number | bigint): void {
    this.view.setBigUint64(GPR + 8 * n, BigInt(v), true);
  }

  flags(): number {
    return readRflags(this.view);
  }

  setFlags(v: number): void {
    writeRflags(this.view, v | 2);
  }

  segment(n: number): Segment {
    const at = segmentAt(n);
    return {
      base: this.view.getBigUint64(at + SEG_BASE, true),
      limit: this.view.getUint32(at + SEG_LIMIT, true),
      rights: this.view.getUint32(at + SEG_RIGHTS, true),
      selector: this.view.getUint16(at + SEG_SELECTOR, true),
    };
  }

  setSegment(n: number, s: Partial<Segment>): void {
    const at = segmentAt(n);
    if (s.base !== undefined) this.view.setBigUint64(at + SEG_BASE, s.base, true);
    if (s.limit !== undefined) this.view.setUint32(at + SEG_LIMIT, s.limit, true);
    if (s.rights !== undefined) this.view.setUint32(at + SEG_RIGHTS, s.rights, true);
    if (s.selector !== undefined) this.view.setUint16(at + SEG_SELECTOR, s.selector, true);
  }

  setDescriptor(selector: number, d: bigint): void {
    this.write64(At.GDT + (selector & 0xfff8), d);
  }

  read16(at: number): number {
    return this.view.getUint16(RAM_BASE + at, true);
  }
  read32(at: number): number {
    return this.view.getUint32(RAM_BASE + at, true);
  }
  read64(at: number): bigint {
    return this.view.getBigUint64(RAM_BASE + at, true);
  }
  write16(at: number, v: number): void {
    this.view.setUint16(RAM_BASE + at, v, true);
  }
  write32(at: number, v: number): void {
    this.view.setUint32(RAM_BASE + at, v, true);
  }
  write64(at: number, v: bigint): void {
    this.view.setBigUint64(RAM_BASE + at, v, true);
  }

  /** Makes a 4 KiB page of the identity map not present (long mode). */
  unmap(at: number): void {
    this.write64(At.PAGE_TABLE + 8 * (at >> 12), 0n);
    this.engine.flushTlb();
  }
}
