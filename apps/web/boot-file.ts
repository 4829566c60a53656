/**
 * A file that a machine boots from: one that the user has chosen, or one behind an address. Its content is kept as a Blob, outside the
 * JavaScript heap, so that the same machine can be started again.
 */
import { HypolithError } from "../../src/base/errors.ts";
import { formatSize } from "../common/size.ts";

export type FileRole = "kernel" | "initrd";

/** "kernel: 3 MiB of 13.5 MiB" */
export type Progress = (text: string) => void;

export class BootFile {
  readonly role: FileRole;
  /** What the user knows it by. */
  readonly name: string;
  readonly #source: Blob | URL;
  #content: Blob | undefined;

  constructor(role: FileRole, source: Blob | URL, name: string) {
    this.role = role;
    this.name = name;
    this.#source = source;
  }

  /** The content, in an array that the caller owns. Throws HypolithError if it cannot be had. */
  async read(progress: Progress, signal: AbortSignal): Promise<Uint8Array> {
    this.#content ??=
      this.#source instanceof Blob
        ? this.#source
        : await this.#download(this.#source, progress, signal);
    let bytes: Uint8Array;
    try {
      bytes = new Uint8Array(await this.#content.arrayBuffer());
    } catch (cause) {
      throw this.#error("unreadable", "cannot be read: it has changed or gone", {
        cause,
        hint: "choose the file again",
      });
    }
    signal.throwIfAborted();
    if (bytes.length > 0) return bytes;
    throw this.#error("empty", "is empty", { hint: "check how the file was made or downloaded" });
  }

  async #download(url: URL, progress: Progress, signal: AbortSignal): Promise<Blob> {
    let response: Response;
    try {
      response = await fetch(url, { signal });
    } catch (cause) {
      signal.throwIfAborted();
      throw this.#error("unreachable", "cannot be downloaded: no answer that a page may read", {
        cause,
        hint: `check the address; another server than the page's must allow it (CORS)`,
      });
    }
    if (!response.ok) {
      const status = `${response.status} ${response.statusText}`.trim();
      throw this.#error("unreachable", `cannot be downloaded: the server says ${status}`, {
        hint: "check the address",
      });
    }
    return this.#collect(response, progress, signal);
  }

  async #collect(response: Response, progress: Progress, signal: AbortSignal): Promise<Blob> {
    // Of what is sent compressed only the compressed length is known.
    const isPlain = !response.headers.has("content-encoding");
    const total = isPlain ? Number(response.headers.get("content-length") ?? 0) : 0;
    const of = total > 0 ? ` of ${formatSize(total)}` : "";
    const parts: Uint8Array<ArrayBuffer>[] = [];
    let size = 0;
    try {
      const reader = response.body!.getReader();
      for (let next = await reader.read(); !next.done; next = await reader.read()) {
        parts.push(next.value);
        size += next.value.length;
        progress(`${this.role}: ${formatSize(size)}${of}`);
      }
    } catch (cause) {
      signal.throwIfAborted();
      throw this.#error("unreachable", `broke off after ${formatSize(size)}`, {
        cause,
        hint: "try again",
      });
    }
    return new Blob(parts);
  }

  #error(what: string, text: string, options: { cause?: unknown; hint: string }): HypolithError {
    return new HypolithError(
      `${this.role}-${what}`,
      `the ${this.role} ${this.name} ${text}`,
      options,
    );
  }
}
