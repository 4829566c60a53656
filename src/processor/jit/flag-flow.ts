/** In which shape the flags arrive at each block of a region: as operands if all its predecessors agree, else as words. */
import type { BasicBlock, Region } from "./control-flow.ts";
import { type FlagShape, flagEffect } from "./lazy-flags.ts";

const same = (a: FlagShape, b: FlagShape): boolean =>
  a === b || (a !== "words" && b !== "words" && a.kind === b.kind && a.bytes === b.bytes);

/** What a block does to flags of unknown shape: null = leaves them as they are. */
function effectOf(block: BasicBlock): FlagShape | null {
  for (let i = block.instructions.length - 1; i >= 0; i--) {
    const { insn } = block.instructions[i]!;
    const effect = flagEffect(insn.row.sem);
    if (effect === "words") return "words";
    if (effect !== "keeps") return { kind: effect, bytes: insn.ops[0]!.size };
  }
  return null;
}

export function flagShapes({ blocks }: Region): FlagShape[] {
  const effects = blocks.map(effectOf);
  const incoming: (FlagShape | null)[] = blocks.map((_, i) => (i === 0 ? "words" : null));
  for (let changed = true; changed; ) {
    changed = false;
    blocks.forEach((block, i) => {
      const out = effects[i] ?? incoming[i];
      if (!out) return;
      for (const s of block.successors) {
        if (s < 0) continue;
        const before = incoming[s];
        if (!before) incoming[s] = out;
        else if (!same(before, out)) {
          if (before === "words") continue;
          incoming[s] = "words";
        } else continue;
        changed = true;
      }
    });
  }
  return incoming.map((shape) => shape ?? "words");
}
