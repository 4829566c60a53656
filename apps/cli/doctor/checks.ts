/**
 * The checks of `hypo doctor`: each looks at one thing that a run needs, and knows the cure.
 *
 * A check changes nothing but for a file that it makes and removes in the cache. "warn" is for what a run can do without.
 */
import { once } from "node:events";
import { existsSync, statfsSync, unlinkSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { availableParallelism, freemem, totalmem } from "node:os";
import { join } from "node:path";
import { Worker } from "node:worker_threads";
import { formatSize } from "../../common/size.ts";
import { wasmSupport } from "../../common/wasm-features.ts";
import { APT_COMMANDS, aptMirror, hasApt } from "../image/apt.ts";
import type { ImageCache } from "../image/cache.ts";
import { FLAVORS } from "../image/flavors.ts";
import { DEFAULT_MIRROR, DEFAULT_SUITE } from "../image/mirror.ts";
import { machineWorkerUrl } from "../vm-client.ts";

export interface CheckResult {
  readonly name: string;
  readonly status: "ok" | "warn" | "fail";
  readonly detail: string;
  /** What to do; present unless ok. */
  readonly cure?: string;
}

export interface CheckContext {
  readonly cache: ImageCache;
  readonly signal: AbortSignal;
  /** A mirror that the user named. */
  readonly mirror: string | undefined;
}

type Check = (context: CheckContext) => CheckResult | Promise<CheckResult>;

const OLDEST_NODE = [20, 19] as const;
/** Guest memory by default, and what the machine itself takes. */
const WANTED_MEMORY = 700 * 2 ** 20;
/** The largest package and what comes out of it. */
const WANTED_SPACE = 200 * 2 ** 20;
const NETWORK_MS = 5000;
const WORKER_MS = 5000;

function checkNode(): CheckResult {
  const name = "Node.js";
  const { node } = process.versions;
  const [major = 0, minor = 0] = node.split(".").map(Number);
  const [wantedMajor, wantedMinor] = OLDEST_NODE;
  const isNewEnough = major > wantedMajor || (major === wantedMajor && minor >= wantedMinor);
  if (isNewEnough) return { name, status: "ok", detail: node };
  const cure = `install Node.js ${OLDEST_NODE.join(".")} or later`;
  return { name, status: "fail", detail: `${node} is too old`, cure };
}

function checkMemory(): CheckResult {
  const name = "memory";
  // Unlike the operating system's word, this one knows of the limits of a container.
  const available = process.availableMemory?.() ?? freemem();
  const detail = `${formatSize(available)} of ${formatSize(totalmem())} available`;
  if (available >= WANTED_MEMORY) return { name, status: "ok", detail };
  const cure = "end other programs, or give the guest less with --memory 256m";
  return { name, status: "warn", detail, cure };
}

async function checkThreads(): Promise<CheckResult> {
  const name = "threads";
  const count = availableParallelism();
  if (!(await canStartWorker())) {
    const cure =
      "raise the limit of processes and threads (ulimit -u, or the container's pids limit)";
    return { name, status: "fail", detail: "a worker thread cannot be started", cure };
  }
  const detail = `${count} processor${count === 1 ? "" : "s"}, worker threads start`;
  if (count > 1) return { name, status: "ok", detail };
  const cure = "allow a second processor: the guest and its terminal share the only one";
  return { name, status: "warn", detail, cure };
}

function canStartWorker(): Promise<boolean> {
  return new Promise((resolve) => {
    const worker = new Worker("", { eval: true });
    const timer = setTimeout(() => resolve(false), WORKER_MS);
    worker.once("error", () => resolve(false));
    worker.once("exit", (code) => {
      clearTimeout(timer);
      resolve(code === 0);
    });
  });
}

function checkWasm(): CheckResult {
  const name = "WebAssembly";
  const { supported, missing } = wasmSupport();
  if (missing.length === 0) return { name, status: "ok", detail: supported.join(", ") };
  const cure = "use a current Node.js, without flags that turn WebAssembly features off";
  return { name, status: "fail", detail: `missing: ${missing.join(", ")}`, cure };
}

function checkMachine(): CheckResult {
  const name = "machine";
  const url = machineWorkerUrl();
  if (existsSync(url)) return { name, status: "ok", detail: "installed" };
  const cure = "this installation is incomplete: install it again";
  return { name, status: "fail", detail: `${url.pathname} is missing`, cure };
}

function checkCache({ cache }: CheckContext): CheckResult {
  const name = "cache";
  try {
    const staging = cache.stage();
    const probe = join(staging.path, "probe");
    writeFileSync(probe, "probe");
    unlinkSync(probe);
    staging.remove();
  } catch (error) {
    const cure = "choose another place with HYPO_HOME; until then every run downloads again";
    return { name, status: "warn", detail: (error as Error).message, cure };
  }
  const { bavail, bsize } = statfsSync(cache.root);
  const detail = `${cache.root}, ${formatSize(bavail * bsize)} free`;
  if (bavail * bsize >= WANTED_SPACE) return { name, status: "ok", detail };
  const cure = `free ${formatSize(WANTED_SPACE)} there, or choose another place with HYPO_HOME`;
  return { name, status: "warn", detail, cure };
}

async function checkPackages(context: CheckContext): Promise<CheckResult> {
  const name = "packages";
  const cached = FLAVORS.filter(({ image, modules }) => {
    return context.cache.load(image, modules).state === "found";
  }).map(({ image }) => image);
  const source = await packageSource(context);
  const reachable = await canReach(source.url, context.signal);
  const detail = [
    `${source.label} ${reachable ? "can" : "cannot"} be reached`,
    `in the cache: ${cached.join(", ") || "nothing yet"}`,
  ].join("; ");
  if (reachable) return { name, status: "ok", detail };
  const cure =
    "check the network, name a mirror with --mirror or HYPO_DEBIAN_MIRROR, or use --kernel and --initrd";
  return { name, status: cached.length > 0 ? "warn" : "fail", detail, cure };
}

/** What a guest's network is made of. */
async function checkGuestNetwork(): Promise<CheckResult> {
  const name = "guest network";
  try {
    const server = createServer().listen(0, "127.0.0.1");
    await once(server, "listening");
    server.close();
  } catch (error) {
    const cure = "allow this process to open sockets; until then use --network none";
    return { name, status: "warn", detail: (error as Error).message, cure };
  }
  const detail =
    "TCP, UDP and names through sockets of this process; a guest cannot ping the outside, for Node.js sends no ICMP";
  return { name, status: "ok", detail };
}

async function packageSource({
  mirror,
  signal,
}: CheckContext): Promise<{ readonly label: string; readonly url: string }> {
  const release = (base: string, suite: string): string => `${base}/dists/${suite}/Release`;
  if (mirror !== undefined) return { label: mirror, url: release(mirror, DEFAULT_SUITE) };
  const ofApt = (await hasApt(APT_COMMANDS, signal))
    ? await aptMirror(APT_COMMANDS, signal)
    : undefined;
  if (!ofApt) return { label: DEFAULT_MIRROR, url: release(DEFAULT_MIRROR, DEFAULT_SUITE) };
  return { label: `apt's ${ofApt.base}`, url: release(ofApt.base, ofApt.suite) };
}

async function canReach(url: string, stop: AbortSignal): Promise<boolean> {
  try {
    const signal = AbortSignal.any([stop, AbortSignal.timeout(NETWORK_MS)]);
    const response = await fetch(url, { method: "HEAD", signal });
    return response.ok;
  } catch {
    stop.throwIfAborted();
    return false;
  }
}

export const CHECKS: readonly Check[] = [
  checkNode,
  checkMemory,
  checkThreads,
  checkWasm,
  checkMachine,
  checkCache,
  checkGuestNetwork,
  checkPackages,
];
