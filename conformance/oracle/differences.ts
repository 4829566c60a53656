/**
 * What may differ between the native processor and ours, and why. Anything else is a defect of ours until the manual says otherwise.
 *
 * A rule looks at the differences left of one test and takes away those it explains. Undefined flags are not here (undefined-flags.ts).
 */
import type { Difference } from "./compare.ts";
import type { DraftInstruction } from "./draft.ts";
import { Fx, Result } from "./records.ts";

export interface Context {
  readonly test: Uint8Array;
  readonly native: Uint8Array;
  readonly ours: Uint8Array;
  readonly instructions: readonly DraftInstruction[];
}

interface Rule {
  readonly name: string;
  /** The manual's or the kernel's words. */
  readonly why: string;
  /** Whether this difference is explained. */
  explains(d: Difference, context: Context): boolean;
}

const POINTERS = new Set(["fop", "fip", "fdp"]);
const FSW_SUMMARY = 0x80;
const word = (record: Uint8Array, at: number): number => record[at]! | (record[at + 1]! << 8);

export const RULES: readonly Rule[] = [
  {
    name: "x87 pointers without exception",
    why: "AMD64 APM Vol. 2, FXSAVE and XSAVE: the pointers are saved and loaded only if FSW.ES is set; without it the frame says nothing of them",
    explains: (d, c) => POINTERS.has(d.field) && (word(c.native, Result.FX + Fx.FSW) & FSW_SUMMARY) === 0,
  },
  {
    name: "page fault on a kernel address",
    why: "Linux reports every fault above user space as a protection fault, so as not to show its layout (set_signal_archinfo)",
    explains: (d, c) => d.field === "error" && (d.native ^ d.ours) === 1n && (c.native[Result.CR2 + 7]! & 0x80) !== 0,
  },
];

/** Differences that no rule explains, and the rules that explained others. */
export function excuse(found: readonly Difference[], context: Context): { left: Difference[]; rules: string[] } {
  const rules = new Set<string>();
  const left = found.filter((d) => {
    const rule = RULES.find((r) => r.explains(d, context));
    if (rule) rules.add(rule.name);
    return rule === undefined;
  });
  return { left, rules: [...rules] };
}
