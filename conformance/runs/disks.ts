/**
 * Debian's own virtio drivers on our devices: an ext4 file system on /dev/vda over an image that stays as it is, a qcow2 image of QEMU's as
 * /dev/vdb, entropy; then the same while the services behind them are killed, hung and restarted under load. QEMU's tools judge what is left.
 */
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { DrillName, PlacementName } from "../../src/control/protocol.ts";
import { bootFiles } from "../harness/boot.ts";
import { GuestSession } from "../harness/guest-session.ts";
import { type ModularKernel, modularKernel } from "../harness/kernel-modules.ts";
import type { Report } from "../harness/report.ts";
import { WorkerMachine } from "../harness/worker-machine.ts";

const MODULES = ["virtio_pci", "virtio_blk", "virtio_rng"];
const BOOT_SECONDS = 300;
const BASE_BYTES = 64 << 20;
const DRILLS: readonly DrillName[] = ["kill", "lose-reply", "restart"];
const FILES = 8;
const DRILL_ROUNDS = 2000;
const MANY_RESTARTS = 1_000_000;

const sha256 = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex");

interface Images {
  readonly folder: string;
  readonly base: string;
  readonly baseHash: string;
  readonly overlay: string;
  readonly qcow2: string;
}

/** A raw image of a known pattern with an empty ext4 in front, and a compressed qcow2 of the same. */
function makeImages(): Images {
  const folder = mkdtempSync(join(tmpdir(), "hypolith-disks-"));
  const base = join(folder, "base.img");
  const bytes = Buffer.alloc(BASE_BYTES);
  for (let at = 0; at < BASE_BYTES; at += 4) bytes.writeUInt32LE((at * 2_654_435_761) >>> 0, at);
  writeFileSync(base, bytes);
  execFileSync("mkfs.ext4", ["-q", "-F", "-b", "4096", base, `${BASE_BYTES / 2 / 4096}`]);
  const qcow2 = join(folder, "packed.qcow2");
  execFileSync("qemu-img", ["convert", "-c", "-f", "raw", "-O", "qcow2", base, qcow2]);
  const baseHash = sha256(readFileSync(base));
  return { folder, base, baseHash, overlay: join(folder, "overlay.qcow2"), qcow2 };
}

class DiskGuest {
  readonly machine: WorkerMachine;
  readonly session: GuestSession;

  constructor(kernel: ModularKernel, images: Images, placement: PlacementName) {
    const files = bootFiles(kernel, { files: kernel.modules });
    this.machine = new WorkerMachine(files, undefined, {
      disks: [
        { path: images.base, mode: "scratch", overlay: images.overlay },
        { path: images.qcow2, mode: "scratch" },
      ],
      entropyDevice: true,
      services: { all: placement },
      servicePolicy: { maxRestarts: MANY_RESTARTS },
    });
    this.session = new GuestSession(this.machine);
  }

  async boot(kernel: ModularKernel): Promise<void> {
    await this.session.ready(BOOT_SECONDS);
    for (const { path } of kernel.modules) await this.session.run(`insmod /${path}`);
  }

  async output(command: string, seconds = 300): Promise<string> {
    const { output, status } = await this.session.run(command, seconds);
    return status === 0 ? output.trim() : `status ${status}: ${output.trim()}`;
  }
}

export async function disks(report: Report): Promise<void> {
  const kernel = await modularKernel("cloud", MODULES);
  const images = makeImages();
  try {
    for (const placement of ["inline", "worker"] as const) {
      rmSync(images.overlay, { force: true });
      await oneGuest(report, kernel, images, placement);
    }
  } finally {
    rmSync(images.folder, { recursive: true });
  }
}

async function oneGuest(
  report: Report,
  kernel: ModularKernel,
  images: Images,
  placement: PlacementName,
): Promise<void> {
  const guest = new DiskGuest(kernel, images, placement);
  try {
    await guest.boot(kernel);
    await devices(report, guest, images, placement);
    const kept = await underDrills(report, guest, placement);
    const end = await guest.session.powerOff();
    report.equal(end.kind, "poweroff", `${placement}: the guest turned itself off`);
    await whatIsLeft(report, kernel, images, { placement, kept });
  } finally {
    guest.machine.kill();
  }
}

async function devices(
  report: Report,
  guest: DiskGuest,
  { baseHash }: Images,
  placement: string,
): Promise<void> {
  for (const disk of ["vda", "vdb"]) {
    const hash = (await guest.output(`sha256sum </dev/${disk}`)).split(" ")[0]!;
    report.equal(hash, baseHash, `${placement}: /dev/${disk} has every byte of its image`);
  }
  report.equal(
    await guest.output("cat /sys/block/vda/serial"),
    "hypolith-disk0",
    `${placement}: the serial number`,
  );
  const random = await guest.output("dd if=/dev/hwrng bs=64 count=1 2>/dev/null | sha256sum");
  report.check(/^[0-9a-f]{64} /.test(random), `${placement}: /dev/hwrng gives bytes`);
  const interrupts = await guest.output("grep -c 'PCI-MSI.*virtio' /proc/interrupts");
  report.check(Number(interrupts) >= 5, `${placement}: interrupts by MSI-X`);
  report.equal(
    await guest.output(
      "mkdir -p /m && mount -t ext4 -o discard /dev/vda /m && dd if=/dev/urandom of=/m/a bs=1M count=8 2>/dev/null && rm /m/a && sync && fstrim /m && umount /m && echo well",
    ),
    "well",
    `${placement}: ext4 is mounted, filled, trimmed and unmounted`,
  );
}

/** Writes and reads back while services die; answers the hash of a file that is kept. */
async function underDrills(report: Report, guest: DiskGuest, placement: string): Promise<string> {
  const round = [
    "dd if=/dev/urandom of=/tmp/x bs=64k count=16 2>/dev/null",
    "cp /tmp/x /m/f$i; sync; echo 3 >/proc/sys/vm/drop_caches",
    "cmp /tmp/x /m/f$i || echo DIFFERENT $i",
    "sha256sum </dev/vdb >/dev/null",
  ].join("; ");
  const script = `mount -t ext4 /dev/vda /m; for i in $(seq 1 ${FILES}); do ${round}; done; cat /m/f* | sha256sum; umount /m`;
  const work = guest.output(script, 900);
  let isDone = false;
  const finished = work.finally(() => {
    isDone = true;
  });
  let rounds = 0;
  const refused: string[] = [];
  for (; rounds < DRILL_ROUNDS && !isDone; rounds++) {
    for (const service of ["disk0", "disk1", "entropy"]) {
      const problem = await guest.machine.client.drill(service, DRILLS[rounds % DRILLS.length]!);
      if (problem) refused.push(problem);
    }
    // A new thread for each of three services takes a while.
    await sleep(placement === "worker" ? 1500 : 50);
  }
  const output = await finished;
  report.check(refused.length === 0, `${placement}: drills are carried out ${refused[0] ?? ""}`);
  report.check(
    /^[0-9a-f]{64} {2}-$/.test(output),
    `${placement}: all that was written is read back ${output.slice(0, 200)}`,
  );
  const services = (await guest.machine.client.services())?.services ?? [];
  const disk = services.find(({ name }) => name === "disk0");
  report.fact(
    `${placement}: ${rounds} rounds of drills; disk0: ${disk?.restarts} restarts, ${disk?.messages} messages, ${disk?.ms.toFixed(0)} ms`,
  );
  report.check((disk?.restarts ?? 0) >= 3, `${placement}: disk0 was restarted often`);
  return output;
}

/** The image, the overlay by QEMU's word, and the files for the next guest. */
async function whatIsLeft(
  report: Report,
  kernel: ModularKernel,
  images: Images,
  { placement, kept }: { placement: PlacementName; kept: string },
): Promise<void> {
  report.equal(
    sha256(readFileSync(images.base)),
    images.baseHash,
    `${placement}: the image is unchanged`,
  );
  execFileSync("qemu-img", ["check", images.overlay], { stdio: "pipe" });
  report.check(true, `${placement}: qemu-img check finds the overlay in order`);
  const flat = join(images.folder, "flat.img");
  execFileSync("qemu-img", ["convert", "-O", "raw", images.overlay, flat]);
  execFileSync("e2fsck", ["-fn", flat], { stdio: "pipe" });
  report.check(true, `${placement}: e2fsck finds the file system in order`);
  const guest = new DiskGuest(kernel, images, placement);
  try {
    await guest.boot(kernel);
    const output = await guest.output(
      "mkdir -p /m; mount -t ext4 /dev/vda /m && cat /m/f* | sha256sum",
    );
    report.equal(output, kept, `${placement}: the next guest finds the files`);
  } finally {
    guest.machine.kill();
  }
}
