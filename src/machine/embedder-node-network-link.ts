/**
 * A machine's network in a Node thread of its own (embedder-node-network-thread.ts), as the machine's thread sees it.
 *
 * A machine's thread does not use its event loop while the guest runs, and sockets need one. So the whole stack runs beside it, on
 * another processor if there is one, and what crosses is frames: by rings in shared memory, which cost a copy each. The thread does not keep
 * the process alive.
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
import type { FromMachine, NetworkConfig } from "../control/protocol.ts";
import { EtherType } from "../network/packet/ethernet.ts";
import { parseEgress } from "../network/user/egress.ts";
import { parsePortForward } from "../network/user/port-forward.ts";
import type { NetworkReport, NetworkThreadData } from "./embedder-node-network-thread.ts";
import { FrameRing } from "./frame-ring.ts";
import { MAX_RECEIVED_BYTES, type MachineNetwork } from "./virtio-devices.ts";

const RING_BYTES = 1 << 20;
/** Larger ones do not fit into a message to the device's service. */
const MAX_MTU = 32_000;
/** Fewer and larger frames: 1500 costs a guest one and a half to twice the time. No network outside sees them. */
const DEFAULT_MTU = 9000;

export interface LinkPorts {
  /** Incremented and notified when there is something for the machine. */
  readonly doorbell: Int32Array;
  send(message: FromMachine): void;
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

  send(frame: Uint8Array): void {
    if (!isOurs(frame)) return;
    const port = this.#thread?.port ?? this.#start();
    if (!this.#fromGuest.push(frame)) this.dropped++;
    if (this.#fromGuest.takeSleeping()) port.postMessage(0);
  }

  get hasFrames(): boolean {
    return !this.#toGuest.isEmpty;
  }

  receive(): Uint8Array | null {
    let frames = this.#toGuest.take(MAX_RECEIVED_BYTES);
    if (!frames && !this.#toGuest.sleep()) frames = this.#toGuest.take(MAX_RECEIVED_BYTES);
    if (this.#toGuest.takeBlocked()) this.#thread?.port.postMessage(0);
    return frames;
  }

  /** After the doorbell: passes on what the stack reports. */
  takeReports(): void {
    const port = this.#thread?.port;
    while (port) {
      const received = receiveMessageOnPort(port) as { message: NetworkReport } | undefined;
      if (!received) return;
      const { level, text } = received.message;
      this.#ports.send({ type: "log", level, text: `network: ${text}` });
    }
  }

  /** Ends the thread and its connections. */
  end(): void {
    this.#thread?.port.close();
    void this.#thread?.worker.terminate();
    this.#thread = null;
  }
}

/** ARP and IPv4; the network knows nothing else. */
function isOurs(frame: Uint8Array): boolean {
  const type = (frame[12]! << 8) | frame[13]!;
  return type === EtherType.IPV4 || type === EtherType.ARP;
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
