/**
 * `hypo run` with commands in a real guest: node apps/cli/testing/guest-checks.ts [PART OF A NAME]
 *
 * What the unit tests cannot see: the scripts of the initramfs in Debian's kernel and busybox, with every byte going through serial
 * ports. On our machine, or on QEMU as a second opinion: HYPO_MACHINE_WORKER=$PWD/apps/cli/testing/qemu-worker.ts. Each check boots
 * once; the image comes from the cache or the network. Exit status 1 if a check fails.
 */
import { spawnSync } from "node:child_process";
import { closeSync, mkdtempSync, openSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { defaultCacheRoot, ImageCache } from "../image/cache.ts";
import { CpioArchive } from "../image/cpio.ts";
import { FLAVORS } from "../image/flavors.ts";

const HYPO = fileURLToPath(new URL("../../../bin/hypo", import.meta.url));

interface Outcome {
  readonly code: number | null;
  readonly stdout: Buffer;
  readonly stderr: string;
}

export interface GuestCheck {
  readonly name: string;
  readonly command: readonly string[];
  readonly options?: readonly string[];
  readonly input?: { readonly by: "pipe" | "file"; readonly content: Buffer };
  readonly passes: (outcome: Outcome) => boolean;
}

/** All byte values, no period that a block size could hide. */
const BYTES = Buffer.from(
  Uint8Array.from({ length: 50_000 }, (_, i) => (i * 167 + (i >> 7)) & 0xff),
);
const ODD_WORDS = ["a b", "it's", "", "new\nline", '$HOME `id` \\ "q"', "ünï☃", "*"];

const shell = (script: string): string[] => ["sh", "-c", script];
const prints =
  (text: string, code = 0) =>
  (outcome: Outcome) =>
    outcome.code === code && outcome.stdout.toString() === text;
const endsWith = (code: number) => (outcome: Outcome) => outcome.code === code;
const returnsBytes = ({ code, stdout }: Outcome): boolean => code === 0 && stdout.equals(BYTES);

export const GUEST_CHECKS: readonly GuestCheck[] = [
  {
    name: "a command's own output and nothing else",
    command: ["uname", "-srm"],
    passes: ({ code, stdout, stderr }) =>
      code === 0 && /^Linux 6\.\S+ (x86_64|i686)\n$/.test(stdout.toString()) && stderr === "",
  },
  {
    name: "exit code and standard error",
    command: shell("echo out; echo err >&2; exit 7"),
    passes: ({ code, stdout, stderr }) =>
      code === 7 && stdout.toString() === "out\n" && stderr === "err\n",
  },
  {
    name: "arguments as they are",
    command: ["printf", "%s|", ...ODD_WORDS],
    passes: prints(`${ODD_WORDS.join("|")}|`),
  },
  {
    name: "bytes by a pipe",
    command: ["cat"],
    input: { by: "pipe", content: BYTES },
    passes: returnsBytes,
  },
  {
    name: "bytes by a file",
    command: ["cat"],
    input: { by: "file", content: BYTES },
    passes: returnsBytes,
  },
  {
    name: "a job that does not read its input",
    command: ["head", "-c", "3"],
    input: { by: "pipe", content: Buffer.from("abcdef") },
    passes: prints("abc"),
  },
  {
    name: "end of file where there is no input",
    command: shell("wc -c; [ -t 0 ] || [ -t 1 ] || echo no terminal"),
    passes: prints("0\nno terminal\n"),
  },
  {
    name: "what the job leaves running does not keep the machine",
    command: shell("sleep 1000 & setsid sleep 1000 & echo done"),
    passes: prints("done\n"),
  },
  { name: "a command that is not there", command: ["nosuch"], passes: endsWith(127) },
  { name: "a command that cannot be run", command: ["/etc/passwd"], passes: endsWith(126) },
  { name: "a job ended by a signal", command: shell("kill -9 $$"), passes: endsWith(137) },
  { name: "poweroff in the job", command: shell("poweroff; sleep 60"), passes: endsWith(0) },
  {
    name: "a kernel that panics",
    command: shell("echo c >/proc/sysrq-trigger"),
    passes: ({ code, stderr }) => code === 125 && stderr.includes("sysrq triggered crash"),
  },
  {
    name: "a command in a root file system of the user's own",
    options: ["--initrd", "own.cpio"],
    command: ["sort", "x"],
    passes: prints("the sort of this userland: x\n"),
  },
];

/** One boot. `folder` holds own.cpio. */
export function runGuestCheck(check: GuestCheck, folder: string): Outcome {
  const { options = [], command, input } = check;
  const argv = [HYPO, "run", "--quiet", ...options, "--", ...command];
  const path = join(folder, "input");
  writeFileSync(path, input?.content ?? "");
  const file = input?.by === "pipe" ? undefined : openSync(input ? path : "/dev/null", "r");
  const { status, stdout, stderr } = spawnSync(process.execPath, argv, {
    cwd: folder,
    stdio: [file ?? "pipe", "pipe", "pipe"],
    ...(file === undefined && { input: input!.content }),
  });
  if (file !== undefined) closeSync(file);
  return { code: status, stdout, stderr: stderr.toString() };
}

/** A userland whose `sort` is not busybox's. */
function writeOwnUserland(folder: string): void {
  const found = new ImageCache(defaultCacheRoot()).load(FLAVORS[0]!.image, FLAVORS[0]!.modules);
  if (found.state !== "found") return;
  const archive = new CpioArchive()
    .directory("bin")
    .directory("root")
    .file("bin/busybox", found.image.busybox, 0o755)
    .link("bin/sh", "busybox")
    .file("bin/sort", '#!/bin/sh\necho "the sort of this userland: $*"\n', 0o755);
  writeFileSync(join(folder, "own.cpio"), archive.toBytes());
}

function main(part: string): number {
  const folder = mkdtempSync(join(tmpdir(), "hypo-guest-"));
  let failed = 0;
  try {
    for (const check of GUEST_CHECKS.filter(({ name }) => name.includes(part))) {
      if (check.options) writeOwnUserland(folder);
      const start = performance.now();
      const outcome = runGuestCheck(check, folder);
      const passed = check.passes(outcome);
      const seconds = ((performance.now() - start) / 1000).toFixed(1);
      console.log(`${passed ? "ok  " : "FAIL"}  ${check.name} (${seconds} s)`);
      if (!passed) {
        failed++;
        console.log(`      status ${outcome.code}, ${outcome.stdout.length} bytes of output`);
        console.log(`      ${outcome.stdout.toString().slice(0, 500)}\n      ${outcome.stderr}`);
      }
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  return failed === 0 ? 0 : 1;
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  process.exitCode = main(process.argv[2] ?? "");
}
