/**
 * Finding decoded blocks: from S.RIP through the execute TLB and the block hash, else by the embedder-side translator.
 * Also the careful entry for single steps, interrupt shadows, breakpoints and windows.
 */

import type { ModuleBuilder } from "../ir/module.ts";
import type { Val } from "../ir/value.ts";
import { contextOf, entryOffset, isHit } from "../memory/tlb.ts";
import { Walk } from "../memory/walk.ts";
import { Vector } from "../semantics/cpu.ts";
import { Flag } from "../semantics/flags.ts";
import { Procedure } from "../semantics/procedure.ts";
import { Efer } from "../state/control-bits.ts";
import {
  BLOCK_BUCKETS,
  BLOCK_HASH,
  COLD,
  DEVICE,
  Ea,
  Head,
  INTERRUPT_TAKEN,
  Mode,
  Pending,
  RECORD_BYTES,
  Rec,
  S,
  SHORT_BLOCK,
  Slow,
  Status,
  TLB_EXECUTE,
  TLB_PAGE,
} from "../state/layout.ts";

/** Answers of lookup and slowEnter below any block address. */
export const Found = { PENDING: 0, SPENT: 1, AGAIN: 2, VM_EXIT: 3 } as const;

/** Bucket address of a block. The embedder-side twin is in code-cache.ts. */
export function bucketAddress(physical: Val, mode: Val): Val {
  const h = physical.xor(physical.shrU(15)).xor(mode.shl(11));
  return h.and(BLOCK_BUCKETS - 1).shl(2);
}

const INTERRUPT_WINDOW = 7;
const NMI_WINDOW = 8;
const BLOCKING_BY_MOV_SS = 2;

export function defineBlocks(
  module: ModuleBuilder,
  handlers: { goto: number; deviceStop: number; region: number },
): void {
  /** Host address of the code byte at a linear address, or 0 with a fault pending. */
  module.function(
    "fetchHost",
    ["i64"],
    ["i32"],
    (fn) => {
      const p = new Procedure(module, fn);
      const linear = fn.param(0);
      const at = entryOffset(linear);
      fn.if(
        isHit(
          fn,
          TLB_EXECUTE,
          at,
          linear,
          1,
          contextOf(linear, p.get(S.CONTEXT), p.get(S.HIGH_CONTEXT)),
        ),
        () =>
          fn.return(fn.load("i32.load", at, TLB_EXECUTE + TLB_PAGE).or(linear.wrap().and(4095))),
      );
      const host = fn.call(module.get("translate"), linear, Walk.EXECUTE, 0);
      fn.if(host.eq(DEVICE), () => {
        // Code in device space: not supported by any platform we model; report it as an EPT violation without access assist.
        p.set(S.EXIT_REASON, 48);
        p.set(S.EXIT_PHYSICAL, p.get(S.WALK_PHYSICAL));
        p.set(S.EXIT_QUALIFICATION, 0x184n);
        p.set(S.DEVICE_SIZE, 0);
        p.set(S.PENDING, Pending.VM_EXIT);
        fn.return(0);
      });
      fn.return(host);
    },
    true,
  );

  /** Block at S.RIP, or Found.PENDING. Sets S.RIP_PAGE and S.BLOCK_PAGE. */
  module.function("lookup", [], ["i32"], (fn) => {
    const p = new Procedure(module, fn);
    const rip = p.get(S.RIP);
    const mode = p.get(S.MODE);
    const linear = fn.variable("i64", rip);
    fn.if(mode.and(Mode.CODE_MASK).ne(Mode.CODE64), () => {
      fn.if(rip.gtU(p.segLimit(1).extU()), () => {
        p.set(S.PENDING, Pending.EVENT);
        p.set(S.PENDING_VECTOR, Vector.GP);
        p.set(S.PENDING_ERROR, 0);
        p.set(S.PENDING_TYPE, 3);
        fn.return(Found.PENDING);
      });
      linear.set(rip.add(p.segBase(1)).and(0xffff_ffffn));
    });
    const at = linear.read();
    const host = fn.call(module.get("fetchHost"), at);
    fn.if(host.eqz(), () => fn.return(Found.PENDING));
    p.set(S.RIP_PAGE, rip.sub(at.and(4095)));
    p.set(S.BLOCK_PAGE, host.and(-4096));
    const block = fn.variable("i32", fn.load("i32.load", bucketAddress(host, mode), BLOCK_HASH));
    fn.while(
      () => block.read(),
      () => {
        const b = block.read();
        const header = b.sub(RECORD_BYTES);
        const same = fn
          .load("i32.load", header, 0)
          .eq(host)
          .and(fn.load("i32.load", header, 4).eq(mode));
        fn.if(same, () => {
          const second = fn.load("i32.load", header, RECORD_BYTES + Head.SECOND);
          fn.if(second.eqz(), () => fn.return(b));
          const other = fn.call(module.get("fetchHost"), nextPage(p, at));
          fn.if(other.eqz(), () => fn.return(Found.PENDING));
          fn.if(other.eq(second), () => fn.return(b));
        });
        block.set(fn.load("i32.load", header, RECORD_BYTES + Head.NEXT));
      },
    );
    fn.return(fn.call(module.get("translateBlock"), host, mode));
  });

  /** Copies the first `count` records of a block into the scratch block and ends it there. Answers the copy. */
  module.function("shortBlock", ["i32", "i32"], ["i32"], (fn) => {
    const from = fn.param(0);
    const count = fn.param(1);
    const size = fn.load("i32.load16_u", from.sub(RECORD_BYTES), RECORD_BYTES + Head.COUNT);
    const to = SHORT_BLOCK + RECORD_BYTES;
    fn.memoryCopy(fn.i32(SHORT_BLOCK), from.sub(RECORD_BYTES), count.add(2).mul(RECORD_BYTES));
    fn.store("i32.store16", 0, count, to + Head.COUNT);
    // A copy is always interpreted, and never gets hot itself.
    fn.store("i32.store", 0, COLD, to + Head.HEAT);
    fn.if(fn.load("i32.load16_u", 0, to + Rec.HANDLER).eq(handlers.region), () =>
      fn.store("i32.store16", 0, fn.load("i32.load16_u", 0, to + Head.HANDLER), to + Rec.HANDLER),
    );
    const cut = size.sub(count);
    const i = fn.variable("i32", 0);
    fn.while(
      () => i.read().ltU(count),
      () => {
        const record = i.read().mul(RECORD_BYTES);
        fn.store(
          "i32.store8",
          record,
          fn.load("i32.load8_u", record, to + Rec.REMAINING).sub(cut),
          to + Rec.REMAINING,
        );
        fn.if(fn.load("i32.load8_u", record, to + Rec.EA).eq(Ea.BRANCH), () =>
          fn.store("i32.store", record, 0, to + Rec.CHAIN),
        );
        i.set(i.read().add(1));
      },
    );
    // The record after them becomes the end of the block; its place is where the last one stops.
    const last = count.sub(1).mul(RECORD_BYTES);
    const end = fn
      .load("i32.load16_u", last, to + Rec.OFFSET)
      .add(fn.load("i32.load8_u", last, to + Rec.LENGTH));
    const stop = count.mul(RECORD_BYTES);
    fn.store("i32.store16", stop, handlers.goto, to + Rec.HANDLER);
    fn.store("i32.store16", stop, end, to + Rec.OFFSET);
    fn.store("i32.store8", stop, Ea.BRANCH, to + Rec.EA);
    fn.store("i32.store8", stop, 0, to + Rec.REMAINING);
    fn.store("i32.store", stop, 0, to + Rec.CHAIN);
    fn.return(to);
  });

  /** Makes the record after `record` stop the run loop once, because a device write is waiting to be carried out. */
  module.function(
    "armDeviceStop",
    ["i32"],
    [],
    (fn) => {
      const p = new Procedure(module, fn);
      fn.callVoid(module.get("updateSlow"));
      fn.if(p.get(S.STOP_RECORD), () => fn.return());
      const next = fn.param(0).add(RECORD_BYTES);
      p.set(S.STOP_RECORD, next);
      p.set(S.STOP_HANDLER, fn.load("i32.load16_u", next, Rec.HANDLER));
      fn.store("i32.store16", next, handlers.deviceStop, Rec.HANDLER);
    },
    true,
  );

  module.function("disarmDeviceStop", [], [], (fn) => {
    const p = new Procedure(module, fn);
    const record = p.get(S.STOP_RECORD);
    fn.if(record, () => {
      const current = fn.load("i32.load16_u", record, Rec.HANDLER);
      fn.if(current.eq(handlers.deviceStop), () =>
        fn.store("i32.store16", record, p.get(S.STOP_HANDLER), Rec.HANDLER),
      );
      p.set(S.STOP_RECORD, 0);
    });
  });

  defineSlowEnter(module);
}

function nextPage(p: Procedure, linear: Val): Val {
  const next = linear.and(-4096).add(4096);
  return p.get(S.EFER).and(Efer.LMA).ne(0).select(next, next.and(0xffff_ffffn));
}

/** Block entry when S.SLOW is not zero, in the priority order of SDM Vol. 3A, "Priority Among Concurrent Events". */
function defineSlowEnter(module: ModuleBuilder): void {
  module.function("slowEnter", [], ["i32"], (fn) => {
    const p = new Procedure(module, fn);
    const stepping = p.get(S.STEPPING);
    fn.callVoid(module.get("instructionDone"), stepping);
    fn.if(p.get(S.DEVICE_WRITE_COUNT), () => {
      fn.callVoid(module.get("disarmDeviceStop"));
      p.set(S.EXIT_REASON, 48);
      p.set(S.EXIT_QUALIFICATION, 0x182n);
      p.set(S.EXIT_LENGTH, 0);
      p.set(S.DEVICE_IS_WRITE, 1);
      fn.return(Found.VM_EXIT);
    });
    p.set(S.STEPPING, 0);
    const due = fn.call(module.get("instructionBoundary"), stepping);
    fn.if(due.eq(Status.EXIT), () => {
      p.set(S.EXIT_LENGTH, 0);
      fn.return(Found.VM_EXIT);
    });
    fn.if(due, () => fn.return(Found.PENDING));
    fn.if(stepping, () => fn.return(Found.AGAIN));
    // What ends a run comes before windows and the next instruction.
    fn.if(p.get(S.BUDGET).leS(0), () => fn.return(Found.SPENT));
    const slow = p.get(S.SLOW);
    const exit = (bit: number, reason: number): void =>
      fn.if(slow.and(bit).ne(0).and(slow.and(Slow.SHADOW).eqz()), () => {
        p.set(S.EXIT_REASON, reason);
        p.set(S.EXIT_QUALIFICATION, 0n);
        p.set(S.EXIT_LENGTH, 0);
        fn.return(Found.VM_EXIT);
      });
    exit(Slow.NMI_WINDOW, NMI_WINDOW);
    exit(Slow.INTERRUPT_WINDOW, INTERRUPT_WINDOW);
    exit(Slow.INTERRUPT, INTERRUPT_TAKEN);
    fn.if(slow.and(Slow.BREAKPOINTS), () => {
      fn.if(fn.call(module.get("instructionBreakpoint")), () => fn.return(Found.PENDING));
    });
    const block = fn.call(module.get("lookup"));
    fn.if(block.leU(Found.VM_EXIT), () => fn.return(block));
    // TF as it is before the instruction decides about the trap after it. RF is cleared when it begins, which a budget used up prevents.
    const blocking = p.get(S.INTERRUPTIBILITY).and(3);
    const flags = p.get(S.RFLAGS_REST);
    fn.if(p.get(S.BUDGET).gtS(0), () => p.set(S.RFLAGS_REST, flags.and(~Flag.RF)));
    const trap = flags.and(Flag.TF).select(fn.i32(Slow.TRAP), fn.i32(0));
    p.set(S.STEPPING, p.get(S.SLOW).and(Slow.SINGLE_STEP).or(Slow.SHADOW).or(trap));
    p.set(S.STEP_BLOCKING, blocking);
    fn.return(fn.call(module.get("shortBlock"), block, 1));
  });

  /** 1 with #DB pending if an enabled instruction breakpoint is at S.RIP. */
  module.function("instructionBreakpoint", [], ["i32"], (fn) => {
    const p = new Procedure(module, fn);
    // RF and an SS just loaded hold the breakpoint back for one instruction.
    fn.if(p.get(S.RFLAGS_REST).and(Flag.RF), () => fn.return(0));
    fn.if(p.get(S.INTERRUPTIBILITY).and(BLOCKING_BY_MOV_SS), () => fn.return(0));
    const rip = p.get(S.RIP);
    const isLong = p.get(S.MODE).and(Mode.CODE_MASK).eq(Mode.CODE64);
    const linear = isLong.select(rip, rip.add(p.segBase(1)).and(0xffff_ffffn));
    const dr7 = p.get(S.DR7).wrap();
    const hits = fn.variable("i32", 0);
    [S.DR0, S.DR1, S.DR2, S.DR3].forEach((field, i) => {
      const enabled = dr7
        .shrU(2 * i)
        .and(3)
        .ne(0);
      const execute = dr7
        .shrU(16 + 4 * i)
        .and(3)
        .eqz();
      const match = enabled.and(execute).and(p.get(field).eq(linear));
      hits.set(hits.read().or(match.shl(i)));
    });
    const found = hits.read();
    fn.if(found, () => {
      p.set(S.PENDING, Pending.EVENT);
      p.set(S.PENDING_VECTOR, Vector.DB);
      p.set(S.PENDING_ERROR, 0);
      p.set(S.PENDING_ADDRESS, found.extU());
      p.set(S.PENDING_TYPE, 3);
      fn.return(1);
    });
    fn.return(0);
  });
}
