/**
 * Reading Debian binary packages.
 * Spec: deb(5): an ar archive of debian-binary, control.tar and data.tar, the latter two compressed.
 *
 * Reads only as far as needed: a kernel's own files come first in its package, so of 108 MB only 15 are unpacked.
 * A package that has been cut or damaged is refused; nothing here trusts a length it has not checked.
 */
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import * as zlib from "node:zlib";
import { extract, type Header } from "tar-stream";
import { HypolithError } from "../../../src/base/errors.ts";
import { decompressXz } from "./xz.ts";

const AR_MAGIC = "!<arch>\n";
const AR_HEADER_SIZE = 60;
/** No file of a kernel package comes near; a forged size must not take the machine's memory. */
const LARGEST_FILE = 1 << 29;

export interface ArMember {
  readonly name: string;
  readonly content: Uint8Array;
}

export function readArchive(file: Uint8Array): ArMember[] {
  const bytes = Buffer.from(file.buffer, file.byteOffset, file.byteLength);
  if (bytes.toString("latin1", 0, AR_MAGIC.length) !== AR_MAGIC) {
    throw malformed("it does not begin like an ar archive");
  }
  const members: ArMember[] = [];
  for (let at = AR_MAGIC.length; at < bytes.length; ) {
    const header = bytes.toString("latin1", at, at + AR_HEADER_SIZE);
    const size = header.slice(48, 58).trim();
    if (header.slice(58) !== "`\n" || !/^\d+$/.test(size))
      throw malformed("a member header is wrong");
    const start = at + AR_HEADER_SIZE;
    const end = start + Number(size);
    if (end > bytes.length) throw malformed("it is cut short");
    members.push({
      name: header.slice(0, 16).trim().replace(/\/$/, ""),
      content: bytes.subarray(start, end),
    });
    at = end + (end & 1);
  }
  return members;
}

export interface Extraction {
  /** Paths without leading "./". */
  readonly wanted: (path: string) => boolean;
  /** Asked after each wanted file: is that all? */
  readonly complete?: (found: ReadonlyMap<string, Uint8Array>) => boolean;
  readonly signal?: AbortSignal;
}

/** Files of a package's data archive, by path. Links are not followed. */
export async function extractFiles(
  deb: Uint8Array,
  { wanted, complete, signal }: Extraction,
): Promise<Map<string, Uint8Array>> {
  const found = new Map<string, Uint8Array>();
  const enough = new AbortController();
  const stop = signal ? AbortSignal.any([signal, enough.signal]) : enough.signal;
  const tar = extract();
  tar.on("entry", (header, stream, next) => {
    const path = header.name.replace(/^\.?\/+/, "");
    if (header.type !== "file" || !wanted(path)) {
      stream.on("end", () => next());
      stream.resume();
      return;
    }
    collect(header, stream).then((content) => {
      found.set(path, content);
      if (complete?.(found)) enough.abort();
      else next();
    }, next);
  });
  try {
    await pipeline(openMember(deb, "data"), tar, { signal: stop });
  } catch (cause) {
    if (enough.signal.aborted) return found;
    signal?.throwIfAborted();
    if (cause instanceof HypolithError) throw cause;
    throw malformed("its data archive cannot be unpacked", cause);
  }
  return found;
}

async function collect(header: Header, stream: unknown): Promise<Uint8Array> {
  const size = header.size ?? 0;
  if (size > LARGEST_FILE) throw malformed(`it holds a file of ${size} bytes`);
  const content = new Uint8Array(size);
  let at = 0;
  // streamx is iterable, but brings no types.
  for await (const chunk of stream as AsyncIterable<Uint8Array>) {
    content.set(chunk, at);
    at += chunk.length;
  }
  return content;
}

/** "data": its files. "control": what dpkg knows of it. As plain tar. */
export function openMember(deb: Uint8Array, which: "data" | "control"): Readable {
  const member = readArchive(deb).find(({ name }) => name.startsWith(`${which}.tar`));
  if (!member) throw malformed(`it has no ${which} archive`);
  const raw = Readable.from(chunks(member.content));
  switch (member.name.slice(which.length)) {
    case ".tar":
      return raw;
    case ".tar.xz":
      return decompressXz(member.content);
    case ".tar.gz":
      return raw.pipe(zlib.createGunzip());
    case ".tar.zst":
      if (zlib.createZstdDecompress) return raw.pipe(zlib.createZstdDecompress());
      throw new HypolithError("deb-compression", "the package is compressed with zstd", {
        hint: "use Node.js 22.15 or later, or a mirror of Debian itself, which uses xz",
      });
    default:
      throw malformed(`its archive '${member.name}' has an unknown compression`);
  }
}

/** In pieces, so that other events get their turn and an early end saves work. */
function* chunks(bytes: Uint8Array, size = 1 << 16): Generator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

function malformed(why: string, cause?: unknown): HypolithError {
  return new HypolithError("deb-malformed", `the file is not a sound Debian package: ${why}`, {
    cause,
  });
}
