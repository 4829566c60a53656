/** From the layers of an image to its tree, while its unpacked layers are open. */
import { closeSync, readSync } from "node:fs";
import type { Progress } from "../image/progress.ts";
import { type Directory, emptyDirectory, lookUp } from "./file-tree.ts";
import type { ImageContent } from "./image-content.ts";
import { applyLayer } from "./layer.ts";
import { unpackLayer } from "./layer-file.ts";
import type { FileRange } from "./tar-file.ts";

export interface TreeOptions {
  /** For unpacked layers; its owner removes it. */
  readonly folder: string;
  readonly progress: Progress;
  readonly signal: AbortSignal;
}

export interface RootTree {
  readonly root: Directory;
  /** Files whose extended attributes were left out. */
  readonly withAttributes: number;
}

/** Contents can be read only while `use` runs. */
export async function withTree<T>(
  image: ImageContent,
  { folder, progress, signal }: TreeOptions,
  use: (tree: RootTree) => T,
): Promise<T> {
  const root = emptyDirectory();
  const open: FileRange[] = [];
  const total = image.layers.reduce((sum, { size }) => sum + size, 0);
  const bar = progress.bar(`unpacking ${image.name}`, total);
  let withAttributes = 0;
  let before = 0;
  try {
    for (const [number, part] of image.layers.entries()) {
      const range = await unpackLayer(part, {
        folder,
        diffId: image.config.diffIds[number]!,
        what: `layer ${number + 1} of ${image.name}`,
        onBytes: (bytes) => bar.update(before + bytes),
        signal,
      });
      open.push(range);
      before += part.size;
      withAttributes += applyLayer(root, number, range).withAttributes;
      signal.throwIfAborted();
    }
    return use({ root, withAttributes });
  } finally {
    bar.end();
    for (const { descriptor } of open) closeSync(descriptor);
  }
}

const LARGEST_TEXT = 1 << 20;

/** A small text file of the image's, links followed inside it; empty if there is none. */
export function textOf(root: Directory, path: string): string {
  const found = lookUp(root, path.split("/"));
  if (typeof found === "string" || found.kind !== "file") return "";
  const { descriptor, offset, size } = found.content;
  const bytes = Buffer.alloc(Math.min(size, LARGEST_TEXT));
  const got = readSync(descriptor, bytes, 0, bytes.length, offset);
  return bytes.toString("utf8", 0, got);
}
