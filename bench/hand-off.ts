/**
 * What it costs to hand frames to another thread and back: node bench/hand-off.ts [BYTES [FRAMES]]
 *
 * One thread blocks, as a machine's does; the other has an event loop and echoes. "ring": FrameRing, a sleeper is woken by a message, as
 * the network's thread is. "message": each frame is a message. Frames in a second each way, and the time of one there and back. The kinds take
 * turns, and the first turn does not count: whoever begins in a cold process would pay for both.
 */
import { once } from "node:events";
import { argv, exit } from "node:process";
import {
  isMainThread,
  MessageChannel,
  type MessagePort,
  parentPort,
  receiveMessageOnPort,
  Worker,
  workerData,
} from "node:worker_threads";
import { TAG_BYTES } from "../src/devices/virtio/frame-tag.ts";
import { FrameRing } from "../src/machine/frame-ring.ts";

interface Ends {
  readonly there: SharedArrayBuffer;
  readonly back: SharedArrayBuffer;
  readonly doorbell: Int32Array;
  readonly port: MessagePort;
  readonly kind: Kind;
}

const KINDS = ["ring", "message"] as const;
type Kind = (typeof KINDS)[number];

const RING_BYTES = 1 << 20;
const ROUND_TRIPS = 2000;
/** Messages under way at once: some more than frames of 1500 bytes find room for in half a ring. */
const MAX_MESSAGES = 500;
const CHUNK = 60_000;
const TURNS = 3;

/** How many frames have come back since it was last asked; waits for one if there is none. */
type Collect = () => number;

function ringEnds({ there, back, doorbell, port }: Ends): [send: () => boolean, Collect] {
  const [up, down] = [new FrameRing(there), new FrameRing(back)];
  const memory = new Uint8Array(frame.length);
  const send = (): boolean => {
    const isSent = up.push(frame);
    if (up.takeSleeping()) port.postMessage(0);
    return isSent;
  };
  const collect = (): number => {
    for (;;) {
      const seen = Atomics.load(doorbell, 0);
      const tags = down.announce(Math.floor(CHUNK / frame.length), CHUNK);
      const count = (tags?.length ?? 0) / TAG_BYTES;
      for (let i = 0; i < count; i++) down.takeInto([memory]);
      if (down.takeBlocked()) port.postMessage(0);
      if (count > 0) return count;
      if (down.sleep()) Atomics.wait(doorbell, 0, seen);
    }
  };
  return [send, collect];
}

function messageEnds({ doorbell, port }: Ends): [send: () => boolean, Collect] {
  let under = 0;
  const send = (): boolean => {
    if (under >= MAX_MESSAGES) return false;
    under++;
    port.postMessage(frame.slice());
    return true;
  };
  const collect = (): number => {
    for (;;) {
      const seen = Atomics.load(doorbell, 0);
      let count = 0;
      while (receiveMessageOnPort(port)) count++;
      under -= count;
      if (count > 0) return count;
      Atomics.wait(doorbell, 0, seen);
    }
  };
  return [send, collect];
}

const frame = new Uint8Array(Number(argv[2] ?? 1500));
const frames = Number(argv[3] ?? 100_000);

async function measure(kind: Kind): Promise<string> {
  const { port1, port2 } = new MessageChannel();
  const [there, back] = [FrameRing.create(RING_BYTES).buffer, FrameRing.create(RING_BYTES).buffer];
  const doorbell = new Int32Array(new SharedArrayBuffer(4));
  const data = { there, back, doorbell, kind };
  const worker = new Worker(new URL(import.meta.url), {
    workerData: { ...data, port: port2 },
    transferList: [port2],
  });
  await once(worker, "message");
  const ends = { ...data, port: port1 };
  const [send, collect] = kind === "ring" ? ringEnds(ends) : messageEnds(ends);
  const trips = performance.now();
  for (let i = 0; i < ROUND_TRIPS; i++) {
    send();
    collect();
  }
  const tripUs = ((performance.now() - trips) / ROUND_TRIPS) * 1000;
  const started = performance.now();
  for (let sent = 0, got = 0; got < frames; got += collect())
    while (sent < frames && send()) sent++;
  const seconds = (performance.now() - started) / 1000;
  const rate = `${(frames / seconds / 1000).toFixed(0)}k frames/s`;
  const mib = `${((frames * frame.length) / seconds / 2 ** 20).toFixed(0)} MiB/s each way`;
  await worker.terminate();
  port1.close();
  return `${kind.padEnd(8)} ${frame.length} bytes: ${rate}, ${mib}, ${tripUs.toFixed(0)} us`;
}

function echo({ there, back, doorbell, port, kind }: Ends): void {
  const [up, down] = [new FrameRing(there), new FrameRing(back)];
  const ring = (): void => {
    Atomics.add(doorbell, 0, 1);
    Atomics.notify(doorbell, 0);
  };
  let held: Uint8Array | null = null;
  const work = (): void => {
    for (;;) {
      held ??= up.shift()?.frame ?? null;
      if (!held && up.sleep()) return;
      if (!held) continue;
      if (!down.hasRoom(held.length)) return;
      down.push(held);
      held = null;
      if (down.takeSleeping()) ring();
    }
  };
  const answer = (bytes: Uint8Array): void => {
    port.postMessage(bytes);
    ring();
  };
  port.on("message", kind === "ring" ? work : answer);
  parentPort!.postMessage("ready");
}

if (isMainThread) {
  for (const kind of KINDS) await measure(kind);
  for (let turn = 0; turn < TURNS; turn++)
    for (const kind of KINDS) console.log(await measure(kind));
  exit(0);
} else echo(workerData as Ends);
