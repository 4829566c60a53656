/**
 * How regions follow each other, without the run loop in between.
 *
 *   runRegions(slot)      executes regions as long as one leads to another; answers a RegionStop
 *   callRegion(site)      the same for a region that has made a call, until execution is back at `site`; answers a RegionExit
 *   stepInstruction()     executes the instruction at S.RIP, which the region does not; answers a RegionExit
 *
 * S.RIP and S.BUDGET are exact before and after. The state of the guest is in memory whenever one of them is called, so a region can be
 * left for good at any depth: its frames just return.
 */

import type { ModuleBuilder } from "../ir/module.ts";
import type { Val } from "../ir/value.ts";
import { contextOf, jumpCacheOffset } from "../memory/tlb.ts";
import { Procedure } from "../semantics/procedure.ts";
import {
  type Field,
  Head,
  JUMP_CACHE,
  JUMP_CONTEXT,
  JUMP_MODE_SHIFT,
  JUMP_SLOT,
  Mode,
  Pending,
  RECORD_BYTES,
  Rec,
  S,
  Status,
} from "../state/layout.ts";
import { Found } from "./blocks.ts";

/** What a region's function answers; S.RIP, S.BUDGET and the flags are stored. */
export const RegionExit = {
  /** Look up the next block. */
  RESUME: 0,
  /** The instruction at S.RIP must be interpreted. */
  INTERPRET: 1,
  /** Nothing was executed: the region is gone. */
  GONE: 2,
  /** Look up the next block from scratch: what execution depends on may have changed. */
  ANEW: 3,
  /** A VM exit after an instruction. */
  VM_EXIT: 4,
} as const;

/** What runRegions answers. */
export const RegionStop = { RESUME: 0, INTERPRET: 1, VM_EXIT: 2 } as const;

/** S.REGION_STEPS begins anew there. */
const MAX_STEPS = 0x7fff_ffff;
/** Calls of regions by regions at a time; a frame takes up to 2 KB of the embedder's stack. */
const MAX_DEPTH = 150;

const count = (p: Procedure, field: Field, n: Val = p.i64(1)): void =>
  p.set(field, p.get(field).add(n));

/** The jump cache's context has the code mode in it: the same address may be 64-bit code now and 32-bit code later. */
function jumpContext(p: Procedure, rip: Val): Val {
  const { fn } = p;
  const mode = p.get(S.MODE).shl(JUMP_MODE_SHIFT);
  const low = fn.load("i32.load", 0, S.CONTEXT.at);
  return contextOf(rip, low, fn.load("i32.load", 0, S.HIGH_CONTEXT.at)).or(mode);
}

/** Table slot of the region at S.RIP, or -1. */
function regionAt(p: Procedure): Val {
  const { fn, module } = p;
  const rip = p.get(S.RIP);
  const at = jumpCacheOffset(rip);
  const context = jumpContext(p, rip);
  const isHit = fn
    .load("i64.load", at, JUMP_CACHE)
    .eq(rip)
    .and(fn.load("i32.load", at, JUMP_CACHE + JUMP_CONTEXT).eq(context));
  const slot = fn.declare("i32");
  fn.if(
    isHit,
    () => slot.set(fn.load("i32.load", at, JUMP_CACHE + JUMP_SLOT)),
    () => slot.set(fn.call(module.get("findRegion"))),
  );
  return slot.read();
}

/** findRegion(): the same without the jump cache, which it is entered into. */
function defineFindRegion(module: ModuleBuilder, regionHandler: number): void {
  module.function("findRegion", [], ["i32"], (fn) => {
    const p = new Procedure(module, fn);
    const rip = p.get(S.RIP);
    const at = jumpCacheOffset(rip);
    const context = jumpContext(p, rip);
    const block = fn.call(module.get("lookup"));
    fn.if(block.leU(Found.VM_EXIT), () => {
      // The run loop finds the fault again.
      p.set(S.PENDING, Pending.NONE);
      fn.return(-1);
    });
    fn.if(fn.load("i32.load16_u", block, Rec.HANDLER).ne(regionHandler), () => fn.return(-1));
    const slot = fn.load("i32.load", block.sub(RECORD_BYTES), RECORD_BYTES + Head.REGION);
    fn.store("i64.store", at, rip, JUMP_CACHE);
    fn.store("i32.store", at, slot, JUMP_CACHE + JUMP_SLOT);
    fn.store("i32.store", at, context, JUMP_CACHE + JUMP_CONTEXT);
    fn.return(slot);
  });
}

function defineRunRegions(module: ModuleBuilder): void {
  module.function("runRegions", ["i32"], ["i32"], (fn) => {
    const p = new Procedure(module, fn);
    const slot = fn.paramVariable(0);
    const entered = p.get(S.BUDGET);
    const links = fn.variable("i64", 0n);
    const leave = (stop: number): void => {
      count(p, S.REGION_ENTRIES);
      count(p, S.REGION_LINKS, links.peek());
      count(p, S.REGION_INSTRUCTIONS, entered.sub(p.get(S.BUDGET)).extU());
      if (stop === RegionStop.INTERPRET) count(p, S.REGION_BAILS);
      fn.return(stop);
    };
    p.set(S.REGION_DEPTH, 0);
    fn.loop((again) => {
      const before = p.get(S.BUDGET);
      const code = fn.callIndirect(module.get("regionShape"), slot.peek(), before);
      fn.if(code.or(p.get(S.BUDGET).eq(before)), () => {
        fn.if(code.eq(RegionExit.VM_EXIT), () => leave(RegionStop.VM_EXIT));
        fn.if(code.ne(RegionExit.ANEW), () => leave(RegionStop.INTERPRET));
        fn.if(p.get(S.SLOW).or(p.get(S.STEPPING)), () => leave(RegionStop.RESUME));
      });
      slot.set(regionAt(p));
      fn.if(slot.peek().geS(0), () => {
        links.set(links.peek().add(1));
        fn.br(again);
      });
    });
    leave(RegionStop.RESUME);
  });
}

function defineCallRegion(module: ModuleBuilder): void {
  module.function(
    "callRegion",
    ["i64"],
    ["i32"],
    (fn) => {
      const p = new Procedure(module, fn);
      const site = fn.param(0);
      const depth = p.get(S.REGION_DEPTH);
      fn.if(depth.geS(MAX_DEPTH), () => fn.return(RegionExit.ANEW));
      const slot = fn.variable("i32", regionAt(p));
      fn.if(slot.peek().ltS(0), () => fn.return(RegionExit.ANEW));
      p.set(S.REGION_DEPTH, depth.add(1));
      fn.loop((again) => {
        count(p, S.REGION_LINKS);
        const before = p.get(S.BUDGET);
        const code = fn.callIndirect(module.get("regionShape"), slot.peek(), before);
        fn.if(code, () => fn.return(code));
        fn.if(p.get(S.RIP).eq(site), () => {
          p.set(S.REGION_DEPTH, depth);
          fn.return(RegionExit.RESUME);
        });
        fn.if(p.get(S.BUDGET).eq(before), () => fn.return(RegionExit.INTERPRET));
        slot.set(regionAt(p));
        fn.brIf(slot.peek().geS(0), again);
      });
      fn.return(RegionExit.ANEW);
    },
    true,
  );
}

/** `firstCold`: number of the first handler that is a function in the table. */
function defineStep(module: ModuleBuilder, regionHandler: number, firstCold: number): void {
  module.function(
    "stepInstruction",
    [],
    ["i32"],
    (fn) => {
      const p = new Procedure(module, fn);
      const budget = p.get(S.BUDGET);
      fn.if(budget.leS(0).or(p.get(S.SLOW)).or(p.get(S.STEPPING)), () =>
        fn.return(RegionExit.INTERPRET),
      );
      const pc = fn.call(module.get("lookup"));
      fn.if(pc.leU(Found.VM_EXIT), () => {
        p.set(S.PENDING, Pending.NONE);
        fn.return(RegionExit.INTERPRET);
      });
      const header = pc.sub(RECORD_BYTES);
      const handler = fn.variable("i32", fn.load("i32.load16_u", pc, Rec.HANDLER));
      fn.if(handler.peek().eq(regionHandler), () =>
        handler.set(fn.load("i32.load16_u", header, RECORD_BYTES + Head.HANDLER)),
      );
      const slot = handler.read().sub(firstCold);
      fn.if(slot.ltS(0), () => fn.return(RegionExit.INTERPRET));
      // As if the rest of the block came after it.
      const length = fn.load("i32.load16_u", header, RECORD_BYTES + Head.COUNT);
      p.set(S.BUDGET, budget.sub(length));
      const status = fn.callIndirect(module.get("coldShape"), slot, pc);
      p.set(S.BUDGET, budget.sub(1));
      fn.if(status.eqz(), () => {
        p.set(S.REGION_STEPS, p.get(S.REGION_STEPS).add(1).and(MAX_STEPS));
        const next = p.get(S.RIP).add(fn.load("i64.load8_u", pc, Rec.LENGTH));
        const isLong = p.get(S.MODE).and(Mode.CODE_MASK).eq(Mode.CODE64);
        p.set(S.RIP, isLong.select(next, next.and(0xffff_ffffn)));
        const isSlow = p.get(S.SLOW).or(p.get(S.STEPPING));
        fn.return(isSlow.select(fn.i32(RegionExit.ANEW), fn.i32(RegionExit.RESUME)));
      });
      fn.if(status.eq(Status.FAULT).or(status.eq(Status.EXIT)), () => {
        // Nothing has changed: the interpreter comes to the same.
        p.set(S.PENDING, Pending.NONE);
        p.set(S.BUDGET, budget);
        fn.return(RegionExit.INTERPRET);
      });
      fn.if(status.eq(Status.EXIT_AFTER), () => {
        p.set(S.EXIT_LENGTH, fn.load("i32.load8_u", pc, Rec.LENGTH));
        fn.return(RegionExit.VM_EXIT);
      });
      fn.return(RegionExit.ANEW);
    },
    true,
  );
}

export function defineRegionLoop(
  module: ModuleBuilder,
  regionHandler: number,
  firstCold: number,
): void {
  defineFindRegion(module, regionHandler);
  defineRunRegions(module);
  defineCallRegion(module);
  defineStep(module, regionHandler, firstCold);
}
