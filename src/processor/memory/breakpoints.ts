/**
 * Data and I/O breakpoints: DR0 to DR3 against the accesses of instructions.
 * Spec: SDM Vol. 3B, "Debug Registers", "Data Memory and I/O Breakpoint Exception Conditions".
 *
 * While a data breakpoint is enabled no TLB entry matches (CONTEXT_NONE, core/mode.ts), so every access takes the slow path of access.ts and is
 * looked at here; while none is, there is nothing to pay. What an access meets is left in S.BREAK_HITS. The end of the instruction makes
 * #DB of it (core/debug-trap.ts), a fault or a VM exit in its place forgets it.
 */
import type { ModuleBuilder } from "../ir/module.ts";
import type { Val } from "../ir/value.ts";
import { Access, type Cpu, Vector } from "../semantics/cpu.ts";
import { Flag } from "../semantics/flags.ts";
import { Procedure } from "../semantics/procedure.ts";
import { Cr0 } from "../state/control-bits.ts";
import { type Field, Pending, S } from "../state/layout.ts";

/** Kinds of access, as DR7.R/W encodes conditions: execution, data write, I/O, data read. */
export const BreakOn = { EXECUTE: 0, WRITE: 1, IO: 2, READ: 3 } as const;

/** L0 to G3 of DR7. */
export const DR7_ENABLES = 0xff;

const ADDRESSES: readonly Field[] = [S.DR0, S.DR1, S.DR2, S.DR3];

const isEnabled = (dr7: Val, i: number): Val =>
  dr7
    .shrU(2 * i)
    .and(3)
    .ne(0);

/** 1 if an enabled breakpoint is for data: R/W is 01 or 11. */
export function watchesData(p: Cpu): Val {
  const dr7 = p.get(S.DR7).wrap();
  return ADDRESSES.map((_, i) =>
    isEnabled(dr7, i)
      .and(dr7.shrU(16 + 4 * i))
      .and(1),
  ).reduce((any, one) => any.or(one));
}

/**
 * What an explicit access must be aligned to: its elements; else its size, at most 8. The images of the x87 (14, 28, 94, 108 bytes) are of words
 * or doublewords. SDM Vol. 3A, "Interrupt 17 - Alignment Check Exception (#AC)".
 */
function alignmentOf(bytes: Val, flags: Val): Val {
  const { fn } = bytes;
  const words = bytes.eq(14).or(bytes.eq(94)).or(flags.and(Access.WORDS));
  const doublewords = bytes.eq(28).or(bytes.eq(108)).or(flags.and(Access.DOUBLEWORDS));
  const plain = bytes.gtU(8).select(fn.i32(8), bytes);
  const wide = words.select(fn.i32(2), doublewords.select(fn.i32(4), plain));
  return flags.and(Access.BYTES).select(fn.i32(1), wide);
}

/** Alignment checking holds: CPL 3, CR0.AM, RFLAGS.AC. */
export function checksAlignment(p: Cpu): Val {
  return p
    .get(S.CPL)
    .eq(3)
    .and(p.get(S.RFLAGS_REST).and(Flag.AC).ne(0))
    .and(p.get(S.CR0).and(Cr0.AM).ne(0));
}

export function defineBreakpoints(module: ModuleBuilder): void {
  /** (linear address or port, bytes, BreakOn) -> DR6 bits of the enabled breakpoints that an access meets. */
  module.function(
    "matchBreakpoints",
    ["i64", "i32", "i32"],
    ["i32"],
    (fn) => {
      const p = new Procedure(module, fn);
      const [first, bytes, kind] = [fn.param(0), fn.param(1), fn.param(2)];
      const dr7 = p.get(S.DR7).wrap();
      const hits = fn.variable("i32", 0);
      const last = first.add(bytes.sub(1).extU());
      ADDRESSES.forEach((field, i) => {
        const condition = dr7.shrU(16 + 4 * i).and(3);
        const code = dr7.shrU(18 + 4 * i).and(3);
        // LEN 0..3: 1, 2, 8, 4 bytes, on their natural boundary.
        const span = code.eq(2).select(p.i64(7), code.extU());
        const from = p.get(field).and(span.not());
        const overlaps = from.leU(last).and(first.leU(from.or(span)));
        const isRead = condition.eq(BreakOn.READ);
        const wanted = condition.eq(kind).or(isRead.and(kind.eq(BreakOn.WRITE)));
        hits.set(hits.read().or(isEnabled(dr7, i).and(wanted).and(overlaps).shl(i)));
      });
      fn.return(hits.read());
    },
    true,
  );

  /** An access that must be looked at: (linear address, bytes, Access flags, BreakOn) -> 1, or 0 with #AC(0) pending. */
  module.function("watchAccess", ["i64", "i32", "i32", "i32"], ["i32"], (fn) => {
    const p = new Procedure(module, fn);
    const [linear, bytes, flags] = [fn.param(0), fn.param(1), fn.param(2)];
    fn.if(checksAlignment(p).and(flags.and(Access.SYSTEM).eqz()), () => {
      fn.if(linear.wrap().and(alignmentOf(bytes, flags).sub(1)), () => {
        p.set(S.PENDING, Pending.EVENT);
        p.set(S.PENDING_VECTOR, Vector.AC);
        p.set(S.PENDING_ERROR, 0);
        p.set(S.PENDING_TYPE, 3);
        fn.return(0);
      });
    });
    fn.if(p.get(S.DR7).and(DR7_ENABLES).ne(0), () => {
      const hits = fn.call(module.get("matchBreakpoints"), linear, bytes, fn.param(3));
      p.set(S.BREAK_HITS, p.get(S.BREAK_HITS).or(hits));
    });
    fn.return(1);
  });
}
