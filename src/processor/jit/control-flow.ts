/**
 * A region as a graph: basic blocks in reverse postorder with immediate dominators (Cooper, Harvey, Kennedy, "A Simple, Fast Dominance
 * Algorithm") and loop headers, as structured emission needs them.
 */

import type { Instruction } from "../isa/instruction.ts";
import type { Shape } from "../semantics/insn.ts";
import { type CodeView, type Decoded, PAGE } from "./code-view.ts";
import {
  type Call,
  CONDITIONAL,
  type Discovery,
  discover,
  isLeaving,
  relativeTarget,
} from "./discover.ts";

/** How a basic block ends. */
export type Ending =
  /** Falls into the next block. */
  | { readonly kind: "fall" }
  /** Jcc, LOOP, JCXZ: taken to `target`, else falls through. */
  | { readonly kind: "conditional"; readonly target: number }
  /** JMP, CALL of a function of the region. */
  | { readonly kind: "jump"; readonly target: number }
  /** RET, indirect jump or call: one of `targets`, else outside, to come back to `site`. */
  | { readonly kind: "indirect"; readonly targets: readonly number[]; readonly site: number | null }
  /** CALL of what is outside. */
  | { readonly kind: "call"; readonly target: number; readonly site: number }
  /** Its last instruction is executed outside. */
  | { readonly kind: "step"; readonly site: number }
  /** Goes on where the region was left. */
  | { readonly kind: "dispatch"; readonly targets: readonly number[] }
  /** Anything that leaves the region by itself. */
  | { readonly kind: "leave" };

export interface RegionInstruction {
  readonly insn: Instruction;
  readonly shape: Shape;
  readonly offset: number;
}

export interface BasicBlock {
  readonly start: number;
  readonly instructions: RegionInstruction[];
  readonly ending: Ending;
  /** Offset of the instruction after the last. */
  readonly end: number;
  /** Indices in the region's order, for each of the ending's ways in turn; -1 = outside. */
  successors: number[];
}

export interface Region {
  /** In reverse postorder; block 0 is the entry, or chooses between that and the continuations. */
  readonly blocks: readonly BasicBlock[];
  readonly entry: number;
  /** Where execution can begin, by offset, each with its number for block 0. The entry's is 0. */
  readonly entries: ReadonlyMap<number, number>;
  /** Some ways lead back to block 0 within the region. */
  readonly isDispatchLoop: boolean;
  readonly immediateDominator: readonly number[];
  readonly isLoopHeader: readonly boolean[];
  /** Has at least two predecessors by forward edges. */
  readonly isMerge: readonly boolean[];
  readonly instructionCount: number;
}

function targetsOf(b: Ending, end: number): readonly number[] {
  switch (b.kind) {
    case "fall":
      return [end];
    case "conditional":
      return [b.target, end];
    case "jump":
      return [b.target];
    case "indirect":
    case "dispatch":
      return b.targets;
    default:
      return [];
  }
}

/** Where the RET at each offset may go back to: the return sites of the calls of the functions it belongs to. */
function returnSites(found: Discovery): Map<number, number[]> {
  const sites = new Map<number, number[]>();
  const callees = new Map<number, Call[]>();
  const byCall = new Map<number, Call[]>();
  for (const call of found.calls) {
    callees.set(call.target, [...(callees.get(call.target) ?? []), call]);
    byCall.set(call.at, [...(byCall.get(call.at) ?? []), call]);
  }
  for (const [entry, calls] of callees) {
    const seen = new Set<number>();
    const work: number[] = [];
    const go = (offset: number): void => {
      if (found.code.has(offset) && !seen.has(offset)) work.push(offset);
    };
    // A callee for which there was no room is no part of the region.
    go(entry);
    while (work.length > 0) {
      const at = work.pop()!;
      if (seen.has(at)) continue;
      seen.add(at);
      const decoded = found.code.get(at)!;
      const { sem } = decoded.insn.row;
      if (isLeaving(decoded.insn)) continue;
      if (sem === "ret") {
        const list = sites.get(at) ?? [];
        for (const { site } of calls)
          if (found.code.has(site) && !list.includes(site)) list.push(site);
        sites.set(at, list);
      } else if (sem === "call" || sem === "call_ind") {
        for (const { site } of byCall.get(at) ?? []) go(site);
        if (found.continuations.has(decoded.next)) go(decoded.next);
      } else if (sem === "jmp_ind") {
        for (const target of found.indirect.get(at) ?? []) go(target);
      } else if (CONDITIONAL.has(sem)) {
        go(relativeTarget(decoded));
        go(decoded.next);
      } else if (sem === "jmp") go(relativeTarget(decoded));
      else go(decoded.next);
    }
  }
  return sites;
}

function endingOf(
  decoded: Decoded,
  at: number,
  found: Discovery,
  sites: ReadonlyMap<number, readonly number[]>,
): Ending | null {
  const { sem } = decoded.insn.row;
  if (isLeaving(decoded.insn)) return { kind: "leave" };
  if (!decoded.isCompiled) return { kind: "step", site: decoded.next };
  if (CONDITIONAL.has(sem)) return { kind: "conditional", target: relativeTarget(decoded) };
  if (sem === "jmp") return { kind: "jump", target: relativeTarget(decoded) };
  if (sem === "call") {
    const target = relativeTarget(decoded);
    const isInside = found.calls.some((call) => call.at === at);
    return isInside ? { kind: "jump", target } : { kind: "call", target, site: decoded.next };
  }
  if (sem === "ret") return { kind: "indirect", targets: sites.get(at) ?? [], site: null };
  if (sem === "jmp_ind" || sem === "call_ind") {
    const site = sem === "call_ind" ? decoded.next : null;
    return { kind: "indirect", targets: found.indirect.get(at) ?? [], site };
  }
  return null;
}

function buildBlock(
  found: Discovery,
  sites: ReadonlyMap<number, readonly number[]>,
  start: number,
): BasicBlock {
  const instructions: RegionInstruction[] = [];
  const block = (ending: Ending, end: number): BasicBlock => {
    return { start, instructions, ending, end, successors: [] };
  };
  for (let at = start; ; ) {
    const decoded = found.code.get(at);
    if (!decoded) return block({ kind: "fall" }, at);
    instructions.push({ insn: decoded.insn, shape: decoded.shape, offset: at });
    const ending = endingOf(decoded, at, found, sites);
    at = decoded.next;
    if (ending) return block(ending, at);
    if (found.leaders.has(at)) return block({ kind: "fall" }, at);
  }
}

/** The region at `entry`, or null if not even its first instruction can be in one. */
export function findRegion(
  view: CodeView,
  entry: number,
  stopsAt: (offset: number) => boolean,
): Region | null {
  const found = discover(view, entry, stopsAt);
  if (!found.code.has(entry)) return null;
  const sites = returnSites(found);
  const byStart = new Map<number, BasicBlock>();
  for (const leader of found.leaders)
    if (found.code.has(leader)) byStart.set(leader, buildBlock(found, sites, leader));
  const starts = [...found.continuations].filter((s) => s !== entry && byStart.has(s));
  return structure(byStart, [entry, ...starts]);
}

/** Loops that can be entered at several places are cut there: their inner entries become entries of the region. */
function structure(byStart: ReadonlyMap<number, BasicBlock>, starts: number[]): Region {
  const ofLoops = new Set<number>();
  for (;;) {
    const order = reversePostorder(byStart, starts);
    const index = new Map(order.map((b, i) => [b.start, i]));
    for (const b of order) b.successors = targetsOf(b.ending, b.end).map((s) => index.get(s) ?? -1);
    const immediateDominator = dominators(order);
    const isLoopHeader = order.map(() => false);
    const forward = order.map(() => 0);
    const cut = new Set<number>();
    order.forEach((b, i) => {
      for (const s of b.successors) {
        if (s < 0) continue;
        if (s > i) forward[s]!++;
        else if (dominates(immediateDominator, s, i)) isLoopHeader[s] = true;
        else cut.add(order[s]!.start);
      }
    });
    const before = starts.length;
    for (const start of cut) {
      ofLoops.add(start);
      if (!starts.includes(start)) starts.push(start);
    }
    if (starts.length > before) continue;
    return {
      blocks: order,
      entry: starts[0]!,
      entries: new Map(starts.map((start, i) => [start, i])),
      isDispatchLoop: ofLoops.size > 0,
      immediateDominator,
      isLoopHeader,
      isMerge: forward.map((n) => n > 1),
      instructionCount: order.reduce((n, b) => n + b.instructions.length, 0),
    };
  }
}

const DISPATCH = Number.NaN;

/** Comes first if there is a choice of where to begin. */
function dispatchTo(targets: readonly number[]): BasicBlock {
  const ending: Ending = { kind: "dispatch", targets };
  return { start: DISPATCH, instructions: [], ending, end: DISPATCH, successors: [] };
}

function reversePostorder(
  byStart: ReadonlyMap<number, BasicBlock>,
  starts: readonly number[],
): BasicBlock[] {
  const seen = new Set<number>();
  const post: BasicBlock[] = [];
  const stack: { block: BasicBlock; next: number[] }[] = [];
  const push = (block: BasicBlock): void => {
    // The fall-through is visited last, so that it comes right after its block.
    stack.push({ block, next: [...targetsOf(block.ending, block.end)] });
  };
  const visit = (start: number): void => {
    const block = byStart.get(start);
    if (!block || seen.has(start)) return;
    seen.add(start);
    push(block);
  };
  if (starts.length > 1) push(dispatchTo([...starts].reverse()));
  else visit(starts[0]!);
  while (stack.length > 0) {
    const top = stack[stack.length - 1]!;
    const s = top.next.shift();
    if (s === undefined) {
      post.push(top.block);
      stack.pop();
    } else visit(s);
  }
  return post.reverse();
}

function dominators(order: readonly BasicBlock[]): number[] {
  const predecessors: number[][] = order.map(() => []);
  order.forEach((b, i) => {
    for (const s of b.successors) if (s >= 0) predecessors[s]!.push(i);
  });
  const idom: number[] = order.map((_, i) => (i === 0 ? 0 : -1));
  const intersect = (a: number, b: number): number => {
    let x = a;
    let y = b;
    while (x !== y) {
      while (x > y) x = idom[x]!;
      while (y > x) y = idom[y]!;
    }
    return x;
  };
  for (let changed = true; changed; ) {
    changed = false;
    for (let i = 1; i < order.length; i++) {
      let best = -1;
      for (const p of predecessors[i]!) {
        if (idom[p]! < 0) continue;
        best = best < 0 ? p : intersect(best, p);
      }
      if (best !== idom[i]) {
        idom[i] = best;
        changed = true;
      }
    }
  }
  return idom;
}

export function dominates(idom: readonly number[], a: number, b: number): boolean {
  let x = b;
  while (x > a) x = idom[x]!;
  return x === a;
}

/** Pages (from the entry's) that instructions of a region lie in, with the first and last offset of them there. */
export function pagesOf({ blocks }: Region): Map<number, { from: number; to: number }> {
  const bounds = new Map<number, { from: number; to: number }>();
  const cover = (from: number, to: number): void => {
    const delta = Math.floor(from / PAGE);
    const known = bounds.get(delta);
    if (!known) bounds.set(delta, { from, to });
    else {
      known.from = Math.min(known.from, from);
      known.to = Math.max(known.to, to);
    }
  };
  for (const { instructions } of blocks) {
    for (const { offset, insn } of instructions) {
      const end = offset + insn.length;
      const boundary = (Math.floor(offset / PAGE) + 1) * PAGE;
      cover(offset, Math.min(end, boundary));
      if (end > boundary) cover(boundary, end);
    }
  }
  return bounds;
}
