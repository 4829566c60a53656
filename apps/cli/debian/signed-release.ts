/**
 * A Release file that Debian has signed: what all other files of a suite are checked against.
 * Spec: Debian wiki, "DebianRepository/Format", InRelease; RFC 9580, "Cleartext Signature Framework".
 *
 * The signature is checked by this machine's gpgv or sqv, with its Debian keyrings, as its apt does it. A machine that has neither has to
 * take the mirror's word: only one that TLS vouches for is believed.
 */
import { spawnSync } from "node:child_process";
import { existsSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { HypolithError } from "../../../src/base/errors.ts";

export interface Keyrings {
  /** Programs that are asked, in this order. */
  readonly verifiers: readonly string[];
  /** Binary keyrings. */
  readonly files: readonly string[];
}

const FOLDERS = ["/usr/share/keyrings", "/etc/apt/keyrings", "/etc/apt/trusted.gpg.d"];

/** Debian's keys on this machine. The one keyring has them all; single keys are for machines without it. */
export function machineKeyrings(folders: readonly string[] = FOLDERS): Keyrings {
  const found = folders.flatMap((folder) =>
    namesIn(folder)
      .filter((name) => /^debian-archive-.*\.(?:gpg|pgp)$/.test(name) && !name.includes("removed"))
      .map((name) => join(folder, name)),
  );
  const whole = found.find((path) => /\/debian-archive-keyring\.(?:gpg|pgp)$/.test(path));
  return { verifiers: ["gpgv", "sqv"], files: whole === undefined ? found : [whole] };
}

export interface ReleaseCheck {
  readonly url: string;
  readonly keyrings: Keyrings;
  /** For the two halves of the file. */
  readonly folder: string;
}

export interface CheckedRelease {
  /** What was signed. */
  readonly text: string;
  /** False: TLS alone vouches for it. */
  readonly isSigned: boolean;
}

/** Throws HypolithError "release-unsigned" or "release-unverified". */
export function checkRelease(inRelease: Uint8Array, check: ReleaseCheck): CheckedRelease {
  const { url, keyrings, folder } = check;
  const { text, signature } = splitCleartext(Buffer.from(inRelease).toString("latin1"), url);
  const program = keyrings.files.length > 0 ? keyrings.verifiers.find(isThere) : undefined;
  if (program === undefined) return { text: believed(text, url), isSigned: false };
  const message = join(folder, "Release");
  writeFileSync(message, text, "latin1");
  writeFileSync(`${message}.gpg`, signature, "latin1");
  const isGpgv = /gpgv$/.test(program);
  const argv = [
    ...keyrings.files.flatMap((path) => ["--keyring", path]),
    ...(isGpgv ? ["--status-fd", "1"] : []),
    ...[`${message}.gpg`, message],
  ];
  const { status, stdout, stderr } = spawnSync(program, argv, {
    encoding: "utf8",
    env: { ...process.env, LC_ALL: "C", GNUPGHOME: folder },
  });
  // Several keys sign a release, and this machine may not know the newest: one that it knows is enough, as for apt.
  const isGood = isGpgv
    ? /^\[GNUPG:\] VALIDSIG /m.test(stdout) && !/^\[GNUPG:\] BADSIG /m.test(stdout)
    : status === 0;
  if (isGood) return { text, isSigned: true };
  const why = stderr.trim().split("\n").at(-1) ?? "";
  throw new HypolithError("release-unverified", `the signature of ${url} is not good: ${why}`, {
    hint: "the mirror may be in the middle of an update, or this machine's debian-archive-keyring is too old for the suite",
  });
}

function believed(text: string, url: string): string {
  if (url.startsWith("https:")) return text;
  throw new HypolithError(
    "release-unverified",
    `the signature of ${url} cannot be checked: this machine has no gpgv, or no Debian keyring`,
    {
      hint: "install gpgv and debian-archive-keyring, or name a mirror with TLS: --mirror https://deb.debian.org/debian",
    },
  );
}

/** The newline before the signature is not part of the text; lines that begin with "-" are escaped. */
function splitCleartext(file: string, url: string): { text: string; signature: string } {
  const match =
    /^-----BEGIN PGP SIGNED MESSAGE-----\n(?:[^\n]+\n)*\n([\s\S]*?)\n(-----BEGIN PGP SIGNATURE-----\n(?:(?!-----)[\s\S])*-----END PGP SIGNATURE-----)\s*$/.exec(
      file.replaceAll("\r\n", "\n"),
    );
  // Nothing but one signed text: what stands beside it nobody has signed.
  if (!match || match[1]!.includes("-----BEGIN PGP")) {
    throw new HypolithError("release-unsigned", `${url} is not a signed Release file`, {
      hint: "give the base address of a Debian mirror, like http://deb.debian.org/debian",
    });
  }
  return { text: match[1]!.replaceAll(/^- /gm, ""), signature: `${match[2]!}\n` };
}

function isThere(program: string): boolean {
  if (program.includes("/")) return existsSync(program);
  return (process.env.PATH ?? "")
    .split(":")
    .some((folder) => folder !== "" && existsSync(join(folder, program)));
}

function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}
