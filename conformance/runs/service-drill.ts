/**
 * A thousand random kills, hangs and lost replies of random services under a Debian guest that uses them all: console both ways, disk,
 * clocks, PCI configuration. No byte is lost or doubled, what the guest computes is right, its kernel has nothing to say.
 */
import { createHash } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { HypolithError } from "../../src/base/errors.ts";
import type { DrillName, ServiceReport } from "../../src/control/protocol.ts";
import { Random } from "../criteria/random.ts";
import { bootFiles } from "../harness/boot.ts";
import { GuestSession } from "../harness/guest-session.ts";
import { modularKernel } from "../harness/kernel-modules.ts";
import type { Report } from "../harness/report.ts";
import { WorkerMachine } from "../harness/worker-machine.ts";

const MODULES = ["virtio_pci", "virtio_blk"];
const BOOT_SECONDS = 300;
const ROUND_SECONDS = 300;
const RESTARTS = 1000;
const DEADLINE_MS = 100;
const SEED = 1;
const DISK_BYTES = 16 << 20;
const CHUNK = 1 << 18;
const LINES = 400;
const DRILLS: readonly DrillName[] = ["kill", "hang", "lose-reply"];

const sha256 = (data: string | Uint8Array): string =>
  createHash("sha256").update(data).digest("hex");

export async function serviceDrill(report: Report): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "hypolith-drill-"));
  const kernel = await modularKernel("cloud", MODULES);
  const disk = makeDisk(folder);
  const machine = new WorkerMachine(bootFiles(kernel, { files: kernel.modules }), undefined, {
    disks: [{ path: disk.path, mode: "scratch" }],
    services: { all: "worker" },
    servicePolicy: { deadlineMs: DEADLINE_MS, maxRestarts: 1_000_000 },
  });
  try {
    const session = new GuestSession(machine);
    await session.ready(BOOT_SECONDS);
    for (const { path } of kernel.modules) await session.run(`insmod /${path}`);
    // 4: dropping caches is not to be told in the kernel's log.
    await session.run("echo 4 >/proc/sys/vm/drop_caches; dmesg -n 1; stty -F /dev/ttyS0 -opost");
    const before = (await session.run("dmesg | wc -l")).output.trim();
    const names = (await machine.client.services())?.services.map(({ name }) => name) ?? [];
    report.fact(`services: ${names.join(", ")}`);
    const drills = new Drills(machine, names, new Random(SEED));
    const rounds = await load(session, machine, disk.bytes, drills, report);
    const services = await drills.stop();
    report.fact(`seed ${SEED}: ${drills.done} drills, ${rounds} rounds of work`);
    for (const line of accounts(services)) report.fact(line);
    report.check(restartsOf(services) >= RESTARTS, `${restartsOf(services)} restarts`);
    const said = await session.run(`dmesg | tail -n +$((${before} + 1))`);
    report.equal(said.output.trim(), "", "the guest's kernel had nothing to say");
    const end = await session.powerOff();
    report.equal(end.kind, "poweroff", `it turns itself off (${end.message ?? ""})`);
  } finally {
    machine.kill();
    rmSync(folder, { recursive: true });
  }
}

/** Something else in every chunk. */
function makeDisk(folder: string): { path: string; bytes: Uint8Array } {
  const bytes = new Uint8Array(DISK_BYTES);
  const view = new DataView(bytes.buffer);
  const random = new Random(SEED + 1);
  for (let at = 0; at < DISK_BYTES; at += 4) view.setUint32(at, random.word(), true);
  const path = join(folder, "disk.img");
  writeFileSync(path, bytes);
  return { path, bytes };
}

/** Drills that go on beside the work. */
class Drills {
  done = 0;
  readonly #machine: WorkerMachine;
  readonly #names: readonly string[];
  readonly #random: Random;
  #isOn = true;
  readonly #ended: Promise<void>;

  constructor(machine: WorkerMachine, names: readonly string[], random: Random) {
    this.#machine = machine;
    this.#names = names;
    this.#random = random;
    this.#ended = this.#go();
  }

  async #go(): Promise<void> {
    while (this.#isOn) {
      const service = this.#random.pick(this.#names);
      const problem = await this.#machine.client.drill(service, this.#random.pick(DRILLS));
      if (problem !== null) throw new HypolithError("drill-refused", problem);
      this.done++;
      await sleep(this.#random.below(40));
    }
  }

  services(): Promise<readonly ServiceReport[]> {
    return this.#machine.client.services().then((report) => report?.services ?? []);
  }

  async stop(): Promise<readonly ServiceReport[]> {
    this.#isOn = false;
    await this.#ended;
    return this.services();
  }
}

/** Rounds of work, each checked, until there have been enough restarts. Answers how many. */
async function load(
  session: GuestSession,
  machine: WorkerMachine,
  disk: Uint8Array,
  drills: Drills,
  report: Report,
): Promise<number> {
  const random = new Random(SEED + 2);
  for (let round = 1; ; round++) {
    const from = round * 1000;
    const lines = Array.from({ length: LINES }, (_, i) => `${from + i}\n`).join("");
    const typed = Array.from({ length: 60 }, () => random.word().toString(36)).join(" ");
    const chunk = random.below(DISK_BYTES / CHUNK);
    const consoleBefore = machine.consoleText().length;
    const { output } = await session.run(
      [
        `seq ${from} ${from + LINES - 1} | tee /dev/ttyS0 | sha256sum`,
        `echo '${typed}' | sha256sum`,
        "echo 3 >/proc/sys/vm/drop_caches",
        `dd if=/dev/vda bs=${CHUNK} skip=${chunk} count=1 2>/dev/null | sha256sum`,
        "head -c 4 /proc/bus/pci/00/00.0 | od -An -tx1",
        // Not hwclock: it waits for interrupts of the clock, and says how many a stall has cost it.
        "grep -q : /sys/class/rtc/rtc0/time && echo clock",
      ].join("; "),
      ROUND_SECONDS,
    );
    const sums = [lines, `${typed}\n`, disk.subarray(chunk * CHUNK, (chunk + 1) * CHUNK)].map(
      (data) => `${sha256(data)}  -`,
    );
    const expected = [...sums, "86 80 57 0d", "clock"].join("\n");
    const got = output
      .trim()
      .split("\n")
      .map((line) => line.trim())
      .join("\n");
    const isRight = got === expected;
    if (!isRight) report.equal(got, expected, `round ${round}: what the guest computes`);
    const shown = machine.consoleText().slice(consoleBefore).replaceAll("\r\n", "\n");
    const said = shown.replace(/\[machine\] .*\n/g, "");
    if (said !== lines) report.equal(said, lines, `round ${round}: the console's bytes`);
    const restarts = restartsOf(await drills.services());
    if (!isRight || said !== lines || restarts >= RESTARTS) {
      report.check(isRight && said === lines, `${round} rounds: every byte as it should be`);
      return round;
    }
  }
}

function restartsOf(services: readonly ServiceReport[]): number {
  return services.reduce((sum, { restarts }) => sum + restarts, 0);
}

function accounts(services: readonly ServiceReport[]): string[] {
  return services.map(
    ({ name, restarts, messages, longestStallMs }) =>
      `${name}: ${restarts} restarts, ${messages} messages, longest stall ${longestStallMs.toFixed(0)} ms`,
  );
}
