/**
 * Snapshots: of Debian's kernel under load at random moments, with kill -9 while they are saved, with the deterministic clock exit by exit, and
 * what a guest knows of the world after it was restored.
 *
 * HYPO_DRILL_ROUNDS says how many snapshots each drill takes; the default takes some minutes.
 */
import { execFileSync, spawnSync } from "node:child_process";
import { readFileSync, truncateSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { createServer as createTlsServer } from "node:https";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { gunzipSync } from "node:zlib";
import type { MachineConfig } from "../../src/control/protocol.ts";
import { nodeChecksum, openSnapshot } from "../../src/machine/embedder-node-snapshots.ts";
import { Machine } from "../../src/machine/machine.ts";
import { SECTIONS, SnapshotFile } from "../../src/machine/snapshot/snapshot-file.ts";
import { StoredMemory } from "../../src/machine/snapshot/stored-memory.ts";
import { MemoryPort } from "../../src/storage/memory-port.ts";
import { Random } from "../criteria/random.ts";
import { bootFiles } from "../harness/boot.ts";
import { HypoHome } from "../harness/hypo-home.ts";
import { guestKernel } from "../harness/kernels.ts";
import type { Report } from "../harness/report.ts";

const ROUNDS = Number(process.env.HYPO_DRILL_ROUNDS ?? 6);
const SEED = 20_26;
const SECTORS = 64;

export async function snapshots(report: Report): Promise<void> {
  await exitByExit(report);
  const home = new HypoHome();
  try {
    await underLoad(report, home);
    await killedWhileSaving(report, home);
    await damaged(report, home);
    await whatTheGuestKnows(report, home);
  } finally {
    await home.end();
  }
}

// ---- the deterministic clock ----

const STOPS = [150_000_000, 250_000_000];
const END = 350_000_000;

/** A boot of Linux, cut in two at some instruction by a snapshot: the second half is the same, on either engine. */
async function exitByExit(report: Report): Promise<void> {
  const { kernelPath, initrdPath, append } = bootFiles(await guestKernel("cloud"), {
    commands: ["dmesg | sha256sum", "sleep 1"],
  });
  const config: MachineConfig = {
    ...{ kernel: readFileSync(kernelPath), initrd: readFileSync(initrdPath!), cmdline: append },
    ...{ memoryBytes: 256 << 20, cpuModel: "x86-64-v2", clock: "deterministic" },
    ...{ traceExits: true, rtcEpochMs: 1_700_000_000_000, entropyDevice: true },
  };
  for (const [from, to, stop] of [
    ["interpreter", "auto", STOPS[0]!],
    ["auto", "interpreter", STOPS[1]!],
  ] as const) {
    const first = halves({ ...config, engine: from }, stop);
    const port = new MemoryPort();
    first.machine.snapshot(port, new Uint8Array(0));
    first.run(END);
    const snapshot = SnapshotFile.open(port, nodeChecksum);
    const second = halves({ ...config, engine: to, kernel: new Uint8Array(0) }, END, snapshot);
    // Lines come in bundles: the last ones of either may not have come. Those between exits have no number.
    const wanted = new Map(first.trace.map((line) => [line.split(" ")[0], line]));
    const both = second.trace.filter((line) => /^\d/.test(line) && wanted.has(line.split(" ")[0]));
    const other = both.find((line) => wanted.get(line.split(" ")[0]) !== line);
    const what = `${from} to ${to} after ${stop / 1e6} million instructions`;
    report.check(
      both.length > 1000 && !other,
      `${what}: ${other ?? `${both.length} exits are equal`}`,
    );
    report.equal(second.machine.stateHash(), first.machine.stateHash(), `${what}: so is the state`);
  }
}

function halves(config: MachineConfig, until: number, snapshot?: SnapshotFile) {
  const trace: string[] = [];
  let limit = until;
  const machine: Machine = new Machine(config, {
    nowMs: () => 0,
    entropy: () => 1n,
    doorbell: () => machine !== undefined && machine.processor.retired >= limit,
    decompressors: { gzip: (stream) => gunzipSync(stream) },
    checksum: nodeChecksum,
    snapshot,
    send: (m) => {
      if (m.type === "trace") trace.push(...m.data.trimEnd().split("\n"));
    },
  });
  const run = (to: number): void => {
    limit = to;
    while (machine.runUntilBlocked().kind === "idle");
  };
  run(until);
  return { machine, trace, run };
}

// ---- under load ----

const LOAD = `
dmesg -r >/tmp/before
i=0
while :; do
  i=$((i+1))
  printf '%08d' $i | dd of=/dev/vda bs=512 seek=$((i % ${SECTORS})) conv=sync,fsync 2>/dev/null
  echo $i >/tmp/done
  echo "line $i"
  wget -q -O /tmp/page http://10.0.2.2:$PORT/ && cat /tmp/page >>/tmp/pages
done`;

/** What was written to the disk and said to be finished is there, the load goes on, and the guest has nothing to complain of. */
async function underLoad(report: Report, home: HypoHome): Promise<void> {
  const server = createServer((_, response) => response.end("page\n"));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  const disk = join(home.folder, "disk.img");
  writeFileSync(disk, Buffer.alloc(4 << 20));
  const random = new Random(SEED);
  await home.ok(
    ...["run", "-q", "-d", "--name", "load", "-m", "256m", "--disk", disk],
    ...["-e", `PORT=${port}`, "--", "sh", "-c", LOAD],
  );
  await home.sh("load", "until [ -s /tmp/pages ]; do sleep 0.1; done");
  for (let round = 0; round < ROUNDS; round++) {
    await sleep(random.below(1500));
    await home.ok("snapshot", "save", "--replace", "load", "moment");
    await sleep(random.below(500));
    await home.ok("snapshot", "restore", "moment", "--name", "copy");
    const state = await home.sh(
      "copy",
      `n=$(cat /tmp/done); sleep 2; m=$(cat /tmp/done); p=$(wc -l </tmp/pages); sleep 2
      echo $n $m $((m - n > 1)) $(( $(wc -l </tmp/pages) - p > 1 )); dmesg -r | grep -vxFf /tmp/before | grep '^<[0-4]>' | tail -5
      for s in $(seq 0 ${SECTORS - 1}); do dd if=/dev/vda bs=512 skip=$s count=1 2>/dev/null | head -c 8; echo; done >/tmp/sectors
      k=$(cat /tmp/done); for j in $(seq $((k - ${SECTORS / 2})) $k); do [ $j -lt 1 ] || grep -q "$(printf '%08d' $j)" /tmp/sectors || echo "lost $j"; done`,
    );
    const [figures = "", ...rest] = state.trim().split("\n");
    const [, , goesOn, reaches] = figures.split(" ");
    report.check(goesOn === "1", `round ${round}: the load goes on (${figures})`);
    report.check(reaches === "1", `round ${round}: the network is reached again`);
    const complaints = rest.filter((line) => line !== "");
    report.check(
      complaints.length === 0,
      complaints.length === 0
        ? `round ${round}: no write is lost, the kernel has no warning`
        : complaints.join("; "),
    );
    const console = await home.ok("logs", "-n", "1", "copy");
    report.check(
      /^line \d+/.test(console),
      `round ${round}: its console goes on: ${console.trim()}`,
    );
    await home.ok("rm", "-f", "copy");
  }
  server.close();
  // Whoever writes it is gone.
  server.closeAllConnections();
}

// ---- kill -9 ----

/** The snapshot that was there stays whole, or the new one is, whenever the machine's process dies. */
async function killedWhileSaving(report: Report, home: HypoHome): Promise<void> {
  const random = new Random(SEED);
  await home.ok("snapshot", "save", "--replace", "load", "base");
  await home.ok("rm", "-f", "load");
  const folder = join(home.folder, "hypolith/snapshots/base");
  let replaced = 0;
  let last = idOf(folder);
  for (let round = 0; round < ROUNDS; round++) {
    await home.ok("snapshot", "restore", "base", "--name", "victim");
    const pid = await home.pidOf("victim");
    const saving = home.run("snapshot", "save", "--replace", "victim", "base");
    await sleep(200 + random.below(900));
    process.kill(pid, "SIGKILL");
    const { code } = await saving;
    await home.run("rm", "-f", "victim");
    const problem = readWhole(folder);
    if (idOf(folder) !== last) replaced++;
    last = idOf(folder);
    report.check(
      problem === null,
      `kill ${round}: the snapshot is whole ${problem ?? ""} (save: ${code})`,
    );
  }
  report.fact(`${replaced} of ${ROUNDS} saves were done before the kill`);
  await home.ok("snapshot", "restore", "base", "--name", "last");
  await home.sh("last", "true");
  await home.ok("rm", "-f", "last");
}

const idOf = (folder: string): string =>
  (JSON.parse(readFileSync(join(folder, "snapshot.json"), "utf8")) as { id: string }).id;

function readWhole(folder: string): string | null {
  try {
    const { file, description, close } = openSnapshot(folder);
    for (const name of SECTIONS) if (file.has(name)) file.read(name);
    new StoredMemory(new Uint8Array(description.config.memoryBytes), file).loadAll();
    close();
    return null;
  } catch (error) {
    return (error as Error).message;
  }
}

// ---- errors ----

async function damaged(report: Report, home: HypoHome): Promise<void> {
  const folder = join(home.folder, "hypolith/snapshots/base");
  const manifest = readFileSync(join(folder, "snapshot.json"), "utf8");
  const { machine } = JSON.parse(manifest) as { machine: { file: string; bytes: number } };
  const refused = async (what: string, told: RegExp): Promise<void> => {
    const { code, stderr } = await home.run("snapshot", "restore", "base", "--name", "none");
    report.check(code === 125 && told.test(stderr), `${what}: ${stderr.trim().split("\n")[0]}`);
    const listed = await home.ok("snapshot", "ls");
    report.check(/cannot be used/.test(listed), `${what}: hypo snapshot ls says so`);
  };
  const path = join(folder, machine.file);
  const bytes = readFileSync(path);
  truncateSync(path, machine.bytes - 1);
  await refused("cut off", /bytes long/);
  const foreign = Buffer.from(bytes);
  foreign.write("NOTHYPOS", 0);
  writeFileSync(path, foreign);
  await refused("foreign", /is no snapshot/);
  const newer = Buffer.from(bytes);
  newer.writeUInt32LE(99, 8);
  writeFileSync(path, newer);
  await refused("newer", /format 99/);
  const flipped = Buffer.from(bytes);
  flipped[100] = flipped[100]! ^ 1;
  writeFileSync(path, flipped);
  await refused("damaged", /damaged/);
  writeFileSync(path, bytes);
  await home.ok("snapshot", "rm", "base", "moment");
}

// ---- time, randomness, identity ----

/** With a kernel that has the driver of the generation counter. */
async function whatTheGuestKnows(report: Report, home: HypoHome): Promise<void> {
  await home.ok(
    "run",
    "-q",
    "-d",
    "--name",
    "old",
    "-m",
    "256m",
    "debian:amd64",
    "--",
    "sleep",
    "100000",
  );
  await home.sh("old", "true");
  await home.ok("snapshot", "save", "old", "aged");
  await home.ok("rm", "-f", "old");
  await sleep(3000);
  // Valid from now on: a guest whose clock stood still would not take it.
  const server = tlsServer(home);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  await home.ok("snapshot", "fork", "aged", "-n", "2");
  const log = await home.sh("aged-1", "dmesg");
  report.check(
    /crng reseeded due to virtual machine fork/.test(log),
    "the kernel's vmgenid driver has heard of the fork",
  );
  const known = "cat /proc/sys/kernel/random/uuid; date +%s; cat /sys/class/rtc/rtc0/since_epoch";
  const ids = [await home.sh("aged-1", known), await home.sh("aged-2", known)];
  report.check(ids[0]!.slice(0, 36) !== ids[1]!.slice(0, 36), "forks have randomness of their own");
  const [, seconds = "0", rtc = "0"] = ids[1]!.split("\n");
  const now = Date.now() / 1000;
  report.check(Math.abs(now - Number(seconds)) < 5, "the guest's clock is right");
  report.check(Math.abs(now - Number(rtc)) < 5, "the machine's clock chip is right");
  const since = Math.floor(validFrom(home) / 1000);
  report.check(
    Number(seconds) >= since,
    `a certificate that is valid since ${now - since} s ago is one for the guest`,
  );
  const fetched = await home.run(
    "exec",
    "aged-1",
    "wget",
    "-q",
    "-O",
    "-",
    `https://10.0.2.2:${port}/`,
  );
  report.check(
    fetched.stdout === "secret\n",
    `TLS after the restore: ${fetched.stderr.trim() || "done"}`,
  );
  server.close();
  await home.ok("rm", "-f", "aged-1", "aged-2");
}

function tlsServer(home: HypoHome) {
  const [key, cert] = [join(home.folder, "key.pem"), join(home.folder, "cert.pem")];
  const words = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"];
  const names = ["-nodes", "-days", "2", "-subj", "/CN=10.0.2.2"];
  execFileSync("openssl", [...words, ...names, "-keyout", key, "-out", cert], { stdio: "ignore" });
  const server = createTlsServer({ key: readFileSync(key), cert: readFileSync(cert) });
  server.on("request", (_, response) => response.end("secret\n"));
  return server;
}

function validFrom(home: HypoHome): number {
  const words = ["x509", "-noout", "-startdate", "-in", join(home.folder, "cert.pem")];
  const { stdout } = spawnSync("openssl", words, { encoding: "utf8" });
  return Date.parse(stdout.split("=")[1]!);
}
