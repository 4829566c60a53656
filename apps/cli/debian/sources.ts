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
  /** How to get there, the first that works: ours is quicker, apt's knows this machine's proxies and credentials. */
  readonly transports: readonly Transport[];
}

export async function chooseMirror(
  { mirror, signal }: { readonly mirror: string | undefined; readonly signal: AbortSignal },
  stagingParent: string,
  progress: Progress,
): Promise<DebianMirror> {
  const ours = new FetchTransport();
  if (mirror !== undefined) {
    const base = checkMirror(mirror);
    // Mirrors have it beside the main archive, if at all.
    const security = /\/debian$/.test(base) ? `${base}-security` : undefined;
    return { base, security, transports: [ours] };
  }
  const commands = APT_COMMANDS;
  const ofApt = await aptMirror(commands, signal);
  if (!ofApt) return { base: PUBLIC_MIRROR, security: PUBLIC_SECURITY, transports: [ours] };
  const context: AptContext = { commands, stagingParent, progress, signal };
  const security = await aptSecurityMirror(commands, signal);
  const theirs = canAptDownload(commands) ? [new AptTransport(context)] : [];
  return { base: ofApt.base, security, transports: [ours, ...theirs] };
}
