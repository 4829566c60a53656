/**
 * The core module: memory access, core procedures and the run loop, generated once per engine. What a handler may call is here.
 */
import { defineMode } from "../core/mode.ts";
import { defineCoreProcedures } from "../core/procedures.ts";
import { type MemoryShape, ModuleBuilder, type Signature } from "../ir/module.ts";
import type { Type } from "../ir/ops.ts";
import { defineAccess } from "../memory/access.ts";
import { definePhysical } from "../memory/physical.ts";
import { defineSegment } from "../memory/segment.ts";
import { defineTlb } from "../memory/tlb.ts";
import { defineWalk } from "../memory/walk.ts";
import { defineSemanticProcedures } from "../semantics/index.ts";
import { defineBlocks } from "./blocks.ts";
import { defineRunLoop, Handler, type HotHandler } from "./run-loop.ts";

/** Slots of the core module's table: cold handlers, then regions. */
export const COLD_SLOTS = 8192;
export const REGION_SLOTS = 8192;

const IMPORTS: readonly (readonly [string, readonly Type[], readonly Type[]])[] = [
  ["physicalFill", ["i32", "i32"], ["i32"]],
  ["codeWritten", ["i32", "i32"], []],
  ["translateBlock", ["i32", "i32"], ["i32"]],
  ["readTsc", ["i32"], []],
  ["random", [], ["i64"]],
  ["hotBlock", ["i32"], []],
];

/** Functions that are called before the file that defines them comes. */
const FORWARD: readonly (readonly [string, readonly Type[], readonly Type[]])[] = [
  ["enterAddressSpace", ["i32"], []],
  ["updateMode", [], []],
  ["updateSlow", [], []],
  ["recordOffset", ["i32"], ["i64"]],
  ["instructionBreakpoint", [], ["i32"]],
];

export interface CoreBytes {
  readonly bytes: Uint8Array;
  readonly signatures: ReadonlyMap<string, Signature>;
}

export function buildCoreModule(
  memory: MemoryShape,
  hot: readonly HotHandler[],
  regions: boolean,
): CoreBytes {
  const module = new ModuleBuilder(memory, { tableSize: COLD_SLOTS + REGION_SLOTS });
  for (const [name, params, results] of IMPORTS) module.import(name, params, results);
  for (const [name, params, results] of FORWARD) module.declare(name, params, results, true);
  module.shape("coldShape", ["i32"], ["i32"]);
  module.shape("regionShape", ["i32"], ["i32"]);
  definePhysical(module);
  defineWalk(module);
  defineTlb(module);
  defineAccess(module);
  defineSegment(module);
  defineMode(module);
  defineCoreProcedures(module);
  defineSemanticProcedures(module);
  defineBlocks(module, {
    goto: Handler.GOTO,
    deviceStop: Handler.DEVICE_STOP,
    region: Handler.REGION,
  });
  defineRunLoop(module, hot, regions);
  module.exportAll();
  const signatures = new Map([
    ...module.signatures(),
    ...IMPORTS.map(([n, params, results]) => [n, { params, results }] as const),
  ]);
  return { bytes: module.finish(), signatures };
}
