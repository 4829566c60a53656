/** Which of the machine's engines the runs of this process are about, where they do not say themselves. */
import { HypolithError } from "../../src/base/errors.ts";
import { ENGINES, type EngineName } from "../../src/control/protocol.ts";

let chosen: EngineName = "interpreter";

export function chooseEngine(name: string): void {
  chosen = engineNamed(name);
}

export function chosenEngine(): EngineName {
  return chosen;
}

export function engineNamed(name: string): EngineName {
  const found = ENGINES.find((engine) => engine === name);
  if (found) return found;
  const hint = `there are: ${ENGINES.join(", ")}`;
  throw new HypolithError("usage", `no engine is called '${name}'`, { hint });
}
