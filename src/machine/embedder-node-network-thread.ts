/**
 * Node thread of a machine's network: the user-mode stack and the sockets, on an event loop of their own.
 *
 * Frames come and go by two rings. A message on the port says that there are frames, or room; the doorbell says the same to the machine,
 * which does not use its event loop. What the stack reports goes back by the port.
 */
import { openSync, writeSync } from "node:fs";
import { type MessagePort, workerData } from "node:worker_threads";
import { FrameFlag } from "../devices/virtio/frame-tag.ts";
import { captureFrame, captureHeader, Direction } from "../network/capture/pcapng.ts";
import { MAX_FRAME } from "../network/packet/ethernet.ts";
import { UserNetwork, type UserNetworkOptions } from "../network/user/user-network.ts";
import { NodeNetwork } from "./embedder-node-network.ts";
import { FrameRing } from "./frame-ring.ts";

export interface NetworkThreadData {
  readonly fromGuest: SharedArrayBuffer;
  readonly toGuest: SharedArrayBuffer;
  readonly doorbell: Int32Array;
  readonly port: MessagePort;
  readonly options: Omit<UserNetworkOptions, "clock" | "link" | "host" | "report">;
  readonly mtu: number;
  /** File for a capture. */
  readonly capture: string | undefined;
}

/** To the machine. */
export type NetworkReport =
  | { readonly level: "info" | "warn"; readonly text: string }
  /** From now on frames are taken. */
  | { readonly level: "ready" }
  /** The thread is gone. */
  | { readonly level: "failed"; readonly text: string };

/** To the thread: there are frames, or room; or a drill. */
export type NetworkCall = 0 | "kill" | "hang";

/** Frames between two looks at what they have led to. */
const BATCH = 64;
/** Longest sleep of the timer, which takes 31 bits of milliseconds. */
const MAX_TIMER_MS = 60_000;

const nowNs = (): number => Math.round(performance.now() * 1e6);

class NetworkThread {
  readonly #data: NetworkThreadData;
  readonly #fromGuest: FrameRing;
  readonly #toGuest: FrameRing;
  readonly #network: UserNetwork;
  readonly #capture: Capture | null;
  #timer: NodeJS.Timeout | undefined;
  #armedFor = Number.POSITIVE_INFINITY;

  constructor(data: NetworkThreadData) {
    this.#data = data;
    this.#fromGuest = new FrameRing(data.fromGuest);
    this.#toGuest = new FrameRing(data.toGuest);
    this.#capture =
      data.capture === undefined
        ? null
        : new Capture(data.capture, (why) => this.#captureFailed(why));
    const host = new NodeNetwork((text) => this.#report({ level: "warn", text }));
    this.#network = new UserNetwork({
      ...data.options,
      mtu: data.mtu,
      clock: { now: nowNs },
      link: {
        ready: () => this.#toGuest.hasRoom(MAX_FRAME),
        send: (frame, isUnfinished = false, segment = 0) =>
          this.#send(frame, isUnfinished ? FrameFlag.UNFINISHED : 0, segment),
      },
      host,
      report: (level, text) => this.#report({ level, text }),
    });
    // Nobody else would hear of it: the machine's thread has no event loop to tell.
    process.once("uncaughtException", (error) => {
      this.#report({ level: "failed", text: error.stack ?? error.message });
      process.exit(1);
    });
    host.attach(this.#network.events, () => this.#settle());
    data.port.on("message", (call: NetworkCall) => {
      if (call === "kill") throw new Error("ended by a drill");
      if (call === "hang") for (;;);
      this.#work();
    });
    this.#network.start();
    this.#report({ level: "ready" });
    this.#work();
  }

  #send(frame: Uint8Array, flags: number, segment: number): void {
    this.#capture?.add(Direction.INBOUND, frame);
    this.#toGuest.push(frame, flags, segment);
    if (this.#toGuest.takeSleeping()) this.#ring();
  }

  #ring(): void {
    Atomics.add(this.#data.doorbell, 0, 1);
    Atomics.notify(this.#data.doorbell, 0);
  }

  #report(report: NetworkReport): void {
    this.#data.port.postMessage(report);
    this.#ring();
  }

  #captureFailed(why: string): void {
    this.#report({ level: "warn", text: `the capture ends early: ${why}` });
  }

  /** Takes what the guest has sent, and goes on with what waited for room. */
  #work(): void {
    do {
      let count = 0;
      for (let next = this.#fromGuest.shift(); next; next = this.#fromGuest.shift()) {
        const { frame, tag } = next;
        this.#capture?.add(Direction.OUTBOUND, frame);
        const has = (flag: number): boolean => (tag.flags & flag) !== 0;
        const checksums = has(FrameFlag.TAKES_UNFINISHED);
        const segments = has(FrameFlag.TAKES_SEGMENTS);
        this.#network.receive(frame, has(FrameFlag.UNFINISHED), { checksums, segments });
        if (++count % BATCH === 0) this.#network.flush();
      }
      this.#network.flush();
    } while (!this.#fromGuest.sleep());
    this.#settle();
  }

  /** After each event: writes the capture, sets the timer. */
  #settle(): void {
    this.#capture?.flush();
    const deadline = this.#network.deadline();
    if (deadline === this.#armedFor) return;
    this.#armedFor = deadline;
    clearTimeout(this.#timer);
    if (deadline === Number.POSITIVE_INFINITY) return;
    const delay = Math.min(Math.max(0, Math.ceil((deadline - nowNs()) / 1e6)), MAX_TIMER_MS);
    this.#timer = setTimeout(() => {
      this.#armedFor = Number.NaN;
      this.#network.advance(nowNs());
      this.#settle();
    }, delay);
  }
}

/** A capture file. Written at the end of each event, so that it is whole when the machine ends. After a failure it is left alone. */
class Capture {
  readonly #file: number;
  readonly #failed: (why: string) => void;
  #hasFailed = false;
  readonly #epochNs = BigInt(Math.round(performance.timeOrigin * 1e6));
  #blocks: Uint8Array[] = [];

  constructor(path: string, failed: (why: string) => void) {
    // Whose machine begins has emptied it; a thread that takes over adds a section.
    this.#file = openSync(path, "a");
    this.#failed = failed;
    this.#blocks.push(captureHeader({ interfaceName: "net0", application: "hypolith" }));
  }

  add(direction: Direction, frame: Uint8Array): void {
    if (this.#hasFailed) return;
    const timeNs = this.#epochNs + BigInt(nowNs());
    this.#blocks.push(captureFrame({ timeNs, direction, frame }));
  }

  flush(): void {
    if (this.#blocks.length === 0) return;
    const bytes = Buffer.concat(this.#blocks);
    this.#blocks = [];
    try {
      for (let at = 0; at < bytes.length; ) at += writeSync(this.#file, bytes, at);
    } catch (error) {
      this.#hasFailed = true;
      this.#failed((error as Error).message);
    }
  }
}

new NetworkThread(workerData as NetworkThreadData);
