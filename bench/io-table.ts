/**
 * The rows of `npm run bench -- io`: what a guest does with its disk and its network, and how much of it.
 *
 * /dev/vda is a raw image that is written to, /dev/vdb a fresh qcow2 overlay over such an image. Each is DISK_MIB large. `round` is for rows
 * that need something untouched. /share and /share-9p are the same folder of this computer: by what each machine does best (ours virtio-fs, QEMU's 9P, which
 * needs no other program), and by 9P for both.
 */
export const DISK_MIB = 256;
/** Of the guest's HTTP server. */
export const HTTP_PORT = 80;
export const BODY_BYTES = 1024;
/** Of the shared folder. */
export const SHARED_FOLDERS = 30;
export const FILES_EACH = 20;
export const FILE_BYTES = 3000;
const FILES = SHARED_FOLDERS * FILES_EACH;

export type IoUnit = "MiB" | "op";

export interface IoRow {
  readonly name: string;
  readonly group: "disk" | "network" | "share";
  readonly description: string;
  readonly unit: IoUnit;
  readonly amount: number;
  readonly work: IoWork;
}

/** A command in the guest, or requests from outside to its server. */
export type IoWork =
  | { readonly kind: "guest"; readonly command: (round: number, peers: IoPeers) => string }
  | { readonly kind: "http"; readonly keeps: boolean; readonly connections: number };

/** Ports of servers outside; for the guest they are at 10.0.2.2. */
export interface IoPeers {
  readonly source: number;
  readonly sink: number;
  readonly echo: number;
}

const GATEWAY = "10.0.2.2";
const SMALL = 4096;
const LARGE = 1 << 20;
const blocks = (bytes: number): number => (DISK_MIB << 20) / bytes;

interface DiskWork {
  readonly mode: "read" | "write" | "sync";
  readonly bytes: number;
  readonly count: number;
  readonly isRandom?: boolean;
  readonly processes?: number;
  readonly disk?: "vda" | "vdb";
}

function disk(name: string, description: string, work: DiskWork): IoRow {
  const { mode, bytes, count, isRandom = false, processes = 1, disk: device = "vda" } = work;
  const isLarge = bytes >= LARGE;
  return {
    ...{ name, description, group: "disk" },
    unit: isLarge ? "MiB" : "op",
    amount: (isLarge ? bytes / LARGE : 1) * count * processes,
    work: {
      kind: "guest",
      command: (round) => {
        const seed = isRandom ? 0x9e37 * (round + 1) : 0;
        const words = [mode, `/dev/${device}`, bytes, count, 0, blocks(bytes), seed, processes];
        return `/lab/disk ${words.join(" ")}`;
      },
    },
  };
}

const guest = (command: (peers: IoPeers) => string): IoWork => ({
  kind: "guest",
  command: (_, peers) => command(peers),
});

const STREAM_MIB = 64;
const PINGS = 2000;

const DROP = "echo 2 >/proc/sys/vm/drop_caches";

/** What git status does: looks at all files, which it has seen before, and at all folders. */
const status = (place: string): string =>
  `for i in 1 2; do find ${place} -type f -newer ${place}/d0/f0 | wc -l; done`;

function share(name: string, description: string, amount: number, command: string): IoRow {
  return {
    ...{ name, description, group: "share", unit: "op", amount },
    work: guest(() => command),
  };
}

export const IO_ROWS: readonly IoRow[] = [
  disk("read-1m", "sequential, 1 MiB at a time", { mode: "read", bytes: LARGE, count: 192 }),
  disk("write-1m", "sequential, 1 MiB at a time", { mode: "write", bytes: LARGE, count: 192 }),
  disk("read-4k", "at random", { mode: "read", bytes: SMALL, count: 4000, isRandom: true }),
  disk("write-4k", "at random", { mode: "write", bytes: SMALL, count: 4000, isRandom: true }),
  disk("read-4k-8", "at random, 8 processes", {
    ...{ mode: "read", bytes: SMALL, count: 500, isRandom: true, processes: 8 },
  }),
  disk("sync-4k", "at random, each made safe", {
    ...{ mode: "sync", bytes: SMALL, count: 300, isRandom: true },
  }),
  disk("overlay-read", "a qcow2 overlay, 1 MiB at a time", {
    ...{ mode: "read", bytes: LARGE, count: 192, disk: "vdb" },
  }),
  disk("overlay-4k", "a qcow2 overlay, written at random", {
    ...{ mode: "write", bytes: SMALL, count: 1000, isRandom: true, disk: "vdb" },
  }),
  {
    ...{ name: "read-ahead", group: "disk", unit: "MiB", amount: DISK_MIB },
    description: "through the page cache",
    work: {
      kind: "guest",
      command: () => `echo 3 >/proc/sys/vm/drop_caches; cat /dev/vda | tail -c 8 | sha256sum`,
    },
  },
  {
    ...{ name: "tcp-in", group: "network", unit: "MiB", amount: STREAM_MIB },
    description: "one stream into the guest",
    work: guest(({ source }) => `/lab/net receive ${GATEWAY} ${source} ${STREAM_MIB << 20}`),
  },
  {
    ...{ name: "tcp-out", group: "network", unit: "MiB", amount: STREAM_MIB },
    description: "one stream out of the guest",
    work: guest(({ sink }) => `/lab/net send ${GATEWAY} ${sink} ${STREAM_MIB << 20}`),
  },
  {
    ...{ name: "tcp-echo", group: "network", unit: "op", amount: PINGS },
    description: "a byte there and back",
    work: guest(({ echo }) => `/lab/net echo ${GATEWAY} ${echo} ${PINGS}`),
  },
  {
    ...{ name: "http", group: "network", unit: "op", amount: 500 },
    description: "requests by a forwarded port, a connection each, 4 at once",
    work: { kind: "http", keeps: false, connections: 4 },
  },
  {
    ...{ name: "http-keep", group: "network", unit: "op", amount: 2000 },
    description: "requests by a forwarded port, 4 connections kept",
    work: { kind: "http", keeps: true, connections: 4 },
  },
  share("walk", "files of a tree found, nothing cached", FILES, `${DROP}; find /share | wc -l`),
  share("status", "files looked at, twice", 2 * FILES, status("/share")),
  share(
    ...(["cat", "files read, nothing cached", FILES] as const),
    `${DROP}; find /share -type f | xargs cat | wc -c`,
  ),
  share("walk-9p", "as walk, by 9P", FILES, `${DROP}; find /share-9p | wc -l`),
  share("status-9p", "as status, by 9P", 2 * FILES, status("/share-9p")),
];
