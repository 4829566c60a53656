/**
 * Runs the packages' own scripts, once, where they belong: in a machine of ours, on the tree that they were unpacked into.
 *
 * The tree is a read-only disk under an overlay, as for every image. What the scripts have changed comes back as a tar archive on a second
 * disk: a plain file of ours. The machine has no network, and nothing of this computer but the two.
 */
import { closeSync, ftruncateSync, openSync, readSync } from "node:fs";
import { join } from "node:path";
import { HypolithError } from "../../../src/base/errors.ts";
import { type MachineConfig, SerialUse, type StopReason } from "../../../src/control/protocol.ts";
import { ConsoleTail } from "../../common/console-tail.ts";
import { ControlLine } from "../../common/control-line.ts";
import {
  CONSOLE_COMMAND_LINE,
  DEFAULT_CPU_MODEL,
  DEFAULT_ENGINE,
} from "../../common/machine-defaults.ts";
import { buildInitramfs } from "../guest/initramfs.ts";
import { JOB_ENVIRONMENT } from "../guest/job.ts";
import { DISK_DRIVERS, ROOT_DRIVERS } from "../image/flavors.ts";
import type { GuestImage } from "../image/guest-image.ts";
import { withDependencies } from "../image/modules.ts";
import type { Progress } from "../image/progress.ts";
import { type FileRange, readTar } from "../oci/tar-file.ts";
import { machineWorkerUrl, VmClient } from "../vm-client.ts";

export interface ConfigureOptions {
  /** The unpacked tree, EROFS. */
  readonly disk: string;
  /** For the second disk. */
  readonly folder: string;
  /** Labels of packages with a script to run before anything is configured. */
  readonly preinst: readonly string[];
  /** How many packages there are. */
  readonly count: number;
  readonly kernel: GuestImage;
  readonly progress: Progress;
  readonly signal: AbortSignal;
}

const MEMORY = 768 << 20;
/** Sparse: only what is written takes room. */
const LARGEST_CHANGES = 2 ** 31;
const STATES = /^Setting up (\S+)/;
/** Of what the scripts wrote, what a failure shows. */
const LAST_LINES = 12;

/** The changes as a tar archive; its caller closes the descriptor. */
export async function configurePackages(options: ConfigureOptions): Promise<FileRange> {
  const path = join(options.folder, "changes");
  const descriptor = openSync(path, "w+", 0o600);
  try {
    ftruncateSync(descriptor, LARGEST_CHANGES);
    await runScripts(options, path);
    return { descriptor, offset: 0, size: archiveSize(descriptor) };
  } catch (error) {
    closeSync(descriptor);
    throw error;
  }
}

async function runScripts(options: ConfigureOptions, changes: string): Promise<void> {
  const { kernel, disk, count, progress, signal } = options;
  const config: MachineConfig = {
    kernel: kernel.kernel,
    initrd: initrdFor(options),
    cmdline: `${CONSOLE_COMMAND_LINE} quiet`,
    memoryBytes: MEMORY,
    cpuModel: DEFAULT_CPU_MODEL,
    clock: "wall",
    engine: DEFAULT_ENGINE,
    traceExits: false,
    entropyDevice: true,
    disks: [
      { path: disk, format: "raw", mode: "read" },
      { path: changes, format: "raw", mode: "write" },
    ],
    rtcEpochMs: Date.now(),
  };
  const bar = progress.count("configuring packages", count);
  let done = 0;
  const said = new LineKeeper((line) => {
    if (STATES.test(line)) bar.update(++done);
  });
  try {
    const { status, reason, tail } = await runJob(config, (bytes) => said.add(bytes), signal);
    if (status === 0) return;
    const how =
      status === undefined
        ? `the machine ended before they were done (${reason.message ?? reason.kind})`
        : `they ended with ${status}`;
    throw new HypolithError("configure-failed", `the packages cannot be configured: ${how}`, {
      hint: [...said.last(LAST_LINES), ...(status === undefined ? [tail] : [])].join("\n"),
    });
  } finally {
    bar.end();
  }
}

function initrdFor({ kernel, preinst }: ConfigureOptions): Uint8Array {
  const drivers = [...DISK_DRIVERS, ...ROOT_DRIVERS];
  return buildInitramfs({
    busybox: kernel.busybox,
    modules: withDependencies(kernel.modules, drivers),
    root: { device: "/dev/vda", process: undefined },
    job: {
      argv: ["sh", "-c", outerScript(preinst)],
      environment: JOB_ENVIRONMENT,
      mode: "pipes",
      input: { kind: "none" },
      window: { rows: 25, columns: 80 },
      hasNetwork: false,
    },
  });
}

/** In our initramfs, beside the tree. */
function outerScript(preinst: readonly string[]): string {
  return `exec 2>&1
[ -f /hypo/root-ready ] || { echo "the tree cannot be mounted"; exit 1; }
root=/hypo/root
mount -t tmpfs -o mode=755 tmpfs $root/run
mount -t tmpfs -o mode=1777 tmpfs $root/tmp
chroot $root /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb LC_ALL=C.UTF-8 \\
  DEBIAN_FRONTEND=noninteractive DEBCONF_NONINTERACTIVE_SEEN=true sh -e -c '${innerScript(preinst)}' || exit 1
umount $root/run $root/tmp
# What a machine makes for itself at every start is no part of the image.
rm -f /hypo/changes/upper/etc/hosts /hypo/changes/upper/etc/hostname /hypo/changes/upper/etc/resolv.conf
tar -c -C /hypo/changes/upper . >/dev/vdb && sync
`;
}

/**
 * In the tree. Has no single quote. The scripts that come before unpacking run after it here, on a system that is empty either way; that of
 * base-passwd first, which makes the users.
 */
function innerScript(preinst: readonly string[]): string {
  const first = preinst.filter((label) => label === "base-passwd");
  const labels = [...first, ...preinst.filter((label) => label !== "base-passwd")];
  return `[ -e /usr/bin/awk ] || ln -s mawk /usr/bin/awk
export DPKG_ADMINDIR=/var/lib/dpkg DPKG_ROOT= DPKG_MAINTSCRIPT_DEBUG=0 DPKG_MAINTSCRIPT_PACKAGE_REFCOUNT=1
DPKG_RUNNING_VERSION=$(dpkg-query -f "\\\${Version}" -W dpkg) DPKG_MAINTSCRIPT_ARCH=$(dpkg --print-architecture)
export DPKG_RUNNING_VERSION DPKG_MAINTSCRIPT_ARCH DPKG_MAINTSCRIPT_NAME=preinst
for label in ${labels.join(" ")}; do
  DPKG_MAINTSCRIPT_PACKAGE=\${label%%:*} /var/lib/dpkg/info/$label.preinst install
done
unset DPKG_ADMINDIR DPKG_ROOT DPKG_MAINTSCRIPT_DEBUG DPKG_MAINTSCRIPT_PACKAGE_REFCOUNT DPKG_RUNNING_VERSION
unset DPKG_MAINTSCRIPT_ARCH DPKG_MAINTSCRIPT_NAME
dpkg --force-unsafe-io --configure -a
ldconfig
# In a machine without a dialog program every package would complain of that.
echo "debconf debconf/frontend select Noninteractive" | debconf-set-selections
rm -rf /var/cache/debconf/*-old /var/lib/dpkg/*-old /var/cache/ldconfig/aux-cache /var/log/*.log /var/log/apt/*
# What apt makes of its lists before it does anything else.
apt-cache gencaches
[ -z "$(dpkg --audit)" ]`;
}

interface JobEnd {
  /** Of the job; undefined if the machine ended otherwise. */
  readonly status: number | undefined;
  readonly reason: StopReason;
  readonly tail: string;
}

async function runJob(
  config: MachineConfig,
  onOutput: (bytes: Uint8Array) => void,
  signal: AbortSignal,
): Promise<JobEnd> {
  signal.throwIfAborted();
  const tail = new ConsoleTail();
  const control = new ControlLine(() => {}, { ready: () => {}, inputWanted: () => {} });
  let client!: VmClient;
  const stopped = new Promise<StopReason>((resolve) => {
    client = new VmClient(machineWorkerUrl(), {
      output: (port, data) => {
        if (port === SerialUse.CONTROL) control.receive(data);
        else if (port === SerialUse.CONSOLE) tail.add(data);
        else onOutput(data);
      },
      trace: () => {},
      jitStats: () => {},
      profile: () => {},
      log: () => {},
      started: () => {},
      stopped: resolve,
    });
  });
  const abort = (): void => void client.kill();
  signal.addEventListener("abort", abort);
  try {
    client.start(config);
    const reason = await stopped;
    signal.throwIfAborted();
    return { status: control.exitStatus, reason, tail: tail.panic ?? tail.lastLines() };
  } finally {
    signal.removeEventListener("abort", abort);
    await client.kill();
  }
}

/** What is on the disk is an archive and then nothing. */
function archiveSize(descriptor: number): number {
  let end = 0;
  for (const { offset, size } of readTar({ descriptor, offset: 0, size: LARGEST_CHANGES }))
    end = offset + Math.ceil(size / 512) * 512;
  const trailer = Buffer.alloc(1024);
  const got = readSync(descriptor, trailer, 0, trailer.length, end);
  if (end === 0 || got < trailer.length || trailer.some((byte) => byte !== 0))
    throw new HypolithError("configure-failed", "the machine has left no archive of the changes");
  return end + trailer.length;
}

class LineKeeper {
  readonly #onLine: (line: string) => void;
  #lines: string[] = [];
  #partial = "";

  constructor(onLine: (line: string) => void) {
    this.#onLine = onLine;
  }

  add(bytes: Uint8Array): void {
    const lines = (this.#partial + Buffer.from(bytes).toString("utf8")).split("\n");
    this.#partial = lines.pop()!;
    for (const line of lines) this.#onLine(line);
    this.#lines = [...this.#lines, ...lines].slice(-100);
  }

  last(count: number): string[] {
    return [...this.#lines, this.#partial].filter((line) => line.trim() !== "").slice(-count);
  }
}
