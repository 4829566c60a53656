/**
 * Getting a file from a mirror, with its size and SHA-256 checked where they are known.
 *
 * FetchTransport uses the runtime's own HTTP client. AptTransport (apt.ts) uses apt's, which knows the machine's proxies and
 * credentials.
 */
import { HypolithError } from "../../../src/base/errors.ts";
import { sha256Of } from "./cache.ts";

export interface ExpectedFile {
  readonly size: number;
  readonly sha256: string;
}

export interface DownloadOptions {
  readonly expected?: ExpectedFile | undefined;
  readonly onProgress?: (bytes: number) => void;
  readonly signal: AbortSignal;
}

export interface Transport {
  download(url: string, options: DownloadOptions): Promise<Uint8Array>;
}

/** A mirror that stops answering is given up after this long without a byte. */
const STALL_MS = 30_000;
const LARGEST_DOWNLOAD = 1 << 29;

export class FetchTransport implements Transport {
  async download(url: string, options: DownloadOptions): Promise<Uint8Array> {
    const stall = new AbortController();
    const timer = setTimeout(() => stall.abort(), STALL_MS);
    try {
      const signal = AbortSignal.any([options.signal, stall.signal]);
      const response = await fetch(url, { signal });
      if (!response.ok || !response.body) throw refused(url, `HTTP status ${response.status}`);
      const parts: Uint8Array[] = [];
      let size = 0;
      for await (const part of response.body) {
        timer.refresh();
        parts.push(part);
        size += part.length;
        if (size > (options.expected?.size ?? LARGEST_DOWNLOAD)) throw wrongContent(url);
        options.onProgress?.(size);
      }
      return checked(url, Buffer.concat(parts), options.expected);
    } catch (cause) {
      options.signal.throwIfAborted();
      if (stall.signal.aborted) throw unreachable(url, "it does not answer");
      if (cause instanceof HypolithError) throw cause;
      throw unreachable(url, reasonOf(cause), cause);
    } finally {
      clearTimeout(timer);
    }
  }
}

/** The bytes, if they are what the index said. */
export function checked(
  what: string,
  bytes: Uint8Array,
  expected: ExpectedFile | undefined,
): Uint8Array {
  if (!expected) return bytes;
  if (bytes.length !== expected.size || sha256Of(bytes) !== expected.sha256) {
    throw wrongContent(what);
  }
  return bytes;
}

function wrongContent(what: string): HypolithError {
  return new HypolithError(
    "checksum-mismatch",
    `${what} is not the file that the package index describes`,
    { hint: "the mirror may be in the middle of an update: try again, or another --mirror" },
  );
}

function refused(url: string, why: string): HypolithError {
  return new HypolithError("mirror-refused", `${url} cannot be downloaded: ${why}`, {
    hint: "check the mirror given by --mirror or HYPO_DEBIAN_MIRROR",
  });
}

function unreachable(url: string, why: string, cause?: unknown): HypolithError {
  return new HypolithError("network-unreachable", `${url} cannot be downloaded: ${why}`, {
    cause,
    hint:
      "check the network, or name a mirror that can be reached with --mirror URL\n" +
      "without a network, boot files of your own with --kernel and --initrd",
  });
}

/** fetch() says only "fetch failed"; what happened is in its causes. */
export function reasonOf(error: unknown): string {
  const { cause, message } = error as Error;
  if (cause instanceof AggregateError && cause.errors.length > 0) return reasonOf(cause.errors[0]);
  return cause instanceof Error ? reasonOf(cause) : message;
}
