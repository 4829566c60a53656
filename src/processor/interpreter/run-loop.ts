/**
 * The interpreter: one function with a br_table over handlers, threaded by decoded records.
 *
 *   run(budget) executes at most `budget` instructions and answers a RunExit.
 *
 * Three nested loops: `resume` finds the block at S.RIP, `enter` accounts for a block's instructions at once, `next` executes a record. A taken
 * jump gives back what the block did not execute, a fault also the faulting instruction, so the count is exact at every exit.
 * A block that is larger than the budget left is executed as a shortened copy.
 *
 * Handlers 0..3 are the loop's own; then the inlined ones; larger numbers are slots of the table of cold handlers.
 * Hot path.
 */

import type { Body, FunctionBuilder, Variable } from "../ir/function.ts";
import type { ModuleBuilder } from "../ir/module.ts";
import type { Val } from "../ir/value.ts";
import type { Semantics, Shape } from "../semantics/insn.ts";
import { Head, Pending, RECORD_BYTES, Rec, S, Status } from "../state/layout.ts";
import { Found } from "./blocks.ts";
import { HotInsn, type RunContext } from "./hot-insn.ts";
import { defineRegionLoop, RegionStop } from "./region-loop.ts";

export const RunExit = { BUDGET: 0, VM_EXIT: 1 } as const;

/** Handlers of the loop itself. */
export const Handler = { RESYNC: 0, GOTO: 1, DEVICE_STOP: 2, REGION: 3, FIRST_HOT: 4 } as const;

export interface HotHandler {
  readonly shape: Shape;
  readonly semantics: Semantics;
}

function syncOut(fn: FunctionBuilder, run: RunContext): void {
  fn.store("i64.store", 0, run.flagResult.peek(), S.FLAG_RESULT.at);
  fn.store("i32.store", 0, run.flagCarry.peek(), S.FLAG_CARRY.at);
  fn.store("i32.store", 0, run.budget.peek(), S.BUDGET.at);
}

function loadContexts(
  fn: FunctionBuilder,
  { context, highContext }: Pick<RunContext, "context" | "highContext">,
): void {
  context.set(fn.load("i64.load", 0, S.CONTEXT.at));
  highContext.set(fn.load("i64.load", 0, S.HIGH_CONTEXT.at));
}

function syncIn(fn: FunctionBuilder, run: RunContext): void {
  run.flagResult.set(fn.load("i64.load", 0, S.FLAG_RESULT.at));
  run.flagCarry.set(fn.load("i32.load", 0, S.FLAG_CARRY.at));
  loadContexts(fn, run);
  run.budget.set(fn.load("i32.load", 0, S.BUDGET.at));
}

/** S.RIP = RIP of the current record. */
function storeRip(fn: FunctionBuilder, run: RunContext): void {
  const offset = fn.load("i64.load16_u", run.pc.peek(), Rec.OFFSET);
  const rip = run.ripPage.peek().add(offset);
  const legacy = fn.load("i32.load", 0, S.MODE.at).and(3).ne(2);
  fn.store("i64.store", 0, legacy.select(rip.and(0xffff_ffffn), rip), S.RIP.at);
}

/** For the exit that the current record may end in. */
function storeLength(fn: FunctionBuilder, run: RunContext): void {
  fn.store("i32.store", 0, fn.load("i32.load8_u", run.pc.peek(), Rec.LENGTH), S.EXIT_LENGTH.at);
}

function refund(fn: FunctionBuilder, run: RunContext, extra: number): void {
  run.budget.set(
    run.budget
      .peek()
      .add(fn.load("i32.load8_u", run.pc.peek(), Rec.REMAINING))
      .add(extra),
  );
}

/** Carries the chain from one record to a block of the same page, so that the jump skips the lookup next time. */
function link(
  fn: FunctionBuilder,
  run: RunContext,
  fromPage: ReturnType<FunctionBuilder["declare"]>,
): void {
  const from = run.link.read();
  fn.if(from, () => {
    run.link.set(0);
    const header = run.pc.peek().sub(RECORD_BYTES);
    const page = fn.load("i32.load", 0, S.BLOCK_PAGE.at);
    const isPlain = fn.load("i32.load", header, RECORD_BYTES + Head.SECOND).eqz();
    const sameMode = fn
      .load("i32.load", 0, S.SLOW.at)
      .or(fn.load("i32.load", 0, S.ARENA_EMPTIED.at))
      .eqz();
    fn.store("i32.store", 0, 0, S.ARENA_EMPTIED.at);
    fn.if(page.eq(fromPage.peek()).and(isPlain).and(sameMode), () =>
      fn.store("i32.store", from, run.pc.peek(), Rec.CHAIN),
    );
  });
}

function dispatch(
  fn: FunctionBuilder,
  run: RunContext,
  module: ModuleBuilder,
  hot: readonly HotHandler[],
): void {
  const { pc, budget } = run;
  const resync: Body = () => {
    storeRip(fn, run);
    refund(fn, run, 1);
    fn.br(run.resume);
  };
  const goTo: Body = () => {
    const chain = fn.load("i32.load", pc.peek(), Rec.CHAIN);
    fn.if(chain, () => {
      pc.set(chain);
      fn.br(run.enter);
    });
    run.link.set(pc.peek());
    storeRip(fn, run);
    fn.br(run.resume);
  };
  const deviceStop: Body = () => {
    // Not an instruction: the record it stands for has not been executed. GOTO records count nothing.
    const isEnd = fn.load("i32.load", 0, S.STOP_HANDLER.at).eq(Handler.GOTO);
    storeRip(fn, run);
    budget.set(
      budget
        .peek()
        .add(isEnd.select(fn.i32(0), fn.load("i32.load8_u", pc.peek(), Rec.REMAINING).add(1))),
    );
    fn.br(run.resume);
  };
  const index = fn.variable("i32", fn.load("i32.load16_u", pc.peek(), Rec.HANDLER));
  fn.loop((redo) => {
    const region: Body = () => {
      storeRip(fn, run);
      const rip = fn.load("i64.load", 0, S.RIP.at);
      fn.if(run.interpretAt.read().eq(rip), () => {
        run.interpretAt.set(-1n);
        index.set(
          fn.load("i32.load16_u", pc.peek().sub(RECORD_BYTES), RECORD_BYTES + Head.HANDLER),
        );
        fn.br(redo);
      });
      const header = pc.peek().sub(RECORD_BYTES);
      budget.set(budget.peek().add(fn.load("i32.load16_u", header, RECORD_BYTES + Head.COUNT)));
      syncOut(fn, run);
      const slot = fn.load("i32.load", header, RECORD_BYTES + Head.REGION);
      const stop = fn.call(module.get("runRegions"), slot);
      syncIn(fn, run);
      fn.if(stop.eq(RegionStop.VM_EXIT), () => fn.return(RunExit.VM_EXIT));
      // What a region leaves to the interpreter must not enter it again at once.
      run.interpretAt.set(stop.select(fn.load("i64.load", 0, S.RIP.at), fn.i64(-1)));
      fn.br(run.resume);
    };
    selectHandler(fn, run, module, hot, { index, own: [resync, goTo, deviceStop, region] });
  });
}

/** The br_table itself. */
function selectHandler(
  fn: FunctionBuilder,
  run: RunContext,
  module: ModuleBuilder,
  hot: readonly HotHandler[],
  { index, own }: { index: Variable; own: readonly Body[] },
): void {
  const { pc } = run;
  const handlers = [...own];
  for (const { shape, semantics } of hot) {
    handlers.push(() => {
      semantics(new HotInsn(module, fn, shape, run));
      fn.br(run.next);
    });
  }
  fn.switch(index.peek(), handlers, () => {
    const slot = index.peek().sub(handlers.length);
    syncOut(fn, run);
    const status = fn.callIndirect(module.get("coldShape"), slot, pc.peek());
    syncIn(fn, run);
    fn.brIf(status.eqz(), run.next);
    fn.brIf(status.eq(Status.FAULT), run.fault);
    fn.brIf(status.eq(Status.EXIT), run.exit);
    // JUMP, EXIT_AFTER: retired. REPEAT: stays, and counts as one instruction.
    refund(fn, run, 0);
    fn.if(status.eq(Status.EXIT_AFTER), () => {
      fn.store("i32.store", 0, fn.load("i32.load8_u", pc.peek(), Rec.LENGTH), S.EXIT_LENGTH.at);
      syncOut(fn, run);
      fn.return(RunExit.VM_EXIT);
    });
    fn.if(status.eq(Status.REPEAT), () => storeRip(fn, run));
    fn.br(run.resume);
  });
}

/** Takes the block's instructions from its heat; when that is used up, the block is offered to the region tier. */
function countDown(fn: FunctionBuilder, module: ModuleBuilder, pc: Variable, count: Val): void {
  const header = pc.peek().sub(RECORD_BYTES);
  const heat = fn.load("i32.load", header, RECORD_BYTES + Head.HEAT).sub(count);
  fn.store("i32.store", header, heat, RECORD_BYTES + Head.HEAT);
  fn.if(heat.ltS(0), () => fn.callVoid(module.get("hotBlock"), pc.peek()));
}

/** `regions`: count block entries for the region tier. */
export function defineRunLoop(
  module: ModuleBuilder,
  hot: readonly HotHandler[],
  regions: boolean,
): void {
  defineRegionLoop(module, Handler.REGION, Handler.FIRST_HOT + hot.length);
  module.function(
    "run",
    ["i32"],
    ["i32"],
    (fn) => {
      const pc = fn.variable("i32", 0);
      const ripPage = fn.variable("i64", 0n);
      const flagResult = fn.declare("i64");
      const flagCarry = fn.declare("i32");
      const context = fn.declare("i64");
      const highContext = fn.declare("i64");
      const budget = fn.declare("i32");
      const linkFrom = fn.variable("i32", 0);
      const page = fn.variable("i32", 0);
      fn.store("i32.store", 0, fn.param(0), S.BUDGET.at);
      fn.store("i32.store", 0, fn.param(0), S.BUDGET_START.at);
      const interpretAt = fn.variable("i64", -1n);
      const partial = {
        interpretAt,
        recordsTargets: regions,
        pc,
        ripPage,
        flagResult,
        flagCarry,
        context,
        highContext,
        budget,
        link: linkFrom,
      };
      fn.loop((resume) => {
        const load = (): void => {
          flagResult.set(fn.load("i64.load", 0, S.FLAG_RESULT.at));
          flagCarry.set(fn.load("i32.load", 0, S.FLAG_CARRY.at));
          loadContexts(fn, partial as RunContext);
          budget.set(fn.load("i32.load", 0, S.BUDGET.at));
        };
        // First pass only: locals are authoritative afterwards, and equal to memory whenever a callee may have changed them.
        fn.if(pc.read().eqz(), load);
        fn.block((pending) => {
          fn.block((exit) => {
            fn.block((fault) => {
              // STEPPING outlives SLOW where the instruction stepped over has cleared TF: its trap is still due.
              const slow = fn
                .load("i32.load", 0, S.SLOW.at)
                .or(fn.load("i32.load", 0, S.STEPPING.at));
              fn.if(
                slow,
                () => {
                  syncOut(fn, partial as RunContext);
                  pc.set(fn.call(module.get("slowEnter")));
                  syncIn(fn, partial as RunContext);
                },
                () => {
                  pc.set(fn.call(module.get("lookup")));
                  // A fetch that faults belongs to an instruction that does not come any more.
                  fn.if(pc.read().eqz().and(budget.peek().leS(0)), () => {
                    fn.store("i32.store", 0, Pending.NONE, S.PENDING.at);
                    pc.set(Found.SPENT);
                  });
                },
              );
              fn.if(pc.read().leU(Found.VM_EXIT), () => {
                linkFrom.set(0);
                const found = pc.read();
                pc.set(1);
                fn.brIf(found.eqz(), pending);
                fn.brIf(found.eq(Found.AGAIN), resume);
                syncOut(fn, partial as RunContext);
                fn.if(found.eq(Found.SPENT), () => fn.return(RunExit.BUDGET));
                fn.return(RunExit.VM_EXIT);
              });
              link(fn, partial as RunContext, page);
              page.set(fn.load("i32.load", 0, S.BLOCK_PAGE.at));
              ripPage.set(fn.load("i64.load", 0, S.RIP_PAGE.at));
              loadContexts(fn, partial as RunContext);
              fn.loop((enter) => {
                const count = fn.load(
                  "i32.load16_u",
                  pc.peek().sub(RECORD_BYTES),
                  RECORD_BYTES + Head.COUNT,
                );
                if (regions) countDown(fn, module, pc, count);
                const left = budget.read().sub(count);
                fn.if(
                  left.ltS(0),
                  () => {
                    fn.if(budget.peek().leS(0), () => {
                      storeRip(fn, partial as RunContext);
                      // A single step that could not begin begins again at the next run.
                      fn.store("i32.store", 0, 0, S.STEPPING.at);
                      syncOut(fn, partial as RunContext);
                      fn.return(RunExit.BUDGET);
                    });
                    pc.set(fn.call(module.get("shortBlock"), pc.peek(), budget.peek()));
                    budget.set(0);
                  },
                  () => budget.set(left),
                );
                fn.loop((dispatchLoop) => {
                  fn.block((next) => {
                    dispatch(fn, { ...partial, next, enter, resume, fault, exit }, module, hot);
                    fn.unreachable();
                  });
                  pc.set(pc.peek().add(RECORD_BYTES));
                  fn.br(dispatchLoop);
                });
              });
              fn.unreachable();
            });
            // fault: RIP at the record, the event is in PENDING.
            linkFrom.set(0);
            storeRip(fn, partial as RunContext);
            refund(fn, partial as RunContext, 1);
            storeLength(fn, partial as RunContext);
            fn.br(pending);
          });
          // exit: a VM exit in place of the instruction.
          storeRip(fn, partial as RunContext);
          refund(fn, partial as RunContext, 1);
          storeLength(fn, partial as RunContext);
          fn.store("i32.store", 0, 0, S.STEPPING.at);
          syncOut(fn, partial as RunContext);
          fn.return(RunExit.VM_EXIT);
        });
        // pending: deliver an event, or leave.
        syncOut(fn, partial as RunContext);
        fn.store("i32.store", 0, 0, S.STEPPING.at);
        fn.if(fn.load("i32.load", 0, S.PENDING.at).eq(Pending.VM_EXIT), () => {
          fn.store("i32.store", 0, Pending.NONE, S.PENDING.at);
          fn.return(RunExit.VM_EXIT);
        });
        const status = fn.call(module.get("deliverPending"));
        fn.if(status.eq(Status.EXIT), () => {
          fn.return(RunExit.VM_EXIT);
        });
        syncIn(fn, partial as RunContext);
        fn.br(resume);
      });
      fn.unreachable();
    },
    true,
  );
}
