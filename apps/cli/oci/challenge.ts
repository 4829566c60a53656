/**
 * The way to a token: what a registry says it wants, and the request to its token service.
 * Spec: RFC 9110, "WWW-Authenticate"; CNCF Distribution, "Token Authentication Specification" and "OAuth2 Token Authentication".
 */
import type { Credentials } from "./credentials.ts";

export interface Challenge {
  readonly realm: string;
  readonly service: string | undefined;
  readonly scope: string | undefined;
}

/** Undefined: the header asks for something else. */
export function bearerChallenge(header: string): Challenge | undefined {
  const rest = /(?:^|,\s*)bearer\s+(.*)$/i.exec(header)?.[1];
  if (rest === undefined) return undefined;
  const values = new Map<string, string>();
  for (const [, name, quoted, plain] of rest.matchAll(
    /([\w-]+)=(?:"((?:[^"\\]|\\.)*)"|([^\s,]+))/g,
  )) {
    values.set(name!.toLowerCase(), quoted?.replaceAll(/\\(.)/g, "$1") ?? plain!);
  }
  const realm = values.get("realm");
  if (realm === undefined || !URL.canParse(realm)) return undefined;
  return { realm, service: values.get("service"), scope: values.get("scope") };
}

/** A token, or the HTTP status of the refusal. Throws what fetch throws. */
export async function fetchToken(
  challenge: Challenge,
  credentials: Credentials | undefined,
  signal: AbortSignal,
): Promise<string | { readonly status: number }> {
  const response = credentials?.identityToken
    ? await postToken(challenge, credentials.identityToken, signal)
    : await getToken(challenge, credentials, signal);
  if (!response.ok) {
    await response.body?.cancel();
    return { status: response.status };
  }
  const json = (await response.json()) as { token?: unknown; access_token?: unknown } | null;
  const token = json?.token ?? json?.access_token;
  // It goes into a header: no line of its own.
  return typeof token === "string" && /^[\x21-\x7e]+$/.test(token) ? token : { status: 401 };
}

function getToken(
  { realm, service, scope }: Challenge,
  credentials: Credentials | undefined,
  signal: AbortSignal,
): Promise<Response> {
  const url = new URL(realm);
  if (service !== undefined) url.searchParams.set("service", service);
  if (scope !== undefined) url.searchParams.set("scope", scope);
  const { user = "", password = "" } = credentials ?? {};
  const authorization = `Basic ${Buffer.from(`${user}:${password}`).toString("base64")}`;
  return fetch(url, { headers: credentials ? { authorization } : {}, redirect: "error", signal });
}

function postToken(
  { realm, service, scope }: Challenge,
  refreshToken: string,
  signal: AbortSignal,
): Promise<Response> {
  const body = new URLSearchParams({
    grant_type: "refresh_token",
    client_id: "hypolith",
    refresh_token: refreshToken,
    ...(service !== undefined && { service }),
    ...(scope !== undefined && { scope }),
  });
  return fetch(realm, { method: "POST", body, redirect: "error", signal });
}
