/**
 * What a forwarded VM exit costs, by where its service runs, and what a Debian boot makes of it.
 *
 * A guest of our own writes to a register of its serial port, again and again: each write is one exit, one message to the console service,
 * its reply, one entry. The ledger says whose time it was. "kernel": an exit that the micro-hypervisor handles itself, for
 * comparison. "linked": the program in the machine's own realm, without a wall.
 */

import { runToEnd } from "../conformance/criteria/machine-run.ts";
import { bootFiles } from "../conformance/harness/boot.ts";
import { guestKernel } from "../conformance/harness/kernels.ts";
import { hostedKernel, powerOff } from "../guests/hosted.ts";
import type { MachineConfig } from "../src/control/protocol.ts";
import { NodeServiceHost } from "../src/machine/embedder-node-services.ts";
import { Machine } from "../src/machine/machine.ts";
import { imm } from "../src/processor/isa/assemble.ts";
import { al, dx, ecx } from "../src/processor/isa/registers.ts";
import type { BenchOptions } from "./options.ts";
import { best } from "./statistics.ts";

export interface ExitCost {
  readonly placement: string;
  /** Nanoseconds an exit: all of it, and whose they were. */
  readonly total: number;
  readonly guest: number;
  readonly kernel: number;
  readonly service: number;
}

export interface ServicesBoot {
  readonly placement: string;
  /** Seconds from the start of the machine to its end, each round: by the clock, and of all its threads. */
  readonly seconds: readonly number[];
  readonly cpu: readonly number[];
  readonly exits: number;
  readonly forwarded: number;
  readonly servicesMs: number;
  readonly activeMs: number;
}

export interface ServicesResult {
  readonly exits: readonly ExitCost[];
  readonly boots: readonly ServicesBoot[];
  /** Boot in workers, as a multiple of inline, best rounds: in CPU time, as everything here is compared, and by the clock. */
  readonly workerCpuRatio: number;
  readonly workerRatio: number;
}

const COM1_SCRATCH = 0x3ff;
const PIC_MASK = 0x21;

export const BOOT_BAR = 1.3;

export async function benchServices({
  rounds,
  scale,
  progress,
}: BenchOptions): Promise<ServicesResult> {
  const exits = costs(rounds, scale, progress);
  const boots = await benchBoots(rounds, progress);
  const [inline, worker] = boots;
  return {
    exits,
    boots,
    workerCpuRatio: best(worker!.cpu) / best(inline!.cpu),
    workerRatio: best(worker!.seconds) / best(inline!.seconds),
  };
}

interface Contestant {
  readonly placement: string;
  readonly port: number;
  readonly exits: number;
  readonly services: NonNullable<MachineConfig["services"]>;
  readonly host: NodeServiceHost | undefined;
}

function costs(rounds: number, scale: number, progress: (text: string) => void): ExitCost[] {
  const host = new NodeServiceHost();
  const port = COM1_SCRATCH;
  const many = Math.round(200_000 * scale);
  const few = Math.round(20_000 * scale);
  const contestants: Contestant[] = [
    { placement: "kernel", port: PIC_MASK, exits: many, services: {}, host: undefined },
    { placement: "linked", port, exits: many, services: {}, host: undefined },
    { placement: "inline", port, exits: many, services: {}, host },
    { placement: "worker", port, exits: few, services: { console: "worker" }, host },
    { placement: "guest", port, exits: many, services: { console: "guest" }, host },
    { placement: "guest:ring3", port, exits: many, services: { console: "guest:ring3" }, host },
  ];
  const found = new Map<string, ExitCost>();
  for (let round = 1; round <= rounds; round++) {
    for (const contestant of contestants) {
      progress(`services: exits, ${contestant.placement}, round ${round} of ${rounds}`);
      const cost = measure(contestant);
      const before = found.get(cost.placement);
      if (!before || cost.total < before.total) found.set(cost.placement, cost);
    }
  }
  return [...found.values()];
}

function measure({ placement, port, exits, services, host }: Contestant): ExitCost {
  const kernel = hostedKernel((a) => {
    a.emit("mov", dx, imm(port));
    a.emit("mov", al, imm(0x55));
    a.emit("mov", ecx, imm(exits));
    a.label("again");
    a.emit("out", dx, al);
    a.emit("dec", ecx);
    a.emit("jne", "again");
    powerOff(a);
  });
  const machine = new Machine(
    {
      ...{ kernel, cmdline: "", memoryBytes: 16 << 20, cpuModel: "x86-64-v2", services },
      ...{ clock: "wall", traceExits: false, rtcEpochMs: 0 },
    },
    {
      nowMs: () => performance.now(),
      entropy: () => 1n,
      doorbell: () => false,
      send() {},
      ...(host && { services: host }),
    },
  );
  const { ledger, services: domains } = machine.vm;
  const console = domains.find(({ name }) => name === "console")!;
  const before = console.account.ms;
  const started = performance.now();
  machine.runUntilBlocked();
  const total = performance.now() - started;
  const each = (ms: number): number => (ms * 1e6) / exits;
  return {
    placement,
    total: each(total),
    guest: each(ledger.guest.ms),
    kernel: each(ledger.kernel.ms),
    service: each(console.account.ms - before),
  };
}

async function benchBoots(
  rounds: number,
  progress: (text: string) => void,
): Promise<ServicesBoot[]> {
  const files = bootFiles(await guestKernel("cloud"), { commands: ["echo booted"] });
  const boots = ["inline", "worker"].map((placement) => ({
    placement,
    seconds: [] as number[],
    cpu: [] as number[],
  }));
  const last = new Map<string, Omit<ServicesBoot, "placement" | "seconds" | "cpu">>();
  for (let round = 1; round <= rounds; round++) {
    for (const { placement, seconds, cpu } of boots) {
      progress(`services: boot, ${placement}, round ${round} of ${rounds}`);
      const config = { clock: "wall", services: { all: placement } } as Partial<MachineConfig>;
      const started = performance.now();
      const before = process.cpuUsage();
      const { machine } = runToEnd(files, { config });
      const used = process.cpuUsage(before);
      seconds.push((performance.now() - started) / 1000);
      cpu.push((used.user + used.system) / 1e6);
      const { log, ledger, services } = machine.vm;
      const servicesMs = services.reduce((sum, { account }) => sum + account.ms, 0);
      last.set(placement, {
        exits: log.total,
        forwarded: services.reduce((sum, { messages }) => sum + messages, 0),
        servicesMs,
        activeMs: ledger.guest.ms + ledger.kernel.ms + servicesMs,
      });
    }
  }
  return boots.map((boot) => ({ ...boot, ...last.get(boot.placement)! }));
}
