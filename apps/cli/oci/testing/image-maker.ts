/** Images as tests want them: in memory, as an OCI layout, as docker's archive. */
import { mkdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { gzipSync } from "node:zlib";
import { digestOf } from "../digest.ts";
import { type Descriptor, MediaType } from "../manifest.ts";
import { makeTar, type TarItem } from "./tar-maker.ts";

export interface MadeImage {
  readonly manifest: Descriptor & { readonly platform?: object };
  readonly config: Descriptor;
  readonly layers: readonly Descriptor[];
  /** All of its blobs by digest. */
  readonly blobs: ReadonlyMap<string, Buffer>;
}

export interface ImageOptions {
  readonly layers: ReadonlyArray<readonly TarItem[]>;
  readonly config?: Readonly<Record<string, unknown>>;
  readonly architecture?: string;
  readonly compress?: (tar: Buffer) => Buffer;
}

export function makeImage({
  layers,
  config = {},
  architecture = "amd64",
  compress = gzipSync,
}: ImageOptions): MadeImage {
  const blobs = new Map<string, Buffer>();
  const add = (mediaType: string, bytes: Buffer): Descriptor => {
    blobs.set(digestOf(bytes), bytes);
    return { mediaType, digest: digestOf(bytes), size: bytes.length };
  };
  const tars = layers.map((items) => makeTar(items));
  const stored = tars.map((tar) => add(`${MediaType.LAYER}+gzip`, compress(tar)));
  const configuration = add(
    MediaType.CONFIG,
    json({
      ...{ os: "linux", architecture, config, created: "2026-01-02T03:04:05Z" },
      rootfs: { type: "layers", diff_ids: tars.map(digestOf) },
    }),
  );
  const manifest = add(
    MediaType.MANIFEST,
    json({
      schemaVersion: 2,
      mediaType: MediaType.MANIFEST,
      config: configuration,
      layers: stored,
    }),
  );
  return {
    manifest: { ...manifest, platform: { os: "linux", architecture } },
    config: configuration,
    layers: stored,
    blobs,
  };
}

export function makeIndex(images: readonly MadeImage[], annotations?: object): Buffer {
  const manifests = images.map(({ manifest }) => ({
    ...manifest,
    ...(annotations && { annotations }),
  }));
  return json({ schemaVersion: 2, mediaType: MediaType.INDEX, manifests });
}

export function writeLayout(
  folder: string,
  images: readonly MadeImage[],
  annotations?: object,
): string {
  for (const [path, bytes] of layoutFiles(images, annotations)) {
    mkdirSync(dirname(join(folder, path)), { recursive: true });
    writeFileSync(join(folder, path), bytes);
  }
  return folder;
}

/** As podman and skopeo do it. */
export function layoutArchive(images: readonly MadeImage[]): Buffer {
  return makeTar(layoutFiles(images).map(([name, content]) => ({ name, content })));
}

function layoutFiles(images: readonly MadeImage[], annotations?: object): Array<[string, Buffer]> {
  return [
    ["oci-layout", Buffer.from('{"imageLayoutVersion":"1.0.0"}')],
    ["index.json", makeIndex(images, annotations)],
    ...images.flatMap(({ blobs }) =>
      [...blobs].map(([digest, bytes]): [string, Buffer] => [
        `blobs/${digest.replace(":", "/")}`,
        bytes,
      ]),
    ),
  ];
}

/** As docker did it until version 24, the layers as plain tar in folders, one of them by a link. */
export function dockerArchive(
  layers: ReadonlyArray<readonly TarItem[]>,
  tag: string,
  config: object = {},
): Buffer {
  const tars = layers.map((items) => makeTar(items));
  const configuration = json({
    ...{ os: "linux", architecture: "amd64", config },
    rootfs: { type: "layers", diff_ids: tars.map(digestOf) },
  });
  const name = `${digestOf(configuration).split(":")[1]}.json`;
  return makeTar([
    ...tars.map((content, index) => ({ name: `${index}/real.tar`, content })),
    ...tars.map((_, index) => ({
      name: `${index}/layer.tar`,
      flag: "2",
      target: `../${index}/real.tar`,
    })),
    { name, content: configuration },
    {
      name: "manifest.json",
      content: json([
        { Config: name, RepoTags: [tag], Layers: tars.map((_, index) => `${index}/layer.tar`) },
      ]),
    },
  ]);
}

export function json(value: unknown): Buffer {
  return Buffer.from(JSON.stringify(value));
}
