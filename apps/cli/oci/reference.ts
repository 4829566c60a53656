/**
 * Names of images in registries, as docker writes them: [HOST[:PORT]/]PATH[:TAG][@DIGEST].
 * Spec: OCI Distribution Specification, "Pulling manifests" (patterns of names and tags); github.com/distribution/reference for defaults.
 *
 * The first part is a host only if it has a dot or a colon or is "localhost"; else the host is docker.io, and a path of one part is in
 * its "library/". Without tag and digest the tag is "latest".
 */
import { HypolithError } from "../../../src/base/errors.ts";
import { isDigest } from "./digest.ts";

export interface ImageReference {
  /** "docker.io", "localhost:5000". */
  readonly host: string;
  /** "library/alpine". */
  readonly path: string;
  readonly tag: string | undefined;
  readonly digest: string | undefined;
}

const DEFAULT_HOST = "docker.io";
const DEFAULT_FOLDER = "library";
const DEFAULT_TAG = "latest";
const PATH = /^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:\/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*$/;
const TAG = /^\w[\w.-]{0,127}$/;
const HOST = /^(?:[a-zA-Z0-9](?:[a-zA-Z0-9.-]*[a-zA-Z0-9])?|\[[0-9a-fA-F:]+\])(?::\d{1,5})?$/;
const LONGEST_PATH = 255;

/** Throws HypolithError "reference-invalid". */
export function parseReference(text: string): ImageReference {
  const at = text.indexOf("@");
  const digest = at < 0 ? undefined : text.slice(at + 1);
  const named = at < 0 ? text : text.slice(0, at);
  if (digest !== undefined && !isDigest(digest)) {
    throw invalid(
      text,
      `'${digest}' is no digest`,
      "a digest is sha256: and 64 hexadecimal digits",
    );
  }
  const colon = named.indexOf(":", named.lastIndexOf("/") + 1);
  const tag = colon < 0 ? undefined : named.slice(colon + 1);
  if (tag !== undefined && !TAG.test(tag)) throw invalid(text, `'${tag}' is no tag`);
  const { host, path } = splitHost(colon < 0 ? named : named.slice(0, colon));
  if (!HOST.test(host)) throw invalid(text, `'${host}' is no registry`);
  if (!PATH.test(path) || path.length > LONGEST_PATH) {
    const isCapital = PATH.test(path.toLowerCase());
    throw invalid(
      text,
      `'${path}' is no name of a repository`,
      isCapital ? "names are in lower case" : undefined,
    );
  }
  return { host, path, tag: tag ?? (digest ? undefined : DEFAULT_TAG), digest };
}

function splitHost(named: string): Pick<ImageReference, "host" | "path"> {
  const slash = named.indexOf("/");
  const first = slash < 0 ? "" : named.slice(0, slash);
  const isHost = /[.:]/.test(first) || first === "localhost";
  const host = isHost ? canonicalHost(first) : DEFAULT_HOST;
  const path = isHost ? named.slice(slash + 1) : named;
  const isShort = host === DEFAULT_HOST && !path.includes("/");
  return { host, path: isShort ? `${DEFAULT_FOLDER}/${path}` : path };
}

function canonicalHost(host: string): string {
  return host === "index.docker.io" || host === "registry-1.docker.io" ? DEFAULT_HOST : host;
}

/** Without tag and digest: "docker.io/library/alpine". */
export function repositoryOf({ host, path }: ImageReference): string {
  return `${host}/${path}`;
}

/** In full: "docker.io/library/alpine:latest". */
export function formatReference(reference: ImageReference): string {
  const { tag, digest } = reference;
  const suffix = `${tag === undefined ? "" : `:${tag}`}${digest === undefined ? "" : `@${digest}`}`;
  return `${repositoryOf(reference)}${suffix}`;
}

function invalid(
  text: string,
  why: string,
  hint = "write it like alpine, alpine:3.20 or registry.example:5000/team/app",
): HypolithError {
  return new HypolithError("reference-invalid", `'${text}' names no image: ${why}`, { hint });
}
