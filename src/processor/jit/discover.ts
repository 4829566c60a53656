/**
 * Which instructions belong to a region: what is reachable from its entry where the interpreter has been, up to a bound.
 *
 * Jumps are followed first, direct calls when nothing else is left, so that a loop is complete before what it calls comes in. A call whose
 * callee is in the region becomes a jump that pushes; its RETs then jump to the calls' return sites if the popped address is one.
 */

import type { Instruction } from "../isa/instruction.ts";
import { FAR_TRANSFERS, NEAR_TRANSFERS } from "../semantics/transfers.ts";
import type { CodeView, Decoded } from "./code-view.ts";

const MAX_INSTRUCTIONS = 300;
/** A region keeps off code beyond this distance: offsets stay exact and displacements 32-bit. */
const MAX_DISTANCE = 2 ** 30;
const MAX_TARGETS = 32;

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
  readonly calls: readonly Call[];
  /** Seen targets in the region of indirect jumps and calls, by offset. */
  readonly indirect: ReadonlyMap<number, readonly number[]>;
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
  readonly #view: CodeView;
  readonly #stopsAt: (offset: number) => boolean;
  readonly #work: number[] = [];
  readonly #waiting: Call[] = [];

  constructor(view: CodeView, stopsAt: (offset: number) => boolean) {
    this.#view = view;
    this.#stopsAt = stopsAt;
  }

  run(entry: number): void {
    this.#add(entry);
    for (;;) {
      const at = this.#work.shift();
      if (at !== undefined) this.#follow(at);
      else {
        const call = this.#waiting.shift();
        if (!call || this.code.size >= MAX_INSTRUCTIONS) return;
        this.calls.push(call);
        this.#add(call.target);
        this.#add(call.site);
      }
    }
  }

  #add(offset: number): void {
    this.leaders.add(offset);
    this.#work.push(offset);
  }

  #follow(start: number): void {
    let at = start;
    while (!this.code.has(at) && this.code.size < MAX_INSTRUCTIONS) {
      const decoded = this.#view.decode(at);
      if (!decoded) return;
      this.code.set(at, decoded);
      const { sem } = decoded.insn.row;
      if (isLeaving(decoded.insn)) return;
      if (CONDITIONAL.has(sem)) {
        this.#jump(relativeTarget(decoded));
        this.leaders.add(decoded.next);
        if (this.#stopsAt(decoded.next)) return;
      } else if (sem === "jmp") {
        this.#jump(relativeTarget(decoded));
        return;
      } else if (sem === "call") {
        const target = relativeTarget(decoded);
        if (this.#isWanted(target)) this.#waiting.push({ at, target, site: decoded.next });
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
      (this.code.has(target) || this.#view.isKnown(target))
    );
  }

  #indirect(at: number, site: number | null): void {
    const targets = this.#view.targetsOf(at).filter((t) => this.#isWanted(t));
    if (targets.length === 0) return;
    const chosen = targets.slice(0, MAX_TARGETS);
    this.indirect.set(at, chosen);
    for (const target of chosen) {
      if (site === null) this.#add(target);
      else this.#waiting.push({ at, target, site });
    }
  }
}

/** `stopsAt`: entries of other regions that this one is to leave to them. */
export function discover(
  view: CodeView,
  entry: number,
  stopsAt: (offset: number) => boolean,
): Discovery {
  const search = new Search(view, stopsAt);
  search.run(entry);
  return search;
}
