/**
 * Which mirror packages come from: the one that the user named, the one that this machine's apt uses, or Debian's own; and what a guest calls it.
 */
import {
  APT_COMMANDS,
  type AptContext,
  AptTransport,
  aptMirror,
  aptSecurityMirror,
  canAptDownload,
} from "../image/apt.ts";
import { checkMirror } from "../image/mirror.ts";
import type { Progress } from "../image/progress.ts";
import { FetchTransport, type Transport } from "../image/transport.ts";

/** Packages are signed: plain HTTP is enough, and needs no certificates in the guest. */
const PUBLIC_MIRROR = "http://deb.debian.org/debian";
const PUBLIC_SECURITY = "http://deb.debian.org/debian-security";

export interface DebianMirror {
  readonly base: string;
  /** Of the archive of security fixes, if one is known. */
  readonly security: string | undefined;
  /** What the guest's apt is told. */
  readonly guestBase: string;
  readonly guestSecurity: string | undefined;
  readonly transport: Transport;
}

export async function chooseMirror(
  { mirror, signal }: { readonly mirror: string | undefined; readonly signal: AbortSignal },
  stagingParent: string,
  progress: Progress,
): Promise<DebianMirror> {
  if (mirror !== undefined) {
    const base = checkMirror(mirror);
    // Mirrors have it beside the main archive, if at all.
    const security = /\/debian$/.test(base) ? `${base}-security` : undefined;
    return named(base, security, new FetchTransport());
  }
  const commands = APT_COMMANDS;
  const ofApt = await aptMirror(commands, signal);
  if (!ofApt) return named(PUBLIC_MIRROR, PUBLIC_SECURITY, new FetchTransport());
  const context: AptContext = { commands, stagingParent, progress, signal };
  const security = await aptSecurityMirror(commands, signal);
  const transport = canAptDownload(commands) ? new AptTransport(context) : new FetchTransport();
  return named(ofApt.base, security, transport);
}

function named(base: string, security: string | undefined, transport: Transport): DebianMirror {
  return { base, security, guestBase: base, guestSecurity: security, transport };
}
