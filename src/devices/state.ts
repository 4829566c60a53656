/**
 * Saving and restoring the plain state object of a device.
 *
 * A state is a tree of numbers, booleans, bigints, Uint8Arrays, fixed-length arrays and plain objects. Its shape never changes,
 * so the device's own fresh state is the schema that a snapshot must fit; bigints travel as hexadecimal strings.
 * Restoring checks the whole tree before it changes anything.
 */
import { HypolithError } from "../base/errors.ts";

type Tree = Record<string, unknown>;

const isTree = (value: unknown): value is Tree => typeof value === "object" && value !== null;

/** A deep copy that shares nothing with the device. */
export function saveState(state: unknown): unknown {
  if (typeof state === "bigint") return `0x${state.toString(16)}`;
  if (state instanceof Uint8Array) return state.slice();
  if (Array.isArray(state)) return state.map(saveState);
  if (!isTree(state)) return state;
  return Object.fromEntries(Object.entries(state).map(([key, value]) => [key, saveState(value)]));
}

/** Overwrites `state` in place with a tree made by saveState. Throws HypolithError "snapshot-shape". */
export function restoreState(state: object, saved: unknown): void {
  check(state, saved, "state");
  assign(state as Tree, saved as Tree);
}

function check(shape: unknown, saved: unknown, path: string): void {
  if (!fits(shape, saved)) {
    throw new HypolithError("snapshot-shape", `the saved device state does not fit at ${path}`);
  }
  if (!isTree(shape) || shape instanceof Uint8Array) return;
  for (const key of Object.keys(shape)) check(shape[key], (saved as Tree)[key], `${path}.${key}`);
}

function fits(shape: unknown, saved: unknown): boolean {
  if (typeof shape === "bigint") {
    return typeof saved === "string" && /^0x[0-9a-f]{1,16}$/.test(saved);
  }
  if (typeof shape === "number") return Number.isFinite(saved);
  if (shape instanceof Uint8Array) {
    return saved instanceof Uint8Array && saved.length === shape.length;
  }
  if (Array.isArray(shape)) return Array.isArray(saved) && saved.length === shape.length;
  return typeof shape === typeof saved && (typeof shape !== "object" || isTree(saved));
}

function assign(state: Tree, saved: Tree): void {
  for (const key of Object.keys(state)) {
    const target = state[key];
    const value = saved[key];
    if (typeof target === "bigint") state[key] = BigInt(value as string);
    else if (target instanceof Uint8Array) target.set(value as Uint8Array);
    else if (isTree(target)) assign(target, value as Tree);
    else state[key] = value;
  }
}
