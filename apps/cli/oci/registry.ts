/**
 * Client of registries: manifests and blobs, read only.
 * Spec: OCI Distribution Specification, "Pull"; CNCF Distribution, "Token Authentication Specification".
 *
 * Redirects are followed by hand: credentials go to the registry and to the token service that it names, never to where a blob is
 * stored, and never from https to http. A connection that breaks is taken up again where it broke.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { HypolithError } from "../../../src/base/errors.ts";
import { reasonOf } from "../image/transport.ts";
import type { BlobWriter } from "./blob-store.ts";
import { bearerChallenge, type Challenge, fetchToken } from "./challenge.ts";
import type { Credentials } from "./credentials.ts";
import { LARGEST_MANIFEST, MediaType } from "./manifest.ts";
import { formatReference, type ImageReference } from "./reference.ts";

export interface RegistryOptions {
  readonly credentials: Credentials | undefined;
  /** Speak plain HTTP. Always done with this machine itself. */
  readonly insecure: boolean;
  readonly signal: AbortSignal;
  /** Between tries; for tests. Milliseconds. */
  readonly retryDelayMs?: number;
}

const ACCEPTED = [
  ...[MediaType.INDEX, MediaType.MANIFEST, MediaType.DOCKER_INDEX, MediaType.DOCKER_MANIFEST],
].join(", ");
/** A registry that stops answering is given up after this long without a byte. */
const STALL_MS = 30_000;
/** Without getting a byte, and at all. */
const TRIES = 5;
const MOST_TRIES = 100;
const RETRY_DELAY_MS = 500;
/** Nobody is there: one more try, not four. */
const HOPELESS = new Set(["ECONNREFUSED", "ENOTFOUND", "EHOSTUNREACH", "ENETUNREACH"]);
const MOST_REDIRECTS = 5;
const TRANSIENT = new Set([408, 429, 500, 502, 503, 504]);

export class Registry {
  readonly reference: ImageReference;
  readonly #base: string;
  readonly #options: RegistryOptions;
  #authorization: string | undefined;

  constructor(reference: ImageReference, options: RegistryOptions) {
    this.reference = reference;
    this.#options = options;
    const { host, path } = reference;
    const isPlain = options.insecure || isLoopback(host);
    const server = host === "docker.io" ? "registry-1.docker.io" : host;
    this.#base = `${isPlain ? "http" : "https"}://${server}/v2/${path}`;
  }

  /** A manifest or an index by tag or digest. The caller checks the digest. */
  async manifest(tagOrDigest: string): Promise<Buffer> {
    return this.#tries(async (signal, alive) => {
      const url = `${this.#base}/manifests/${tagOrDigest}`;
      const response = await this.#get(url, { accept: ACCEPTED }, signal);
      const parts: Uint8Array[] = [];
      let size = 0;
      for await (const part of bodyOf(response)) {
        alive();
        parts.push(part);
        size += part.length;
        if (size > LARGEST_MANIFEST) throw this.#refused("its manifest is too large");
      }
      return Buffer.concat(parts);
    });
  }

  /** Fills `writer` up with the blob; does not commit. More than `size` bytes are refused. */
  async blob(
    digest: string,
    size: number,
    writer: BlobWriter,
    onBytes: (bytes: number) => void,
  ): Promise<void> {
    await this.#tries(async (signal, alive) => {
      // What an earlier try left may be wrong or too long.
      if (writer.size > size) writer.restart();
      if (writer.size === size && size > 0) return;
      const from = writer.size;
      const response = await this.#get(`${this.#base}/blobs/${digest}`, rangeFrom(from), signal);
      if (from > 0 && !continuesAt(response, from)) writer.restart();
      onBytes(writer.size);
      for await (const part of bodyOf(response)) {
        alive();
        if (writer.size + part.length > size)
          throw this.#refused(`${digest} is longer than ${size} bytes`);
        writer.write(part);
        onBytes(writer.size);
      }
      if (writer.size < size) throw new BrokenError("the connection ended early");
    });
  }

  /** Asks again when the network or the registry stumbled, not when it said no. */
  async #tries<T>(action: (signal: AbortSignal, alive: () => void) => Promise<T>): Promise<T> {
    const { signal, retryDelayMs = RETRY_DELAY_MS } = this.#options;
    for (let number = 1, total = 1; ; number++, total++) {
      const stall = new AbortController();
      const timer = setTimeout(() => stall.abort(), STALL_MS);
      try {
        return await action(AbortSignal.any([signal, stall.signal]), () => {
          timer.refresh();
          number = 1;
        });
      } catch (cause) {
        signal.throwIfAborted();
        if (cause instanceof HypolithError) throw cause;
        const isHopeless = number === 2 && HOPELESS.has(codeOf(cause));
        if (isHopeless || number === TRIES || total === MOST_TRIES) {
          const why = stall.signal.aborted ? "it does not answer" : reasonOf(cause);
          throw this.#unreachable(why, cause);
        }
      } finally {
        clearTimeout(timer);
      }
      await sleep(retryDelayMs * 2 ** (number - 1), undefined, { signal });
    }
  }

  async #get(
    url: string,
    headers: Readonly<Record<string, string>>,
    signal: AbortSignal,
  ): Promise<Response> {
    let response = await this.#follow(url, headers, signal);
    if (response.status === 401) {
      await response.body?.cancel();
      const authorization = await this.#authorize(response, signal);
      if (authorization !== undefined) {
        this.#authorization = authorization;
        response = await this.#follow(url, headers, signal);
      }
    }
    if (response.ok) return response;
    await response.body?.cancel();
    if (TRANSIENT.has(response.status)) throw new BrokenError(`HTTP status ${response.status}`);
    throw this.#statusFailure(response.status);
  }

  async #follow(
    url: string,
    headers: Readonly<Record<string, string>>,
    signal: AbortSignal,
  ): Promise<Response> {
    let at = new URL(url);
    const { origin } = at;
    for (let hops = 0; hops <= MOST_REDIRECTS; hops++) {
      const isHome = at.origin === origin && this.#authorization !== undefined;
      const all = isHome ? { ...headers, authorization: this.#authorization! } : headers;
      const response = await fetch(at, { headers: all, redirect: "manual", signal });
      const location = response.headers.get("location");
      if (response.status < 300 || response.status > 399 || location === null) return response;
      await response.body?.cancel();
      const next = new URL(location, at);
      if (next.protocol !== at.protocol && next.protocol !== "https:") {
        throw this.#refused("it leads from https to another protocol");
      }
      at = next;
    }
    throw this.#refused("it leads in a circle");
  }

  /** What to say to a registry that asked who we are; undefined if there is nothing to say. */
  async #authorize(response: Response, signal: AbortSignal): Promise<string | undefined> {
    const { credentials, insecure } = this.#options;
    const header = response.headers.get("www-authenticate") ?? "";
    const challenge = bearerChallenge(header);
    if (!challenge) {
      if (!credentials || !/^basic\b/i.test(header)) return undefined;
      return basic(credentials);
    }
    const isPlain = new URL(this.#base).protocol === "http:";
    if (!isPlain && !insecure && new URL(challenge.realm).protocol !== "https:") {
      throw this.#refused("its token service is not asked over plain HTTP");
    }
    return `Bearer ${await this.#token(challenge, signal)}`;
  }

  async #token(challenge: Challenge, signal: AbortSignal): Promise<string> {
    const { credentials } = this.#options;
    const scope = challenge.scope ?? `repository:${this.reference.path}:pull`;
    const answer = await fetchToken({ ...challenge, scope }, credentials, signal);
    if (typeof answer === "string") return answer;
    if (TRANSIENT.has(answer.status)) throw new BrokenError(`HTTP status ${answer.status}`);
    throw this.#statusFailure(answer.status);
  }

  #statusFailure(status: number): HypolithError {
    const name = formatReference(this.reference);
    const { credentials } = this.#options;
    if (status === 404) {
      return new HypolithError(
        "image-absent",
        `the registry ${this.reference.host} has no image ${name}`,
        {
          hint: "check the name and the tag",
        },
      );
    }
    if (status === 401 || status === 403) {
      const hint = credentials
        ? "the credentials in docker's or podman's file are not accepted: log in anew with docker login or podman login"
        : "check the name; for a private image log in with docker login or podman login, or set REGISTRY_AUTH_FILE";
      return new HypolithError(
        "image-denied",
        `the registry ${this.reference.host} does not give ${name} to us`,
        { hint },
      );
    }
    return this.#refused(`HTTP status ${status}`);
  }

  #refused(why: string): HypolithError {
    const name = formatReference(this.reference);
    return new HypolithError("registry-refused", `${name} cannot be downloaded: ${why}`);
  }

  #unreachable(why: string, cause: unknown): HypolithError {
    const { host } = this.reference;
    const isPlain = this.#base.startsWith("http:");
    const hints = ["check the network and the name of the registry"];
    if (!isPlain) hints.push("a registry that speaks plain HTTP needs --insecure");
    return new HypolithError(
      "registry-unreachable",
      `the registry ${host} cannot be reached: ${why}`,
      {
        cause,
        hint: hints.join("\n"),
      },
    );
  }
}

/** What the system said, in the causes of what fetch says. */
function codeOf(error: unknown): string {
  const { code, cause } = error as NodeJS.ErrnoException;
  if (cause instanceof AggregateError && cause.errors.length > 0) return codeOf(cause.errors[0]);
  return cause instanceof Error ? codeOf(cause) : (code ?? "");
}

/** Worth another try. */
class BrokenError extends Error {}

export function isLoopback(host: string): boolean {
  const name = host.replace(/:\d+$/, "");
  return name === "localhost" || name === "[::1]" || /^127(?:\.\d{1,3}){3}$/.test(name);
}

export function basic({ user, password }: Credentials): string {
  return `Basic ${Buffer.from(`${user}:${password}`).toString("base64")}`;
}

function rangeFrom(offset: number): Record<string, string> {
  // A byte counts as sent or not; a compressed transfer would count others.
  return { "accept-encoding": "identity", ...(offset > 0 && { range: `bytes=${offset}-` }) };
}

function continuesAt(response: Response, offset: number): boolean {
  const range = response.headers.get("content-range") ?? "";
  return response.status === 206 && range.startsWith(`bytes ${offset}-`);
}

function bodyOf(response: Response): AsyncIterable<Uint8Array> {
  return response.body ?? emptyBody();
}

async function* emptyBody(): AsyncGenerator<Uint8Array> {}
