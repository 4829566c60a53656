/**
 * `hypo run IMAGE` as its user has it: images of our own making from a registry of our own, on Debian's kernels, as a disk and in memory; then,
 * where Debian's tools are there, a debootstrap tree through docker-registry, put there by umoci and skopeo.
 */
import { execFileSync, spawn, spawnSync } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { gzipSync, zstdCompressSync } from "node:zlib";
import { defaultCacheRoot } from "../../apps/cli/image/cache.ts";
import { flavorOfImage } from "../../apps/cli/image/flavors.ts";
import { supplyAsAsked } from "../../apps/cli/image/supply.ts";
import { Messages } from "../../apps/cli/messages.ts";
import { serveRegistry } from "../../apps/cli/oci/testing/fake-registry.ts";
import {
  dockerArchive,
  type MadeImage,
  makeImage,
  writeLayout,
} from "../../apps/cli/oci/testing/image-maker.ts";
import { pax, type TarItem } from "../../apps/cli/oci/testing/tar-maker.ts";
import type { Report } from "../harness/report.ts";

const HYPO = fileURLToPath(new URL("../../bin/hypo", import.meta.url));
const RUN_MS = 300_000;
const BIG = randomBytes(5_000_001);
const BIG_HASH = createHash("sha256").update(BIG).digest("hex");
const APPLETS = [
  "sh",
  "id",
  "cat",
  "sha256sum",
  "ls",
  "stat",
  "env",
  "touch",
  "sleep",
  "readlink",
  "kill",
  "mount",
];

interface Outcome {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

class Stand {
  readonly folder = mkdtempSync(join(tmpdir(), "hypolith-images-"));
  readonly env = { ...process.env, HYPO_HOME: join(this.folder, "home") };

  /** Kernels come from the user's own cache, images from an empty one: hypo's debian images are copied beforehand. */
  hypo(argv: readonly string[], input = "", signalAfter?: string): Promise<Outcome> {
    const child = spawn(process.execPath, [HYPO, ...argv], {
      env: this.env,
      cwd: this.folder,
      stdio: "pipe",
    });
    child.stdin.end(input);
    let [stdout, stderr] = ["", ""];
    child.stdout.on("data", (data) => {
      stdout += data;
      if (signalAfter !== undefined && stdout.includes(signalAfter)) child.kill("SIGTERM");
    });
    child.stderr.on("data", (data) => {
      stderr += data;
    });
    const timer = setTimeout(() => child.kill("SIGKILL"), RUN_MS);
    return new Promise((resolve) => {
      child.on("close", (code) => {
        clearTimeout(timer);
        resolve({ code, stdout, stderr });
      });
    });
  }
}

function layersWith(busybox: Uint8Array): TarItem[][] {
  const links = APPLETS.map(
    (name): TarItem => ({ name: `bin/${name}`, flag: "2", target: "busybox" }),
  );
  return [
    [
      { name: "bin/", flag: "5", mode: 0o755 },
      { name: "bin/busybox", content: busybox, mode: 0o755 },
      ...links,
      {
        name: "etc/passwd",
        content: "root:x:0:0:root:/root:/bin/sh\nbob:x:1000:1001::/var/bob:/bin/sh\n",
      },
      { name: "etc/group", content: "root:x:0:\nbob:x:1001:\nvideo:x:44:bob\n" },
      { name: "big", content: BIG, uid: 70_000, gid: 7, mode: 0o640, mtime: 1_600_000_000 },
      { name: "gone", content: "x" },
      { name: "opaque/old", content: "x" },
    ],
    [
      { name: "again", flag: "1", target: "big" },
      { name: ".wh.gone" },
      { name: "opaque/.wh..wh..opq" },
      { name: "opaque/new", content: "new" },
      pax({ path: "caf\u00e9 \u2713", "SCHILY.xattr.user.x": "y" }),
      { name: "x", content: "name" },
      { name: "null", flag: "3", device: [1, 3], mode: 0o666 },
    ],
  ];
}

const CONFIG = {
  Entrypoint: ["sh", "-c"],
  Cmd: ["id -un; id -G; echo $GREETING; pwd; cat; echo err >&2; exit 7"],
  Env: ["PATH=/bin", "GREETING=it's ok", "odd.name=1"],
  User: "bob",
  WorkingDir: "/place/here",
};

const LOOK = [
  "sha256sum </big",
  "stat -c '%u %g %a %Y %h' /big",
  "ls / /opaque",
  "cat '/caf\u00e9 \u2713'; echo",
  "echo x >/null; stat -c %F /null",
  "touch /bin/written && rm -f /bin/busybox2 && echo writable",
  "readlink /dev/stdout; cat /etc/hostname",
].join("; ");

export async function images(report: Report): Promise<void> {
  const stand = new Stand();
  try {
    await ownImages(report, stand);
    await debootstrapImage(report, stand);
  } finally {
    rmSync(stand.folder, { recursive: true, force: true });
  }
}

async function ownImages(report: Report, stand: Stand): Promise<void> {
  const busybox = await busyboxOf("debian", stand);
  const image = makeImage({ layers: layersWith(busybox), config: CONFIG });
  const zstd = makeImage({
    layers: layersWith(busybox),
    config: CONFIG,
    compress: zstdCompressSync,
  });
  const foreign = makeImage({ layers: [[]], architecture: "arm64" });
  const registry = await serveRegistry({
    images: { "team/app:1": [foreign, image], "team/zstd:1": zstd },
  });
  try {
    await fromRegistry(report, stand, registry.host);
    await fromFiles(report, stand, { image, busybox });
  } finally {
    registry.close();
  }
}

async function fromRegistry(report: Report, stand: Stand, host: string): Promise<void> {
  const name = `${host}/team/app:1`;
  const own = await stand.hypo(["run", "-q", name], "from us\n");
  report.check(own.code === 7, `exit code of the image's own command: ${own.code}`);
  report.check(
    own.stdout === "bob\n1001 44\nit's ok\n/place/here\nfrom us\n",
    `its output: ${JSON.stringify(own.stdout)}`,
  );
  report.check(own.stderr === "err\n", `its standard error: ${JSON.stringify(own.stderr)}`);
  // BusyBox's ls shows no bytes beyond ASCII; cat opens the name as it is.
  const expected = [
    `${BIG_HASH}  -`,
    "70000 7 640 1600000000 2",
    ...[
      "/:",
      "again",
      "big",
      "bin",
      "caf?? ???",
      "dev",
      "etc",
      "null",
      "opaque",
      "place",
      "proc",
      "sys",
      "",
      "/opaque:",
      "new",
    ],
    ...["name", "character special file", "writable", "/proc/self/fd/1", "hypolith", ""],
  ].join("\n");
  for (const form of [
    ["--root", "disk"],
    ["--root", "memory"],
    ["--clock", "deterministic"],
  ]) {
    const look = await stand.hypo(["run", "-q", ...form, "-u", "0", "-w", "/place", name, LOOK]);
    const isSame = look.code === 0 && look.stdout === expected;
    report.check(
      isSame,
      `files with ${form.join(" ")}${isSame ? "" : `: ${JSON.stringify(look)}`}`,
    );
  }
  const zstd = await stand.hypo(["run", "-q", `${host}/team/zstd:1`, "id -u"]);
  report.check(zstd.stdout === "1000\n", "layers compressed with zstd");
  const none = await stand.hypo(["run", "-q", "--entrypoint", "no-such", name]);
  report.check(none.code === 127, `a command that is not there: ${none.code}`);
  const term = await stand.hypo(
    ["run", "-q", name, "trap 'echo got it; exit 9' TERM; echo up; while :; do sleep 1; done"],
    "",
    "up",
  );
  report.check(
    term.code !== null && term.stdout.includes("got it"),
    `SIGTERM reaches the command: ${JSON.stringify(term)}`,
  );
  const pae = await stand.hypo(["run", "-q", "--flavor", "686-pae", name]);
  report.check(
    pae.code === 125 && pae.stderr.includes("linux/386"),
    "no image for a 32-bit kernel: said",
  );
  const list = JSON.parse((await stand.hypo(["images", "--json"])).stdout) as Array<{
    name: string;
  }>;
  report.check(
    list.some((entry) => entry.name === name),
    "hypo images names it",
  );
  const gone = await stand.hypo(["rmi", name]);
  const never = await stand.hypo(["run", "-q", "--pull", "never", name]);
  report.check(gone.code === 0 && never.code === 125, "hypo rmi removes it");
}

async function fromFiles(
  report: Report,
  stand: Stand,
  { image, busybox }: { readonly image: MadeImage; readonly busybox: Uint8Array },
): Promise<void> {
  writeLayout(join(stand.folder, "layout"), [image]);
  const saved = dockerArchive(layersWith(busybox), "team/app:1", CONFIG);
  writeFileSync(join(stand.folder, "saved.tar"), saved);
  writeFileSync(join(stand.folder, "saved.tar.gz"), gzipSync(saved, { level: 1 }));
  for (const path of ["./layout", "saved.tar", "saved.tar.gz"]) {
    const { stdout } = await stand.hypo(["run", "-q", path, "id -un"]);
    report.check(stdout === "bob\n", `an image in files: ${path}`);
  }
}

const TOOLS = ["debootstrap", "umoci", "skopeo", "docker-registry"];

async function debootstrapImage(report: Report, stand: Stand): Promise<void> {
  const missing = TOOLS.filter(
    (tool) => spawnSync("sh", ["-c", `command -v ${tool}`]).status !== 0,
  );
  if (missing.length > 0 || process.getuid?.() !== 0) {
    report.fact(
      `no debootstrap image: ${missing.length > 0 ? `${missing.join(", ")} not installed` : "needs root"}`,
    );
    return;
  }
  const { folder } = stand;
  const sh = (command: string): void => {
    execFileSync("sh", ["-ec", command], { cwd: folder, stdio: ["ignore", "ignore", "pipe"] });
  };
  sh("debootstrap --variant=minbase bookworm tree");
  sh(
    "umoci init --layout made && umoci new --image made:deb && umoci unpack --image made:deb bundle",
  );
  sh("cp -a tree/. bundle/rootfs/ && umoci repack --image made:deb bundle && rm -rf bundle tree");
  sh("umoci config --image made:deb --config.cmd bash --config.env LANG=C.UTF-8");
  const port = await freePort();
  mkdirSync(join(folder, "registry"));
  writeFileSync(
    join(folder, "registry.yml"),
    `version: 0.1\nstorage: {filesystem: {rootdirectory: ${folder}/registry}}\nhttp: {addr: "127.0.0.1:${port}"}\n`,
  );
  const server = spawn("docker-registry", ["serve", "registry.yml"], {
    cwd: folder,
    stdio: "ignore",
  });
  try {
    await sleep(2000);
    const name = `localhost:${port}/debian:bookworm`;
    sh(`skopeo copy --dest-tls-verify=false oci:made:deb docker://${name}`);
    const run = await stand.hypo([
      "run",
      "-q",
      name,
      "sh",
      "-c",
      "dpkg -l | grep -c ^ii; perl -e 'print 6*7'; exit 3",
    ]);
    const [packages = "0", answer] = run.stdout.split("\n");
    const isSound = run.code === 3 && answer === "42" && Number(packages) > 50;
    report.check(isSound, `a debootstrap tree through docker-registry: ${JSON.stringify(run)}`);
  } finally {
    server.kill();
  }
}

/** A kernel and busybox, put into the stand's own cache so that nothing is fetched twice. */
async function busyboxOf(name: string, stand: Stand): Promise<Uint8Array> {
  const signal = new AbortController().signal;
  const messages = new Messages({ quiet: true, level: "error" });
  const { busybox } = await supplyAsAsked(
    flavorOfImage(name),
    { cache: true, pull: "missing" },
    messages,
    signal,
  );
  mkdirSync(join(stand.folder, "home", "cache"), { recursive: true });
  for (const part of ["blobs", "images"]) {
    execFileSync("cp", ["-a", join(defaultCacheRoot(), part), join(stand.folder, "home", "cache")]);
  }
  return busybox;
}

function freePort(): Promise<number> {
  const server = createServer();
  return new Promise((resolve) => {
    server.listen(0, "127.0.0.1", () => {
      const { port } = server.address() as { port: number };
      server.close(() => resolve(port));
    });
  });
}
