/**
 * A machine's network in a Node thread of its own (embedder-node-network-thread.ts), as the machine's thread sees it.
 *
 * A machine's thread does not use its event loop while the guest runs, and sockets need one. So the whole stack runs beside it, on
 * another processor if there is one, and what crosses is frames: by rings in shared memory, which cost a copy each. The thread does not keep
 * the process alive.
 *
 * A thread that fails, or takes no frames for STALL_MS, is followed by another one over the same rings. It knows no connections: the guest's segments are
 * answered with resets. The guest sees its link go down and come up again.
 */
import { randomBytes } from "node:crypto";
import { closeSync, openSync } from "node:fs";
import {
  MessageChannel,
  type MessagePort,
  receiveMessageOnPort,
  Worker,
} from "node:worker_threads";
import { HypolithError } from "../base/errors.ts";
import type { DrillName, FromMachine, NetworkConfig } from "../control/protocol.ts";
import { encodeTag, FrameFlag, type FrameTag } from "../devices/virtio/frame-tag.ts";
import { EtherType } from "../network/packet/ethernet.ts";
import { parseEgress } from "../network/user/egress.ts";
import { parsePortForward } from "../network/user/port-forward.ts";
import type {
  NetworkCall,
  NetworkReport,
  NetworkThreadData,
} from "./embedder-node-network-thread.ts";
import { FrameRing } from "./frame-ring.ts";
import type { MachineNetwork } from "./virtio-devices.ts";

const RING_BYTES = 1 << 20;
/** Larger ones do not fit into a message to the device's service. */
const MAX_MTU = 32_000;
/** Fewer and larger frames: 1500 costs a guest one and a half to twice the time. No network outside sees them. */
const DEFAULT_MTU = 9000;

/** Frames of the guest wait so long, and nobody takes them: the thread is gone or stuck. */
const STALL_MS = 30_000;
/** As many restarts in as long a time are enough. */
const MAX_RESTARTS = 5;
const RESTART_WINDOW_MS = 60_000;
/** Of one announcement: what it leads to has to fit into one reply of the card's service. */
const ANNOUNCED_FRAMES = 32;
const ANNOUNCED_BYTES = 256 << 10;

export interface LinkPorts {
  /** Incremented and notified when there is something for the machine. */
  readonly doorbell: Int32Array;
  send(message: FromMachine): void;
  /** Of a clock that never goes back. Default: performance.now. */
  nowMs?(): number;
}

export class NodeNetworkLink implements MachineNetwork {
  readonly mac: Uint8Array;
  readonly mtu: number;
  readonly #fromGuest = FrameRing.create(RING_BYTES);
  readonly #toGuest = FrameRing.create(RING_BYTES);
  readonly #ports: LinkPorts;
  readonly #data: Omit<NetworkThreadData, "port">;
  /** Once it has started. */
  #thread: { readonly worker: Worker; readonly port: MessagePort } | null = null;
  /** About the link, for the card. */
  readonly #news: Uint8Array[] = [];
  /** since when frames of the guest wait, and how many bytes had been taken then */
  #waiting = { since: 0, taken: 0 };
  readonly #restarts: number[] = [];
  #isGivenUp = false;
  /** Frames of the guest that found the ring full. */
  dropped = 0;

  /** Throws HypolithError if the configuration is wrong. */
  constructor(config: NetworkConfig, ports: LinkPorts) {
    const { mtu = DEFAULT_MTU, egress = [], forwards = [], hostAccess, hostName, capture } = config;
    if (!(mtu <= MAX_MTU))
      throw new HypolithError("mtu", `an MTU of ${mtu} is not between 576 and ${MAX_MTU}`);
    const options = {
      egress: parseEgress(egress),
      forwards: forwards.map(parsePortForward),
      seed: randomBytes(4).readInt32LE(),
      ...(hostAccess === undefined ? {} : { hostAccess }),
      ...(hostName === undefined ? {} : { hostName }),
    };
    if (capture !== undefined) checkCapture(capture);
    this.mac = config.mac ? Uint8Array.from(config.mac) : guestMac();
    this.mtu = mtu;
    this.#ports = ports;
    this.#data = {
      fromGuest: this.#fromGuest.buffer,
      toGuest: this.#toGuest.buffer,
      doorbell: ports.doorbell,
      ...{ options, mtu, capture },
    };
    if (forwards.length > 0) this.#start();
  }

  /** At the first frame that asks for something: many a guest never sends one. */
  #start(): MessagePort {
    const { port1, port2 } = new MessageChannel();
    const workerData: NetworkThreadData = { ...this.#data, port: port2 };
    const extension = import.meta.url.endsWith(".ts") ? "ts" : "js";
    const url = new URL(`./embedder-node-network-thread.${extension}`, import.meta.url);
    const worker = new Worker(url, { workerData, transferList: [port2] });
    worker.unref();
    port1.unref();
    this.#thread = { worker, port: port1 };
    return port1;
  }

  send(tag: FrameTag, memory: readonly Uint8Array[]): void {
    if (!isOurs(memory) || this.#isGivenUp) return;
    const port = this.#thread?.port ?? this.#start();
    const ring = this.#fromGuest;
    if (ring.isEmpty) this.#waiting = { since: this.#now(), taken: ring.taken };
    if (!this.#fromGuest.pushParts(tag, memory)) this.dropped++;
    if (this.#fromGuest.takeSleeping()) port.postMessage(0 satisfies NetworkCall);
    this.#watch();
  }

  get hasNews(): boolean {
    return this.#news.length > 0 || this.#toGuest.hasUnannounced;
  }

  announce(): Uint8Array | null {
    const news = this.#news.shift();
    if (news) return news;
    const ring = this.#toGuest;
    let tags = ring.announce(ANNOUNCED_FRAMES, ANNOUNCED_BYTES);
    if (!tags && !ring.sleep()) tags = ring.announce(ANNOUNCED_FRAMES, ANNOUNCED_BYTES);
    return tags;
  }

  take(memory: readonly Uint8Array[]): void {
    this.#toGuest.takeInto(memory);
    if (this.#toGuest.takeBlocked()) this.#thread?.port.postMessage(0 satisfies NetworkCall);
  }

  /** After the doorbell: passes on what the stack reports. */
  takeReports(): void {
    for (;;) {
      const port = this.#thread?.port;
      const received =
        port && (receiveMessageOnPort(port) as { message: NetworkReport } | undefined);
      if (!received) return;
      const { message } = received;
      if (message.level === "failed") this.#restart(message.text);
      else if (message.level !== "ready") this.#log(message.level, message.text);
      else if (this.#restarts.length > 0) this.#setLink(FrameFlag.LINK_UP);
    }
  }

  /** For drills: ends the thread by a failure, or stops it. Answers why not, or null. */
  drill(call: DrillName): string | null {
    if (call !== "kill" && call !== "hang") return "the network can be killed or hung";
    if (!this.#thread) return "the network's thread has not started yet";
    this.#thread.port.postMessage(call satisfies NetworkCall);
    return null;
  }

  /** A thread that dies of want of memory says nothing. */
  #watch(): void {
    const { taken } = this.#fromGuest;
    const now = this.#now();
    if (taken !== this.#waiting.taken) this.#waiting = { since: now, taken };
    else if (now - this.#waiting.since > STALL_MS) {
      this.#waiting.since = now;
      this.#restart(`it has taken no frames for ${STALL_MS / 1000} s`);
    }
  }

  #restart(why: string): void {
    this.end();
    const now = this.#now();
    const recent = this.#restarts.filter((at) => now - at < RESTART_WINDOW_MS);
    this.#restarts.splice(0, this.#restarts.length, ...recent, now);
    this.#setLink(FrameFlag.LINK_DOWN);
    if (recent.length >= MAX_RESTARTS) {
      this.#isGivenUp = true;
      this.#log("error", `it fails again and again, and is given up: ${why}`);
      return;
    }
    this.#log("warn", `it has failed and starts again, its connections are reset: ${why}`);
    this.#start();
  }

  #now(): number {
    return this.#ports.nowMs?.() ?? performance.now();
  }

  #setLink(flags: number): void {
    this.#news.push(encodeTag({ length: 0, flags, segment: 0 }));
  }

  #log(level: "info" | "warn" | "error", text: string): void {
    this.#ports.send({ type: "log", level, text: `network: ${text}` });
  }

  /** Ends the thread and its connections. */
  end(): void {
    this.#thread?.port.close();
    void this.#thread?.worker.terminate();
    this.#thread = null;
  }
}

/** ARP and IPv4; the network knows nothing else. */
function isOurs(memory: readonly Uint8Array[]): boolean {
  const type = (byteOf(memory, 12) << 8) | byteOf(memory, 13);
  return type === EtherType.IPV4 || type === EtherType.ARP;
}

/** 0 behind the end. */
function byteOf(parts: readonly Uint8Array[], index: number): number {
  let at = index;
  for (const part of parts) {
    if (at < part.length) return part[at]!;
    at -= part.length;
  }
  return 0;
}

/** Locally administered, with the prefix that QEMU's guests have. */
function guestMac(): Uint8Array {
  return Uint8Array.of(0x52, 0x54, 0x00, ...randomBytes(3));
}

function checkCapture(path: string): void {
  try {
    closeSync(openSync(path, "w"));
  } catch (cause) {
    throw new HypolithError("capture-file", `the capture cannot be written to ${path}`, { cause });
  }
}
