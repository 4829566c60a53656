/**
 * What follows from the control registers and segments: code mode, TLB context, careful-path flags. Recomputed by updateMode after any change.
 */
import type { ModuleBuilder } from "../ir/module.ts";
import type { Val } from "../ir/value.ts";
import { checksAlignment, DR7_ENABLES, watchesData } from "../memory/breakpoints.ts";
import { Flag } from "../semantics/flags.ts";
import { Procedure } from "../semantics/procedure.ts";
import { Rights } from "../semantics/system/rights.ts";
import { Cr0, Cr4, Efer } from "../state/control-bits.ts";
import { ACCESS_MODES, CONTEXT_NONE, Mode, S, Seg, Slow } from "../state/layout.ts";

const INTERRUPT_WINDOW_EXITING = 1 << 2;
const NMI_WINDOW_EXITING = 1 << 22;
const MONITOR_TRAP = 1 << 27;
const BLOCKING_BY_STI_OR_MOV_SS = 3;
const BLOCKING_BY_NMI = 8;
/** Flushes for translations of the upper half that are not global, after which it is no more taken to be shared. */
const MAX_HIGH_FLUSHES = 200;

function isFlat(p: Procedure, seg: number, wantData: boolean): Val {
  const rights = p.segRights(seg);
  const typeOk = wantData
    ? rights.and(Rights.CODE | Rights.EXPAND_DOWN | Rights.WRITABLE).eq(Rights.WRITABLE)
    : rights.and(Rights.CODE).ne(0);
  return p
    .segBase(seg)
    .eqz()
    .and(p.segLimit(seg).eq(-1))
    .and(rights.and(Rights.UNUSABLE).eqz())
    .and(typeOk);
}

export function defineMode(module: ModuleBuilder): void {
  module.function(
    "updateMode",
    [],
    [],
    (fn) => {
      const p = new Procedure(module, fn);
      const cr0 = p.get(S.CR0);
      const rflags = p.get(S.RFLAGS_REST);
      const mode = fn.variable("i32", Mode.CODE64);
      const isLong = p
        .get(S.EFER)
        .and(Efer.LMA)
        .ne(0)
        .and(p.segRights(Seg.CS).and(Rights.LONG).ne(0));
      fn.if(isLong.eqz(), () => {
        const real = cr0.and(Cr0.PE).eqz().or(rflags.and(Flag.VM).ne(0));
        const code = p.segRights(Seg.CS).and(Rights.DB).ne(0);
        const stack = p.segRights(Seg.SS).and(Rights.DB).ne(0);
        const flat = isFlat(p, Seg.CS, false)
          .and(isFlat(p, Seg.DS, true))
          .and(isFlat(p, Seg.ES, true))
          .and(isFlat(p, Seg.SS, true));
        mode.set(
          code
            .select(fn.i32(Mode.CODE32), fn.i32(Mode.CODE16))
            .or(stack.select(fn.i32(Mode.STACK32), fn.i32(0)))
            .or(flat.select(fn.i32(Mode.FLAT), fn.i32(0)))
            .or(real.select(fn.i32(Mode.REAL), fn.i32(0))),
        );
      });
      p.set(S.MODE, mode.read());

      const isUser = p.get(S.CPL).eq(3);
      const ac = rflags.and(Flag.AC).ne(0);
      const smap = p.get(S.CR4).and(Cr4.SMAP).ne(0);
      const accessMode = isUser.select(fn.i32(2), smap.and(ac));
      const system = p.get(S.ADDRESS_SPACE).shl(2);
      const isChecked = checksAlignment(p);
      p.set(S.CONTEXT, isChecked.select(fn.i32(CONTEXT_NONE), system.or(accessMode)).extU());
      p.set(S.SYSTEM_CONTEXT, system.extU());
      const isShared = p.get(S.HIGH_FLUSHES).ltU(MAX_HIGH_FLUSHES);
      p.set(S.HIGH_MASK, isShared.select(fn.i64(ACCESS_MODES), fn.i64(-1)));
      fn.if(p.get(S.DR7).and(DR7_ENABLES).ne(0), () =>
        fn.if(watchesData(p), () => {
          p.set(S.CONTEXT, BigInt(CONTEXT_NONE));
          p.set(S.SYSTEM_CONTEXT, BigInt(CONTEXT_NONE));
        }),
      );
      p.set(S.HIGH_CONTEXT, p.get(S.CONTEXT).and(p.get(S.HIGH_MASK)));
      fn.callVoid(module.get("updateSlow"));
    },
    true,
  );

  /** S.SLOW alone: after changes of RFLAGS, interruptibility, DR7 or execution controls. */
  module.function(
    "updateSlow",
    [],
    [],
    (fn) => {
      const p = new Procedure(module, fn);
      const rflags = p.get(S.RFLAGS_REST);
      const blocking = p.get(S.INTERRUPTIBILITY);
      const primary = p.get(S.CTL_PRIMARY);
      const flag = (condition: Val, bit: number): Val =>
        condition.ne(0).select(fn.i32(bit), fn.i32(0));
      const nonRoot = p.get(S.NON_ROOT);
      const window = primary
        .and(INTERRUPT_WINDOW_EXITING)
        .ne(0)
        .and(rflags.and(Flag.IF).ne(0))
        .and(nonRoot);
      const nmiWindow = primary
        .and(NMI_WINDOW_EXITING)
        .ne(0)
        .and(blocking.and(BLOCKING_BY_NMI).eqz())
        .and(nonRoot);
      const interrupt = p.get(S.INTERRUPT_WAITS).ne(0).and(rflags.and(Flag.IF).ne(0));
      const step = rflags.and(Flag.TF).or(primary.and(MONITOR_TRAP).and(nonRoot.neg()));
      p.set(
        S.SLOW,
        flag(step, Slow.SINGLE_STEP)
          .or(flag(blocking.and(BLOCKING_BY_STI_OR_MOV_SS), Slow.SHADOW))
          .or(flag(window, Slow.INTERRUPT_WINDOW))
          .or(flag(nmiWindow, Slow.NMI_WINDOW))
          .or(flag(p.get(S.DR7).and(DR7_ENABLES).ne(0), Slow.BREAKPOINTS))
          .or(flag(p.get(S.PENDING_DEBUG), Slow.PENDING_DEBUG))
          .or(flag(p.get(S.DEVICE_WRITE_COUNT), Slow.STOP))
          .or(flag(p.get(S.CPL_CAUSE), Slow.CPL))
          .or(flag(interrupt, Slow.INTERRUPT)),
      );
    },
    true,
  );
}
