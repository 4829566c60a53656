/**
 * Disk images as files of Node: the block port on a file, and which files a disk of the configuration is made of.
 *
 * All calls answer at once: the machine's thread does its own reading and writing, mostly from and to the system's page cache. Whoever
 * writes to an image holds a lock file beside it, named IMAGE.lock; one that nobody holds any more is taken over.
 * A backing name in an image leads only to files in the folder of that image: an image from elsewhere must not read what is ours.
 */
import {
  closeSync,
  constants,
  copyFileSync,
  existsSync,
  fdatasyncSync,
  fstatSync,
  ftruncateSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readlinkSync,
  readSync,
  realpathSync,
  renameSync,
  rmSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { basename, dirname, join, resolve, sep } from "node:path";
import { HypolithError } from "../base/errors.ts";
import type { DiskConfig } from "../control/protocol.ts";
import { type BlockPort, runNow } from "../storage/block-port.ts";
import type { Disk } from "../storage/disk.ts";
import { guessFormat, type ImageSource, openImage } from "../storage/open-image.ts";
import { createQcow2 } from "../storage/qcow2/create.ts";
import { MetadataLog } from "../storage/qcow2/metadata-log.ts";
import type { MachineDisk } from "./virtio-devices.ts";

const { COPYFILE_EXCL, COPYFILE_FICLONE, O_CREAT, O_EXCL, O_RDONLY, O_RDWR } = constants;
const COPY_BYTES = 1 << 20;
const SECTOR_BYTES = 512;
/** Another one each time a Linux system starts. */
const BOOT_ID = "/proc/sys/kernel/random/boot_id";

export class FilePort implements BlockPort {
  readonly readOnly: boolean;
  /** Names the file among those of this system. */
  readonly identity: string;
  readonly #file: number;
  #size: number;

  constructor(path: string, flags: number) {
    this.readOnly = (flags & O_RDWR) === 0;
    this.#file = openSync(path, flags, 0o600);
    const status = fstatSync(this.#file);
    if (!status.isFile()) {
      closeSync(this.#file);
      throw new HypolithError("disk-no-file", `the disk image ${path} is no regular file`);
    }
    this.#size = status.size;
    this.identity = `${status.dev.toString(16)}:${status.ino.toString(16)}`;
  }

  get size(): number {
    return this.#size;
  }

  read(offset: number, into: Uint8Array): void {
    let done = 0;
    while (done < into.length) {
      const count = readSync(this.#file, into, done, into.length - done, offset + done);
      if (count === 0) break;
      done += count;
    }
    into.fill(0, done);
  }

  write(offset: number, bytes: Uint8Array): void {
    for (let done = 0; done < bytes.length; )
      done += writeSync(this.#file, bytes, done, bytes.length - done, offset + done);
    this.#size = Math.max(this.#size, offset + bytes.length);
  }

  flush(): void {
    if (!this.readOnly) fdatasyncSync(this.#file);
  }

  /** A new file with the same content, sharing its blocks where the file system can. */
  copyTo(path: string): void {
    // By its descriptor: it may have no name any more.
    const open = `/proc/self/fd/${this.#file}`;
    if (existsSync(open)) copyFileSync(open, path, COPYFILE_EXCL | COPYFILE_FICLONE);
    else this.#copyTo(path);
  }

  #copyTo(path: string): void {
    const copy = new FilePort(path, O_RDWR | O_CREAT | O_EXCL);
    const piece = new Uint8Array(COPY_BYTES);
    for (let at = 0; at < this.#size; at += COPY_BYTES) {
      const part = piece.subarray(0, Math.min(COPY_BYTES, this.#size - at));
      this.read(at, part);
      copy.write(at, part);
    }
    copy.close();
  }

  truncate(size: number): void {
    ftruncateSync(this.#file, size);
    this.#size = size;
  }

  close(): void {
    closeSync(this.#file);
  }
}

/** A disk of a configuration with the file that the guest's writes go to, if there is one. */
export interface FileDisk {
  readonly disk: Disk;
  readonly written: FilePort | null;
  /** What earlier lives have left: the configuration's layers, and before them an image that is kept. */
  readonly layers: readonly FilePort[];
}

/** Opens the disks of a configuration, in order. Throws HypolithError "disk-..." or "qcow2-...". */
export function openDisks(configs: readonly DiskConfig[]): (FileDisk & MachineDisk)[] {
  return configs.map((config, i) => ({ ...openFileDisk(config), serial: `hypolith-disk${i}` }));
}

export function openDisk(config: DiskConfig): Disk {
  return openFileDisk(config).disk;
}

function openFileDisk(config: DiskConfig): FileDisk {
  const { path, format, mode } = config;
  const options = format ? { format } : {};
  if (mode === "read") {
    const disk = runNow(openImage(sourceOf(path), { ...options, readOnly: true }));
    return { disk, written: null, layers: [] };
  }
  if (mode === "write")
    return withLock(path, () => {
      const source = sourceOf(path, O_RDWR);
      const isQcow2 = (format ?? runNow(guessFormat(source.port))) === "qcow2";
      const log = isQcow2 ? logOf(path, source.port) : undefined;
      const disk = runNow(openImage(source, { ...options, writeThrough: true, log }));
      return { disk, written: source.port, layers: [] };
    });
  const { overlay } = config;
  if (overlay === undefined) return openScratch(config);
  return withLock(overlay, () => openOverlay(config, overlay));
}

/** An overlay that nobody finds when we are gone, however that happens. */
function openScratch(config: DiskConfig): FileDisk {
  const folder = mkdtempSync(join(tmpdir(), "hypolith-"));
  const scratch = join(folder, "scratch.qcow2");
  const overlay = new FilePort(scratch, O_RDWR | O_CREAT | O_EXCL);
  rmSync(folder, { recursive: true });
  const base = baseOf(config);
  createOverlay(overlay, base.source, config);
  return overBase(overlay, base);
}

/** An overlay of the user's: made if it is not there, continued if it is. */
function openOverlay(config: DiskConfig, overlayPath: string): FileDisk {
  const base = baseOf(config);
  if (!existsSync(overlayPath)) {
    // Under another name until it is whole.
    const fresh = openPort(`${overlayPath}.new`, O_RDWR | O_CREAT);
    createOverlay(fresh, base.source, config);
    fresh.close();
    renameSync(`${overlayPath}.new`, overlayPath);
  }
  const port = openPort(overlayPath, O_RDWR);
  if (runNow(guessFormat(port)) !== "qcow2")
    throw new HypolithError("disk-overlay", `${overlayPath} is there and is no overlay`, {
      hint: "name another file, or remove it",
    });
  return overBase(port, base, logOf(overlayPath, port));
}

/**
 * The log of an image that outlives its machine, a file beside it; undefined where a system does not say when it was started: then metadata is written
 * through. Taken away when the image is closed.
 */
export function logOf(path: string, port: FilePort): MetadataLog | undefined {
  if (!existsSync(BOOT_ID)) return undefined;
  const boot = readFileSync(BOOT_ID, "latin1").trim().replaceAll("-", "");
  return new MetadataLog(openPort(logPath(path), O_RDWR | O_CREAT), `${boot} ${port.identity}`);
}

const logPath = (path: string): string => `${path}.log`;

/** What an overlay is on: the image, and what earlier lives have written over it. */
interface Base {
  readonly source: ImageSource;
  readonly layers: readonly FilePort[];
}

function overBase(port: FilePort, { source: base, layers }: Base, log?: MetadataLog): FileDisk {
  const source = { port, backing: () => base };
  const disk = runNow(openImage(source, { format: "qcow2", writeThrough: true, log }));
  return { disk, written: port, layers };
}

function baseOf({ path, layers: paths = [], isKeptImage = false }: DiskConfig): Base {
  const image = sourceOf(path);
  const layers = paths.map((layer) => openPort(layer, O_RDONLY));
  const source = layers.reduce<ImageSource>(
    (below, port) => ({ port, backing: () => below }),
    image,
  );
  return { source, layers: isKeptImage ? [image.port, ...layers] : layers };
}

function createOverlay(
  port: BlockPort,
  base: ImageSource,
  { path, format, layers = [] }: DiskConfig,
): void {
  const baseFormat = layers.length > 0 ? "qcow2" : (format ?? runNow(guessFormat(base.port)));
  const { size } = runNow(openImage(base, { format: baseFormat, readOnly: true }));
  const whole = Math.ceil(size / SECTOR_BYTES) * SECTOR_BYTES;
  const backing = { name: resolve(path), format: baseFormat };
  runNow(createQcow2(port, { size: whole, backing }));
}

function sourceOf(
  path: string,
  flags: number = O_RDONLY,
): ImageSource & { readonly port: FilePort } {
  const port = openPort(path, flags);
  return {
    port,
    backing(name) {
      const folder = realpathSync(dirname(path));
      const target = realPath(resolve(folder, name));
      if (!target.startsWith(folder.endsWith(sep) ? folder : folder + sep))
        throw new HypolithError(
          "disk-backing-outside",
          `the image ${path} names ${name} as its backing file, outside its own folder`,
          { hint: "put the backing file beside the image, and name it without a folder" },
        );
      return sourceOf(target);
    },
  };
}

function realPath(path: string): string {
  try {
    return realpathSync(path);
  } catch (cause) {
    throw unreadable(path, cause);
  }
}

function openPort(path: string, flags: number): FilePort {
  try {
    return new FilePort(path, flags);
  } catch (cause) {
    throw cause instanceof HypolithError ? cause : unreadable(path, cause);
  }
}

function unreadable(path: string, cause: unknown): HypolithError {
  const { code, message } = cause as NodeJS.ErrnoException;
  const why = code === "ENOENT" ? "there is no such file" : message;
  return new HypolithError("disk-unreadable", `the disk image ${path} cannot be opened: ${why}`, {
    cause,
    hint: "check the path given to --disk",
  });
}

/** Lock files of this thread, with the descriptors that keep them open, and the disks behind them. */
const held = new Map<
  string,
  { readonly descriptor: number; readonly disk?: Disk; readonly log?: string }
>();

/**
 * Runs `open` with the image's lock, which stays until the thread ends. The lock file says which process holds it open, and as which descriptor: a
 * thread that is terminated and a process that dies close it, whatever else they leave undone.
 */
function withLock(path: string, open: () => FileDisk): FileDisk {
  const file = join(realPath(dirname(resolve(path))), `${basename(path)}.lock`);
  const descriptor = lock(path, file);
  if (held.size === 0) process.once("exit", closeAll);
  held.set(file, { descriptor });
  try {
    const opened = open();
    held.set(file, { descriptor, disk: opened.disk, log: logPath(path) });
    return opened;
  } catch (error) {
    release(file, descriptor);
    throw error;
  }
}

function lock(path: string, file: string): number {
  for (let attempt = 0; ; attempt++) {
    try {
      const descriptor = openSync(file, O_RDWR | O_CREAT | O_EXCL, 0o600);
      writeSync(descriptor, `${process.pid} ${descriptor}\n`);
      return descriptor;
    } catch (cause) {
      if ((cause as NodeJS.ErrnoException).code !== "EEXIST") throw unreadable(path, cause);
      const [owner = 0, descriptor = 0] = readFileSync(file, "utf8").split(" ").map(Number);
      if (attempt > 0 || isHeld(file, owner, descriptor))
        throw new HypolithError("disk-in-use", `the disk image ${path} is in use`, {
          hint: `process ${owner} holds ${file}; remove the file if it is not a machine`,
        });
      rmSync(file, { force: true });
    }
  }
}

function isHeld(file: string, owner: number, descriptor: number): boolean {
  if (!Number.isInteger(owner) || owner <= 0) return false;
  try {
    process.kill(owner, 0);
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== "EPERM") return false;
  }
  // Where there is no such folder, or it is not ours to read, a living process is believed.
  const folder = `/proc/${owner}/fd`;
  if (!existsSync(folder)) return true;
  try {
    return readlinkSync(`${folder}/${descriptor}`) === file;
  } catch (cause) {
    return (cause as NodeJS.ErrnoException).code !== "ENOENT";
  }
}

/** The thread ends in order. Where it does not, the next to open an image finds it marked as open. */
function closeAll(): void {
  for (const [file, { descriptor, disk, log }] of held) {
    try {
      if (disk) runNow(disk.close());
      if (log !== undefined) rmSync(log, { force: true });
    } finally {
      release(file, descriptor);
    }
  }
}

function release(file: string, descriptor: number): void {
  held.delete(file);
  rmSync(file, { force: true });
  closeSync(descriptor);
}
