/**
 * From a file to a disk: which format it has, and the chain of its backing files.
 *
 * A backing name comes from the image, so from anyone: the source that the application passes decides which names lead anywhere.
 * The format of a backing file has to be in the image: guessing it would let a guest that once wrote a raw backing file choose.
 */
import { HypolithError } from "../base/errors.ts";
import type { BlockPort, Io } from "./block-port.ts";
import type { Disk } from "./disk.ts";
import { repairQcow2 } from "./qcow2/check.ts";
import { isQcow2 } from "./qcow2/header.ts";
import type { MetadataLog } from "./qcow2/metadata-log.ts";
import { Qcow2Disk, readHeader } from "./qcow2/qcow2-disk.ts";
import { RawDisk } from "./raw-disk.ts";

export type ImageFormat = "raw" | "qcow2";

/** A file, and what the names in it lead to. */
export interface ImageSource {
  readonly port: BlockPort;
  /** Opens a file that this one names as its backing file, for reading. Throws HypolithError if it may not be. */
  backing(name: string): ImageSource;
}

export interface OpenOptions {
  /** Guessed by the first bytes if not given. */
  readonly format?: ImageFormat;
  readonly readOnly?: boolean;
  readonly writeThrough?: boolean;
  /** Of an image that is written to: keeps what is held back of its metadata, and may have kept some for the last to open it. */
  readonly log?: MetadataLog | undefined;
}

const MAX_CHAIN = 32;

export function openImage(source: ImageSource, options: OpenOptions = {}): Io<Disk> {
  return openLink(source, options, 0);
}

/** The format that the first bytes show. */
export function* guessFormat(port: BlockPort): Io<ImageFormat> {
  const start = new Uint8Array(4);
  const pending = port.read(0, start);
  if (pending) yield pending;
  return isQcow2(start) ? "qcow2" : "raw";
}

function* openLink(source: ImageSource, options: OpenOptions, depth: number): Io<Disk> {
  const { port } = source;
  const { readOnly = false, writeThrough = false, log } = options;
  if (depth > MAX_CHAIN)
    throw new HypolithError("disk-backing-chain", "the chain of backing files has no end");
  const format = options.format ?? (yield* guessFormat(port));
  if (format === "raw")
    return new RawDisk(port, { readOnly, guardMagic: options.format === undefined });
  const header = yield* readHeader(port);
  if (header.isDirty && !header.isCorrupt && !readOnly && !port.readOnly) {
    // One that was closed since, by whomever, has what it should have.
    if (log) yield* log.replay(port);
    yield* repairQcow2(port);
  }
  const { backingName, backingFormat } = header;
  const own = { readOnly, writeThrough, log };
  if (backingName === undefined) return yield* Qcow2Disk.open(port, own);
  if (backingFormat !== "raw" && backingFormat !== "qcow2")
    throw new HypolithError(
      "disk-backing-format",
      `the image does not say which format its backing file ${backingName} has`,
      { hint: "qemu-img rebase -u -F FORMAT -b BACKING IMAGE says it" },
    );
  const backing = yield* openLink(
    source.backing(backingName),
    { format: backingFormat, readOnly: true },
    depth + 1,
  );
  return yield* Qcow2Disk.open(port, { ...own, backing });
}
