/**
 * Page walk: linear to guest-physical, in 32-bit, PAE and 4-level paging, with rights, A/D bits and fault codes.
 * Spec: SDM Vol. 3A, "Paging".
 *
 * walk(linear, access, user) answers 1 with S.WALK_PHYSICAL and S.WALK_RIGHTS, or 0 with a page fault (or a VM exit of a table access) in
 * PENDING. Each entry is read once; accessed and dirty bits are set only after all checks have passed.
 */

import type { ModuleBuilder } from "../ir/module.ts";
import type { Val } from "../ir/value.ts";
import { Vector } from "../semantics/cpu.ts";
import { Procedure } from "../semantics/procedure.ts";
import { Cr0, Cr4, Efer } from "../state/control-bits.ts";
import { DEVICE, Page, Pending, S } from "../state/layout.ts";
import { takeNmiUnblocked } from "./physical.ts";

/** Access of a walk. */
export const Walk = { READ: 0, WRITE: 1, EXECUTE: 2 } as const;
/** S.WALK_RIGHTS: may be written (and is dirty) · page size class · the same in all address spaces. */
export const PageRights = { WRITE: 1, LARGE: 2, HUGE: 4, GLOBAL: 8 } as const;

const PRESENT = 1;
const WRITABLE = 2;
const USER = 4;
const ACCESSED = 0x20;
const DIRTY = 0x40;
const LARGE = 0x80;
const GLOBAL = 0x100;
const NX = 1n << 63n;
const FRAME = 0x000f_ffff_ffff_f000n;
/** Bits 62:52 are ignored in 4-level paging and reserved in PAE paging. */
const PAE_RESERVED = 0x7ff0_0000_0000_0000n;

/** State of a walk while it is built: rights so far, and the entries passed, for their accessed bits. */
class WalkState {
  readonly p: Procedure;
  readonly linear: Val;
  readonly access: Val;
  readonly user: Val;
  readonly entry;
  readonly rights;
  readonly nx;
  readonly reserved;
  readonly host;

  constructor(p: Procedure) {
    const fn = p.fn;
    this.p = p;
    this.linear = fn.param(0);
    this.access = fn.param(1);
    this.user = fn.param(2);
    this.entry = fn.variable("i64", 0n);
    this.rights = fn.variable("i32", WRITABLE | USER);
    this.nx = fn.variable("i64", 0n);
    this.reserved = fn.variable("i64", 0n);
    this.host = fn.variable("i32", 0);
  }

  /** Leaves with a page fault; `present` adds the P bit, `reserved` the RSVD bit. */
  pageFault(present: boolean, reserved = false): void {
    const { p, access, user } = this;
    const fetchBit = access
      .eq(Walk.EXECUTE)
      .and(
        p
          .get(S.EFER)
          .and(Efer.NXE)
          .ne(0)
          .and(p.get(S.CR4).and(Cr4.PAE).ne(0))
          .or(p.get(S.CR4).and(Cr4.SMEP).ne(0)),
      );
    const code = access
      .eq(Walk.WRITE)
      .shl(1)
      .or(user.shl(2))
      .or(fetchBit.shl(4))
      .or((present ? 1 : 0) | (reserved ? 8 : 0));
    p.set(S.PENDING, Pending.EVENT);
    p.set(S.PENDING_VECTOR, Vector.PF);
    p.set(S.PENDING_ERROR, code);
    p.set(S.PENDING_TYPE, 3);
    p.set(S.PENDING_ADDRESS, this.linear);
    p.fn.return(0);
  }

  /** Host address of a paging-structure entry; leaves with 0 if it is not in memory. */
  table(physical: Val): Val {
    const { p } = this;
    const host = p.fn.call(p.module.get("physicalHost"), physical, Page.READ | Page.WRITE);
    p.fn.if(host.leU(DEVICE), () => {
      p.fn.if(host, () => {
        // A paging structure in device space: nothing can answer it. Report it as an EPT violation without access assist.
        p.set(S.EXIT_REASON, 48);
        p.set(S.EXIT_PHYSICAL, physical);
        p.set(S.EXIT_QUALIFICATION, takeNmiUnblocked(p).or(0x81).extU());
        p.set(S.DEVICE_SIZE, 0);
        p.set(S.PENDING, Pending.VM_EXIT);
        p.fn.return(0);
      });
      // An access to a paging structure, not to what the address leads to.
      p.set(S.EXIT_QUALIFICATION, p.get(S.EXIT_QUALIFICATION).and(~0x100));
      p.fn.return(0);
    });
    return host;
  }

  /** Reads a 64-bit entry and merges its rights. `reservedBits` must be zero. Answers nothing; see entry and host. */
  step64(physical: Val, reservedBits: Val | null, isPdpte = false): void {
    const { p } = this;
    const host = this.table(physical);
    this.host.set(host);
    const e = p.fn.load("i64.load", host);
    this.entry.set(e);
    p.fn.if(e.and(PRESENT).eqz(), () => this.pageFault(false));
    const nxReserved = p.get(S.EFER).and(Efer.NXE).eqz().select(p.i64(NX), p.i64(0));
    const fixed = p.get(S.PHYSICAL_RESERVED).or(nxReserved);
    p.fn.if(e.and(reservedBits ? fixed.or(reservedBits) : fixed).ne(0), () =>
      this.pageFault(true, true),
    );
    if (!isPdpte) {
      this.rights.set(this.rights.read().and(e.wrap()));
      this.nx.set(this.nx.read().or(e.and(NX)));
    }
  }

  setAccessed(): void {
    const { p } = this;
    const e = this.entry.read();
    p.fn.if(e.and(ACCESSED).eqz(), () => {
      p.fn.store("i64.store", this.host.read(), e.or(ACCESSED));
    });
  }

  /** Rights check, leaf accessed and dirty bits, and the result. `pageMask` has ones for the offset within the page. */
  finish(pageMask: bigint, size: number, wide: boolean, stored?: Val): void {
    const { p, access, user, linear } = this;
    const fn = p.fn;
    const e = this.entry.read();
    const rights = this.rights.read();
    const isUserPage = rights.and(USER);
    const isWritable = rights.and(WRITABLE);
    const supervisor = user.eqz();
    const cr4 = p.get(S.CR4);
    const isWrite = access.eq(Walk.WRITE);
    const isFetch = access.eq(Walk.EXECUTE);
    const denied = user
      .and(isUserPage.eqz())
      .or(isWrite.and(isWritable.eqz()).and(user.or(p.get(S.CR0).and(Cr0.WP).ne(0))))
      .or(isFetch.and(this.nx.read().ne(0)))
      .or(supervisor.and(isUserPage.ne(0)).and(isFetch).and(cr4.and(Cr4.SMEP).ne(0)))
      .or(
        supervisor
          .and(isUserPage.ne(0))
          .and(isFetch.eqz())
          .and(cr4.and(Cr4.SMAP).ne(0))
          .and(fn.param(3)),
      );
    fn.if(denied, () => this.pageFault(true));
    const wanted = isWrite.select(p.i64(ACCESSED | DIRTY), p.i64(ACCESSED));
    fn.if(e.and(wanted).ne(wanted), () => {
      const updated = (stored ?? e).or(wanted);
      if (wide) fn.store("i64.store", this.host.read(), updated);
      else fn.store("i32.store", this.host.read(), updated.wrap());
    });
    const frame = e.and(FRAME & ~pageMask);
    p.set(S.WALK_PHYSICAL, frame.or(linear.and(pageMask)));
    const dirty = isWrite.or(e.and(DIRTY).ne(0));
    const mayWrite = dirty.and(isWritable.ne(0).or(supervisor.and(p.get(S.CR0).and(Cr0.WP).eqz())));
    const isGlobal = e.and(GLOBAL).ne(0).and(cr4.and(Cr4.PGE).ne(0));
    p.set(
      S.WALK_RIGHTS,
      mayWrite.or(size).or(isGlobal.select(fn.i32(PageRights.GLOBAL), fn.i32(0))),
    );
    fn.return(1);
  }
}

const index = (linear: Val, shift: number, mask: number, entryBytes: number): Val =>
  linear.shrU(shift).and(mask).mul(entryBytes);

/** From the page-directory level down, common to PAE and 4-level paging; `base` is the directory's frame. */
function walkDirectory64(w: WalkState, reservedBits: Val | null): void {
  const { p, linear } = w;
  const fn = p.fn;
  w.step64(
    w.entry
      .read()
      .and(FRAME)
      .or(index(linear, 21, 511, 8)),
    reservedBits,
  );
  fn.if(w.entry.read().and(LARGE).ne(0), () => {
    fn.if(w.entry.read().and(0x1f_e000n).ne(0), () => w.pageFault(true, true));
    w.finish(0x1f_ffffn, PageRights.LARGE, true);
  });
  const directory = w.host.read();
  const directoryEntry = w.entry.read();
  w.step64(directoryEntry.and(FRAME).or(index(linear, 12, 511, 8)), reservedBits);
  fn.if(directoryEntry.and(ACCESSED).eqz(), () => {
    fn.store("i64.store", directory, directoryEntry.or(ACCESSED));
  });
  w.finish(0xfffn, 0, true);
}

function walkLong(w: WalkState): void {
  const { p, linear } = w;
  const fn = p.fn;
  const cr3 = p.get(S.CR3).and(FRAME);
  w.step64(cr3.or(index(linear, 39, 511, 8)), p.i64(LARGE));
  w.setAccessed();
  w.step64(
    w.entry
      .read()
      .and(FRAME)
      .or(index(linear, 30, 511, 8)),
    null,
  );
  fn.if(w.entry.read().and(LARGE).ne(0), () => {
    fn.if(w.entry.read().and(0x3fff_e000n).ne(0), () => w.pageFault(true, true));
    w.finish(0x3fff_ffffn, PageRights.HUGE, true);
  });
  w.setAccessed();
  walkDirectory64(w, null);
}

/** PAE: the four top entries are registers, loaded and checked by MOV CR3. */
function walkPae(w: WalkState): void {
  const { p, linear } = w;
  const pdpte = p.fn.load("i64.load", index(linear, 30, 3, 8).wrap(), S.PDPTE0.at);
  w.entry.set(pdpte);
  p.fn.if(pdpte.and(PRESENT).eqz(), () => w.pageFault(false));
  walkDirectory64(w, p.i64(PAE_RESERVED));
}

function walk32(w: WalkState): void {
  const { p, linear } = w;
  const fn = p.fn;
  const read = (physical: Val): Val => {
    const host = w.table(physical);
    w.host.set(host);
    const e = fn.load("i64.load32_u", host);
    w.entry.set(e);
    fn.if(e.and(PRESENT).eqz(), () => w.pageFault(false));
    w.rights.set(w.rights.read().and(e.wrap()));
    return e;
  };
  const directoryEntry = read(
    p
      .get(S.CR3)
      .and(0xffff_f000n)
      .or(index(linear, 22, 1023, 4)),
  );
  fn.if(directoryEntry.and(LARGE).ne(0).and(p.get(S.CR4).and(Cr4.PSE).ne(0)), () => {
    // PSE-36: physical bits 39:32 in bits 20:13; bit 21 is reserved.
    fn.if(directoryEntry.and(0x20_0000n).ne(0), () => w.pageFault(true, true));
    const high = directoryEntry.shrU(13).and(0xff).shl(32);
    w.entry.set(directoryEntry.and(0xffc0_0fffn).or(high));
    w.finish(0x3f_ffffn, PageRights.HUGE, false, directoryEntry);
  });
  const directory = w.host.read();
  read(directoryEntry.and(0xffff_f000n).or(index(linear, 12, 1023, 4)));
  fn.if(directoryEntry.and(ACCESSED).eqz(), () => {
    fn.store("i32.store", directory, directoryEntry.or(ACCESSED).wrap());
  });
  w.finish(0xfffn, 0, false);
}

export function defineWalk(module: ModuleBuilder): void {
  module.function("walk", ["i64", "i32", "i32", "i32"], ["i32"], (fn) => {
    // (linear, Walk access, user 0/1, SMAP enforced 0/1)
    const p = new Procedure(module, fn);
    const w = new WalkState(p);
    const branch = (condition: Val, body: (w: WalkState) => void): void =>
      fn.if(condition, () => body(w));
    branch(p.get(S.EFER).and(Efer.LMA).ne(0), walkLong);
    branch(p.get(S.CR4).and(Cr4.PAE).ne(0), walkPae);
    walk32(w);
  });
}
