/**
 * A region as one WebAssembly function: (budget) -> RegionExit.
 *
 * Structured from the dominator tree (Ramsey, "Beyond Relooper"): loops become loops, joins become blocks, everything else nests. Each basic block
 * takes its length from the budget when it is entered; leaving in the middle gives the rest back, so counts are exact. There is one epilogue:
 * it writes the registers that the region may have changed, the flags, S.RIP and S.BUDGET.
 */

import { shapeOf } from "../interpreter/shapes.ts";
import type { FunctionBuilder, Label, Variable } from "../ir/function.ts";
import type { ModuleBuilder } from "../ir/module.ts";
import type { Val } from "../ir/value.ts";
import { semanticsOf } from "../semantics/index.ts";
import type { Shape } from "../semantics/insn.ts";
import { gprAt, Mode, S } from "../state/layout.ts";
import type { BasicBlock, Region, RegionInstruction } from "./control-flow.ts";
import { dominates } from "./control-flow.ts";
import { isInlined } from "./inlined.ts";
import { type RegionContext, RegionInsn } from "./region-insn.ts";

/** What a region's function answers; S.RIP, S.BUDGET and the flags are stored. */
export const RegionExit = {
  /** Look up the next block. */
  RESUME: 0,
  /** The instruction at S.RIP must be interpreted. */
  INTERPRET: 1,
} as const;

class RegionCompiler {
  readonly #fn: FunctionBuilder;
  readonly #module: ModuleBuilder;
  readonly #region: Region;
  readonly #budget: Variable;
  readonly #exitRip: Variable;
  readonly #exitCode: Variable;
  readonly #registers: Variable[];
  readonly #flagResult: Variable;
  readonly #flagCarry: Variable;
  readonly #ripPage: Variable;
  readonly #context: Variable;
  readonly #written = new Set<number>();
  readonly #loopLabels = new Map<number, Label>();
  readonly #joinLabels = new Map<number, Label>();
  readonly #children: number[][];
  #leave!: Label;

  constructor(module: ModuleBuilder, fn: FunctionBuilder, region: Region) {
    this.#fn = fn;
    this.#module = module;
    this.#region = region;
    const i64 = (at: number): Variable => fn.variable("i64", fn.load("i64.load", 0, at));
    this.#budget = fn.variable("i32", fn.param(0));
    this.#exitRip = fn.variable("i64", 0n);
    this.#exitCode = fn.variable("i32", RegionExit.RESUME);
    this.#registers = Array.from({ length: 16 }, (_, n) => i64(gprAt(n)));
    this.#flagResult = i64(S.FLAG_RESULT.at);
    this.#flagCarry = fn.variable("i32", fn.load("i32.load", 0, S.FLAG_CARRY.at));
    this.#ripPage = i64(S.RIP_PAGE.at);
    this.#context = i64(S.CONTEXT.at);
    this.#children = region.blocks.map((_, i) =>
      region.blocks
        .map((_b, j) => j)
        .filter((j) => j > 0 && region.immediateDominator[j] === i && region.isMerge[j])
        .sort((a, b) => b - a),
    );
  }

  compile(): void {
    const fn = this.#fn;
    fn.block((leave) => {
      this.#leave = leave;
      this.#tree(0);
    });
    for (const n of [...this.#written].sort((a, b) => a - b))
      fn.store("i64.store", 0, this.#registers[n]!.peek(), gprAt(n));
    fn.store("i64.store", 0, this.#flagResult.peek(), S.FLAG_RESULT.at);
    fn.store("i32.store", 0, this.#flagCarry.peek(), S.FLAG_CARRY.at);
    fn.store("i32.store", 0, this.#budget.peek(), S.BUDGET.at);
    fn.store("i64.store", 0, this.#exitRip.peek(), S.RIP.at);
    fn.return(this.#exitCode.peek());
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

  /** Goes from block `from` to block `to` of the region (-1: outside, at page offset `offset`). */
  #goto(from: number, to: number, offset: number): void {
    if (to < 0) this.#leaveAt(offset);
    else if (to <= from) {
      const label = this.#loopLabels.get(to);
      if (label && dominates(this.#region.immediateDominator, to, from)) this.#fn.br(label);
      else this.#leaveAt(offset);
    } else if (this.#region.isMerge[to]) this.#fn.br(this.#joinLabels.get(to)!);
    else this.#tree(to);
  }

  #leaveAt(offset: number): void {
    this.#exitRip.set(this.#ripPage.peek().add(offset));
    this.#fn.br(this.#leave);
  }

  #leaveBefore(at: RegionInstruction, unexecuted: number): void {
    this.#budget.set(this.#budget.peek().add(unexecuted));
    this.#exitCode.set(RegionExit.INTERPRET);
    this.#leaveAt(at.offset);
  }

  #block(x: number): void {
    const fn = this.#fn;
    const block = this.#region.blocks[x]!;
    const count = block.instructions.length;
    if (count > 0) {
      const left = this.#budget.read().sub(count);
      fn.if(left.ltS(0), () => this.#leaveAt(block.start));
      this.#budget.set(left);
    }
    for (let i = 0; i < count; i++) {
      const at = block.instructions[i]!;
      const shape = shapeOf(at.insn, Mode.CODE64);
      if (!isInlined(shape)) {
        this.#leaveBefore(at, count - i);
        return;
      }
      this.#instruction(x, block, at, shape, count - i);
    }
    if (block.ending.kind === "fall") this.#goto(x, block.successors[0] ?? -1, block.end);
  }

  #instruction(
    x: number,
    block: BasicBlock,
    at: RegionInstruction,
    shape: Shape,
    unexecuted: number,
  ): void {
    const context: RegionContext = {
      registers: this.#registers,
      flagResult: this.#flagResult,
      flagCarry: this.#flagCarry,
      ripPage: this.#ripPage,
      context: this.#context,
      written: this.#written,
      bail: () => this.#leaveBefore(at, unexecuted),
      branch: (condition) => this.#branch(x, block, condition),
      leaveTo: (rip) => {
        this.#exitRip.set(rip);
        this.#fn.br(this.#leave);
      },
    };
    semanticsOf(shape.sem)!(new RegionInsn(this.#module, this.#fn, shape, at, context));
  }

  #branch(x: number, block: BasicBlock, condition: Val | null): void {
    const [taken = -1, fall = -1] = block.successors;
    const { ending } = block;
    if (ending.kind === "jump") this.#goto(x, taken, ending.target);
    else if (ending.kind === "conditional" && condition) {
      this.#fn.if(
        condition,
        () => this.#goto(x, taken, ending.target),
        () => this.#goto(x, fall, block.end),
      );
    } else {
      // CALL: its target is outside.
      const last = block.instructions[block.instructions.length - 1]!;
      this.#leaveAt(block.end + last.insn.ops[0]!.imm);
    }
  }
}

export function compileRegion(module: ModuleBuilder, name: string, region: Region): void {
  module.function(
    name,
    ["i32"],
    ["i32"],
    (fn) => new RegionCompiler(module, fn, region).compile(),
    true,
  );
}
