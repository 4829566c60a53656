/**
 * How V8 is to treat our code in Node. Regions are many and their optimising compilation is dear (some 50 us an instruction), so it is for those
 * that have run some million instructions; V8's own idea is a thirtieth of that. Optional: without the flag everything works, at more CPU time.
 */
import { setFlagsFromString } from "node:v8";

const TIERING_BUDGET = 400_000_000;

export function tuneEngine(): void {
  setFlagsFromString(`--wasm-tiering-budget=${TIERING_BUDGET}`);
  setFlagsFromString("--experimental-wasm-branch-hinting");
}
