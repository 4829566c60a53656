/**
 * A web server for files in memory: GET and HEAD, by exact path, revalidated by their digest. Nothing of the file system can be asked for.
 */
import { createHash } from "node:crypto";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { HypolithError } from "../../../src/base/errors.ts";
import type { PageFiles } from "./page-files.ts";

const TYPES: Readonly<Record<string, string>> = {
  html: "text/html; charset=utf-8",
  js: "text/javascript; charset=utf-8",
  css: "text/css; charset=utf-8",
  json: "application/json",
  txt: "text/plain; charset=utf-8",
};

interface Served {
  readonly content: Uint8Array;
  readonly headers: Readonly<Record<string, string>>;
}

export class PageServer {
  readonly #files: ReadonlyMap<string, Served>;
  readonly #server: Server;

  /** `headers` go with every answer. */
  constructor(files: PageFiles, headers: Readonly<Record<string, string>> = {}) {
    this.#files = new Map(
      [...files].map(([path, content]) => [path, serve(path, content, headers)]),
    );
    this.#server = createServer((request, response) => this.#answer(request, response));
  }

  /** Answers the address of the page. */
  listen(port: number, host: string): Promise<string> {
    return new Promise((resolve, reject) => {
      this.#server.once("error", (cause: NodeJS.ErrnoException) => {
        const why = cause.code === "EADDRINUSE" ? "it is in use" : cause.message;
        reject(
          new HypolithError("port-unavailable", `cannot listen on ${host}, port ${port}: ${why}`, {
            cause,
            hint: "choose another with --port; --port 0 takes any that is free",
          }),
        );
      });
      this.#server.listen(port, host, () => {
        const { port: actual } = this.#server.address() as AddressInfo;
        const name = host.includes(":") ? `[${host}]` : host;
        resolve(`http://${name}:${actual}/`);
      });
    });
  }

  close(): Promise<void> {
    return new Promise((resolve) => {
      this.#server.close(() => resolve());
      this.#server.closeAllConnections();
    });
  }

  #answer(request: IncomingMessage, response: ServerResponse): void {
    const { method, url = "/", headers } = request;
    if (method !== "GET" && method !== "HEAD") {
      response.writeHead(405, { allow: "GET, HEAD" }).end();
      return;
    }
    const path = url.split("?")[0]!.slice(1) || "index.html";
    const file = this.#files.get(path);
    if (!file) {
      response.writeHead(404, { "content-type": TYPES.txt! }).end("not found\n");
    } else if (headers["if-none-match"] === file.headers.etag) {
      response.writeHead(304, file.headers).end();
    } else {
      response.writeHead(200, { ...file.headers, "content-length": file.content.length });
      response.end(method === "HEAD" ? undefined : file.content);
    }
  }
}

function serve(
  path: string,
  content: Uint8Array,
  headers: Readonly<Record<string, string>>,
): Served {
  const extension = path.slice(path.lastIndexOf(".") + 1);
  const digest = createHash("sha256").update(content).digest("base64url");
  return {
    content,
    headers: {
      "content-type": TYPES[extension] ?? "application/octet-stream",
      "cache-control": "no-cache",
      "x-content-type-options": "nosniff",
      etag: `"${digest}"`,
      ...headers,
    },
  };
}
