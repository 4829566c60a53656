/**
 * Translation lookaside buffers: direct-mapped arrays of {tag, addend, host page}, one each for read, write and execute.
 *
 *   tag = linear page | context;  host address = low 32 bits of linear + addend;  index = linear page number modulo TLB_ENTRIES
 * The context (S.CONTEXT) is the address-space number and the access mode, so neither a change of privilege nor a MOV CR3 that keeps its
 * PCID flushes anything. Every address space that is to be forgotten just gets a new number; when they run out, everything is flushed.
 * Kernels map the upper half of the address space alike and globally in all of them, so its translations are cached once for all: without an
 * address-space number (S.HIGH_CONTEXT). Where one is not global, the next change of the address space flushes everything; a guest that does
 * so again and again has its upper half cached for each address space like the lower one.
 * A write entry exists only for a page that is writable, dirty, and holds no decoded code: writes to code always take the slow path.
 * Translations of large pages are cached per 4 KiB; S.LARGE_BANKS says where INVLPG must look for the other pieces.
 *
 * Hot path: hitAddress is inlined at every access of the interpreter.
 */

import type { FunctionBuilder } from "../ir/function.ts";
import type { ModuleBuilder } from "../ir/module.ts";
import type { Operand, Val } from "../ir/value.ts";
import { Procedure } from "../semantics/procedure.ts";
import { Cr4 } from "../state/control-bits.ts";
import {
  ACCESS_MODES,
  ADDRESS_SPACES,
  CODE_MAP,
  GUEST_PCID_MAP,
  JUMP_CACHE,
  JUMP_CACHE_BYTES,
  JUMP_CACHE_PAGE_BYTES,
  PCID_MAP,
  PCIDS,
  RAM_BASE,
  S,
  TLB_ADDEND,
  TLB_ENTRIES,
  TLB_ENTRY_BYTES,
  TLB_EXECUTE,
  TLB_PAGE,
  TLB_READ,
  TLB_TAG,
  TLB_WRITE,
} from "../state/layout.ts";
import { PageRights, Walk } from "./walk.ts";

const BANKS = 4;
const ALL_BANKS = 0x80;
const TLB_BYTES = TLB_ENTRIES * TLB_ENTRY_BYTES;

/** Address of the TLB entry (relative to its array) for a linear address. */
export function entryOffset(linear: Val): Val {
  return linear
    .wrap()
    .shrU(8)
    .and((TLB_ENTRIES - 1) << 4);
}

/** The context that a linear address is cached in. */
export function contextOf(linear: Val, context: Val, high: Val): Val {
  return linear.ltS(0).select(high, context);
}

/** 1 if the entry at `offset` of `array` translates all of `bytes` at `linear` in `context`. */
export function isHit(
  fn: FunctionBuilder,
  array: number,
  offset: Val,
  linear: Val,
  bytes: Operand,
  context: Val,
): Val {
  const last =
    typeof bytes === "number" ? linear.add(bytes - 1) : linear.add((bytes as Val).sub(1).extU());
  return fn.load("i64.load", offset, array + TLB_TAG).eq(last.and(-4096).or(context));
}

export function addend(fn: FunctionBuilder, array: number, offset: Val): Val {
  return fn.load("i32.load", offset, array + TLB_ADDEND);
}

function fill(p: Procedure, array: number, linear: Val, context: Val, host: Val): void {
  const { fn } = p;
  const at = entryOffset(linear);
  fn.store("i64.store", at, linear.and(-4096).or(context), array + TLB_TAG);
  fn.store("i32.store", at, host.sub(linear.wrap()), array + TLB_ADDEND);
  fn.store("i32.store", at, host.and(-4096), array + TLB_PAGE);
}

/** Address of the jump cache entry for an instruction pointer, relative to JUMP_CACHE. */
export function jumpCacheOffset(rip: Val): Val {
  const low = rip.wrap();
  const page = low.shrU(2).and(63 << 10);
  return page.or(low.xor(low.shrU(4)).and(63).shl(4));
}

export function defineTlb(module: ModuleBuilder): void {
  /** Enters a translation just made by walk (S.WALK_RIGHTS): (linear, context, host address, Walk access). */
  module.function("tlbFill", ["i64", "i64", "i32", "i32"], [], (fn) => {
    const p = new Procedure(module, fn);
    const linear = fn.param(0);
    const context = fn.param(1);
    const host = fn.param(2);
    const access = fn.param(3);
    const rights = p.get(S.WALK_RIGHTS);
    fn.if(rights.and(PageRights.LARGE | PageRights.HUGE), () => {
      const bank = fn.i32(1).shl(
        linear
          .shrU(21)
          .wrap()
          .and(BANKS - 1),
      );
      p.set(
        S.LARGE_BANKS,
        p.get(S.LARGE_BANKS).or(rights.and(PageRights.HUGE).select(fn.i32(ALL_BANKS), bank)),
      );
    });
    fn.if(linear.ltS(0).and(rights.and(PageRights.GLOBAL).eqz()), () => p.set(S.HIGH_LOCAL, 1));
    fn.if(access.eq(Walk.EXECUTE), () => {
      fill(p, TLB_EXECUTE, linear, context, host);
      fn.return();
    });
    fn.if(access.eq(Walk.READ), () => fill(p, TLB_READ, linear, context, host));
    const isCode = fn.load("i64.load", host.shrU(12).shl(3), CODE_MAP).ne(0);
    fn.if(
      access
        .eq(Walk.WRITE)
        .and(rights.and(PageRights.WRITE))
        .and(isCode.eqz())
        .and(host.geU(RAM_BASE)),
      () => {
        fill(p, TLB_WRITE, linear, context, host);
      },
    );
  });

  /** Forgets all translations. */
  module.function(
    "flushTlb",
    ["i32"],
    [],
    (fn) => {
      const p = new Procedure(module, fn);
      fn.memoryFill(fn.i32(TLB_READ), 0xff, fn.i32(3 * TLB_BYTES));
      fn.memoryFill(fn.i32(JUMP_CACHE), 0, fn.i32(JUMP_CACHE_BYTES));
      fn.memoryFill(fn.i32(PCID_MAP), 0, fn.i32(PCIDS * 2));
      fn.if(p.get(S.CR0_REQUIRED).ne(0), () =>
        fn.memoryFill(fn.i32(GUEST_PCID_MAP), 0, fn.i32(PCIDS * 2)),
      );
      p.set(S.LARGE_BANKS, 0);
      p.set(S.HIGH_LOCAL, 0);
      p.set(S.ADDRESS_SPACE_NEXT, 1);
      fn.callVoid(module.get("enterAddressSpace"), 0);
    },
    true,
  );

  /** INVLPG: forgets one page, and all pieces of the large page it may have been part of. */
  module.function(
    "invalidatePage",
    ["i64"],
    [],
    (fn) => {
      const p = new Procedure(module, fn);
      const linear = fn.param(0);
      const at = entryOffset(linear);
      for (const array of [TLB_READ, TLB_WRITE, TLB_EXECUTE])
        fn.store("i64.store", at, -1n, array + TLB_TAG);
      const jumps = linear
        .wrap()
        .shrU(2)
        .and(63 << 10);
      fn.memoryFill(jumps.add(JUMP_CACHE), 0, fn.i32(JUMP_CACHE_PAGE_BYTES));
      const banks = p.get(S.LARGE_BANKS);
      fn.if(banks.and(ALL_BANKS), () => {
        fn.callVoid(module.get("flushTlb"), 0);
        fn.return();
      });
      fn.if(
        banks
          .shrU(
            linear
              .shrU(21)
              .wrap()
              .and(BANKS - 1),
          )
          .and(1),
        () => {
          fn.memoryFill(fn.i32(JUMP_CACHE), 0, fn.i32(JUMP_CACHE_BYTES));
          // 512 consecutive entries are the bank of this 2 MiB region, in each array.
          const cursor = fn.variable("i32", at.and(~(511 << 4)));
          const end = cursor.read().add(512 << 4);
          const region = linear.shrU(21);
          fn.while(
            () => cursor.read().ne(end),
            () => {
              const c = cursor.read();
              for (const array of [TLB_READ, TLB_WRITE, TLB_EXECUTE]) {
                fn.if(
                  fn
                    .load("i64.load", c, array + TLB_TAG)
                    .shrU(21)
                    .eq(region),
                  () => fn.store("i64.store", c, -1n, array + TLB_TAG),
                );
              }
              cursor.set(c.add(16));
            },
          );
        },
      );
    },
    true,
  );

  /** Makes the address space of the current PCID current; a nonzero argument forgets what was cached for it. */
  module.function("enterAddressSpace", ["i32"], [], (fn) => {
    const p = new Procedure(module, fn);
    fn.if(p.get(S.HIGH_LOCAL).and(p.get(S.HIGH_MASK).eq(ACCESS_MODES)), () => {
      p.set(S.HIGH_FLUSHES, p.get(S.HIGH_FLUSHES).add(1));
      fn.callVoid(module.get("flushTlb"), 0);
      fn.return();
    });
    const pcid = p
      .get(S.CR4)
      .and(Cr4.PCIDE)
      .ne(0)
      .select(
        p
          .get(S.CR3)
          .wrap()
          .and(PCIDS - 1),
        fn.i32(0),
      );
    const slot = pcid.shl(1).add(p.get(S.PCID_BASE));
    const number = fn.variable("i32", fn.load("i32.load16_u", slot, PCID_MAP));
    fn.if(fn.param(0).or(number.read().eqz()), () => {
      const next = p.get(S.ADDRESS_SPACE_NEXT);
      fn.if(next.geU(ADDRESS_SPACES), () => {
        fn.callVoid(module.get("flushTlb"), 0);
        fn.return();
      });
      p.set(S.ADDRESS_SPACE_NEXT, next.add(1));
      fn.store("i32.store16", slot, next, PCID_MAP);
      number.set(next);
    });
    p.set(S.ADDRESS_SPACE, number.read());
    fn.callVoid(module.get("updateMode"));
  });

  /** MOV CR3: takes the new value (bit 63 = keep this PCID's translations). */
  module.function("loadPageTableBase", ["i64"], [], (fn) => {
    const p = new Procedure(module, fn);
    const value = fn.param(0);
    p.set(S.CR3, value.and(0x7fff_ffff_ffff_ffffn));
    const keep = value.shrU(63).wrap().and(p.get(S.CR4).and(Cr4.PCIDE).ne(0));
    fn.callVoid(module.get("enterAddressSpace"), keep.xor(1));
  });
}
