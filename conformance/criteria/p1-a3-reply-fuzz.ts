/**
 * P1-A3: a million random reply pages. Whatever a service answers, the micro-hypervisor never enters with a control field that a service
 * changed, never fails an entry check, never crashes, and ends the VMs of offending services with a reason.
 *
 * Most replies are tried against the kernel alone: after each the control fields are compared and what VM entry checks is checked. A part
 * is tried on whole machines, whose guests are really entered.
 */
import { hostedKernel } from "../../guests/hosted.ts";
import { EventKind, Message, StateGroup } from "../../src/hypervisor/abi/message.ts";
import { Status } from "../../src/hypervisor/abi/status.ts";
import { commitReply } from "../../src/hypervisor/kernel/commit.ts";
import { Outcome, type Placement } from "../../src/hypervisor/kernel/placement.ts";
import { DEAD } from "../../src/hypervisor/kernel/service-calls.ts";
import { type Capabilities, NO_CAPABILITIES } from "../../src/hypervisor/kernel/service-domain.ts";
import { ServiceBench } from "../../src/hypervisor/kernel/testing/service-bench.ts";
import { Machine } from "../../src/machine/machine.ts";
import { imm } from "../../src/processor/isa/assemble.ts";
import { al, dx } from "../../src/processor/isa/registers.ts";
import { Field } from "../../src/processor/isa/vmcs-fields.ts";
import {
  checkControls,
  checkGuestState,
  checkInjection,
} from "../../src/processor/vmx/entry-checks.ts";
import type { Criterion, CriterionContext, CriterionResult } from "./criterion.ts";
import { Random } from "./random.ts";

const REPLIES = 1_000_000;
const MACHINES = 30;
/** Enough for every kind of effect, small enough to be filled often. */
const PAGE_BYTES = 1024;

const ALL_GROUPS =
  StateGroup.LOW_REGISTERS |
  StateGroup.HIGH_REGISTERS |
  StateGroup.RFLAGS |
  StateGroup.RIP |
  StateGroup.ACTIVITY |
  StateGroup.DEVICE |
  StateGroup.INJECTION;

const CAPABILITIES: Capabilities = {
  ...NO_CAPABILITIES,
  lines: [4],
  messages: true,
  streams: [0],
  windows: [{ from: 0x1000, to: 0x2000, write: true }],
};

/** Everything that no reply may change. */
const CONTROLS = [
  ...["PIN_CONTROLS", "PRIMARY_CONTROLS", "SECONDARY_CONTROLS", "EXIT_CONTROLS", "ENTRY_CONTROLS"],
  ...["EXCEPTION_BITMAP", "EPTP", "IO_BITMAP_A", "IO_BITMAP_B", "MSR_BITMAP", "CR0_MASK"],
  ...["CR4_MASK", "CR0_SHADOW", "CR4_SHADOW", "GUEST_CR0", "GUEST_CR3", "GUEST_CR4"],
  ...["GUEST_EFER", "TSC_OFFSET", "LINK_POINTER", "HOST_RIP", "HOST_RSP", "HOST_CR3"],
]
  .map((name) => (Field as Readonly<Record<string, number>>)[name])
  .filter((field) => field !== undefined);

const WORDS = [0, 1, 2, 3, 8, 0xff, 0x200, 0x8000_0000, 0xffff_ffff, 0xfee0_0000, 0x1000, 0x2000];

/** Scribbles on the reply: sometimes a little, sometimes everything. */
function scribble(message: Message, random: Random): void {
  const { view } = message;
  if (random.chance(20)) {
    for (let i = 0; i < view.byteLength; i += 4) view.setUint32(i, random.word(), true);
  }
  if (random.chance(90)) message.status = random.pick([0, 0, 0, 0, 5, 6, 1]);
  message.groups = random.chance(50) ? random.word() & 0xff : random.pick([0, 1, 8, 9, 4, 16, 128]);
  if (random.chance(60)) message.rflags = 2 | (random.word() & 0x3f_7fd5);
  if (random.chance(60)) message.ripWide = BigInt(random.word());
  if (random.chance(60)) message.activity = random.below(3);
  if (random.chance(60)) message.interruptibility = random.below(17);
  if (random.chance(70))
    message.injection = 0x8000_0000 + random.below(8) * 0x100 + random.below(40);
  for (let i = 0; i < 4; i++)
    if (random.chance(50)) view.setUint32(8 + 4 * random.below(60), random.pick(WORDS), true);
  effects(message, random);
  if (random.chance(3)) message.seq = random.word();
}

function effects(message: Message, random: Random): void {
  if (random.chance(50)) {
    message.dataBytes = 0;
    return;
  }
  const { view } = message;
  let at = 256;
  for (let n = random.below(4); n >= 0; n--) {
    const length = random.pick([0, 8, 8, 8, 16, 24, 12, 40]);
    if (at + 8 + length + 8 > view.byteLength) break;
    view.setUint32(at, random.below(10), true);
    view.setUint32(at + 4, random.chance(95) ? length : random.word(), true);
    for (let i = 0; i < length; i += 4)
      view.setUint32(at + 8 + i, random.chance(70) ? random.pick(WORDS) : random.word(), true);
    at += 8 + ((length + 7) & ~7);
  }
  message.dataBytes = random.chance(95) ? at - 256 : random.word();
}

function fuzzer(random: Random, size: number): () => Placement {
  return () => {
    const message = new Message(new ArrayBuffer(size));
    return {
      ...{ kind: "linked", message, failure: "" },
      call() {
        if (message.kind === EventKind.EXIT) scribble(message, random);
        else {
          message.status = Status.OK;
          message.groups = 0;
          message.dataBytes = 0;
        }
        return Outcome.REPLIED;
      },
      save: () => 0,
      restore: () => true,
      kill() {},
    };
  };
}

interface Tally {
  accepted: number;
  refused: number;
  unexplained: number;
  controls: number;
  entries: number;
}

function fuzzKernel(random: Random, tally: Tally, progress: (text: string) => void): void {
  // The VMCS of a machine that is about to enter its guest.
  const bench = new ServiceBench(newMachine(() => null).vm.vcpus[0]!.vmcs);
  const { vcpu, vm, calls } = bench;
  const service = bench.placed(fuzzer(random, PAGE_BYTES), CAPABILITIES, {
    maxForOneMessage: 0,
  });
  const portal = bench.portal(service, {
    stateIn: ALL_GROUPS | StateGroup.EXIT,
    stateOut: ALL_GROUPS,
  });
  const before = CONTROLS.map((field) => vcpu.vmcs.big(field));
  for (let i = 0; i < REPLIES; i++) {
    if (i % 50_000 === 0) progress(`P1-A3: ${i} replies`);
    const status = bench.exit(portal);
    if (status === DEAD) {
      tally.refused++;
      if (!vm.end || !/given up: failed 1 times on one message: .{4}/.test(vm.end.message))
        tally.unexplained++;
      vm.end = null;
      calls.prepare(service);
      bench.logs.length = 0;
      continue;
    }
    tally.accepted++;
    if (status === Status.OK) commitReply(service.message, vcpu);
    if (!isEnterable(bench)) tally.entries++;
    if (!CONTROLS.every((field, n) => vcpu.vmcs.big(field) === before[n])) tally.controls++;
    bench.puts.length = 0;
  }
}

/** What VM entry would say now, with the event that the kernel has queued. */
function isEnterable({ vcpu }: ServiceBench): boolean {
  const { event, vmcs } = vcpu;
  if (event) {
    vmcs.set(Field.ENTRY_INTERRUPTION_INFO, event.info);
    vmcs.set(Field.ENTRY_ERROR_CODE, event.error);
    vmcs.set(Field.ENTRY_INSTRUCTION_LENGTH, event.length);
  }
  const refusal = checkControls(vmcs) ?? checkGuestState(vmcs) ?? checkInjection(vmcs);
  vmcs.set(Field.ENTRY_INTERRUPTION_INFO, 0);
  vcpu.event = null;
  return refusal === null;
}

/** A refused reply is followed by another until one is good. */
function newMachine(console: () => (() => Placement) | null): Machine {
  const kernel = hostedKernel((a) => {
    a.emit("mov", dx, imm(0x3f8));
    a.label("again");
    a.emit("out", dx, al);
    a.emit("jmp", "again");
  });
  const machine: Machine = new Machine(
    {
      ...{ kernel, cmdline: "", memoryBytes: 16 << 20, cpuModel: "x86-64-v2" },
      ...{ clock: "deterministic", traceExits: false, rtcEpochMs: 0 },
      servicePolicy: { maxForOneMessage: 1000, maxRestarts: 1_000_000 },
    },
    {
      nowMs: () => 0,
      entropy: () => 1n,
      doorbell: () => machine !== undefined && machine.processor.retired > 20_000,
      send() {},
      services: { image: (_, { spec }) => (spec.name === "console" ? console() : null) },
    },
  );
  return machine;
}

/** A guest that sends bytes, on whole machines whose console answers anything. Answers how many were really entered. */
function fuzzMachine(random: Random, tally: Tally): number {
  const machine = newMachine(() => fuzzer(random, PAGE_BYTES));
  const vmcs = machine.vm.vcpus[0]!.vmcs;
  const before = CONTROLS.map((field) => vmcs.big(field));
  const state = machine.runUntilBlocked();
  const { end } = machine.vm;
  const isOurs =
    end === null || end.kind !== "error" || /given up|no route|cannot be carried/.test(end.message);
  if (state.kind === "ended" && !isOurs) tally.entries++;
  // The interrupt window is the kernel's to open; nothing else may differ.
  const window = 1n << 2n;
  CONTROLS.forEach((field, n) => {
    const changed = vmcs.big(field) ^ before[n]!;
    if (
      field === Field.PRIMARY_CONTROLS
        ? (changed & ~window) !== 0n
        : isControl(field) && changed !== 0n
    )
      tally.controls++;
  });
  return machine.vm.log.total;
}

/** Guest state may have been changed by the guest itself, wherever a reply sent it. */
const isControl = (field: number): boolean =>
  field !== Field.GUEST_CR0 &&
  field !== Field.GUEST_CR3 &&
  field !== Field.GUEST_CR4 &&
  field !== Field.GUEST_EFER;

async function run({ seed, progress }: CriterionContext): Promise<CriterionResult> {
  const random = new Random(seed);
  const tally: Tally = { accepted: 0, refused: 0, unexplained: 0, controls: 0, entries: 0 };
  fuzzKernel(random, tally, progress);
  let entered = 0;
  for (let i = 0; i < MACHINES; i++) {
    progress(`P1-A3: machine ${i} of ${MACHINES}`);
    entered += fuzzMachine(random, tally);
  }
  const { accepted, refused, unexplained, controls, entries } = tally;
  const passed =
    unexplained + controls + entries === 0 && accepted > REPLIES / 100 && refused > REPLIES / 100;
  return {
    passed,
    measured: `${REPLIES} replies: ${refused} refused, ${unexplained} without a reason; ${accepted} committed, ${controls} changed controls, ${entries} failed VM entries`,
    details: [
      `on ${MACHINES} machines, with ${entered} VM entries by replies of a fuzzing console`,
    ],
  };
}

export const replyFuzz: Criterion = {
  id: "P1-A3",
  title: "random reply pages never change controls, fail an entry or crash the kernel",
  bar: "10^6 replies, 0 changed controls, 0 failed entries, 0 ends without a reason",
  timeBase: "none",
  runMode: "mh",
  isSeeded: true,
  run,
};
