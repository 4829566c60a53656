/**
 * An image that is served beside the page: a small JSON file that names a kernel and an initrd. `hypo web` writes it, and so can anybody
 * who serves an image of their own.
 */
import { HypolithError } from "../../src/base/errors.ts";
import type { ImageDescription } from "../common/image-description.ts";
import { BootFile } from "./boot-file.ts";

export interface ServedImage {
  readonly title: string;
  readonly kernel: BootFile;
  readonly initrd: BootFile | undefined;
  readonly append: string;
  /** The session of our initramfs runs in it and listens to the control line. */
  readonly hasSession: boolean;
}

/** Where the page looks for one if it is not told. */
export const DEFAULT_IMAGE = "image/image.json";

/** The image described at `url`; undefined if there is none. */
export async function findImage(url: URL, signal: AbortSignal): Promise<ServedImage | undefined> {
  let response: Response;
  try {
    response = await fetch(url, { signal, cache: "no-cache" });
  } catch (cause) {
    signal.throwIfAborted();
    throw new HypolithError("image-unreachable", `${url} cannot be downloaded`, {
      cause,
      hint: "check the address and the network",
    });
  }
  if (response.status === 404) return undefined;
  if (!response.ok) {
    throw new HypolithError(
      "image-unreachable",
      `${url} cannot be downloaded: the server says ${response.status}`,
    );
  }
  return imageOf(await response.text(), url);
}

/** Addresses in it are relative to its own. */
export function imageOf(text: string, url: URL): ServedImage {
  const image = parse(text, url);
  const file = (role: "kernel" | "initrd", address: string): BootFile =>
    new BootFile(role, new URL(address, url), address);
  return {
    title: image.title ?? image.kernel,
    kernel: file("kernel", image.kernel),
    initrd: image.initrd === undefined ? undefined : file("initrd", image.initrd),
    append: image.append ?? "",
    hasSession: image.session === true,
  };
}

const WORDS = ["title", "kernel", "initrd", "append"];

function parse(text: string, url: URL): ImageDescription {
  const refuse = (why: string): HypolithError =>
    new HypolithError("image-invalid", `${url} describes no image: ${why}`, {
      hint: 'it should be like { "kernel": "vmlinuz", "initrd": "initrd.cpio" }',
    });
  let value: Record<string, unknown>;
  try {
    value = JSON.parse(text) as Record<string, unknown>;
  } catch {
    throw refuse("it is no JSON");
  }
  if (typeof value !== "object" || value === null) throw refuse("it is no JSON object");
  if (typeof value.kernel !== "string") throw refuse("it names no kernel");
  for (const word of WORDS) {
    const isText = value[word] === undefined || typeof value[word] === "string";
    if (!isText) throw refuse(`its "${word}" is no text`);
  }
  return value as unknown as ImageDescription;
}
