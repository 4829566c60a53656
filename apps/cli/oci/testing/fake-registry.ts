/** A registry on this machine, with the habits and the misbehaviour that tests ask for. */
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import type { TestContext } from "node:test";
import { MediaType } from "../manifest.ts";
import { type MadeImage, makeIndex } from "./image-maker.ts";

export interface FakeRegistryOptions {
  /** "team/app:1": an image, or several for an index. */
  readonly images: Readonly<Record<string, MadeImage | readonly MadeImage[]>>;
  /** Wants a token of its token service, which wants these. */
  readonly credentials?: { readonly user: string; readonly password: string };
  /** "none": nobody needs one. "basic": no token, the password itself. */
  readonly auth?: "none" | "token" | "basic";
  /** Break the connection of a blob after so many bytes, so many times. */
  readonly breakAfter?: number;
  readonly breaks?: number;
  /** Ranges are ignored. */
  readonly noRanges?: boolean;
  /** Change a byte of every blob that is this long or longer. */
  readonly corrupt?: number;
  /** Blobs are at another origin, which must not see credentials; "self": round and round. */
  readonly redirectTo?: string;
  /** Every manifest is this. */
  readonly manifestInstead?: Buffer;
  /** The first answers are this status. */
  readonly failFirst?: { readonly status: number; count: number };
}

export interface SeenRequest {
  readonly path: string;
  readonly authorization: string | undefined;
  readonly range: string | undefined;
}

export interface FakeRegistry {
  readonly host: string;
  readonly origin: string;
  readonly requests: readonly SeenRequest[];
}

const TOKEN = "a.token-of-ours";

export async function startRegistry(
  test: TestContext,
  options: FakeRegistryOptions,
): Promise<FakeRegistry> {
  const registry = await serveRegistry(options);
  test.after(() => registry.close());
  return registry;
}

/** Until `close`. */
export async function serveRegistry(
  options: FakeRegistryOptions,
): Promise<FakeRegistry & { close(): void }> {
  const requests: SeenRequest[] = [];
  const answers = new Answers(options);
  const server = createServer((request, response) => {
    const { authorization, range } = request.headers;
    requests.push({ path: request.url!, authorization, range });
    answers.answer(request, response);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  answers.origin = `http://127.0.0.1:${port}`;
  const close = (): void => {
    server.closeAllConnections();
    server.close();
  };
  return { host: `localhost:${port}`, origin: answers.origin, requests, close };
}

class Answers {
  origin = "";
  readonly #options: FakeRegistryOptions;
  readonly #blobs = new Map<string, Buffer>();
  readonly #manifests = new Map<string, readonly [type: string, bytes: Buffer]>();
  #breaks: number;

  constructor(options: FakeRegistryOptions) {
    this.#options = options;
    this.#breaks = options.breaks ?? 0;
    for (const [name, made] of Object.entries(options.images)) {
      const images: readonly MadeImage[] = "blobs" in made ? [made] : made;
      const [path, tag] = [
        name.slice(0, name.lastIndexOf(":")),
        name.slice(name.lastIndexOf(":") + 1),
      ];
      for (const { blobs, manifest } of images) {
        for (const [digest, bytes] of blobs) this.#blobs.set(digest, bytes);
        this.#manifests.set(`${path}/manifests/${manifest.digest}`, [
          MediaType.MANIFEST,
          blobs.get(manifest.digest)!,
        ]);
      }
      const [only] = images;
      this.#manifests.set(
        `${path}/manifests/${tag}`,
        "blobs" in made
          ? [MediaType.MANIFEST, only!.blobs.get(only!.manifest.digest)!]
          : [MediaType.INDEX, makeIndex(images)],
      );
    }
  }

  answer(request: IncomingMessage, response: ServerResponse): void {
    const { pathname } = new URL(request.url!, this.origin);
    const { failFirst } = this.#options;
    if (failFirst && failFirst.count > 0) {
      failFirst.count--;
      response.writeHead(failFirst.status).end();
    } else if (pathname === "/token") this.#token(request, response);
    else if (!this.#isAllowed(request)) this.#challenge(pathname, response);
    else if (pathname.includes("/blobs/")) this.#blob(request, pathname, response);
    else {
      const found = this.#manifests.get(pathname.slice("/v2/".length));
      const { manifestInstead } = this.#options;
      if (manifestInstead) response.end(manifestInstead);
      else if (!found) response.writeHead(404).end("{}");
      else response.writeHead(200, { "content-type": found[0] }).end(found[1]);
    }
  }

  #isAllowed({ headers }: IncomingMessage): boolean {
    const { auth = "none" } = this.#options;
    if (auth === "none") return true;
    return headers.authorization === (auth === "token" ? `Bearer ${TOKEN}` : this.#basic());
  }

  #basic(): string {
    const { user, password } = this.#options.credentials!;
    return `Basic ${Buffer.from(`${user}:${password}`).toString("base64")}`;
  }

  #challenge(pathname: string, response: ServerResponse): void {
    const path = /^\/v2\/(.*)\/(?:manifests|blobs)\//.exec(pathname)?.[1];
    const bearer = `Bearer realm="${this.origin}/token",service="a, test",scope="repository:${path}:pull"`;
    const header = this.#options.auth === "token" ? bearer : 'Basic realm="x"';
    response.writeHead(401, { "www-authenticate": header }).end();
  }

  #token({ url, headers }: IncomingMessage, response: ServerResponse): void {
    const { searchParams } = new URL(url!, this.origin);
    const isSound =
      searchParams.get("service") === "a, test" && searchParams.get("scope")?.endsWith(":pull");
    const { credentials } = this.#options;
    const isKnown = !credentials || headers.authorization === this.#basic();
    if (isSound && isKnown) response.end(JSON.stringify({ token: TOKEN }));
    else response.writeHead(401).end();
  }

  #blob({ headers }: IncomingMessage, pathname: string, response: ServerResponse): void {
    const { redirectTo, corrupt, noRanges, breakAfter } = this.#options;
    if (redirectTo !== undefined) {
      const origin = redirectTo === "self" ? this.origin : redirectTo;
      response.writeHead(307, { location: `${origin}${pathname}` }).end();
      return;
    }
    const found = this.#blobs.get(pathname.slice(pathname.lastIndexOf("/") + 1));
    if (!found) {
      response.writeHead(404).end();
      return;
    }
    const bytes = Buffer.from(found);
    if (corrupt !== undefined && bytes.length >= corrupt) bytes[bytes.length >> 1]! ^= 1;
    const from = Number(/^bytes=(\d+)-$/.exec(headers.range ?? "")?.[1] ?? 0);
    const start = noRanges ? 0 : from;
    const body = bytes.subarray(start);
    const range = { "content-range": `bytes ${start}-${bytes.length - 1}/${bytes.length}` };
    response.writeHead(start > 0 ? 206 : 200, {
      "content-length": body.length,
      ...(start > 0 && range),
    });
    if (breakAfter !== undefined && this.#breaks > 0 && body.length > breakAfter) {
      this.#breaks--;
      response.write(body.subarray(0, breakAfter), () => setTimeout(() => response.destroy(), 20));
    } else {
      response.end(body);
    }
  }
}
