/**
 * The initial root file system: busybox as userland, our scripts, and what this run shall do.
 *
 * Built anew for every run, in memory: it is 2 MB and takes milliseconds, and so nothing that changes between runs is ever cached.
 */
import { CpioArchive, joinArchives } from "../image/cpio.ts";
import { type GuestJob, jobScript, mountTable, sessionConfig } from "./job.ts";
import { type GuestRoot, rootJob, rootSetup } from "./root.ts";
import {
  GUEST_HOME,
  INIT_SCRIPT,
  LAUNCH_SCRIPT,
  PROFILE_SCRIPT,
  SESSION_SCRIPT,
} from "./scripts.ts";

/** What the kernel must be told to start our init in a foreign initramfs. */
export const FOREIGN_INIT_PARAMETER = `rdinit=/${GUEST_HOME}/init`;

export interface KernelModule {
  /** File name, "virtio_rng.ko". */
  readonly name: string;
  readonly content: Uint8Array;
}

export interface InitramfsParts {
  readonly busybox: Uint8Array;
  /** In load order. */
  readonly modules: readonly KernelModule[];
  readonly job: GuestJob;
  /** The program by which we start others in the guest. */
  readonly agent?: Uint8Array;
  /** The image whose process runs, instead of our own userland. */
  readonly root?: GuestRoot;
}

const OWN_FILES: ReadonlyArray<readonly [path: string, content: string]> = [
  ["etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"],
  ["etc/group", "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n"],
  ["etc/hostname", "hypolith\n"],
  ["etc/hosts", "127.0.0.1\tlocalhost\n127.0.1.1\thypolith\n::1\tlocalhost\n"],
  ["etc/profile", PROFILE_SCRIPT],
];

const DIRECTORIES = [
  ...["bin", "dev", "etc", "mnt", "proc", "root", "run", "sbin", "sys", "tmp"],
  ...["usr", "usr/bin", "usr/sbin", "var", "var/log"],
];

/** A whole root file system of busybox. */
export function buildInitramfs(parts: InitramfsParts): Uint8Array {
  const archive = new CpioArchive();
  for (const path of DIRECTORIES) archive.directory(path, path === "tmp" ? 0o1777 : 0o755);
  // The kernel opens its console before anything has mounted /dev.
  archive.characterDevice("dev/console", 5, 1, 0o600);
  archive.characterDevice("dev/null", 1, 3, 0o666);
  for (const [path, content] of OWN_FILES) archive.file(path, content);
  archive.link("init", `${GUEST_HOME}/init`);
  addOwnPart(archive, parts, "busybox");
  return archive.toBytes();
}

/**
 * Our part alone, in front of an initramfs of the user's: the job runs in that userland. In front, because every kernel accepts an
 * uncompressed archive there (it is how processor microcode travels), while not every compressed one may be followed by another.
 */
export function joinForeignInitramfs(foreign: Uint8Array, parts: InitramfsParts): Uint8Array {
  const archive = new CpioArchive();
  archive.directory("dev").characterDevice("dev/console", 5, 1, 0o600);
  addOwnPart(archive, parts, "foreign");
  return joinArchives(archive.toBytes(), foreign);
}

function addOwnPart(
  archive: CpioArchive,
  { busybox, modules, job, agent, root }: InitramfsParts,
  userland: "busybox" | "foreign",
): void {
  const home = GUEST_HOME;
  archive.directory(home).directory(`${home}/modules`);
  archive.file(`${home}/busybox`, busybox, 0o755);
  archive.file(`${home}/init`, INIT_SCRIPT, 0o755);
  archive.file(`${home}/session`, SESSION_SCRIPT, 0o755);
  archive.file(`${home}/launch`, LAUNCH_SCRIPT, 0o755);
  if (agent) archive.file(`${home}/agent`, agent, 0o755);
  if (root) {
    archive.file(`${home}/root-setup`, rootSetup(root));
    if (root.process) archive.file(`${home}/root-job`, rootJob(root.process));
  }
  for (const { name, content } of modules) archive.file(`${home}/modules/${name}`, content);
  const names = modules.map((module) => module.name);
  archive.file(`${home}/config`, sessionConfig(job, userland, names));
  archive.file(`${home}/job`, jobScript(job));
  if (job.mounts?.length) archive.file(`${home}/mounts`, mountTable(job.mounts));
  if (job.input.kind === "file") archive.file(`${home}/stdin`, job.input.content, 0o600);
}
