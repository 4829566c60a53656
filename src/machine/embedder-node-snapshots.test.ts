/** Snapshots as folders: disks, replacement, what is left of a process that was killed, and what is refused. */
import assert from "node:assert/strict";
import {
  copyFileSync,
  cpSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { hostedKernel, powerOff } from "../../guests/hosted.ts";
import { HypolithError } from "../base/errors.ts";
import type { DiskConfig, MachineConfig } from "../control/protocol.ts";
import { runNow } from "../storage/block-port.ts";
import { openDisk, openDisks } from "./embedder-node-files.ts";
import {
  hasSnapshot,
  nodeChecksum,
  openSnapshot,
  publishSnapshot,
  resumedConfig,
  writeSnapshotFiles,
} from "./embedder-node-snapshots.ts";
import { Machine } from "./machine.ts";
import type { SnapshotFile } from "./snapshot/snapshot-file.ts";
import { smallConfig } from "./testing/fake-scope.ts";

const SECTOR = 512;
const DISK_BYTES = 1 << 20;

interface World {
  readonly folder: string;
  readonly image: string;
  readonly snapshot: string;
}

function makeWorld(t: TestContext): World {
  const folder = mkdtempSync(join(tmpdir(), "hypo-snapshot-"));
  t.after(() => rmSync(folder, { recursive: true }));
  const image = join(folder, "image.raw");
  writeFileSync(image, Buffer.alloc(DISK_BYTES, 1));
  return { folder, image, snapshot: join(folder, "snapshots/web") };
}

function machineOf(config: MachineConfig, snapshot?: SnapshotFile) {
  const disks = openDisks(config.disks ?? []);
  const machine = new Machine(config, {
    nowMs: () => 0,
    realTimeMs: () => Date.now(),
    entropy: () => 1n,
    doorbell: () => false,
    send: () => {},
    checksum: nodeChecksum,
    disks,
    snapshot,
  });
  return { machine, disks: disks.map((disk, i) => ({ config: config.disks![i]!, disk })) };
}

function start({ image }: World, ...disks: DiskConfig[]) {
  const all = disks.length > 0 ? disks : [{ path: image, mode: "scratch" } as const];
  return machineOf(smallConfig(hostedKernel(powerOff), { disks: all }));
}

async function save(
  { machine, disks }: ReturnType<typeof start>,
  folder: string,
  about = "{}",
): Promise<void> {
  await publishSnapshot(folder, writeSnapshotFiles(machine, disks, folder, about).draft);
}

function goOn(folder: string) {
  const opened = openSnapshot(folder);
  return machineOf(resumedConfig(opened, folder), opened.file);
}

const byteAt = ({ disks }: ReturnType<typeof start>, sector: number, i = 0): number => {
  const bytes = new Uint8Array(SECTOR);
  runNow(disks[i]!.disk.disk.read(sector * SECTOR, bytes));
  return bytes[0]!;
};
const write = ({ disks }: ReturnType<typeof start>, sector: number, byte: number, i = 0): void =>
  runNow(disks[i]!.disk.disk.write(sector * SECTOR, new Uint8Array(SECTOR).fill(byte)));

const refusal = (make: () => unknown): string => {
  try {
    make();
  } catch (error) {
    assert.ok(error instanceof HypolithError, String(error));
    return error.code;
  }
  return "none";
};

test("what was written to disks is in a snapshot, generation by generation, and nothing writes to it", async (t) => {
  const world = makeWorld(t);
  const first = start(world);
  write(first, 3, 33);
  await save(first, world.snapshot, '{"a":1}');
  assert.equal(openSnapshot(world.snapshot).about, '{"a":1}');
  write(first, 3, 99);
  const second = goOn(world.snapshot);
  assert.deepEqual([byteAt(second, 3), byteAt(second, 4)], [33, 1]);
  write(second, 4, 44);
  const other = join(world.folder, "snapshots/two");
  await save(second, other);
  // The first snapshot may go: the second has all that it needs.
  rmSync(world.snapshot, { recursive: true });
  const third = goOn(other);
  assert.deepEqual([byteAt(third, 3), byteAt(third, 4), byteAt(third, 5)], [33, 44, 1]);
  write(third, 5, 55);
  const fourth = goOn(other);
  assert.deepEqual([byteAt(fourth, 3), byteAt(fourth, 4), byteAt(fourth, 5)], [33, 44, 1]);
  // Its layers have no names any more, and are open.
  rmSync(other, { recursive: true });
  await save(third, other);
  const fifth = goOn(other);
  assert.deepEqual([byteAt(fifth, 3), byteAt(fifth, 4), byteAt(fifth, 5)], [33, 44, 55]);
  assert.equal(
    readFileSync(world.image).every((byte) => byte === 1),
    true,
  );
});

test("disks of every mode", async (t) => {
  const world = makeWorld(t);
  const written = join(world.folder, "written.raw");
  copyFileSync(world.image, written);
  const overlay = join(world.folder, "overlay.qcow2");
  const before = start(
    world,
    { path: world.image, mode: "read" },
    { path: written, mode: "write", format: "raw" },
    { path: world.image, mode: "scratch", overlay },
  );
  write(before, 1, 11, 1);
  write(before, 1, 12, 2);
  await save(before, world.snapshot);
  write(before, 1, 21, 1);
  write(before, 1, 22, 2);
  const after = goOn(world.snapshot);
  assert.deepEqual(
    [0, 1, 2].map((i) => byteAt(after, 1, i)),
    [1, 11, 12],
  );
  write(after, 2, 77, 1);
  write(after, 2, 78, 2);
  assert.equal(readFileSync(written)[2 * SECTOR], 1, "the user's image is the first machine's");
  assert.throws(() => write(after, 2, 79, 0));
  await save(after, world.snapshot);
  const last = goOn(world.snapshot);
  assert.deepEqual(
    [0, 1, 2].map((i) => byteAt(last, 2, i)),
    [1, 77, 78],
  );
});

test("a snapshot is replaced when the new one is whole, not before, and halves are taken away", async (t) => {
  const world = makeWorld(t);
  const machine = start(world);
  write(machine, 1, 5);
  await save(machine, world.snapshot);
  write(machine, 1, 6);
  // A process that is killed here leaves files without a name in the manifest.
  const { draft } = writeSnapshotFiles(machine.machine, machine.disks, world.snapshot, "{}");
  assert.equal(byteAt(goOn(world.snapshot), 1), 5);
  assert.equal(readdirSync(world.snapshot).length, 5);
  await save(machine, world.snapshot);
  assert.equal(byteAt(goOn(world.snapshot), 1), 6);
  assert.equal(readdirSync(world.snapshot).length, 3, "what nothing names is gone");
  await assert.rejects(publishSnapshot(world.snapshot, draft), { code: "snapshot-write" });
  assert.equal(byteAt(goOn(world.snapshot), 1), 6);
  const fresh = join(world.folder, "snapshots/never");
  writeSnapshotFiles(machine.machine, machine.disks, fresh, "{}");
  assert.equal(hasSnapshot(fresh), false);
  assert.equal(
    refusal(() => openSnapshot(fresh)),
    "snapshot-absent",
  );
});

test("what cannot be written leaves nothing", async (t) => {
  const world = makeWorld(t);
  const machine = start(world);
  const blocked = join(world.folder, "file");
  writeFileSync(blocked, "");
  const fails = () => writeSnapshotFiles(machine.machine, machine.disks, join(blocked, "x"), "{}");
  assert.equal(refusal(fails), "snapshot-write");
  const ended = start(world);
  ended.machine.stop();
  const into = join(world.folder, "snapshots/ended");
  assert.equal(
    refusal(() => writeSnapshotFiles(ended.machine, ended.disks, into, "{}")),
    "snapshot-ended",
  );
  assert.equal(existsSync(into), false);
});

test("files that are damaged, missing, or over another image are refused", async (t) => {
  const world = makeWorld(t);
  const machine = start(world);
  write(machine, 1, 5);
  await save(machine, world.snapshot);
  const files = readdirSync(world.snapshot);
  const named = (end: string): string => files.find((file) => file.endsWith(end))!;
  const withCopy = (change: (folder: string) => void): string => {
    const copy = mkdtempSync(join(world.folder, "copy-"));
    cpSync(world.snapshot, copy, { recursive: true });
    change(copy);
    return refusal(() => goOn(copy));
  };
  assert.equal(
    withCopy(() => {}),
    "none",
  );
  assert.equal(
    withCopy((at) => rmSync(join(at, "snapshot.json"))),
    "snapshot-absent",
  );
  assert.equal(
    withCopy((at) => rmSync(join(at, named(".machine")))),
    "snapshot-truncated",
  );
  assert.equal(
    withCopy((at) => rmSync(join(at, named(".disk0.0")))),
    "snapshot-truncated",
  );
  assert.equal(
    withCopy((at) => truncateSync(join(at, named(".disk0.0")), 100)),
    "snapshot-truncated",
  );
  assert.equal(
    withCopy((at) => truncateSync(join(at, named(".machine")), 9000)),
    "snapshot-truncated",
  );
  const manifest = (text: string) => (at: string) => writeFileSync(join(at, "snapshot.json"), text);
  for (const text of [
    "",
    "{",
    "null",
    "[]",
    '{"format":1}',
    '{"format":1,"id":"../x","machine":{}}',
  ])
    assert.equal(withCopy(manifest(text)), "snapshot-corrupt", text);
  assert.equal(withCopy(manifest('{"format":2}')), "snapshot-version");
  const outside = readFileSync(join(world.snapshot, "snapshot.json"), "utf8");
  assert.equal(
    withCopy(manifest(outside.replace(named(".machine"), "../../image.raw"))),
    "snapshot-corrupt",
  );
  // A time that has changed alone says nothing.
  utimesSync(world.image, 1, 1);
  assert.equal(
    withCopy(() => {}),
    "none",
  );
  runNow(openDisk({ path: world.image, mode: "write", format: "raw" }).write(0, Buffer.alloc(512)));
  assert.equal(
    withCopy(() => {}),
    "snapshot-image",
  );
  rmSync(world.image);
  assert.equal(
    withCopy(() => {}),
    "snapshot-image",
  );
});
