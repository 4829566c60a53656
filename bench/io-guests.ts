/** The guests of `npm run bench -- io`: QEMU's TCG and our engines with the same kernel, disks, card and user-mode network. */
import { execFileSync } from "node:child_process";
import { once } from "node:events";
import {
  closeSync,
  ftruncateSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { type AddressInfo, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { bootFiles } from "../conformance/harness/boot.ts";
import { CHECKOUT } from "../conformance/harness/cache.ts";
import type { BootFiles, GuestMachine } from "../conformance/harness/guest-machine.ts";
import { type ModularKernel, modularKernel } from "../conformance/harness/kernel-modules.ts";
import { DHCP_SCRIPT } from "../conformance/harness/network-guest.ts";
import { QemuMachine } from "../conformance/harness/qemu-machine.ts";
import { WorkerProcess } from "../conformance/harness/worker-process.ts";
import type { EngineName } from "../src/control/protocol.ts";
import { compile } from "./build-programs.ts";
import { KERNEL_WORDS, V2_TERMS } from "./even-terms.ts";
import { Guest, QEMU_NAME } from "./guests.ts";
import {
  BODY_BYTES,
  DISK_MIB,
  FILE_BYTES,
  FILES_EACH,
  HTTP_PORT,
  SHARED_FOLDERS,
} from "./io-table.ts";
import type { BenchOptions } from "./options.ts";

const MODULES = ["virtio_pci", "virtio_blk", "virtio_net", "9pnet_virtio", "9p", "virtiofs"];
const MIB = 1 << 20;
const SETUP_SECONDS = 60;
const [TAG_9P, TAG_FS] = ["share-9p", "share-fs"];
const MOUNT_9P = `mount -t 9p -o trans=virtio,version=9p2000.L,msize=524288 ${TAG_9P}`;
/** A channel of 9P takes one mount. */
const MOUNT_AGAIN = "mount --bind /share-9p";
const MOUNT_FS = `mount -t virtiofs ${TAG_FS}`;

export interface IoGuest {
  readonly guest: Guest;
  /** Outside, of the guest's HTTP server. */
  readonly httpPort: number;
}

interface Files {
  readonly raw: string;
  readonly base: string;
  readonly shared: string;
}

/** Boots all and sets up disks, network and the guests' servers. The images go with the process. */
export async function bootIoGuests(options: BenchOptions): Promise<Record<string, IoGuest>> {
  const kernel = await modularKernel("generic", MODULES);
  const files = await guestFiles(kernel, options);
  const folder = mkdtempSync(join(tmpdir(), "hypolith-bench-io-"));
  process.once("exit", () => rmSync(folder, { recursive: true, force: true }));
  const shared = sharedFolder(folder);
  const guests: Record<string, IoGuest> = {};
  const names = [...(options.withQemu ? [QEMU_NAME] : []), ...options.engines];
  for (const name of names) {
    options.progress(`booting ${name}`);
    const httpPort = await freePort();
    const [raw, base] = [image(folder, `${name}-raw`), image(folder, `${name}-base`)];
    const disks = { raw, base, shared };
    const machine =
      name === QEMU_NAME
        ? qemu(files, disks, httpPort, options)
        : ours(files, disks, { httpPort, engine: name as EngineName, options });
    guests[name] = { guest: new Guest(machine), httpPort };
    await setUp(guests[name].guest, kernel, name === QEMU_NAME ? MOUNT_AGAIN : MOUNT_FS);
  }
  return guests;
}

async function guestFiles(kernel: ModularKernel, options: BenchOptions): Promise<BootFiles> {
  const flags = ["-O2", "-static", "-std=gnu11", "-march=x86-64"];
  const programs = await Promise.all(
    ["disk", "net"].map(async (name) => {
      const path = await compile(join(CHECKOUT, `bench/programs/${name}.c`), flags);
      return { path: `lab/${name}`, content: readFileSync(path), executable: true };
    }),
  );
  const script = { path: "lab/udhcpc.sh", content: DHCP_SCRIPT, executable: true };
  return bootFiles(kernel, {
    files: [...kernel.modules, ...programs, script],
    memoryMib: options.memoryMib,
    append: KERNEL_WORDS,
  });
}

/** Every block says which one it is, so that no part of it is a hole. */
function image(folder: string, name: string): string {
  const path = join(folder, name);
  const file = openSync(path, "wx");
  const chunk = Buffer.alloc(MIB);
  for (let i = 0; i < DISK_MIB; i++) {
    for (let at = 0; at < MIB; at += 512) chunk.writeUInt32LE(i * MIB + at + 1, at);
    writeSync(file, chunk);
  }
  ftruncateSync(file, DISK_MIB * MIB);
  closeSync(file);
  return path;
}

function sharedFolder(folder: string): string {
  const shared = join(folder, "shared");
  for (let d = 0; d < SHARED_FOLDERS; d++) {
    mkdirSync(join(shared, `d${d}`), { recursive: true });
    for (let f = 0; f < FILES_EACH; f++)
      writeFileSync(join(shared, `d${d}`, `f${f}`), Buffer.alloc(FILE_BYTES, f));
  }
  // What `find -newer` compares with, and nothing else.
  utimesSync(join(shared, "d0", "f0"), 1, 1);
  return shared;
}

function qemu(
  files: BootFiles,
  { raw, base, shared }: Files,
  httpPort: number,
  { qemuCpu }: BenchOptions,
): GuestMachine {
  const overlay = `${base}.qcow2`;
  const create = ["create", "-q", "-f", "qcow2", "-F", "raw", "-b", base, overlay];
  execFileSync("qemu-img", create, { stdio: "pipe" });
  const devices = [
    ...["-drive", `file=${raw},format=raw,if=none,id=a`, "-device", "virtio-blk-pci,drive=a"],
    ...["-drive", `file=${overlay},format=qcow2,if=none,id=b`, "-device", "virtio-blk-pci,drive=b"],
    ...["-netdev", `user,id=n,hostfwd=tcp:127.0.0.1:${httpPort}-:${HTTP_PORT}`],
    ...["-device", "virtio-net-pci,netdev=n"],
    ...["-fsdev", `local,id=s,path=${shared},security_model=none,multidevs=remap`],
    ...["-device", `virtio-9p-pci,fsdev=s,mount_tag=${TAG_9P}`],
  ];
  return new QemuMachine(files, qemuCpu ?? V2_TERMS.qemuCpu, devices);
}

function ours(
  files: BootFiles,
  { raw, base, shared }: Files,
  {
    httpPort,
    engine,
    options,
  }: {
    readonly httpPort: number;
    readonly engine: EngineName;
    readonly options: BenchOptions;
  },
): GuestMachine {
  const disks = [
    { path: raw, format: "raw", mode: "write" },
    { path: base, format: "raw", mode: "scratch" },
  ] as const;
  const network = { forwards: [`127.0.0.1:${httpPort}:${HTTP_PORT}`] };
  const shares = [
    { path: shared, tag: TAG_9P, protocol: "9p", readOnly: false },
    { path: shared, tag: TAG_FS, protocol: "fs", readOnly: false },
  ] as const;
  const changes = { engine, disks, network, shares };
  return new WorkerProcess({ ...files, cpuModel: V2_TERMS.cpuModel, changes }, options.nodeOptions);
}

async function setUp(guest: Guest, kernel: ModularKernel, mount: string): Promise<void> {
  await guest.ready();
  const commands = [
    ...kernel.modules.map(({ path }) => `insmod /${path}`),
    "ip link set lo up && ip link set eth0 up",
    "udhcpc -i eth0 -n -q -f -t 12 -s /lab/udhcpc.sh",
    `/lab/net serve ${HTTP_PORT} ${BODY_BYTES} >/dev/null 2>&1 &`,
    "[ -b /dev/vda ] && [ -b /dev/vdb ]",
    `mkdir -p /share /share-9p && ${MOUNT_9P} /share-9p && ${mount} /share`,
  ];
  for (const command of commands) {
    const { status, output } = await guest.run(command, SETUP_SECONDS);
    if (status === 0) continue;
    guest.kill();
    throw new Error(`'${command}' in the guest: status ${status}: ${output}`);
  }
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, "close");
  return port;
}
