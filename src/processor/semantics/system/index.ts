/** The system instructions: privilege, segments, control registers, events, ports. Their long parts are procedures (core/procedures.ts). */
import type { SemanticsTable } from "../insn.ts";
import { CONTROL_REGISTERS } from "./control-registers.ts";
import { DEBUG_REGISTERS } from "./debug-registers.ts";
import { DESCRIPTOR_TABLES } from "./descriptor-tables.ts";
import { FAR } from "./far.ts";
import { INSPECTION } from "./inspection.ts";
import { INTERRUPT_FLAG } from "./interrupt-flag.ts";
import { MSR } from "./msr.ts";
import { PORTS } from "./ports.ts";
import { PROCESSOR } from "./processor.ts";
import { SEGMENT_LOADS } from "./segments.ts";
import { VMX } from "./vmx.ts";

export const SYSTEM: SemanticsTable = {
  ...SEGMENT_LOADS,
  ...INSPECTION,
  ...DESCRIPTOR_TABLES,
  ...CONTROL_REGISTERS,
  ...DEBUG_REGISTERS,
  ...MSR,
  ...INTERRUPT_FLAG,
  ...PORTS,
  ...FAR,
  ...PROCESSOR,
  ...VMX,
};
