/**
 * A region as one WebAssembly function: (budget) -> RegionExit. S.RIP is the entry's address when it is called.
 *
 * Structured from the dominator tree (Ramsey, "Beyond Relooper"): loops become loops, joins become blocks, everything else nests. Each basic block
 * takes its length from the budget when it is entered; leaving in the middle gives the rest back, so counts are exact. There is one epilogue:
 * it writes the registers that the region may have changed, the flags, S.RIP and S.BUDGET.
 *
 * Code of other pages than the entry's is entered only after a check that the execute TLB still has them where the code was read.
 */

import { invariant } from "../../base/invariant.ts";
import { RegionExit } from "../interpreter/region-loop.ts";
import type { Body, FunctionBuilder, Label, Variable } from "../ir/function.ts";
import type { ModuleBuilder } from "../ir/module.ts";
import type { Val } from "../ir/value.ts";
import { contextOf, entryOffset, isHit } from "../memory/tlb.ts";
import { semanticsOf } from "../semantics/index.ts";
import { isSseOff } from "../semantics/simd/operands.ts";
import { nonCanonical } from "../semantics/system/state.ts";
import { gprAt, S, TLB_EXECUTE, TLB_PAGE, xmmAt } from "../state/layout.ts";
import type { CodeView } from "./code-view.ts";
import { PAGE } from "./code-view.ts";
import type { BasicBlock, Region, RegionInstruction } from "./control-flow.ts";
import { dominates, pagesOf } from "./control-flow.ts";
import { flagShapes } from "./flag-flow.ts";
import { FlagState } from "./flag-state.ts";
import { isNotFlat } from "./flat-check.ts";
import type { FlagShape } from "./lazy-flags.ts";
import { RegionInsn, type RegionLocals, type Ways } from "./region-insn.ts";
import { RegisterFile } from "./register-file.ts";

/** For #selector: an instruction is executed outside, and the region does not go on behind it. */
const NOWHERE = -1;

class RegionCompiler {
  readonly #fn: FunctionBuilder;
  readonly #module: ModuleBuilder;
  readonly #region: Region;
  readonly #view: CodeView;
  readonly #budget: Variable;
  readonly #exitOffset: Variable;
  readonly #exitRip: Variable;
  readonly #unexecuted: Variable;
  /** Number of the entry where execution goes on, NOWHERE if that is outside; 0 while nothing but the entry is to come. */
  readonly #selector: Variable;
  /** Where the call that the region is left for returns to. */
  readonly #site: Variable;
  /** S.REGION_STEPS when contexts and pages were looked at last. */
  readonly #steps: Variable;
  #dispatch!: Label;
  readonly #locals: RegionLocals;
  #needsSse = false;
  /** Segments used besides those that the mode says are flat, and whether they are written through. */
  readonly #segments = new Map<number, boolean>();
  readonly #flags: FlagState;
  readonly #flagShapes: readonly FlagShape[];
  readonly #ripPage: Variable;
  readonly #context: Variable;
  readonly #highContext: Variable;
  readonly #loopLabels = new Map<number, Label>();
  readonly #joinLabels = new Map<number, Label>();
  readonly #children: number[][];
  /** Leave with RESUME at ripPage + exitOffset, at exitRip, or with INTERPRET at ripPage + exitOffset. */
  #leave!: Label;
  #leaveTo!: Label;
  #interpret!: Label;

  constructor(module: ModuleBuilder, fn: FunctionBuilder, region: Region, view: CodeView) {
    this.#fn = fn;
    this.#module = module;
    this.#region = region;
    this.#view = view;
    this.#budget = fn.variable("i32", fn.param(0));
    this.#exitOffset = fn.variable("i32", 0);
    this.#unexecuted = fn.variable("i32", 0);
    this.#selector = fn.variable("i32", 0);
    this.#site = fn.variable("i32", 0);
    this.#steps = fn.variable("i32", -1);
    this.#exitRip = fn.declare("i64");
    this.#flags = new FlagState(fn);
    this.#flagShapes = flagShapes(region);
    this.#ripPage = fn.variable("i64", fn.load("i64.load", 0, S.RIP.at).sub(region.entry));
    this.#context = fn.declare("i64");
    this.#highContext = fn.declare("i64");
    this.#locals = {
      registers: new RegisterFile(fn, "i64"),
      vectors: new RegisterFile(fn, "v128"),
      flags: this.#flags,
      ripPage: this.#ripPage,
      contextOf: (linear) => this.#contextOf(linear),
      bits: view.bits,
      needsSegment: (seg, isWritten) =>
        this.#segments.set(seg, isWritten || (this.#segments.get(seg) ?? false)),
      needsSse: () => {
        this.#needsSse = true;
      },
    };
    // From the last to the first: the outermost label belongs to the last.
    this.#children = region.blocks.map(() => []);
    for (let j = region.blocks.length - 1; j > 0; j--)
      if (region.isMerge[j]) this.#children[region.immediateDominator[j]!]!.push(j);
  }

  compile(): void {
    this.#checkTargets();
    this.#fn.loop((again) => this.#pass(again));
  }

  /** From one entry to the next exit. */
  #pass(again: Label): void {
    const fn = this.#fn;
    this.#budget.set(fn.load("i32.load", 0, S.BUDGET.at));
    const steps = fn.load("i32.load", 0, S.REGION_STEPS.at);
    fn.if(steps.ne(this.#steps.peek()), () => {
      this.#steps.set(steps);
      this.#context.set(fn.load("i64.load", 0, S.CONTEXT.at));
      this.#highContext.set(fn.load("i64.load", 0, S.HIGH_CONTEXT.at));
      this.#checkPages();
    });
    const loadRegisters = fn.later();
    const { result, carry } = this.#flags;
    const { registers, vectors } = this.#locals;
    result.set(fn.load("i64.load", 0, S.FLAG_RESULT.at));
    carry.set(fn.load("i32.load", 0, S.FLAG_CARRY.at));
    const exitCode = fn.variable("i32", 1);
    fn.block((join) => {
      fn.block((leaveTo) => {
        this.#leaveTo = leaveTo;
        fn.block((leave) => {
          this.#leave = leave;
          fn.block((interpret) => {
            this.#interpret = interpret;
            if (this.#region.isDispatchLoop)
              fn.loop((dispatch) => {
                this.#dispatch = dispatch;
                this.#tree(0);
              });
            else this.#tree(0);
          });
          exitCode.set(RegionExit.INTERPRET);
          this.#budget.set(this.#budget.peek().add(this.#unexecuted.peek()));
          this.#exitRip.set(this.#ripPage.peek().add(this.#exitOffset.peek().extS()));
          fn.br(join);
        });
        this.#exitRip.set(this.#ripPage.peek().add(this.#exitOffset.peek().extS()));
      });
      exitCode.set(RegionExit.RESUME);
    });
    loadRegisters(() => {
      // With SSE switched off the interpreter raises the fault of the first instruction with vectors.
      if (this.#needsSse) this.#refuseIf(isSseOff(fn));
      if (this.#view.bits === 32) this.#refuseIf(isNotFlat(fn, this.#segments));
      vectors.load(xmmAt);
      registers.load(gprAt);
    });
    registers.store(gprAt);
    vectors.store(xmmAt);
    fn.store("i64.store", 0, result.peek(), S.FLAG_RESULT.at);
    fn.store("i32.store", 0, carry.peek(), S.FLAG_CARRY.at);
    fn.store("i32.store", 0, this.#budget.peek(), S.BUDGET.at);
    fn.store("i64.store", 0, this.#truncate(this.#exitRip.peek()), S.RIP.at);
    this.#goOn(exitCode, again);
    fn.return(exitCode.peek());
  }

  /** Has done outside what the region was left for, if that was to come back. */
  #goOn(exitCode: Variable, again: Label): void {
    const fn = this.#fn;
    const selector = this.#selector.peek();
    fn.if(selector, () => {
      fn.if(
        exitCode.peek().eq(RegionExit.INTERPRET),
        () => {
          exitCode.set(fn.call(this.#module.get("stepInstruction")));
        },
        () => {
          const site = this.#truncate(this.#ripPage.peek().add(this.#site.peek().extS()));
          exitCode.set(fn.call(this.#module.get("callRegion"), site));
        },
      );
      fn.if(exitCode.peek().eqz().and(selector.gtS(0)), () => fn.br(again));
    });
  }

  /** Pages with instructions of the region. */
  #checkPages(): void {
    const fn = this.#fn;
    for (const delta of pagesOf(this.#region).keys()) {
      if (delta === 0 && this.#region.entries.size === 1) continue;
      const linear = this.#truncate(this.#ripPage.peek().add(delta * PAGE));
      const at = entryOffset(linear);
      const host = fn.load("i32.load", at, TLB_EXECUTE + TLB_PAGE);
      const isThere = isHit(fn, TLB_EXECUTE, at, linear, 1, this.#contextOf(linear)).and(
        host.eq(this.#view.pages.get(delta)!.host),
      );
      this.#refuseIf(isThere.eqz());
    }
  }

  /** 32-bit code has no upper half. */
  #contextOf(linear: Val): Val {
    const context = this.#context.peek();
    return this.#view.bits === 32 ? context : contextOf(linear, context, this.#highContext.peek());
  }

  /** Before anything was executed: leaves all of it to the interpreter. */
  #refuseIf(condition: Val): void {
    this.#fn.unlikely(condition, () => this.#fn.return(RegionExit.INTERPRET));
  }

  /** An instruction pointer or linear address in the code size. */
  #truncate(v: Val): Val {
    return this.#view.bits === 32 ? v.and(0xffff_ffffn) : v;
  }

  /** Relative jumps, wherever they lead, stay in the canonical range; beside its end the interpreter finds the faults. */
  #checkTargets(): void {
    if (this.#view.bits === 32) return;
    const targets = this.#region.blocks.flatMap((b) =>
      b.instructions
        .filter(({ insn }) => insn.opCount > 0 && insn.ops[0]!.kind === "rel")
        .map(({ insn, offset }) => offset + insn.length + insn.ops[0]!.imm),
    );
    if (targets.length === 0) return;
    const isOutside = (target: number): Val => nonCanonical(this.#ripPage.peek().add(target));
    this.#refuseIf(isOutside(Math.min(...targets)).or(isOutside(Math.max(...targets))));
  }

  #tree(x: number): void {
    if (!this.#region.isLoopHeader[x]) {
      this.#within(x, this.#children[x]!);
      return;
    }
    this.#fn.loop((label) => {
      this.#loopLabels.set(x, label);
      this.#within(x, this.#children[x]!);
    });
  }

  #within(x: number, joins: readonly number[]): void {
    const [y, ...rest] = joins;
    if (y === undefined) {
      this.#block(x);
      return;
    }
    this.#fn.block((label) => {
      this.#joinLabels.set(y, label);
      this.#within(x, rest);
    });
    this.#tree(y);
  }

  #isEnteredByLabel(x: number): boolean {
    return this.#region.isMerge[x]! || this.#region.isLoopHeader[x]!;
  }

  /** Goes from block `from` to block `to` of the region (-1: outside, at `offset`). Ends this path of the code. */
  #goto(from: number, to: number, offset: number): void {
    const { immediateDominator, isMerge } = this.#region;
    const isBack = to >= 0 && to <= from;
    if (to < 0) {
      this.#leaveAt(offset);
      return;
    }
    if (isBack && !dominates(immediateDominator, to, from)) {
      this.#flags.passOn("words");
      this.#selector.set(this.#region.entries.get(offset)!);
      this.#fn.br(this.#dispatch);
      return;
    }
    if (this.#isEnteredByLabel(to)) this.#flags.passOn(this.#flagShapes[to]!);
    if (isBack) this.#fn.br(this.#loopLabels.get(to)!);
    else if (isMerge[to]) this.#fn.br(this.#joinLabels.get(to)!);
    else this.#tree(to);
  }

  #leaveAt(offset: number): void {
    this.#flags.writeForExit();
    if (this.#view.bits === 64 && offset !== (offset | 0)) {
      this.#exitRip.set(this.#ripPage.peek().add(offset));
      this.#fn.br(this.#leaveTo);
      return;
    }
    this.#exitOffset.set(offset);
    this.#fn.br(this.#leave);
  }

  /** Leaves with the call made, to come back to its return site. */
  #callOut(site: number, leave: Body): void {
    const number = this.#region.entries.get(site);
    if (number !== undefined) {
      this.#selector.set(number);
      this.#site.set(site);
    }
    leave();
  }

  #leaveBefore(at: RegionInstruction, unexecuted: number): void {
    this.#flags.writeForExit();
    this.#unexecuted.set(unexecuted);
    this.#exitOffset.set(at.offset);
    this.#fn.br(this.#interpret);
  }

  #block(x: number): void {
    const fn = this.#fn;
    const block = this.#region.blocks[x]!;
    const before = this.#flags.save();
    if (x === 0 || this.#isEnteredByLabel(x)) this.#flags.receive(this.#flagShapes[x]!);
    const count = block.instructions.length;
    if (count > 0) {
      const left = this.#budget.read().sub(count);
      fn.unlikely(left.ltS(0), () => this.#leaveAt(block.start));
      this.#budget.set(left);
    }
    this.#instructions(x, block);
    this.#flags.restore(before);
  }

  #instructions(x: number, block: BasicBlock): void {
    const count = block.instructions.length;
    for (let i = 0; i < count; i++) {
      const at = block.instructions[i]!;
      if (i === count - 1 && (block.ending.kind === "step" || block.ending.kind === "leave")) {
        const next = block.ending.kind === "step" ? block.ending.site : NaN;
        this.#selector.set(this.#region.entries.get(next) ?? NOWHERE);
        this.#leaveBefore(at, 1);
        return;
      }
      this.#instruction(x, block, at, count - i);
    }
    const { kind } = block.ending;
    if (kind === "fall") this.#goto(x, block.successors[0] ?? -1, block.end);
    else if (kind === "dispatch") this.#choice(x, block);
  }

  #choice(x: number, { successors, ending }: BasicBlock): void {
    invariant(ending.kind === "dispatch", "a choice of entries");
    const wanted = this.#selector.read();
    this.#selector.set(0);
    const flags = this.#flags.save();
    const ways = [...this.#region.entries.keys()].map((start) => () => {
      this.#goto(x, successors[ending.targets.indexOf(start)]!, start);
      this.#flags.restore(flags);
    });
    const [first, ...others] = ways;
    this.#fn.switch(wanted.sub(1), others, first!);
  }

  #instruction(x: number, block: BasicBlock, at: RegionInstruction, unexecuted: number): void {
    const ways: Ways = {
      budget: () => this.#budget.peek().add(unexecuted),
      bail: () => this.#leaveBefore(at, unexecuted),
      branch: (condition) => this.#branch(x, block, condition),
      jump: (rip) => this.#jump(x, block, rip),
    };
    const { shape } = at;
    const { operands } = shape;
    this.#flags.begin(shape.sem, operands[operands.length - 1]?.kind === "i");
    semanticsOf(shape.sem)!(new RegionInsn(this.#module, this.#fn, shape, at, this.#locals, ways));
    this.#flags.end();
  }

  #branch(x: number, block: BasicBlock, condition: Val | null): void {
    const [taken = -1, fall = -1] = block.successors;
    const { ending } = block;
    if (ending.kind === "jump") this.#goto(x, taken, ending.target);
    else if (ending.kind === "call") this.#callOut(ending.site, () => this.#leaveAt(ending.target));
    else if (ending.kind === "conditional" && condition) {
      const flags = this.#flags.save();
      this.#fn.if(
        condition,
        () => this.#goto(x, taken, ending.target),
        () => {
          this.#flags.restore(flags);
          this.#goto(x, fall, block.end);
        },
      );
    }
  }

  /** A jump to a computed address: compared with what it may be. */
  #jump(x: number, block: BasicBlock, rip: Val): void {
    const flags = this.#flags.save();
    const { ending } = block;
    if (ending.kind === "indirect") {
      const known = ending.targets
        .map((target, i) => ({ target, to: block.successors[i]! }))
        .filter(({ to }) => to >= 0)
        .sort((a, b) => a.target - b.target);
      if (known.length > 0) {
        const distance = this.#fn.variable("i64", rip.sub(this.#ripPage.peek()));
        this.#choose(x, known, distance);
        this.#flags.restore(flags);
      }
    }
    const leave = (): void => {
      this.#flags.writeForExit();
      this.#exitRip.set(rip);
      this.#fn.br(this.#leaveTo);
    };
    if (ending.kind === "indirect" && ending.site !== null) this.#callOut(ending.site, leave);
    else leave();
  }

  /** Binary search for `distance` among sorted targets; falls through if it is none of them. */
  #choose(
    x: number,
    known: readonly { readonly target: number; readonly to: number }[],
    distance: Variable,
  ): void {
    const fn = this.#fn;
    const flags = this.#flags.save();
    if (known.length > 3) {
      const half = known.length >> 1;
      fn.if(
        distance.peek().ltS(known[half]!.target),
        () => this.#choose(x, known.slice(0, half), distance),
        () => this.#choose(x, known.slice(half), distance),
      );
      return;
    }
    for (const { target, to } of known) {
      fn.if(distance.peek().eq(target), () => this.#goto(x, to, target));
      this.#flags.restore(flags);
    }
  }
}

export function compileRegion(
  module: ModuleBuilder,
  name: string,
  region: Region,
  view: CodeView,
): void {
  module.function(
    name,
    ["i32"],
    ["i32"],
    (fn) => new RegionCompiler(module, fn, region, view).compile(),
    true,
  );
}
