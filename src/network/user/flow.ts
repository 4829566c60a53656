/**
 * One TCP connection of the guest and what is at its other end: a stream of the embedder, or our own DNS.
 *
 * A guest's SYN is not answered before the embedder's connection stands, so that a refusal outside is a refusal inside. Until then the flow
 * holds the SYN and no connection.
 */
import type { TcpPorts, TcpSegment } from "../packet/tcp-segment.ts";
import type { SavedConnection, TcpConnection } from "../tcp/connection.ts";
import type { Timed } from "./timer-queue.ts";

/** As the guest sees it. */
export interface FlowAddress {
  readonly guest: number;
  readonly guestPort: number;
  readonly remote: number;
  readonly remotePort: number;
}

/** The embedder's stream of a flow that ends at our own DNS. */
export const NO_STREAM = -1;

export interface FlowState {
  /** Bytes that the guest has acknowledged and the embedder was not told of yet. */
  ungranted: number;
  /** The embedder's stream is gone. */
  streamGone: boolean;
  /** Part of a DNS message that is still to come. */
  message: Uint8Array;
}

export interface SavedFlow extends FlowState {
  readonly address: FlowAddress;
  readonly stream: number;
  readonly serial: number;
  readonly syn: TcpSegment[];
  /** None while the embedder connects. */
  readonly connection: SavedConnection[];
  readonly capacity: number;
}

export class Flow implements Timed {
  readonly address: FlowAddress;
  readonly stream: number;
  /** Order of appearance. */
  readonly serial: number;
  connection: TcpConnection | null = null;
  /** Kept while the embedder connects. */
  syn: TcpSegment | null = null;
  readonly state: FlowState = { ungranted: 0, streamGone: false, message: new Uint8Array() };
  isDirty = false;
  heapIndex = -1;
  dueAt = 0;
  /** Of what we send. */
  readonly ports: TcpPorts;

  constructor(address: FlowAddress, stream: number, serial: number) {
    this.address = address;
    this.stream = stream;
    this.serial = serial;
    this.ports = portsOf(address);
  }

  save(): SavedFlow {
    const { address, stream, serial, syn, connection, state } = this;
    return {
      ...{ address: { ...address }, stream, serial },
      ...state,
      message: state.message.slice(),
      syn: syn ? [syn] : [],
      connection: connection ? [connection.save()] : [],
      capacity: connection?.tcb.receive.capacity ?? 0,
    };
  }
}

export const portsOf = (address: FlowAddress): TcpPorts => ({
  source: address.remote,
  destination: address.guest,
  sourcePort: address.remotePort,
  destinationPort: address.guestPort,
});

/** Flows by address. Ports of one guest and one remote address share a bucket. */
export class FlowTable {
  readonly #buckets = new Map<number, Flow[]>();
  readonly #byStream = new Map<number, Flow>();
  readonly #all = new Set<Flow>();

  get size(): number {
    return this.#all.size;
  }

  find({ guest, guestPort, remote, remotePort }: FlowAddress): Flow | undefined {
    const bucket = this.#buckets.get(remote * 0x1_0000 + guestPort);
    if (!bucket) return undefined;
    for (const flow of bucket) {
      const { address } = flow;
      if (address.remotePort === remotePort && address.guest === guest) return flow;
    }
    return undefined;
  }

  ofStream(stream: number): Flow | undefined {
    return this.#byStream.get(stream);
  }

  add(flow: Flow): void {
    const key = keyOf(flow);
    const bucket = this.#buckets.get(key);
    if (bucket) bucket.push(flow);
    else this.#buckets.set(key, [flow]);
    if (flow.stream !== NO_STREAM) this.#byStream.set(flow.stream, flow);
    this.#all.add(flow);
  }

  remove(flow: Flow): void {
    if (!this.#all.delete(flow)) return;
    const key = keyOf(flow);
    const bucket = this.#buckets.get(key)!.filter((other) => other !== flow);
    if (bucket.length === 0) this.#buckets.delete(key);
    else this.#buckets.set(key, bucket);
    if (flow.stream !== NO_STREAM) this.#byStream.delete(flow.stream);
  }

  /** In order of appearance. */
  [Symbol.iterator](): IterableIterator<Flow> {
    return this.#all.values();
  }
}

const keyOf = ({ address }: Flow): number => address.remote * 0x1_0000 + address.guestPort;
