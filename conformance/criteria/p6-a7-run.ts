/**
 * What P6-A7 compares, of one build: `node p6-a7-run.ts with|without` prints digests of instruction traces and exit logs as JSON. A process
 * for each build: code that has been generated stays.
 */
import { createHash, type Hash } from "node:crypto";
import { Lab, TIERS } from "../../guests/lab.ts";
import type { EngineName } from "../../src/control/protocol.ts";
import { GUEST } from "../../src/hypervisor/kernel/transition-log.ts";
import { Field, SecondaryControl } from "../../src/processor/isa/vmcs-fields.ts";
import { exitsOnLevel } from "../../src/processor/semantics/system/transition.ts";
import { bootFiles } from "../harness/boot.ts";
import { guestKernel } from "../harness/kernels.ts";
import { machineOf } from "./machine-run.ts";
import { TRANSITIONS, transitionGuest } from "./transitions.ts";

export interface BuildRecord {
  /** Of each tier. */
  readonly traces: Readonly<Record<string, string>>;
  readonly boots: Readonly<Record<string, string>>;
  readonly instructions: number;
  readonly exits: number;
  readonly cpuMs: Readonly<Record<string, number>>;
}

exitsOnLevel.isBuilt = process.argv[2] !== "without";

/** All ways between levels, instruction by instruction: RIP, level, TSC. */
function traceTransitions(engine: (typeof TIERS)[number]): string {
  const hash = createHash("sha256");
  for (const mode of ["long64", "protected32"] as const) {
    const lab = new Lab({ engine, mode, build: transitionGuest });
    const { EPT, UNRESTRICTED_GUEST } = SecondaryControl;
    lab.vmcs.set(Field.SECONDARY_CONTROLS, EPT | UNRESTRICTED_GUEST);
    lab.processor.sampler = {
      every: 1,
      take: (rip, cpl) => hash.update(`${rip.toString(16)} ${cpl} ${lab.tsc};`),
    };
    for (const transition of TRANSITIONS) {
      if (transition.mode !== mode) continue;
      lab.vmcs.set(Field.GUEST_CR0, lab.isLong ? 0x8000_0031 : 0x31);
      transition.prepare(lab);
      hash.update(`${lab.enter()} ${lab.rip} ${lab.tsc}\n`);
    }
  }
  return hash.digest("hex");
}

async function boot(
  engine: EngineName,
): Promise<{ log: Hash; exits: number; retired: number; cpuMs: number }> {
  const kernel = await guestKernel("cloud");
  const files = bootFiles(kernel, { commands: ["find /bin | wc -l", "dmesg | tail -1"] });
  const log = createHash("sha256");
  let exits = 0;
  const machine = machineOf(
    files,
    { engine, rtcEpochMs: 0 },
    { entropy: () => 1n, doorbell: () => false, send: () => {} },
  );
  machine.vm.log.transitions.watch((t) => {
    if (t.vm !== GUEST) return;
    exits++;
    log.update(
      `${t.kind} ${t.reason} ${t.qualification} ${t.rip} ${t.cpl} ${t.cr3} ${t.instructions} ${machine.processor.tsc()}\n`,
    );
  });
  const started = process.cpuUsage();
  while (machine.runUntilBlocked().kind !== "ended");
  const { user, system } = process.cpuUsage(started);
  log.update(machine.stateHash());
  return { log, exits, retired: machine.processor.retired, cpuMs: (user + system) / 1e3 };
}

const traces: Record<string, string> = {};
const boots: Record<string, string> = {};
const cpuMs: Record<string, number> = {};
let instructions = 0;
let exits = 0;
for (const engine of TIERS) traces[engine] = traceTransitions(engine);
for (const engine of ["interpreter", "auto"] as const) {
  const booted = await boot(engine);
  boots[engine] = booted.log.digest("hex");
  cpuMs[engine] = Math.round(booted.cpuMs);
  instructions += booted.retired;
  exits += booted.exits;
}
console.log(JSON.stringify({ traces, boots, instructions, exits, cpuMs } satisfies BuildRecord));
process.exit(0);
