/**
 * The part of a function that is worth compiling as one: basic blocks reachable from an entry by direct jumps within its page.
 *
 * Discovery decodes from memory, breadth first, up to a bound. What leaves the page, an indirect jump, a call or a return ends a path. Then
 * reverse postorder and immediate dominators (Cooper, Harvey, Kennedy, "A Simple, Fast Dominance Algorithm") for structured emission.
 */

import type { Decoder } from "../isa/decode.ts";
import { DecodeError, type Mode as DecodeMode, Instruction } from "../isa/instruction.ts";
import { ROWS } from "../isa/table.ts";

const PAGE = 4096;
const MAX_INSTRUCTIONS = 250;

/** How a basic block ends. */
export type Ending =
  /** Falls into the next block. */
  | { readonly kind: "fall" }
  /** Jcc, LOOP, JCXZ: taken to `target`, else falls through. */
  | { readonly kind: "conditional"; readonly target: number }
  | { readonly kind: "jump"; readonly target: number }
  /** Anything that leaves the region by itself: call, return, indirect jump, system instruction. */
  | { readonly kind: "leave" };

export interface RegionInstruction {
  readonly insn: Instruction;
  /** Offset in the page. */
  readonly offset: number;
}

export interface BasicBlock {
  readonly start: number;
  readonly instructions: RegionInstruction[];
  ending: Ending;
  /** Offset in the page of the instruction after the last. */
  end: number;
  /** Indices in the region's order; -1 = outside. */
  successors: number[];
}

export interface Region {
  /** In reverse postorder; the entry is block 0. */
  readonly blocks: readonly BasicBlock[];
  readonly immediateDominator: readonly number[];
  readonly isLoopHeader: readonly boolean[];
  /** Has at least two predecessors by forward edges. */
  readonly isMerge: readonly boolean[];
  readonly instructionCount: number;
}

const CONDITIONAL = new Set(["jcc", "jcxz", "loop", "loope", "loopne"]);
const LEAVES = new Set([
  "jmp_ind",
  "call",
  "call_ind",
  "ret",
  "retf",
  "jmpf",
  "callf",
  "iret",
  "int",
  "int3",
  "int1",
  "into",
  "syscall",
  "sysret",
  "sysenter",
  "sysexit",
  "hlt",
  "ud",
  "cpuid",
  "wrmsr",
  "rdmsr",
  "in",
  "out",
  "ins",
  "outs",
  "sti",
  "cli",
  "popf",
  "mov_to_cr",
  "mov_to_sreg",
  "pop_sreg",
  "invlpg",
  "swapgs",
  "vmcall",
  "xsetbv",
]);

/** Bytes of one page and a decoder: what discovery reads. */
export interface CodePage {
  readonly bytes: Uint8Array;
  /** Index of the page's first byte in `bytes`. */
  readonly base: number;
  readonly mode: DecodeMode;
  readonly decoder: Decoder;
}

interface Decoded {
  readonly insn: Instruction;
  readonly next: number;
}

function decodeAt(page: CodePage, offset: number): Decoded | null {
  const insn = new Instruction(ROWS[0]!);
  const length = page.decoder.decode(
    page.bytes,
    page.base + offset,
    page.mode,
    insn,
    page.base + PAGE,
  );
  if (length === DecodeError.MORE || length < 0) return null;
  return { insn, next: offset + length };
}

function relativeTarget(insn: Instruction, next: number): number {
  const rel = insn.ops[0]!.imm;
  return next + rel;
}

/** Finds the instructions of the region and where blocks begin. */
function discover(
  page: CodePage,
  entry: number,
): { code: Map<number, Decoded>; leaders: Set<number> } {
  const code = new Map<number, Decoded>();
  const leaders = new Set<number>([entry]);
  const work = [entry];
  while (work.length > 0 && code.size < MAX_INSTRUCTIONS) {
    let at = work.shift()!;
    while (at < PAGE && !code.has(at) && code.size < MAX_INSTRUCTIONS) {
      const decoded = decodeAt(page, at);
      if (!decoded) break;
      code.set(at, decoded);
      const { sem } = decoded.insn.row;
      const target =
        decoded.insn.ops[0]?.kind === "rel" && decoded.insn.opCount > 0
          ? relativeTarget(decoded.insn, decoded.next)
          : -1;
      if (CONDITIONAL.has(sem) || sem === "jmp") {
        if (target >= 0 && target < PAGE) {
          leaders.add(target);
          work.push(target);
        }
        if (sem === "jmp") break;
        leaders.add(decoded.next);
      } else if (LEAVES.has(sem)) break;
      at = decoded.next;
    }
  }
  return { code, leaders };
}

function buildBlock(
  code: ReadonlyMap<number, Decoded>,
  leaders: ReadonlySet<number>,
  start: number,
): BasicBlock {
  const instructions: RegionInstruction[] = [];
  let at = start;
  for (;;) {
    const decoded = code.get(at);
    if (!decoded) return { start, instructions, ending: { kind: "fall" }, end: at, successors: [] };
    instructions.push({ insn: decoded.insn, offset: at });
    const { sem } = decoded.insn.row;
    at = decoded.next;
    const target =
      decoded.insn.opCount > 0 && decoded.insn.ops[0]!.kind === "rel"
        ? relativeTarget(decoded.insn, at)
        : -1;
    const done = (ending: Ending): BasicBlock => ({
      start,
      instructions,
      ending,
      end: at,
      successors: [],
    });
    if (CONDITIONAL.has(sem)) return done({ kind: "conditional", target });
    if (sem === "jmp") return done({ kind: "jump", target });
    if (LEAVES.has(sem)) return done({ kind: "leave" });
    if (leaders.has(at)) return done({ kind: "fall" });
  }
}

function successorOffsets(b: BasicBlock): number[] {
  switch (b.ending.kind) {
    case "fall":
      return [b.end];
    case "conditional":
      return [b.ending.target, b.end];
    case "jump":
      return [b.ending.target];
    default:
      return [];
  }
}

/** The region at `entry` (offset in the page), or null if not even its first instruction can be in one. */
export function findRegion(page: CodePage, entry: number): Region | null {
  const { code, leaders } = discover(page, entry);
  if (!code.has(entry)) return null;
  const byStart = new Map<number, BasicBlock>();
  for (const leader of leaders)
    if (code.has(leader)) byStart.set(leader, buildBlock(code, leaders, leader));
  const order = reversePostorder(byStart, entry);
  const index = new Map(order.map((b, i) => [b.start, i]));
  for (const b of order) b.successors = successorOffsets(b).map((s) => index.get(s) ?? -1);
  const immediateDominator = dominators(order);
  const isLoopHeader = order.map(() => false);
  const forward = order.map(() => 0);
  order.forEach((b, i) => {
    for (const s of new Set(b.successors)) {
      if (s < 0) continue;
      if (s > i) forward[s]!++;
      else if (dominates(immediateDominator, s, i)) isLoopHeader[s] = true;
    }
    const [first, second] = b.successors;
    if (first !== undefined && first === second && first > i) forward[first]!++;
  });
  return {
    blocks: order,
    immediateDominator,
    isLoopHeader,
    isMerge: forward.map((n) => n > 1),
    instructionCount: order.reduce((n, b) => n + b.instructions.length, 0),
  };
}

function reversePostorder(byStart: ReadonlyMap<number, BasicBlock>, entry: number): BasicBlock[] {
  const seen = new Set<number>();
  const post: BasicBlock[] = [];
  const stack: { block: BasicBlock; next: number[] }[] = [];
  const visit = (start: number): void => {
    const block = byStart.get(start);
    if (!block || seen.has(start)) return;
    seen.add(start);
    // The fall-through is visited last, so that it comes right after its block.
    stack.push({ block, next: successorOffsets(block) });
  };
  visit(entry);
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
