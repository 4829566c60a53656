/**
 * Snapshots as folders of Node's file system. docs/snapshot-format.md describes them.
 *
 *   snapshot.json      which files are the snapshot's; appears and is replaced by rename, so there is always a whole one or none
 *   ID.machine         snapshot/snapshot-file.ts
 *   ID.disk0.0 ...     what has been written to a disk: overlays, oldest first; those of earlier lives are links to the same files
 *
 * Files are never changed once they are named. What a process that was killed has left is taken away by the next that writes there. Images
 * below the overlays are not kept, only looked at again: they are the user's, or can be fetched.
 */
import { randomBytes } from "node:crypto";
import {
  closeSync,
  constants,
  linkSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  rmdirSync,
  rmSync,
  statSync,
} from "node:fs";
import { open, rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { crc32 } from "node:zlib";
import { HypolithError } from "../base/errors.ts";
import type { DiskConfig, DiskFormat, MachineConfig } from "../control/protocol.ts";
import { runNow } from "../storage/block-port.ts";
import { type FileDisk, FilePort } from "./embedder-node-files.ts";
import type { Machine } from "./machine.ts";
import type { Checksum } from "./snapshot/crc32.ts";
import { type MachineDescription, readDescription } from "./snapshot/machine-snapshot.ts";
import { corrupt, SnapshotFile } from "./snapshot/snapshot-file.ts";

const MANIFEST = "snapshot.json";
const FORMAT = 1;
const ID = /^[0-9a-f]{16}$/;
const FILE = /^[0-9a-f]{16}\.(?:machine|disk\d+\.\d+)$/;
const { O_CREAT, O_EXCL, O_RDONLY, O_RDWR } = constants;
/** Pieces of an image that are looked at to tell it from another one. */
const SAMPLES = 16;
const SAMPLE_BYTES = 1 << 14;

interface Manifest {
  readonly format: typeof FORMAT;
  readonly id: string;
  readonly machine: FileRecord;
  readonly disks: readonly DiskRecord[];
}

interface FileRecord {
  readonly file: string;
  readonly bytes: number;
}

interface DiskRecord {
  readonly mode: DiskConfig["mode"];
  /** The image below; null: the first file is all of it. */
  readonly image: ImageRecord | null;
  readonly format?: DiskFormat;
  readonly files: readonly FileRecord[];
}

interface ImageRecord {
  readonly path: string;
  readonly bytes: number;
  /** Milliseconds since 1970. */
  readonly changed: number;
  /** CRC-32 of some pieces of it. */
  readonly samples: number;
}

export const nodeChecksum: Checksum = (bytes, before) => crc32(bytes, before);

/** A snapshot that has been opened: its files stay open whatever becomes of their names. */
export interface OpenSnapshot {
  readonly file: SnapshotFile;
  readonly description: MachineDescription;
  readonly about: string;
  readonly bytes: number;
  /** Disks of a machine that goes on from it. */
  readonly disks: readonly DiskConfig[];
  /** It is not read any more. */
  close(): void;
}

/** Files that are no snapshot yet. */
export interface SnapshotDraft {
  /** For publishSnapshot. */
  readonly draft: string;
  readonly bytes: number;
}

/**
 * Writes the files of a snapshot of a machine that stands still, as far as the system's page cache. Throws HypolithError "snapshot-...". If it
 * does not work, what was there before is there still.
 */
export function writeSnapshotFiles(
  machine: Machine,
  disks: readonly { readonly config: DiskConfig; readonly disk: FileDisk }[],
  folder: string,
  about: string,
): SnapshotDraft {
  const id = randomBytes(8).toString("hex");
  let isNew = false;
  try {
    isNew = mkdirSync(folder, { recursive: true, mode: 0o700 }) !== undefined;
    const records = disks.map(({ config, disk }, i) =>
      saveDisk(folder, `${id}.disk${i}`, config, disk),
    );
    const file = `${id}.machine`;
    const port = new HastyPort(join(folder, file), O_RDWR | O_CREAT | O_EXCL);
    machine.snapshot(port, Buffer.from(about));
    const { size } = port;
    port.close();
    const manifest: Manifest = {
      ...{ format: FORMAT, id, machine: { file, bytes: size }, disks: records },
    };
    return { draft: JSON.stringify(manifest, undefined, 2), bytes: bytesOf(manifest) };
  } catch (error) {
    remove(folder, id, isNew);
    throw error instanceof HypolithError ? error : unwritable(folder, error);
  }
}

/** Whoever publishes the file waits for the disk. */
class HastyPort extends FilePort {
  override flush(): void {}
}

/**
 * Makes a draft the snapshot of its folder once all of it is on the disk; what was there before is taken away then. Throws HypolithError
 * "snapshot-write".
 */
export async function publishSnapshot(folder: string, draft: string): Promise<void> {
  const manifest = JSON.parse(draft) as Manifest;
  try {
    const { machine, disks } = manifest;
    for (const { file } of [machine, ...disks.flatMap(({ files }) => files)])
      await sync(join(folder, file));
    // The names of its files first.
    await sync(folder);
    const path = join(folder, MANIFEST);
    await writeFile(`${path}.new`, `${draft}\n`, { mode: 0o600, flush: true });
    await rename(`${path}.new`, path);
    await sync(folder);
    sweep(folder);
  } catch (error) {
    remove(folder, manifest.id, false);
    throw unwritable(folder, error);
  }
}

async function sync(path: string): Promise<void> {
  const file = await open(path, "r");
  try {
    await file.sync();
  } finally {
    await file.close();
  }
}

function saveDisk(
  folder: string,
  name: string,
  config: DiskConfig,
  { disk, written, layers }: FileDisk,
): DiskRecord {
  const { mode, path, format, isKeptImage } = config;
  const paths = [...(isKeptImage ? [path] : []), ...(config.layers ?? [])];
  if (!written) return { mode, image: imageRecord(path), ...(format && { format }), files: [] };
  const kept = layers.map((layer, i) => {
    const file = `${name}.${i}`;
    linkOrCopy(paths[i]!, layer, join(folder, file));
    return { file, bytes: layer.size };
  });
  const file = `${name}.${layers.length}`;
  // What is held back of an image's metadata is not in its file.
  runNow(disk.flush());
  written.copyTo(join(folder, file));
  const files = [...kept, { file, bytes: written.size }];
  // An image that is written itself is all of the disk.
  if (mode === "write" || isKeptImage)
    return { mode, image: null, ...(format && { format }), files };
  return { mode, image: imageRecord(path), ...(format && { format }), files };
}

/** The layer's own snapshot may be gone by now; its name is never another file's. */
function linkOrCopy(path: string, layer: FilePort, to: string): void {
  try {
    linkSync(path, to);
  } catch {
    layer.copyTo(to);
  }
}

/** Takes away what no manifest names: older snapshots, and halves of one. Only one process writes to a folder. */
function sweep(folder: string): void {
  const { machine, disks } = readManifest(folder);
  const named = new Set([machine.file, ...disks.flatMap(({ files }) => files.map((f) => f.file))]);
  for (const file of readdirSync(folder))
    if (FILE.test(file) && !named.has(file)) rmSync(join(folder, file), { force: true });
}

function remove(folder: string, id: string, isNew: boolean): void {
  try {
    for (const file of readdirSync(folder))
      if (file.startsWith(`${id}.`)) rmSync(join(folder, file), { force: true });
    if (isNew) rmdirSync(folder);
  } catch {
    // What is left has no manifest: it is no snapshot.
  }
}

function bytesOf({ machine, disks }: Pick<Manifest, "machine" | "disks">): number {
  return [machine, ...disks.flatMap(({ files }) => files)].reduce(
    (sum, { bytes }) => sum + bytes,
    0,
  );
}

function unwritable(folder: string, cause: unknown): HypolithError {
  const { code, message } = cause as NodeJS.ErrnoException;
  const why = code === "ENOSPC" ? "the disk is full" : message;
  return new HypolithError(
    "snapshot-write",
    `the snapshot cannot be written to ${folder}: ${why}`,
    {
      cause,
      hint: "what was there before is there still",
    },
  );
}

// ---- opening ----

/** Throws HypolithError: "snapshot-absent", and what SnapshotFile.open throws. */
export function openSnapshot(folder: string): OpenSnapshot {
  const manifest = readManifest(folder);
  const { machine, disks } = manifest;
  const port = openFile(folder, machine);
  try {
    const file = SnapshotFile.open(port, nodeChecksum);
    return {
      file,
      description: readDescription(file),
      about: Buffer.from(file.read("about")).toString(),
      bytes: bytesOf(manifest),
      disks: disks.map((disk) => diskConfig(folder, disk)),
      close: () => port.close(),
    };
  } catch (error) {
    port.close();
    throw error;
  }
}

/** Whether something is there that is or was a snapshot, whole or not. */
export function hasSnapshot(folder: string): boolean {
  try {
    return statSync(join(folder, MANIFEST)).isFile();
  } catch {
    return false;
  }
}

function readManifest(folder: string): Manifest {
  let text: string;
  try {
    text = readFileSync(join(folder, MANIFEST), "utf8");
  } catch (cause) {
    throw new HypolithError("snapshot-absent", `there is no snapshot in ${folder}`, { cause });
  }
  let manifest: unknown;
  try {
    manifest = JSON.parse(text);
  } catch (cause) {
    throw corrupt(MANIFEST, cause);
  }
  if (!isManifest(manifest)) throw corrupt(MANIFEST);
  if (manifest.format !== FORMAT)
    throw new HypolithError(
      "snapshot-version",
      `the snapshot has format ${manifest.format}, this Hypolith reads format ${FORMAT}`,
      { hint: "another Hypolith made it" },
    );
  return manifest;
}

function isManifest(value: unknown): value is Manifest {
  const manifest = value as Partial<Manifest> | null;
  if (typeof manifest !== "object" || manifest === null) return false;
  if (typeof manifest.format === "number" && manifest.format !== FORMAT) return true;
  const isFile = (record: FileRecord | undefined): boolean =>
    typeof record?.file === "string" && FILE.test(record.file) && Number.isInteger(record.bytes);
  return (
    ID.test(String(manifest.id)) &&
    isFile(manifest.machine) &&
    Array.isArray(manifest.disks) &&
    manifest.disks.every(
      (disk: DiskRecord | null) => Array.isArray(disk?.files) && disk.files.every(isFile),
    )
  );
}

function openFile(folder: string, { file, bytes }: FileRecord): FilePort {
  let port: FilePort;
  try {
    port = new FilePort(join(folder, file), O_RDONLY);
  } catch (cause) {
    throw new HypolithError("snapshot-truncated", `${file} of the snapshot is not there`, {
      cause,
    });
  }
  if (port.size === bytes) return port;
  const { size } = port;
  port.close();
  throw new HypolithError(
    "snapshot-truncated",
    `${file} of the snapshot is ${size} bytes long and was ${bytes}`,
    { hint: "it was cut off, or copied in part" },
  );
}

/** A machine that goes on writes to an overlay of its own; nothing of the snapshot is written. */
function diskConfig(folder: string, { mode, image, format, files }: DiskRecord): DiskConfig {
  for (const file of files) openFile(folder, file).close();
  const layers = files.map(({ file }) => join(folder, file));
  const [own, ...rest] = layers;
  if (!image && own === undefined) throw corrupt(MANIFEST);
  if (!image)
    return {
      ...{ path: own!, mode: "scratch", layers: rest, isKeptImage: true },
      ...(format && { format }),
    };
  checkImage(image);
  const { path } = image;
  if (mode === "read") return { path, mode, ...(format && { format }) };
  return { path, mode: "scratch", layers, ...(format && { format }) };
}

function imageRecord(path: string): ImageRecord {
  const { size, mtimeMs } = statSync(path);
  return { path, bytes: size, changed: Math.floor(mtimeMs), samples: sampleOf(path, size) };
}

/** What was written is good only over the image that it was written over. */
function checkImage({ path, bytes, changed, samples }: ImageRecord): void {
  let size: number;
  let mtimeMs: number;
  try {
    ({ size, mtimeMs } = statSync(path));
  } catch (cause) {
    throw new HypolithError(
      "snapshot-image",
      `the snapshot needs the image ${path}, which is not there`,
      { cause, hint: "put it back; for an image of a registry, hypo pull" },
    );
  }
  // A time may change by itself; content does not.
  const isSame =
    size === bytes && (Math.floor(mtimeMs) === changed || sampleOf(path, size) === samples);
  if (!isSame)
    throw new HypolithError(
      "snapshot-image",
      `the image ${path} has changed since the snapshot was taken`,
      { hint: "the snapshot is good only with the image as it was" },
    );
}

function sampleOf(path: string, size: number): number {
  const file = openSync(path, O_RDONLY);
  try {
    const bytes = Buffer.alloc(SAMPLE_BYTES);
    let sum = 0;
    for (let i = 0; i < SAMPLES; i++) {
      const at = Math.floor((Math.max(0, size - SAMPLE_BYTES) * i) / (SAMPLES - 1));
      const count = readSync(file, bytes, 0, SAMPLE_BYTES, at);
      sum = crc32(bytes.subarray(0, count), sum);
    }
    return sum;
  } finally {
    closeSync(file);
  }
}

/** The configuration of a machine that goes on from a snapshot in a folder. */
export function resumedConfig(
  { description, disks }: Pick<OpenSnapshot, "description" | "disks">,
  folder: string,
): MachineConfig {
  return {
    ...description.config,
    kernel: new Uint8Array(0),
    traceExits: false,
    snapshot: { folder },
    ...(disks.length > 0 && { disks }),
  };
}
