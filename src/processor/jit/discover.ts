/**
 * Which instructions belong to a region: what is reachable from its entry where the interpreter has been, up to a bound.
 *
 * A region is mostly one function of the guest. Calls of small functions become jumps that push, and the RETs of those jump to the calls'
 * return sites; other calls leave the region, and come back to it at the return site when the callee is done. So do instructions that
 * regions do not execute themselves.
 */

import type { Instruction } from "../isa/instruction.ts";
import { FAR_TRANSFERS, NEAR_TRANSFERS } from "../semantics/transfers.ts";
import type { CodeView, Decoded } from "./code-view.ts";

const MAX_INSTRUCTIONS = 300;
/** A callee of at most so many instructions becomes part of the region. */
const MAX_CALLEE = 40;
/** A region keeps off code beyond this distance: offsets stay exact and displacements 32-bit. */
const MAX_DISTANCE = 2 ** 30;
const MAX_TARGETS = 32;
/** What is executed less often than the entry by this factor is left out. */
const RARE = 64;

export const CONDITIONAL: ReadonlySet<string> = new Set(["jcc", "jcxz", "loop", "loope", "loopne"]);
const LEAVES: ReadonlySet<string> = new Set([...FAR_TRANSFERS, "into", "vmcall"]);
const NEAR: ReadonlySet<string> = new Set([...CONDITIONAL, ...NEAR_TRANSFERS]);

/** Does a region end here? Near jumps that cut the instruction pointer to 16 bits are too rare to be followed. */
export function isLeaving({ row, mode, opsize }: Instruction): boolean {
  return LEAVES.has(row.sem) || (mode === 32 && opsize === 2 && NEAR.has(row.sem));
}

export interface Call {
  /** Offset of the CALL. */
  readonly at: number;
  readonly target: number;
  readonly site: number;
}

export interface Discovery {
  readonly code: ReadonlyMap<number, Decoded>;
  /** Where basic blocks begin. */
  readonly leaders: ReadonlySet<number>;
  /** Calls whose callees are part of the region. */
  readonly calls: readonly Call[];
  /** Seen targets in the region of indirect jumps and calls, by offset. */
  readonly indirect: ReadonlyMap<number, readonly number[]>;
  /** Where the region goes on after it was left: behind calls, and behind instructions it does not execute. */
  readonly continuations: ReadonlySet<number>;
}

/** Target offset of a relative jump or call. */
export function relativeTarget(at: Decoded): number {
  return at.next + at.insn.ops[0]!.imm;
}

class Search {
  readonly code = new Map<number, Decoded>();
  readonly leaders = new Set<number>();
  readonly calls: Call[] = [];
  readonly indirect = new Map<number, readonly number[]>();
  readonly continuations = new Set<number>();
  readonly #view: CodeView;
  readonly #stopsAt: (offset: number) => boolean;
  readonly #work: number[] = [];
  readonly #waiting: Call[] = [];
  readonly #small = new Map<number, boolean>();
  /** Code that was not executed more often than so is left out. */
  readonly #floor: number;

  constructor(view: CodeView, entry: number, stopsAt: (offset: number) => boolean) {
    this.#view = view;
    this.#stopsAt = stopsAt;
    this.#floor = Math.floor(view.executions(entry) / RARE);
  }

  run(entry: number): void {
    this.#add(entry);
    for (;;) {
      const at = this.#work.shift();
      if (at !== undefined) this.#follow(at);
      else {
        const call = this.#waiting.shift();
        if (!call) return;
        this.#call(call);
      }
    }
  }

  #call(call: Call): void {
    const { target, site } = call;
    const isPart = this.#isWanted(target) && this.#hasRoom(MAX_CALLEE) && this.#isSmall(target);
    if (isPart) {
      this.calls.push(call);
      this.#add(target);
      this.#add(site);
    } else this.#continueAt(site);
  }

  #hasRoom(instructions = 1): boolean {
    return this.code.size + instructions <= MAX_INSTRUCTIONS;
  }

  #add(offset: number): void {
    this.leaders.add(offset);
    this.#work.push(offset);
  }

  #continueAt(offset: number): void {
    this.continuations.add(offset);
    if (this.#stopsAt(offset)) return;
    this.#add(offset);
  }

  #follow(start: number): void {
    let at = start;
    while (!this.code.has(at) && this.#hasRoom()) {
      const decoded = this.#view.decode(at);
      if (!decoded) return;
      this.code.set(at, decoded);
      const { sem } = decoded.insn.row;
      if (isLeaving(decoded.insn)) return;
      if (!decoded.isCompiled) {
        this.#continueAt(decoded.next);
        return;
      }
      if (CONDITIONAL.has(sem)) {
        this.#jump(relativeTarget(decoded));
        this.leaders.add(decoded.next);
        if (this.#stopsAt(decoded.next)) return;
      } else if (sem === "jmp") {
        this.#jump(relativeTarget(decoded));
        return;
      } else if (sem === "call") {
        this.#waiting.push({ at, target: relativeTarget(decoded), site: decoded.next });
        return;
      } else if (sem === "jmp_ind" || sem === "call_ind") {
        this.#indirect(at, sem === "call_ind" ? decoded.next : null);
        return;
      } else if (sem === "ret") return;
      at = decoded.next;
    }
  }

  #jump(target: number): void {
    if (this.#isWanted(target)) this.#add(target);
  }

  #isWanted(target: number): boolean {
    return (
      Math.abs(target) < MAX_DISTANCE &&
      !this.#stopsAt(target) &&
      (this.code.has(target) || this.#isWarm(target))
    );
  }

  /** Executed often enough, for how often the entry is, to be worth compiling with it. */
  #isWarm(offset: number): boolean {
    return this.#view.executions(offset) > this.#floor;
  }

  #indirect(at: number, site: number | null): void {
    const seen = this.#view.targetsOf(at).filter((t) => this.#isWanted(t));
    const targets = seen.slice(0, MAX_TARGETS);
    if (site === null) {
      for (const target of targets) this.#add(target);
      if (targets.length > 0) this.indirect.set(at, targets);
      return;
    }
    const leaves = targets.filter((target) => this.#isSmall(target));
    if (leaves.length > 0) this.indirect.set(at, leaves);
    for (const target of leaves) {
      this.calls.push({ at, target, site });
      this.#add(target);
    }
    this.#continueAt(site);
  }

  /** Is it a function of few instructions? What it calls does not count. */
  #isSmall(entry: number): boolean {
    const known = this.#small.get(entry);
    if (known !== undefined) return known;
    const isSmall = this.#lookAtCallee(entry);
    this.#small.set(entry, isSmall);
    return isSmall;
  }

  #lookAtCallee(entry: number): boolean {
    const seen = new Set<number>();
    const work = [entry];
    let returns = false;
    for (let at = work.pop(); at !== undefined; at = work.pop()) {
      while (!seen.has(at)) {
        const decoded: Decoded | null = this.#view.decode(at);
        if (!decoded || seen.size >= MAX_CALLEE) return false;
        seen.add(at);
        const { insn, next } = decoded;
        const { sem } = insn.row;
        if (isLeaving(insn)) break;
        if (sem === "ret") {
          returns = true;
          break;
        }
        if (sem === "jmp_ind") break;
        const target = sem === "jmp" || CONDITIONAL.has(sem) ? relativeTarget(decoded) : null;
        if (target !== null && this.#isWanted(target)) work.push(target);
        if (sem === "jmp") break;
        at = next;
      }
    }
    return returns;
  }
}

/** `stopsAt`: entries of other regions that this one is to leave to them. */
export function discover(
  view: CodeView,
  entry: number,
  stopsAt: (offset: number) => boolean,
): Discovery {
  const search = new Search(view, entry, stopsAt);
  search.run(entry);
  return search;
}
