/** What a browser must have to run a machine, by the names under which its makers document it. */
import { wasmSupport } from "../common/wasm-features.ts";

/** The globals that are asked for, so that a test can take them away. */
export type Globals = Readonly<Record<string, unknown>>;

const REQUIRED = ["Worker", "MessageChannel", "BigInt", "BigUint64Array", "crypto"];

/** Names of what is missing; empty if machines can run here. */
export function missingFeatures(globals: Globals = globalThis as unknown as Globals): string[] {
  const missing = REQUIRED.filter((name) => globals[name] === undefined);
  if (globals.WebAssembly === undefined) return [...missing, "WebAssembly"];
  const wasm = wasmSupport().missingRequired.map((name) => `WebAssembly ${name}`);
  return [...missing, ...wasm];
}
