/**
 * P6-A3: VM entry injects an event into ring 3, and the level increases: the frame is on the handler's stack, the handler has not begun, and
 * the exit is not one during delivery.
 */
import { Lab, TIERS } from "../../guests/lab.ts";
import { codeOf, dataOf, stackOf } from "../../guests/lab-tables.ts";
import type { Assembler } from "../../src/processor/isa/assemble.ts";
import { ExitReason } from "../../src/processor/isa/exit-reasons.ts";
import {
  CplExit,
  TransitionCause,
  VendorExit,
  VendorField,
} from "../../src/processor/isa/vendor.ts";
import {
  Field,
  INTERRUPTION_ERROR_CODE,
  INTERRUPTION_VALID,
} from "../../src/processor/isa/vmcs-fields.ts";
import type { Criterion, CriterionContext, CriterionResult } from "./criterion.ts";
import { Complaints } from "./verdict.ts";

const ERROR = 0x1234;
const IF_SET = 0x202;
const LENGTH = 2;

interface Injected {
  readonly name: string;
  readonly type: number;
  readonly vector: number;
  readonly hasError?: boolean;
  /** Pushes the address behind an instruction of LENGTH bytes. */
  readonly isSoftware?: boolean;
}

const EVENTS: readonly Injected[] = [
  { name: "external interrupt", type: 0, vector: 0x41 },
  { name: "NMI", type: 2, vector: 2 },
  { name: "#DE", type: 3, vector: 0 },
  { name: "#PF", type: 3, vector: 14, hasError: true },
  { name: "INT n", type: 4, vector: 0x80, isSoftware: true },
  { name: "INT1", type: 5, vector: 1, isSoftware: true },
  { name: "INT3", type: 6, vector: 3, isSoftware: true },
];

const guest = (a: Assembler): void => {
  a.label("user").emit("nop").emit("nop").emit("nop");
  a.align(16);
  a.label("handler").emit("nop");
  a.emit("cpuid");
};

function tryEvent(engine: (typeof TIERS)[number], event: Injected, complaints: Complaints): void {
  const { type, vector, hasError = false, isSoftware = false } = event;
  const lab = new Lab({ engine, build: guest });
  const { vmcs } = lab;
  lab.tables.interrupt(vector, 0, lab.at("handler"));
  lab.place(3, lab.at("user"));
  vmcs.set(Field.GUEST_RFLAGS, IF_SET);
  const rsp = vmcs.number(Field.GUEST_RSP);
  const info = INTERRUPTION_VALID + (type << 8) + vector + (hasError ? INTERRUPTION_ERROR_CODE : 0);
  vmcs.set(Field.ENTRY_INTERRUPTION_INFO, info);
  vmcs.set(Field.ENTRY_ERROR_CODE, hasError ? ERROR : 0);
  vmcs.set(Field.ENTRY_INSTRUCTION_LENGTH, isSoftware ? LENGTH : 0);
  vmcs.set(VendorField.CPL_EXIT_CONTROLS, CplExit.INCREASE);
  const reason = lab.enter();
  const qualification =
    (3 << 2) | ((TransitionCause.EVENT + type) << 4) | (CplExit.INCREASE << 9) | (vector << 16);
  complaints.equal(
    [reason, lab.retired, vmcs.number(Field.EXIT_QUALIFICATION), lab.rip, lab.cpl],
    [VendorExit.CPL_TRANSITION, 0, qualification, lab.at("handler"), 0],
    () => `${engine}, ${event.name}: reason, instructions, qualification, RIP, CPL`,
  );
  const isValid = vmcs.number(Field.IDT_VECTORING_INFO) >= INTERRUPTION_VALID;
  complaints.check(!isValid, () => `${engine}, ${event.name}: IDT-vectoring information is valid`);
  const items = [lab.at("user") + (isSoftware ? LENGTH : 0), codeOf(3), IF_SET, rsp, dataOf(3)];
  if (hasError) items.unshift(ERROR);
  const top = stackOf(0) - 8 * items.length;
  const frame = items.map((_, i) => Number(lab.read(top + 8 * i)));
  // RF is set in the image of a fault that an instruction has met, but not in that of an injected one.
  complaints.equal(frame, items, () => `${engine}, ${event.name}: frame`);
  complaints.equal(vmcs.number(Field.GUEST_RSP), top, () => `${engine}, ${event.name}: RSP`);
  vmcs.set(VendorField.CPL_EXIT_CONTROLS, 0);
  complaints.equal(
    [lab.enter(), lab.retired],
    [ExitReason.CPUID, 1],
    () => `${engine}, ${event.name}: going on`,
  );
}

async function run(_: CriterionContext): Promise<CriterionResult> {
  const complaints = new Complaints();
  for (const engine of TIERS) for (const event of EVENTS) tryEvent(engine, event, complaints);
  return complaints.verdict(
    `${EVENTS.length} kinds of events: frame written, 0 instructions, IDT-vectoring information invalid`,
  );
}

export const injectedIncrease: Criterion = {
  id: "P6-A3",
  title: 'an injected event into ring 3 with the criterion "increase"',
  bar: "stack frame written, handler's first instruction not executed, IDT-vectoring information invalid",
  timeBase: "none",
  runMode: "mh",
  isSeeded: false,
  run,
};
