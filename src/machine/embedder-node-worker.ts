/**
 * Node embedder of a machine: a worker thread that runs the guest and speaks the control protocol with its parent.
 *
 * The worker blocks while the guest runs or sleeps, so it does not use its event loop: the parent posts a message, increments the doorbell
 * (workerData.doorbell, an Int32Array over shared memory) and notifies; the worker takes messages synchronously between runs.
 */
import { randomBytes } from "node:crypto";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import {
  type MessagePort,
  parentPort,
  receiveMessageOnPort,
  workerData,
} from "node:worker_threads";
import { gunzipSync } from "node:zlib";
import { HypolithError } from "../base/errors.ts";
import type {
  DiskConfig,
  FromMachine,
  MachineConfig,
  SnapshotOutcome,
  StopReason,
  ToMachine,
} from "../control/protocol.ts";
import { NodeArtifacts } from "./embedder-node-artifacts.ts";
import { NodeCompiler } from "./embedder-node-compiler.ts";
import { type FileDisk, openDisks } from "./embedder-node-files.ts";
import { NodeNetworkLink } from "./embedder-node-network-link.ts";
import { NodeServiceHost } from "./embedder-node-services.ts";
import { openShares } from "./embedder-node-shares.ts";
import { nodeChecksum, openSnapshot, writeSnapshotFiles } from "./embedder-node-snapshots.ts";
import { tuneEngine } from "./embedder-node-v8.ts";
import { Machine } from "./machine.ts";
import type { MachineDescription } from "./snapshot/machine-snapshot.ts";

interface WorkerData {
  /** One word: the number of messages posted so far. */
  readonly doorbell: Int32Array;
}

/** Longest sleep, so that a lost wake-up cannot hang the machine. */
const MAX_SLEEP_MS = 60_000;
/** A guest that sleeps this long is idle. */
const REST_MS = 100;
/** Not a service: its thread is the embedder's. */
const NETWORK = "network";
/** The first sleep this long means that the guest has booted. */
const LONG_IDLE_MS = 2;

function serve(port: MessagePort, doorbell: Int32Array): void {
  let seen = 0;
  const rings = (): boolean => Atomics.load(doorbell, 0) !== seen;
  const take = (): ToMachine | null => {
    const received = receiveMessageOnPort(port) as { message: ToMachine } | undefined;
    return received ? received.message : null;
  };
  const send = (message: FromMachine): void => {
    port.postMessage(message);
  };
  const waitForRing = (ms: number): void => {
    Atomics.wait(doorbell, 0, seen, Math.min(ms, MAX_SLEEP_MS));
  };

  let machine: Machine | null = null;
  let network: NodeNetworkLink | null = null;
  let disks: Running["disks"] = [];
  let wasIdle = false;
  const pause = new Pause();
  for (;;) {
    if (rings()) {
      seen = Atomics.load(doorbell, 0);
      network?.takeReports();
      for (let m = take(); m; m = take()) {
        if (m.type === "start") {
          const started = start(m.config, { send, doorbell, rings, nowMs: () => pause.nowMs() });
          if (!started) return;
          ({ machine, network, disks } = started);
        } else if (m.type === "pause") pause.begin();
        else if (m.type === "resume") pause.end();
        else if (machine && m.type === "snapshot") {
          const outcome = pause.during(() => takeSnapshot(machine!, disks, m));
          send({ type: "snapshotTaken", id: m.id, outcome });
        } else if (m.type === "drill" && m.service === NETWORK && network) {
          send({ type: "drilled", id: m.id, problem: network.drill(m.drill) });
        } else if (machine) {
          // A machine that is to stop must run up to where it says how it ended.
          if (m.type === "stop") pause.end();
          apply(machine, m);
        } else if (m.type === "stop") {
          send({ type: "stopped", reason: { kind: "killed" } });
          return;
        }
      }
    }
    if (!machine || pause.isOn) {
      waitForRing(MAX_SLEEP_MS);
      continue;
    }
    const state = machine.runUntilBlocked();
    if (state.kind === "ended") {
      network?.end();
      send({ type: "stopped", reason: state.reason });
      return;
    }
    if (state.kind !== "idle") continue;
    if (!wasIdle && state.waitMs > LONG_IDLE_MS) {
      wasIdle = true;
      giveBackMemory();
    }
    if (state.waitMs > REST_MS && machine.rest()) giveBackMemory();
    waitForRing(state.waitMs);
  }
}

/** While a machine is paused its clock stands still: for the guest no time has gone by. */
class Pause {
  #since: number | undefined;
  #lost = 0;

  get isOn(): boolean {
    return this.#since !== undefined;
  }

  nowMs(): number {
    return (this.#since ?? performance.now()) - this.#lost;
  }

  /** For something that the guest's time shall not know of. */
  during<T>(action: () => T): T {
    const { isOn } = this;
    this.begin();
    try {
      return action();
    } finally {
      if (!isOn) this.end();
    }
  }

  begin(): void {
    this.#since ??= performance.now();
  }

  end(): void {
    if (this.#since !== undefined) this.#lost += performance.now() - this.#since;
    this.#since = undefined;
  }
}

/**
 * Collects garbage now: the images that the loader unpacked and what start-up left. V8 would not do it for a long time, since a running guest
 * makes no JavaScript objects.
 */
function giveBackMemory(): void {
  setFlagsFromString("--expose-gc");
  (runInNewContext("gc") as () => void)();
}

/** Frees the buffer of an image that is loaded: whoever still refers to it, as frames that live long do, keeps an empty one. */
function release(image: Uint8Array): void {
  if (image.buffer instanceof ArrayBuffer) structuredClone(null, { transfer: [image.buffer] });
}

function apply(machine: Machine, m: ToMachine): void {
  if (m.type === "input") machine.input(m.port, m.data);
  else if (m.type === "powerButton") machine.powerButton();
  else if (m.type === "stop") machine.stop();
  else machine.serve(m);
}

function takeSnapshot(
  machine: Machine,
  disks: Running["disks"],
  { folder, about }: { readonly folder: string; readonly about: string },
): SnapshotOutcome {
  const since = performance.now();
  try {
    const saved = writeSnapshotFiles(machine, disks, folder, about);
    return { ...saved, ms: performance.now() - since };
  } catch (error) {
    return { problem: toReason(error) };
  }
}

interface Running {
  readonly machine: Machine;
  readonly disks: readonly { readonly config: DiskConfig; readonly disk: FileDisk }[];
  readonly network: NodeNetworkLink | null;
}

/** A guest does not look at its card's address again. */
function macOf({ services }: MachineDescription): readonly number[] | undefined {
  const devices = services.map(({ device }) => device as { kind?: string; mac?: number[] } | null);
  return devices.find((device) => device?.kind === "network")?.mac;
}

interface StartPorts {
  send(message: FromMachine): void;
  readonly doorbell: Int32Array;
  /** True while the doorbell has rung since it was last heard. */
  rings(): boolean;
  nowMs(): number;
}

function start(
  config: MachineConfig,
  { send, doorbell, rings, nowMs }: StartPorts,
): Running | null {
  tuneEngine();
  try {
    const snapshot = config.snapshot && openSnapshot(config.snapshot.folder);
    const mac = snapshot && macOf(snapshot.description);
    const networkConfig = config.network && { ...(mac && { mac }), ...config.network };
    const network = networkConfig ? new NodeNetworkLink(networkConfig, { doorbell, send }) : null;
    const disks = openDisks(config.disks ?? []);
    const machine = new Machine(config, {
      nowMs,
      realTimeMs: () => Date.now(),
      snapshot: snapshot?.file,
      checksum: nodeChecksum,
      artifacts: new NodeArtifacts(),
      entropy: () => randomBytes(8).readBigUInt64LE(),
      doorbell: rings,
      send,
      decompressors: { gzip: (stream) => gunzipSync(stream) },
      compiler: (setup) => new NodeCompiler(setup),
      services: new NodeServiceHost(),
      disks,
      shares: openShares(config.shares ?? []),
      ...(network ? { network } : {}),
    });
    for (const image of [config.kernel, config.initrd]) if (image) release(image);
    // A loader has left what it unpacked.
    if (!snapshot) giveBackMemory();
    send({ type: "started" });
    const opened = disks.map((disk, i) => ({ config: config.disks![i]!, disk }));
    return { machine, network, disks: opened };
  } catch (error) {
    send({ type: "stopped", reason: toReason(error) });
    return null;
  }
}

function toReason(error: unknown): StopReason {
  if (error instanceof HypolithError) {
    return {
      kind: "error",
      message: error.message,
      code: error.code,
      ...(error.hint ? { hint: error.hint } : {}),
    };
  }
  const e = error as Error;
  return { kind: "error", message: e.message, ...(e.stack ? { dump: e.stack } : {}) };
}

if (parentPort) {
  const port = parentPort;
  try {
    serve(port, (workerData as WorkerData).doorbell);
  } catch (error) {
    port.postMessage({ type: "stopped", reason: toReason(error) } satisfies FromMachine);
  }
  port.close();
}
