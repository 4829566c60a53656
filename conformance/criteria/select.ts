/** Which criteria a person asked for: by id, by mechanism, or all. */
import { HypolithError } from "../../src/base/errors.ts";
import type { Criterion } from "./criterion.ts";

export function selectCriteria(
  words: readonly string[],
  all: readonly Criterion[],
): readonly Criterion[] {
  if (words.length === 0) {
    throw new HypolithError("usage", "which criteria?", {
      hint: `npm run criteria -- ${known(all)}`,
    });
  }
  for (const word of words) {
    if (all.some((criterion) => isMeant(criterion, word))) continue;
    throw new HypolithError("usage", `there is no criterion ${word}`, {
      hint: `there are: ${known(all)}`,
    });
  }
  return all.filter((criterion) => words.some((word) => isMeant(criterion, word)));
}

function isMeant({ id }: Criterion, word: string): boolean {
  return word === "all" || id === word || id.startsWith(`${word}-`);
}

function known(all: readonly Criterion[]): string {
  const mechanisms = new Set(all.map(({ id }) => id.split("-")[0]));
  return ["all", ...mechanisms, ...all.map(({ id }) => id)].join(" ");
}
