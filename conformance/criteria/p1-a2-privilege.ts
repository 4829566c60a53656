/**
 * P1-A2: what a service does to get out of its VM, in ring 0 and in ring 3, ends in an exit or in a refusal, or concerns its own VM alone.
 * The memory of the kernel, that of the guest and the guest's registers are afterwards what they were before.
 */
import { hostedKernel, powerOff } from "../../guests/hosted.ts";
import { GUEST } from "../../src/hypervisor/kernel/transition-log.ts";
import { Machine } from "../../src/machine/machine.ts";
import { ServiceBlock } from "../../src/machine/placements/guest.ts";
import type { Ring } from "../../src/machine/placements/guest-vmcs.ts";
import { imm } from "../../src/processor/isa/assemble.ts";
import { al, dx } from "../../src/processor/isa/registers.ts";
import { Field } from "../../src/processor/isa/vmcs-fields.ts";
import {
  HYPERVISOR_BASE,
  HYPERVISOR_BYTES,
  RAM_BASE,
  S,
} from "../../src/processor/state/layout.ts";
import { memoryImage } from "../../src/services/guest/memory-image.ts";
import { Layout } from "../../src/services/guest/memory-layout.ts";
import { digest } from "../harness/cache.ts";
import type { Criterion, CriterionContext, CriterionResult } from "./criterion.ts";
import { ACTS, hostileService } from "./hostile-service.ts";

const COM1 = 0x3f8;
/** Of the kernel's structures: bitmaps and EPT tables are at their beginning. */
const KERNEL_BYTES = Math.min(HYPERVISOR_BYTES, 0x10_0000);
const RINGS: readonly Ring[] = [0, 3];
const REGISTERS = 0x100;
const REGISTERS_END = S.FCW.at;

/** Writes `number` to COM1 and turns itself off. */
function outKernel(number: number): Uint8Array {
  return hostedKernel((a) => {
    a.emit("mov", dx, imm(COM1));
    a.emit("mov", al, imm(number));
    a.emit("out", dx, al);
    powerOff(a);
  });
}

interface Memory {
  readonly kernel: string;
  readonly controls: string;
  readonly guest: string;
  readonly registers: string;
  readonly serviceKernel: string;
}

function hashMemory(machine: Machine, block: ServiceBlock): Memory {
  const { view } = machine.engine;
  const hash = (source: DataView, from: number, to: number): string =>
    digest(new Uint8Array(source.buffer, from, to - from));
  const { vmcs } = machine.vm.vcpus[0]!;
  const controls = CONTROLS.map((field) => vmcs.big(field).toString(16)).join(" ");
  return {
    kernel: hash(view, HYPERVISOR_BASE, HYPERVISOR_BASE + KERNEL_BYTES),
    controls,
    guest: hash(view, RAM_BASE, view.byteLength),
    registers: hash(view, REGISTERS, REGISTERS_END),
    serviceKernel: hash(block.view, HYPERVISOR_BASE, HYPERVISOR_BASE + KERNEL_BYTES),
  };
}

const CONTROLS = [
  ...([Field.PIN_CONTROLS, Field.PRIMARY_CONTROLS, Field.SECONDARY_CONTROLS] as const),
  ...([Field.EXIT_CONTROLS, Field.ENTRY_CONTROLS, Field.EXCEPTION_BITMAP, Field.EPTP] as const),
  ...([Field.IO_BITMAP_A, Field.IO_BITMAP_B, Field.MSR_BITMAP, Field.GUEST_CR3] as const),
];

interface Attempt {
  readonly machine: Machine;
  /** Why the service was given up, or null: it answered. */
  readonly failure: string | null;
  readonly end: string;
  readonly before: Memory;
  readonly after: Memory;
  readonly output: number;
  /** CR3 of the service when it answered. */
  readonly cr3: bigint;
}

function attempt(number: number, block: ServiceBlock): Attempt {
  let output = 0;
  const machine = new Machine(
    {
      ...{ kernel: outKernel(number), cmdline: "", memoryBytes: 16 << 20, rtcEpochMs: 0 },
      ...{ cpuModel: "x86-64-v2", clock: "deterministic", traceExits: false },
      servicePolicy: { deadlineMs: 100, maxForOneMessage: 1 },
    },
    {
      nowMs: () => performance.now(),
      entropy: () => 1n,
      doorbell: () => false,
      send: (message) => {
        if (message.type === "output") output += message.data.length;
      },
      services: {
        image: (_, { spec }) => (spec.name === "console" ? (port) => block.start(port) : null),
      },
    },
  );
  let before: Memory | null = null;
  let cr3 = 0n;
  machine.vm.log.transitions.watch((t) => {
    if (t.vm === GUEST) return;
    if (t.kind === "entry") before ??= hashMemory(machine, block);
    else if (machine.vm.end === null) cr3 = t.cr3;
  });
  for (;;) {
    const state = machine.runUntilBlocked();
    if (state.kind !== "ended") continue;
    const { lastFailure } = machine.vm.services.find(({ name }) => name === "console")!;
    const after = hashMemory(machine, block);
    const end = state.reason.kind;
    return { machine, failure: lastFailure, end, before: before!, after, output, cr3 };
  }
}

/** Whether a byte that changes in any of the places would have been seen. */
function areHashesAwake(machine: Machine, block: ServiceBlock): boolean {
  const { view } = machine.engine;
  const before = hashMemory(machine, block);
  for (const [part, where, at] of [
    ["kernel", view, HYPERVISOR_BASE],
    ["guest", view, view.byteLength - 1],
    ["registers", view, REGISTERS],
    ["serviceKernel", block.view, HYPERVISOR_BASE],
  ] as const) {
    where.setUint8(at, where.getUint8(at) ^ 1);
    if (hashMemory(machine, block)[part] === before[part]) return false;
  }
  return true;
}

/** What an attempt shows that it must not, or null. */
function complain(tried: Attempt, expected: RegExp | null, wantedCr3: number): string | null {
  const { failure, end, before, after, output, cr3 } = tried;
  for (const part of ["kernel", "controls", "guest", "serviceKernel"] as const)
    if (before[part] !== after[part]) return `${part} memory changed`;
  if (output > 0) return "something reached a stream";
  if (expected === null) {
    if (failure !== null || end !== "poweroff") return `stopped: ${failure}, ${end}`;
    return cr3 === BigInt(wantedCr3) ? null : `its CR3 is ${cr3.toString(16)}`;
  }
  if (before.registers !== after.registers) return "the guest's registers changed";
  const reason = failure?.replace(/^failed \d+ times on one message: /, "") ?? "nothing stopped it";
  return expected.test(reason) && end === "error" ? null : `${reason}, end ${end}`;
}

async function run({ progress }: CriterionContext): Promise<CriterionResult> {
  const complaints: string[] = [];
  const details: string[] = [];
  let stopped = 0;
  for (const ring of RINGS) {
    const block = new ServiceBlock("console", memoryImage(hostileService), ring);
    for (const [number, act] of ACTS.entries()) {
      progress(`P1-A2: ring ${ring}, ${act.title}`);
      const expected = ring === 0 ? act.ring0 : act.ring3;
      const tried = attempt(number, block);
      const complaint = complain(tried, expected, act.cr3 ?? Layout.PAGING);
      if (complaint !== null) complaints.push(`ring ${ring}, ${act.title}: ${complaint}`);
      if (expected !== null) stopped++;
      details.push(`ring ${ring}, ${act.title}: ${tried.failure ?? "its own VM alone"}`);
      if (number === ACTS.length - 1 && !areHashesAwake(tried.machine, block))
        complaints.push("a changed byte is not seen in a hash");
    }
  }
  const tried = RINGS.length * ACTS.length;
  return {
    passed: complaints.length === 0,
    measured:
      complaints[0] ??
      `${tried} acts: ${stopped} ended in an exit or a refusal, ${tried - stopped} concerned its own VM; memory of kernel and guest unchanged`,
    details: [...complaints, ...details],
  };
}

export const privilegeProof: Criterion = {
  id: "P1-A2",
  title: "a hostile service in a VM of its own gets nowhere, in ring 0 and in ring 3",
  bar: "exit, refusal or own VM alone for each act; hashes of kernel's and guest's memory unchanged",
  timeBase: "none",
  runMode: "mh",
  isSeeded: false,
  run,
};
