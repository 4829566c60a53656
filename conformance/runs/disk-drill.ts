/**
 * Ten minutes of writes to a disk with an overlay while its service is killed again and again and the whole process now and then, with kill -9: no write
 * that the guest saw finished is lost, none is torn, the overlay opens again, and QEMU finds it consistent each time.
 *
 * HYPO_DRILL_MINUTES shortens or lengthens it. What a power failure leaves cannot be had here: see qcow2-disk.test.ts.
 */
import { spawnSync } from "node:child_process";
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { compile } from "../../bench/build-programs.ts";
import type { PlacementName } from "../../src/control/protocol.ts";
import { Random } from "../criteria/random.ts";
import { bootFiles } from "../harness/boot.ts";
import { CHECKOUT } from "../harness/cache.ts";
import { chosenEngine } from "../harness/engine.ts";
import type { BootFiles } from "../harness/guest-machine.ts";
import { GuestSession } from "../harness/guest-session.ts";
import { type ModularKernel, modularKernel } from "../harness/kernel-modules.ts";
import type { Report } from "../harness/report.ts";
import { WorkerProcess } from "../harness/worker-process.ts";

const MODULES = ["virtio_pci", "virtio_blk"];
const BLOCKS = 16_384;
const BLOCK_BYTES = 4096;
const SEED = 4711;
const DEFAULT_MINUTES = 10;
const BOOT_SECONDS = 300;
const CHECK_SECONDS = 600;
/** Of the work of one life, ms. */
const SHORTEST_LIFE = 3000;
const LONGEST_LIFE = 25_000;
const DRILL_PAUSE_MS = 400;
const MANY_RESTARTS = 1_000_000;
/** More generations than can be on their way to us when a life ends. */
const UNHEARD = 100_000;
/** Of qemu-img check: leaked clusters cost space alone. */
const QEMU_LEAKS = 3;
const PLACEMENTS: readonly PlacementName[] = ["inline", "worker"];

interface Life {
  readonly from: number;
  /** the last generation that the guest said was finished */
  readonly to: number;
}

interface Disk {
  readonly base: string;
  readonly overlay: string;
}

export async function diskDrill(report: Report): Promise<void> {
  const minutes = Number(process.env.HYPO_DRILL_MINUTES ?? DEFAULT_MINUTES);
  const folder = mkdtempSync(join(tmpdir(), "hypolith-disk-drill-"));
  try {
    const disk = { base: makeBase(folder), overlay: join(folder, "overlay.qcow2") };
    const kernel = await modularKernel("cloud", MODULES);
    await drill(report, kernel, disk, minutes);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** Every 512 bytes say which block they are of. */
function makeBase(folder: string): string {
  const path = join(folder, "base.img");
  const file = openSync(path, "wx");
  const chunk = Buffer.alloc(256 * BLOCK_BYTES);
  for (let block = 0; block < BLOCKS; block += 256) {
    for (let at = 0; at < chunk.length; at += 512)
      chunk.writeUInt32LE(block + Math.floor(at / BLOCK_BYTES) + 1, at);
    writeSync(file, chunk);
  }
  closeSync(file);
  return path;
}

async function drill(
  report: Report,
  kernel: ModularKernel,
  disk: Disk,
  minutes: number,
): Promise<void> {
  const program = await compile(join(CHECKOUT, "conformance/harness/disk-verify.c"), [
    ...["-O2", "-static", "-std=gnu11", "-march=x86-64"],
  ]);
  const verify = { path: "lab/disk-verify", content: readFileSync(program), executable: true };
  const files = bootFiles(kernel, { files: [...kernel.modules, verify] });
  const random = new Random(SEED);
  const end = performance.now() + minutes * 60_000;
  const lives: Life[] = [];
  let restarts = 0;
  let isSound = true;
  while (isSound && performance.now() < end) {
    const guest = new DrillGuest(files, disk, PLACEMENTS[lives.length % PLACEMENTS.length]!);
    try {
      await guest.boot(kernel);
      isSound = await contents(report, guest, lives);
      const from = (lives.at(-1)?.to ?? 0) + (lives.length > 0 ? UNHEARD : 1);
      const to = await guest.writeFor(from, SHORTEST_LIFE + random.below(LONGEST_LIFE));
      lives.push({ from, to });
    } finally {
      await guest.kill();
    }
    restarts += guest.restarts;
    isSound &&= qemuFindsItSound(report, disk, `life ${lives.length}`);
  }
  const writes = lives.reduce((sum, { from, to }) => sum + Math.max(0, to - from + 1), 0);
  report.fact(
    `${lives.length} lives ended by kill -9, ${restarts} restarts of the disk's service, ${writes} writes heard of, seed ${SEED}`,
  );
  report.check(restarts > 0, "the disk's service was restarted");
  await lastLife(report, kernel, files, disk, lives);
}

class DrillGuest {
  readonly session: GuestSession;
  readonly #machine: WorkerProcess;
  #said = "";

  constructor(files: BootFiles, { base, overlay }: Disk, placement?: PlacementName) {
    const disks = [{ path: base, format: "raw", mode: "scratch", overlay }] as const;
    const services = { all: placement ?? "inline" };
    const servicePolicy = { maxRestarts: MANY_RESTARTS };
    this.#machine = new WorkerProcess({
      ...{ ...files, cpuModel: "x86-64-v2" },
      changes: { engine: chosenEngine(), disks, services, servicePolicy },
      ...(placement ? { drills: { services: ["disk0"], pauseMs: DRILL_PAUSE_MS } } : {}),
    });
    this.session = new GuestSession(this.#machine);
    this.#machine.onText((text) => {
      this.#said += text;
    });
  }

  async boot(kernel: ModularKernel): Promise<void> {
    await this.session.ready(BOOT_SECONDS);
    for (const { path } of kernel.modules) await this.session.run(`insmod /${path}`);
  }

  /** Answers the last generation that the guest said it had written. */
  async writeFor(from: number, ms: number): Promise<number> {
    this.#said = "";
    const work = this.session
      .run(`/lab/disk-verify write /dev/vda ${BLOCKS} ${SEED} ${from}`, CHECK_SECONDS)
      .catch(() => {});
    await Promise.race([sleep(ms), work]);
    await this.kill();
    const last = [...this.#said.matchAll(/(?:finished|flushed) (\d+)\r?\n/g)].at(-1);
    return last ? Number(last[1]) : from - 1;
  }

  get restarts(): number {
    return this.#machine.consoleText().split("service disk0 restarted").length - 1;
  }

  async kill(): Promise<void> {
    this.#machine.kill();
    await this.#machine.stopped;
  }
}

/** Whether each block has what was written last. */
async function contents(
  report: Report,
  { session }: DrillGuest,
  lives: readonly Life[],
): Promise<boolean> {
  const begun = (lives.at(-1)?.to ?? 0) + UNHEARD - 1;
  const ranges = lives.flatMap(({ from, to }) => [from, to]);
  const words = ["/dev/vda", BLOCKS, SEED, begun, ...ranges];
  const { output } = await session.run(`/lab/disk-verify check ${words.join(" ")}`, CHECK_SECONDS);
  const [, touched, later, wrong] = /touched=(\d+) later=(\d+) wrong=(\d+)/.exec(output) ?? [];
  const what = `after life ${lives.length}: ${touched} blocks as they were written, ${later} newer`;
  report.check(wrong === "0", wrong === "0" ? what : `${what}: ${output.trim().slice(0, 600)}`);
  return wrong === "0";
}

function qemuFindsItSound(report: Report, { overlay }: Disk, when: string): boolean {
  const { status, stdout } = spawnSync("qemu-img", ["check", overlay], { encoding: "utf8" });
  const isSound = status === 0 || status === QEMU_LEAKS;
  if (!isSound) report.check(false, `${when}: qemu-img check: ${status} ${stdout.slice(-400)}`);
  return isSound;
}

/** A life that ends in order. */
async function lastLife(
  report: Report,
  kernel: ModularKernel,
  files: BootFiles,
  disk: Disk,
  lives: readonly Life[],
): Promise<void> {
  const guest = new DrillGuest(files, disk);
  try {
    await guest.boot(kernel);
    await contents(report, guest, lives);
    const { kind } = await guest.session.powerOff();
    report.equal(kind, "poweroff", "the last life ends in order");
  } finally {
    await guest.kill();
  }
  const { status, stdout } = spawnSync("qemu-img", ["check", disk.overlay], { encoding: "utf8" });
  report.check(
    status === 0,
    `qemu-img check finds nothing, not even a leak ${status ? stdout : ""}`,
  );
}
