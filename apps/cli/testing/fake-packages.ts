/**
 * Debian packages for tests: small, made here, and whole enough that the image supply cannot tell them from real ones.
 */
import { gzipSync } from "node:zlib";
import { pack } from "tar-stream";
import { sha256Of } from "../image/cache.ts";
import type { PackageRecord } from "../image/packages-index.ts";

/** Path to content; a content of undefined is a folder. */
export type Tree = Readonly<Record<string, Uint8Array | string | undefined>>;

export interface FakePackage {
  readonly record: PackageRecord;
  readonly deb: Uint8Array;
}

export const FAKE_KERNEL = Buffer.from("a kernel\n".repeat(1000));
export const FAKE_BUSYBOX = Buffer.from("a busybox\n".repeat(100));
export const FAKE_RELEASE = "6.1.0-9-cloud-amd64";

export async function makeTar(tree: Tree): Promise<Buffer> {
  const archive = pack();
  for (const [name, content] of Object.entries(tree)) {
    if (content === undefined) archive.entry({ name, type: "directory" });
    else archive.entry({ name }, content);
  }
  archive.finalize();
  const parts: Buffer[] = [];
  for await (const part of archive as unknown as AsyncIterable<Buffer>) parts.push(part);
  return Buffer.concat(parts);
}

export function makeAr(
  members: ReadonlyArray<readonly [name: string, content: Uint8Array]>,
): Buffer {
  const parts: Uint8Array[] = [Buffer.from("!<arch>\n")];
  for (const [name, content] of members) {
    const head = [
      name.padEnd(16),
      "0".padEnd(12),
      "0".padEnd(6),
      "0".padEnd(6),
      "100644".padEnd(8),
    ];
    parts.push(Buffer.from(`${head.join("")}${String(content.length).padEnd(10)}\`\n`), content);
    if (content.length & 1) parts.push(Buffer.from("\n"));
  }
  return Buffer.concat(parts);
}

export async function makeDeb(tree: Tree): Promise<Buffer> {
  return makeAr([
    ["debian-binary", Buffer.from("2.0\n")],
    ["control.tar.gz", gzipSync(await makeTar({ "./control": "Package: x\n" }))],
    ["data.tar.gz", gzipSync(await makeTar(tree))],
  ]);
}

async function makePackage(name: string, depends: string, tree: Tree): Promise<FakePackage> {
  const deb = await makeDeb(tree);
  const record: PackageRecord = {
    name,
    version: "6.1.9-1",
    architecture: "amd64",
    depends,
    filename: `pool/main/${name}_6.1.9-1_amd64.deb`,
    size: deb.length,
    sha256: sha256Of(deb),
  };
  return { record, deb };
}

/** What the default image is made of. */
export function fakePackages(): Promise<FakePackage[]> {
  const kernel = `linux-image-${FAKE_RELEASE}`;
  return Promise.all([
    makePackage("linux-image-cloud-amd64", `foo (>= 1), ${kernel} (= 6.1.9-1)`, {}),
    makePackage(kernel, "kmod", {
      "./boot/": undefined,
      [`./boot/System.map-${FAKE_RELEASE}`]: "a map\n",
      [`./boot/vmlinuz-${FAKE_RELEASE}`]: FAKE_KERNEL,
      [`./lib/modules/${FAKE_RELEASE}/kernel/other.ko`]: Buffer.alloc(100_000),
    }),
    makePackage("busybox-static", "", { "./bin/busybox": FAKE_BUSYBOX }),
  ]);
}

export function stanza(record: PackageRecord): string {
  return [
    `Package: ${record.name}`,
    `Version: ${record.version}`,
    `Architecture: ${record.architecture}`,
    ...(record.depends ? [`Depends: ${record.depends}`] : []),
    "Description: a package",
    " with a second line",
    `Filename: ${record.filename}`,
    `Size: ${record.size}`,
    `SHA256: ${record.sha256}`,
    "",
  ].join("\n");
}
