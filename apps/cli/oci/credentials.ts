/**
 * Credentials for registries, from the files that docker and podman keep them in.
 * Spec: containers-auth.json(5); docker's config.json.
 *
 * Order: $REGISTRY_AUTH_FILE, $XDG_RUNTIME_DIR/containers/auth.json, $DOCKER_CONFIG/config.json or ~/.docker/config.json. Entries may
 * name a repository ("host/team") or a host; the longest that fits is taken. Credential helpers are programs of others: they are not run.
 */
import { readFileSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { HypolithError } from "../../../src/base/errors.ts";
import type { ImageReference } from "./reference.ts";

export interface Credentials {
  readonly user: string;
  readonly password: string;
  /** In place of a password: an OAuth2 refresh token. */
  readonly identityToken: string | undefined;
}

export type CredentialSource = (reference: ImageReference) => Credentials | undefined;

interface AuthFile {
  readonly auths?: Readonly<Record<string, AuthEntry>>;
}

interface AuthEntry {
  readonly auth?: unknown;
  readonly username?: unknown;
  readonly password?: unknown;
  readonly identitytoken?: unknown;
}

const DOCKER_HUB_KEYS = ["https://index.docker.io/v1/", "index.docker.io", "docker.io"];

export function credentialFiles(env: NodeJS.ProcessEnv = process.env): string[] {
  if (env.REGISTRY_AUTH_FILE) return [env.REGISTRY_AUTH_FILE];
  const runtime = env.XDG_RUNTIME_DIR;
  const docker = env.DOCKER_CONFIG || join(env.HOME || homedir(), ".docker");
  return [
    ...(runtime ? [join(runtime, "containers", "auth.json")] : []),
    join(docker, "config.json"),
  ];
}

/** Files that are not there are skipped, but for one that was named. */
export function readCredentials(env: NodeJS.ProcessEnv = process.env): CredentialSource {
  const files = credentialFiles(env).map((path) => read(path, path === env.REGISTRY_AUTH_FILE));
  return (reference) => {
    for (const file of files) {
      const found = lookUp(file, reference);
      if (found) return found;
    }
    return undefined;
  };
}

function read(path: string, isNamed: boolean): AuthFile {
  let content: string;
  try {
    content = readFileSync(path, "utf8");
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException;
    if (!isNamed && (code === "ENOENT" || code === "ENOTDIR" || code === "EACCES")) return {};
    throw unreadable(path, message, cause);
  }
  try {
    const json: unknown = JSON.parse(content);
    if (typeof json === "object" && json !== null) return json as AuthFile;
  } catch (cause) {
    throw unreadable(path, "it is no JSON", cause);
  }
  throw unreadable(path, "it is no JSON object");
}

function lookUp({ auths }: AuthFile, { host, path }: ImageReference): Credentials | undefined {
  if (typeof auths !== "object" || auths === null) return undefined;
  const parts = `${host}/${path}`.split("/");
  const keys = parts.map((_, index) => parts.slice(0, parts.length - index).join("/"));
  keys.push(`https://${host}`, `http://${host}`, `https://${host}/v1/`, `https://${host}/v2/`);
  if (host === "docker.io") keys.push(...DOCKER_HUB_KEYS);
  for (const key of keys) {
    const entry = Object.hasOwn(auths, key) ? auths[key] : undefined;
    const found = entry && credentialsOf(entry);
    if (found) return found;
  }
  return undefined;
}

function credentialsOf(entry: AuthEntry): Credentials | undefined {
  const identityToken = typeof entry.identitytoken === "string" ? entry.identitytoken : undefined;
  if (typeof entry.auth === "string" && entry.auth !== "") {
    const [user = "", ...rest] = Buffer.from(entry.auth, "base64").toString("utf8").split(":");
    return { user, password: rest.join(":"), identityToken };
  }
  const { username, password } = entry;
  if (typeof username !== "string" || typeof password !== "string") return undefined;
  return { user: username, password, identityToken };
}

function unreadable(path: string, why: string, cause?: unknown): HypolithError {
  return new HypolithError(
    "credentials-unreadable",
    `the credentials in ${path} cannot be read: ${why}`,
    {
      cause,
      hint: "REGISTRY_AUTH_FILE names another file",
    },
  );
}
