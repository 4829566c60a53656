/**
 * Guest memory by linear address: memR, memW, memCommit, and the translation under them.
 *
 * memR and memW answer a host address that is good for all of the requested bytes, or 0 with a fault (or VM exit) in PENDING. Where the bytes
 * are not contiguous in this memory (page crossing) or not memory at all (device), the address is that of a bounce buffer: filled for a
 * read, scattered by memCommit after a write. Both pages of a crossing write are checked before anything is written.
 * Alignment checking (CPL 3, CR0.AM, RFLAGS.AC) and data breakpoints ride on the slow path: while one is on, no TLB entry matches
 * (CONTEXT_NONE), and breakpoints.ts looks at every access.
 */

import type { FunctionBuilder } from "../ir/function.ts";
import type { ModuleBuilder } from "../ir/module.ts";
import type { Val } from "../ir/value.ts";
import { Access, Vector } from "../semantics/cpu.ts";
import { Flag } from "../semantics/flags.ts";
import { Procedure } from "../semantics/procedure.ts";
import { nonCanonical } from "../semantics/system/state.ts";
import { Cr0, Efer } from "../state/control-bits.ts";
import {
  BOUNCE_READ,
  BOUNCE_WRITE,
  CODE_MAP,
  CONTEXT_NONE,
  DEVICE,
  Page,
  Pending,
  POISON,
  S,
  TLB_READ,
  TLB_WRITE,
} from "../state/layout.ts";
import { BreakOn, defineBreakpoints } from "./breakpoints.ts";
import { addend, contextOf, entryOffset, isHit } from "./tlb.ts";
import { Walk } from "./walk.ts";

function contextFor(p: Procedure, linear: Val, flags: Val): Val {
  const context = flags.and(Access.SYSTEM).select(p.get(S.SYSTEM_CONTEXT), p.get(S.CONTEXT));
  return contextOf(linear, context, context.and(p.get(S.HIGH_MASK)));
}

function raise(p: Procedure, vector: Val, error: number): void {
  p.set(S.PENDING, Pending.EVENT);
  p.set(S.PENDING_VECTOR, vector);
  p.set(S.PENDING_ERROR, error);
  p.set(S.PENDING_TYPE, 3);
}

/** translate(linear, Walk access, flags): host address of one byte, DEVICE with S.WALK_PHYSICAL, or 0. Fills the TLB. */
function defineTranslate(module: ModuleBuilder): void {
  module.function(
    "translate",
    ["i64", "i32", "i32"],
    ["i32"],
    (fn) => {
      const p = new Procedure(module, fn);
      const linear = fn.param(0);
      const access = fn.param(1);
      const flags = fn.param(2);
      fn.if(linear.eq(POISON), () => fn.if(p.get(S.PENDING), () => fn.return(0)));
      const efer = p.get(S.EFER);
      fn.if(efer.and(Efer.LMA).ne(0), () => {
        fn.if(nonCanonical(linear), () => {
          raise(p, flags.and(Access.STACK).select(fn.i32(Vector.SS), fn.i32(Vector.GP)), 0);
          fn.return(0);
        });
      });
      const system = flags.and(Access.SYSTEM);
      const user = system.eqz().and(p.get(S.CPL).eq(3));
      const context = contextFor(p, linear, flags);
      fn.if(
        p.get(S.CR0).and(Cr0.PG).eqz(),
        () => {
          p.set(S.WALK_PHYSICAL, linear.and(0xffff_ffffn));
          p.set(S.WALK_RIGHTS, 1);
        },
        () => {
          // SMAP holds for implicit accesses whatever AC says; for explicit ones unless AC is set.
          const enforced = system.ne(0).or(p.get(S.RFLAGS_REST).and(Flag.AC).eqz());
          const done = fn.call(module.get("walk"), linear, access, user, enforced);
          fn.if(done.eqz(), () => {
            p.set(S.EXIT_LINEAR, linear);
            fn.return(0);
          });
        },
      );
      const rights = access
        .eq(Walk.WRITE)
        .select(
          fn.i32(Page.WRITE),
          access.eq(Walk.EXECUTE).select(fn.i32(Page.EXECUTE), fn.i32(Page.READ)),
        );
      const host = fn.call(module.get("physicalHost"), p.get(S.WALK_PHYSICAL), rights);
      fn.if(host.leU(DEVICE), () => {
        p.set(S.EXIT_LINEAR, linear);
        fn.return(host);
      });
      fn.if(context.ne(CONTEXT_NONE), () =>
        fn.callVoid(module.get("tlbFill"), linear, context, host, access),
      );
      fn.return(host);
    },
    true,
  );
}

/** Every byte must have a canonical address, before anything else is checked; leaves with #GP(0) or #SS(0). */
function checkCanonical(p: Procedure, linear: Val, bytes: Val, flags: Val): void {
  const { fn } = p;
  fn.if(p.get(S.EFER).and(Efer.LMA).ne(0), () => {
    const last = linear.add(bytes.extU()).sub(1);
    fn.if(nonCanonical(linear).or(nonCanonical(last)), () => {
      fn.if(linear.eq(POISON), () => fn.if(p.get(S.PENDING), () => fn.return(0)));
      raise(p, flags.and(Access.STACK).select(fn.i32(Vector.SS), fn.i32(Vector.GP)), 0);
      fn.return(0);
    });
  });
}

/** Alignment checking and data breakpoints; leaves with #AC(0). */
function watch(p: Procedure, linear: Val, bytes: Val, flags: Val, kind: number): void {
  const { fn } = p;
  fn.if(contextFor(p, linear, flags).eq(CONTEXT_NONE).and(linear.ne(POISON)), () => {
    const goesOn = fn.call(p.module.get("watchAccess"), linear, bytes, flags, kind);
    fn.if(goesOn.eqz(), () => fn.return(0));
  });
}

function firstBytes(linear: Val): Val {
  return linear.fn.i32(4096).sub(linear.wrap().and(4095));
}

/** Linear address arithmetic wraps at 4 GiB outside IA-32e mode. */
function wrapLinear(p: Procedure, linear: Val): Val {
  return p.get(S.EFER).and(Efer.LMA).ne(0).select(linear, linear.and(0xffff_ffffn));
}

function defineRead(module: ModuleBuilder): void {
  /** Copies or device-reads one piece into the bounce buffer: (host or DEVICE, physical, bytes, to) -> ok. */
  module.function("readPiece", ["i32", "i64", "i32", "i32"], ["i32"], (fn) => {
    fn.if(fn.param(0).eq(DEVICE), () =>
      fn.return(fn.call(module.get("deviceReadBytes"), fn.param(1), fn.param(2), fn.param(3))),
    );
    fn.memoryCopy(fn.param(3), fn.param(0), fn.param(2));
    fn.return(1);
  });

  module.function(
    "memR",
    ["i64", "i32", "i32"],
    ["i32"],
    (fn) => {
      const p = new Procedure(module, fn);
      const linear = fn.param(0);
      const bytes = fn.param(1);
      const flags = fn.param(2);
      const at = entryOffset(linear);
      fn.if(isHit(fn, TLB_READ, at, linear, bytes, contextFor(p, linear, flags)), () =>
        fn.return(linear.wrap().add(addend(fn, TLB_READ, at))),
      );
      checkCanonical(p, linear, bytes, flags);
      watch(p, linear, bytes, flags, BreakOn.READ);
      const host = fn.call(module.get("translate"), linear, Walk.READ, flags);
      fn.if(host.eqz(), () => fn.return(0));
      const room = firstBytes(linear);
      fn.if(bytes.leU(room), () => {
        fn.if(host.ne(DEVICE), () => fn.return(host));
        fn.return(
          fn
            .call(module.get("deviceReadBytes"), p.get(S.WALK_PHYSICAL), bytes, BOUNCE_READ)
            .select(fn.i32(BOUNCE_READ), fn.i32(0)),
        );
      });
      const physical = p.get(S.WALK_PHYSICAL);
      const second = fn.call(
        module.get("translate"),
        wrapLinear(p, linear.add(room.extU())),
        Walk.READ,
        flags,
      );
      fn.if(second.eqz(), () => fn.return(0));
      const secondPhysical = p.get(S.WALK_PHYSICAL);
      fn.if(fn.call(module.get("readPiece"), host, physical, room, BOUNCE_READ).eqz(), () =>
        fn.return(0),
      );
      const rest = fn.call(
        module.get("readPiece"),
        second,
        secondPhysical,
        bytes.sub(room),
        room.add(BOUNCE_READ),
      );
      fn.return(rest.select(fn.i32(BOUNCE_READ), fn.i32(0)));
    },
    true,
  );
}

/** Tells the code cache if decoded code lies in the bytes about to be written at a host address. */
function noticeCode(fn: FunctionBuilder, module: ModuleBuilder, host: Val, bytes: Val): void {
  const map = fn.load("i64.load", host.shrU(12).shl(3), CODE_MAP);
  fn.if(map.ne(0), () => fn.callVoid(module.get("codeWrite"), host, bytes));
}

function defineWrite(module: ModuleBuilder): void {
  /** A write of `bytes` (within one page) at a host address in a page with decoded code. */
  module.function("codeWrite", ["i32", "i32"], [], (fn) => {
    const host = fn.param(0);
    const map = fn.load("i64.load", host.shrU(12).shl(3), CODE_MAP);
    const first = host.shrU(6).and(63);
    const last = host.add(fn.param(1)).sub(1).shrU(6).and(63);
    const span = fn
      .i64(-1)
      .shrU(fn.i32(63).sub(last.sub(first)).extU())
      .shl(first.extU());
    fn.if(map.and(span).ne(0), () => fn.callVoid(module.get("codeWritten"), host, fn.param(1)));
  });

  module.function(
    "memW",
    ["i64", "i32", "i32"],
    ["i32"],
    (fn) => {
      const p = new Procedure(module, fn);
      const linear = fn.param(0);
      const bytes = fn.param(1);
      const flags = fn.param(2);
      const at = entryOffset(linear);
      fn.if(isHit(fn, TLB_WRITE, at, linear, bytes, contextFor(p, linear, flags)), () =>
        fn.return(linear.wrap().add(addend(fn, TLB_WRITE, at))),
      );
      checkCanonical(p, linear, bytes, flags);
      watch(p, linear, bytes, flags, BreakOn.WRITE);
      const host = fn.call(module.get("translate"), linear, Walk.WRITE, flags);
      fn.if(host.eqz(), () => fn.return(0));
      const room = firstBytes(linear);
      const isSplit = bytes.gtU(room);
      fn.if(isSplit.eqz().and(host.ne(DEVICE)), () => {
        noticeCode(fn, module, host, bytes);
        fn.return(host);
      });
      p.set(S.BOUNCE_SIZE, bytes);
      p.set(S.BOUNCE_FIRST, host);
      p.set(S.BOUNCE_FIRST_PHYSICAL, p.get(S.WALK_PHYSICAL));
      p.set(S.BOUNCE_FIRST_BYTES, isSplit.select(room, bytes));
      fn.if(isSplit, () => {
        const second = fn.call(
          module.get("translate"),
          wrapLinear(p, linear.add(room.extU())),
          Walk.WRITE,
          flags,
        );
        fn.if(second.eqz(), () => fn.return(0));
        p.set(S.BOUNCE_SECOND, second);
        p.set(S.BOUNCE_SECOND_PHYSICAL, p.get(S.WALK_PHYSICAL));
      });
      // Fill the buffer with what is there: memory always, a device only if the instruction reads its destination.
      const modify = flags.and(Access.MODIFY);
      const preload = (piece: Val, physical: Val, count: Val, to: Val): void =>
        fn.if(piece.ne(DEVICE).or(modify), () => {
          fn.if(fn.call(module.get("readPiece"), piece, physical, count, to).eqz(), () =>
            fn.return(0),
          );
        });
      preload(
        host,
        p.get(S.BOUNCE_FIRST_PHYSICAL),
        p.get(S.BOUNCE_FIRST_BYTES),
        fn.i32(BOUNCE_WRITE),
      );
      fn.if(isSplit, () =>
        preload(
          p.get(S.BOUNCE_SECOND),
          p.get(S.BOUNCE_SECOND_PHYSICAL),
          bytes.sub(room),
          room.add(BOUNCE_WRITE),
        ),
      );
      fn.return(BOUNCE_WRITE);
    },
    true,
  );

  module.function("writePiece", ["i32", "i64", "i32", "i32"], [], (fn) => {
    fn.if(
      fn.param(0).eq(DEVICE),
      () => fn.callVoid(module.get("deviceWriteBytes"), fn.param(1), fn.param(2), fn.param(3)),
      () => {
        noticeCode(fn, module, fn.param(0), fn.param(2));
        fn.memoryCopy(fn.param(0), fn.param(3), fn.param(2));
      },
    );
  });

  module.function(
    "memCommit",
    [],
    [],
    (fn) => {
      const p = new Procedure(module, fn);
      const first = p.get(S.BOUNCE_FIRST_BYTES);
      fn.callVoid(
        module.get("writePiece"),
        p.get(S.BOUNCE_FIRST),
        p.get(S.BOUNCE_FIRST_PHYSICAL),
        first,
        BOUNCE_WRITE,
      );
      const rest = p.get(S.BOUNCE_SIZE).sub(first);
      fn.if(rest, () =>
        fn.callVoid(
          module.get("writePiece"),
          p.get(S.BOUNCE_SECOND),
          p.get(S.BOUNCE_SECOND_PHYSICAL),
          rest,
          first.add(BOUNCE_WRITE),
        ),
      );
    },
    true,
  );
}

/**
 * regionRead, regionWrite (linear, bytes): host address of an access that missed the TLB, or 0 if the interpreter must carry it out: it
 * faults, crosses a page, reaches a device or code, or is watched. Nothing but the TLB and accessed and dirty bits changes.
 */
function defineRegionAccess(module: ModuleBuilder): void {
  const define = (name: string, access: number): void => {
    module.function(
      name,
      ["i64", "i32"],
      ["i32"],
      (fn) => {
        const p = new Procedure(module, fn);
        const linear = fn.param(0);
        fn.if(fn.param(1).gtU(firstBytes(linear)), () => fn.return(0));
        fn.if(p.get(S.CONTEXT).eq(CONTEXT_NONE), () => fn.return(0));
        const host = fn.call(module.get("translate"), linear, access, 0);
        fn.if(host.leU(DEVICE), () => {
          p.set(S.PENDING, Pending.NONE);
          fn.return(0);
        });
        if (access === Walk.WRITE) {
          const code = fn.load("i64.load", host.shrU(12).shl(3), CODE_MAP);
          fn.if(code.ne(0), () => fn.return(0));
        }
        fn.return(host);
      },
      true,
    );
  };
  define("regionRead", Walk.READ);
  define("regionWrite", Walk.WRITE);
}

export function defineAccess(module: ModuleBuilder): void {
  defineBreakpoints(module);
  defineTranslate(module);
  defineRead(module);
  defineWrite(module);
  defineRegionAccess(module);
}
