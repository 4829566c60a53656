/**
 * Debian's programs give the results they give elsewhere: an interpreter or three, cryptography, compression, sorting. What can be
 * computed here as well is compared with that.
 */
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { boot } from "../harness/boot.ts";
import type { GuestSession } from "../harness/guest-session.ts";
import type { Report } from "../harness/report.ts";
import { userlandArchive } from "../harness/userland.ts";

export const USERLAND_MEMORY_MIB = 1024;
const NUMBERS = 40_000;
const TEXT_FILE = "/tmp/numbers";

/** The same lines here and, by awk, in the guest: a multiplicative sequence, unsorted and compressible. */
const LINES = Array.from(
  { length: NUMBERS },
  (_, i) => `${((i + 1) * 7919) % 104_729} line ${i + 1}`,
);
const CONTENT = `${LINES.join("\n")}\n`;
const MAKE_FILE = `awk 'BEGIN { for (i = 1; i <= ${NUMBERS}; i++) print (i * 7919) % 104729, "line", i }' >${TEXT_FILE}`;

const sha256 = (content: string | Uint8Array): string =>
  createHash("sha256").update(content).digest("hex");

interface Probe {
  readonly command: string;
  readonly expected: string | RegExp;
}

const SORTED = `${[...LINES].sort((a, b) => (a < b ? -1 : 1)).join("\n")}\n`;

const PROBES: readonly Probe[] = [
  { command: `${MAKE_FILE}; sha256sum <${TEXT_FILE}`, expected: `${sha256(CONTENT)}  -\n` },
  {
    command: "python3 -c 'print(sum(i * i for i in range(10**5)))'",
    expected: "333328333350000\n",
  },
  {
    command:
      "python3 -c 'import math; print(math.factorial(200) % (10**9 + 7), math.sin(1), 2**0.5, 10**40 // 7)'",
    expected:
      /^722479105 0\.8414709848078965 1\.4142135623730951 1428571428571428571428571428571428571428\n$/,
  },
  {
    command: `python3 -c 'import hashlib, json, re, zlib; d = open("${TEXT_FILE}", "rb").read(); print(hashlib.sha256(zlib.decompress(zlib.compress(d))).hexdigest(), len(re.findall(rb"7 line", d)))'`,
    expected: `${sha256(CONTENT)} ${CONTENT.split("7 line").length - 1}\n`,
  },
  {
    command:
      'perl -e \'my ($a, $b) = (0, 1); ($a, $b) = ($b, $a + $b) for 1..90; print "$a\\n"; printf "%.12f\\n", atan2(1, 1) * 4\'',
    expected: "2880067194370816000\n3.141592653590\n".replace(
      "2880067194370816000",
      "2880067194370816120",
    ),
  },
  {
    command: `perl -ne '$s += $1 if /^(\\d+)/; END { print "$s\\n" }' ${TEXT_FILE}`,
    expected: `${LINES.reduce((sum, line) => sum + Number.parseInt(line, 10), 0)}\n`,
  },
  {
    command: `for c in gzip xz; do $c -c ${TEXT_FILE} >/tmp/packed && $c -dc /tmp/packed | sha256sum; done`,
    expected: `${sha256(CONTENT)}  -\n`.repeat(2),
  },
  { command: `LC_ALL=C sort ${TEXT_FILE} | sha256sum`, expected: `${sha256(SORTED)}  -\n` },
  {
    command: `openssl dgst -sha256 -r ${TEXT_FILE}`,
    expected: `${sha256(CONTENT)} *${TEXT_FILE}\n`,
  },
  {
    command: `openssl enc -aes-256-cbc -K ${"01".repeat(32)} -iv ${"02".repeat(16)} -in ${TEXT_FILE} | openssl enc -d -aes-256-cbc -K ${"01".repeat(32)} -iv ${"02".repeat(16)} | sha256sum`,
    expected: `${sha256(CONTENT)}  -\n`,
  },
  { command: "openssl speed -seconds 1 sha256 2>&1", expected: /sha256 +[\d.]+k/ },
];

export async function userland(report: Report): Promise<void> {
  const session = await bootUserland(report);
  for (const { command, expected } of PROBES) {
    const { output, status, wallSeconds } = await session.run(command, 600);
    const what = `${command.slice(0, 90)} (${wallSeconds.toFixed(1)} s)`;
    if (typeof expected === "string") report.equal(output, expected, what);
    else
      report.check(status === 0 && expected.test(output), `${what}: ${output.slice(-400).trim()}`);
  }
  const { kind } = await session.powerOff();
  report.equal(kind, "poweroff", "poweroff");
}

export async function bootUserland(report: Report): Promise<GuestSession> {
  const archive = readFileSync(await userlandArchive());
  const started = performance.now();
  const { session } = await boot("cloud", { userland: archive, memoryMib: USERLAND_MEMORY_MIB });
  const seconds = ((performance.now() - started) / 1000).toFixed(1);
  const { output } = await session.run("cat /etc/debian_version; dpkg-query -W | wc -l");
  report.fact(
    `Debian ${output.trim().split("\n").join(", packages: ")}; a shell after ${seconds} s`,
  );
  return session;
}
