/**
 * The procedures of the core module: event delivery, far transfers, task switches, segment loads, control registers, MSRs, ports.
 *
 * They need, declared or imported before: memR, memW, memCommit, physicalHost, updateMode, updateSlow, flushTlb, invalidatePage,
 * enterAddressSpace, loadPageTableBase.
 */
import type { ModuleBuilder } from "../ir/module.ts";
import { controlProcedures } from "../semantics/system/control-registers.ts";
import { descriptorProcedures } from "../semantics/system/descriptor.ts";
import { inspectionProcedures } from "../semantics/system/inspection.ts";
import { flagProcedures } from "../semantics/system/interrupt-flag.ts";
import { msrProcedures } from "../semantics/system/msr.ts";
import { portProcedures } from "../semantics/system/ports.ts";
import {
  declareProcedures,
  defineProcedures,
  type ProcedureText,
} from "../semantics/system/procedure-text.ts";
import { processorProcedures } from "../semantics/system/processor.ts";
import { stackProcedures } from "../semantics/system/stack-frame.ts";
import { cplExitProcedures } from "./cpl-exit.ts";
import { debugTrapProcedures } from "./debug-trap.ts";
import { exceptionProcedures } from "./exceptions.ts";
import { farProcedures } from "./far-transfer.ts";
import { returnProcedures } from "./far-transfer-return.ts";
import { interruptProcedures } from "./interrupts.ts";
import { redirectProcedures } from "./interrupts-redirect.ts";
import { iretProcedures } from "./iret.ts";
import { segmentProcedures } from "./segment-load.ts";
import { syscallProcedures } from "./syscall.ts";
import { taskProcedures } from "./task-switch.ts";

const PROCEDURES: readonly ProcedureText[] = [
  ...descriptorProcedures,
  ...segmentProcedures,
  ...stackProcedures,
  ...farProcedures,
  ...returnProcedures,
  ...iretProcedures,
  ...interruptProcedures,
  ...redirectProcedures,
  ...exceptionProcedures,
  ...debugTrapProcedures,
  ...cplExitProcedures,
  ...taskProcedures,
  ...syscallProcedures,
  ...controlProcedures,
  ...inspectionProcedures,
  ...flagProcedures,
  ...msrProcedures,
  ...portProcedures,
  ...processorProcedures,
];

/** Declares the procedures, for parts of the module that call them and are defined earlier. */
export function declareCoreProcedures(module: ModuleBuilder): void {
  declareProcedures(module, PROCEDURES);
}

/** Defines them, after declaring them if that has not been done. */
export function defineCoreProcedures(module: ModuleBuilder, declared = false): void {
  if (!declared) declareCoreProcedures(module);
  defineProcedures(module, PROCEDURES);
}
