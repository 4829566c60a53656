/**
 * A Debian mirror for tests, on loopback.
 */
import { createServer, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import type { TestContext } from "node:test";
import { sha256Of } from "../image/cache.ts";
import type { FakePackage } from "./fake-packages.ts";

export interface FakeMirror {
  readonly base: string;
  /** Paths that were asked for, in order. */
  readonly requests: string[];
}

export interface FakeMirrorOptions {
  /** Packages.xz of these packages: there is no xz encoder here, so the caller brings it. */
  readonly index: Uint8Array;
  readonly packages: readonly FakePackage[];
  /** Takes a request instead of answering it right. */
  readonly disturb?: (path: string, response: ServerResponse) => boolean;
}

export async function startFakeMirror(
  test: TestContext,
  { index, packages, disturb }: FakeMirrorOptions,
): Promise<FakeMirror> {
  const dist = "/debian/dists/bookworm";
  const indexPath = "main/binary-amd64/Packages.xz";
  const files = new Map<string, Uint8Array>([
    [`${dist}/Release`, Buffer.from(`SHA256:\n ${sha256Of(index)} ${index.length} ${indexPath}\n`)],
    [`${dist}/${indexPath}`, index],
    ...packages.map(({ record, deb }) => [`/debian/${record.filename}`, deb] as const),
  ]);
  const requests: string[] = [];
  const server = createServer((request, response) => {
    const path = request.url!;
    requests.push(path);
    if (disturb?.(path, response)) return;
    const content = files.get(path);
    response.writeHead(content ? 200 : 404).end(content);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  test.after(() => {
    server.closeAllConnections();
    server.close();
  });
  const { port } = server.address() as AddressInfo;
  return { base: `http://127.0.0.1:${port}/debian`, requests };
}
