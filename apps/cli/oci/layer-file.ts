/**
 * Layers as plain tar in a file: unpacked where they are compressed, and checked against their diff_id.
 * Spec: OCI Image Specification, "Image Layer Filesystem Changeset" (gzip, zstd); RFC 1952; RFC 8878.
 *
 * The first bytes say the compression, not the media type: docker's archives do not have one.
 */
import { closeSync, createReadStream, openSync, readSync, writeSync } from "node:fs";
import { join } from "node:path";
import type { Transform } from "node:stream";
import { pipeline } from "node:stream/promises";
import * as zlib from "node:zlib";
import { HypolithError } from "../../../src/base/errors.ts";
import { writeFailure } from "../image/cache.ts";
import { DigestCheck, wrongDigest } from "./digest.ts";
import { unsound } from "./manifest.ts";
import type { FileRange } from "./tar-file.ts";

/** Bytes of a file by its path: a blob of the store, of a layout, or a member of an archive. */
export interface FilePart {
  readonly path: string;
  readonly offset: number;
  readonly size: number;
}

export interface UnpackOptions {
  /** For the unpacked layer. */
  readonly folder: string;
  readonly diffId: string;
  /** What a person calls it. */
  readonly what: string;
  readonly onBytes?: (bytes: number) => void;
  readonly signal: AbortSignal;
}

/** A bomb is given up here. */
const LARGEST_LAYER = 64 * 2 ** 30;
const CHUNK = 1 << 20;

/** The layer as plain tar; the caller closes its descriptor. */
export async function unpackLayer(part: FilePart, options: UnpackOptions): Promise<FileRange> {
  const check = new DigestCheck(options.diffId);
  const codec = openCodec(part, options.what);
  const range = codec
    ? await unpack(part, codec, check, options)
    : await sumUp(part, check, options);
  if (check.matches()) return range;
  closeSync(range.descriptor);
  throw wrongDigest(options.what, options.diffId);
}

/** What unpacks it; undefined for plain tar. */
export function openCodec(part: FilePart, what: string): Transform | undefined {
  const magic = firstBytes(part);
  if (magic.startsWith("1f8b")) return zlib.createGunzip();
  if (magic === "28b52ffd") {
    // Node.js 20 has no zstd.
    if (typeof zlib.createZstdDecompress === "function") return zlib.createZstdDecompress();
    throw new HypolithError(
      "layer-compression",
      `${what} is compressed with zstd, which this Node.js does not have`,
      {
        hint: "use Node.js 22.15 or later",
      },
    );
  }
  if (magic.startsWith("425a68") || magic === "fd377a58") {
    throw new HypolithError(
      "layer-compression",
      `${what} is compressed with ${magic.startsWith("42") ? "bzip2" : "xz"}`,
      {
        hint: "layers are plain, or compressed with gzip or zstd",
      },
    );
  }
  return undefined;
}

export function openPart({ path, offset, size }: FilePart): NodeJS.ReadableStream {
  if (size === 0) return createReadStream(path, { start: 0, end: -1 });
  return createReadStream(path, { start: offset, end: offset + size - 1, highWaterMark: CHUNK });
}

async function unpack(
  part: FilePart,
  codec: Transform,
  check: DigestCheck,
  { folder, what, onBytes, signal, diffId }: UnpackOptions,
): Promise<FileRange> {
  const descriptor = openSync(join(folder, diffId.replace(":", "-")), "w+", 0o600);
  let size = 0;
  try {
    await pipeline(
      openPart(part),
      codec,
      async (chunks: AsyncIterable<Uint8Array>) => {
        for await (const chunk of chunks) {
          if (size + chunk.length > LARGEST_LAYER) throw unsound(what, "it unpacks to no end");
          writeAll(descriptor, chunk);
          check.update(chunk);
          size += chunk.length;
          onBytes?.(codecInput(codec));
        }
      },
      { signal },
    );
    return { descriptor, offset: 0, size };
  } catch (cause) {
    closeSync(descriptor);
    signal.throwIfAborted();
    if (cause instanceof HypolithError) throw cause;
    const { code = "" } = cause as NodeJS.ErrnoException;
    if (code.startsWith("Z_") || code.startsWith("ZSTD_") || code.startsWith("ERR_Z")) {
      throw unsound(what, "its compressed data are damaged or cut short", cause);
    }
    throw writeFailure(folder, cause);
  }
}

async function sumUp(
  part: FilePart,
  check: DigestCheck,
  { onBytes, signal }: UnpackOptions,
): Promise<FileRange> {
  const descriptor = openSync(part.path, "r");
  const buffer = Buffer.alloc(CHUNK);
  for (let at = 0; at < part.size; ) {
    signal.throwIfAborted();
    const got = readSync(descriptor, buffer, 0, Math.min(CHUNK, part.size - at), part.offset + at);
    if (got === 0) break;
    check.update(buffer.subarray(0, got));
    at += got;
    onBytes?.(at);
    // Others get their turn.
    await new Promise(setImmediate);
  }
  return { descriptor, offset: part.offset, size: part.size };
}

export function writeAll(descriptor: number, bytes: Uint8Array): void {
  for (let at = 0; at < bytes.length; ) {
    at += writeSync(descriptor, bytes, at, bytes.length - at);
  }
}

function codecInput(codec: Transform): number {
  return (codec as Transform & { readonly bytesWritten?: number }).bytesWritten ?? 0;
}

function firstBytes({ path, offset, size }: FilePart): string {
  const descriptor = openSync(path, "r");
  try {
    const bytes = Buffer.alloc(4);
    const got = readSync(descriptor, bytes, 0, Math.min(4, size), offset);
    return bytes.toString("hex", 0, got);
  } finally {
    closeSync(descriptor);
  }
}
