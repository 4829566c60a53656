/** An image whose parts are all on this machine. */
import { createHash } from "node:crypto";
import type { FilePart } from "./layer-file.ts";
import { type ImageConfig, unsound } from "./manifest.ts";

export interface ImageContent {
  /** For a person. */
  readonly name: string;
  /** Of its manifest; of its configuration where there is no manifest. */
  readonly digest: string;
  readonly config: ImageConfig;
  /** The lowest first, as they are stored; as many as the configuration has diff_ids. */
  readonly layers: readonly FilePart[];
}

/** The layers as the configuration counts them. Throws if the two do not agree. */
export function withLayers(
  name: string,
  digest: string,
  config: ImageConfig,
  layers: readonly FilePart[],
): ImageContent {
  if (layers.length !== config.diffIds.length) {
    throw unsound(
      name,
      `it has ${layers.length} layers, and ${config.diffIds.length} in its configuration`,
    );
  }
  return { name, digest, config, layers };
}

/** Same layers, same root file system. */
export function rootKey(
  { config }: { readonly config: Pick<ImageConfig, "diffIds"> },
  format: string,
): string {
  return createHash("sha256")
    .update(`${format}\n${config.diffIds.join("\n")}`)
    .digest("hex");
}
