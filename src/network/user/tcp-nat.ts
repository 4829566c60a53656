/**
 * TCP between guest and embedder: ends the guest's connections and carries their bytes over streams of the embedder, and the other way
 * round for forwarded ports.
 *
 * Back pressure runs through: the guest's window is what the embedder has not sent yet, the embedder's credit what the guest has not
 * acknowledged. Bounded: MAX_FLOWS connections, MAX_OPENING that are not open yet, and windows that shrink as connections grow in number.
 */
import { DNS_PORT } from "../packet/dns.ts";
import { IPV4_HEADER } from "../packet/ipv4.ts";
import { TCP_HEADER, TcpFlag, type TcpSegment } from "../packet/tcp-segment.ts";
import { type OutSegment, TcpConnection } from "../tcp/connection.ts";
import { resetFor } from "../tcp/reset-for.ts";
import { mayReopen } from "../tcp/segment-arrives.ts";
import { SendQueue } from "../tcp/send-queue.ts";
import { TcpState } from "../tcp/tcb.ts";
import { type Routing, route } from "./destination.ts";
import type { DnsForwarder } from "./dns-forwarder.ts";
import { Flow, type FlowAddress, FlowTable, NO_STREAM, portsOf, type SavedFlow } from "./flow.ts";
import { dnsEnd, streamEnd, writeDnsAnswer } from "./flow-ends.ts";
import type { GuestLink } from "./guest-link.ts";
import type { HostFailure, HostNetwork } from "./host-network.ts";
import { initialSequence } from "./initial-sequence.ts";
import { Subnet } from "./subnet.ts";
import { TimerQueue } from "./timer-queue.ts";
import { codeOf } from "./unreachable.ts";

const MAX_FLOWS = 1024;
const MAX_OPENING = 256;
const FIRST_PORT = 49_152;
/** Segments of one connection before it is another's turn. */
const TURN = 16;

export interface TcpParts {
  readonly host: HostNetwork;
  readonly link: GuestLink;
  readonly routing: Routing;
  readonly dns: DnsForwarder;
  readonly newId: () => number;
  readonly now: () => number;
  /** Secret of the initial sequence numbers. */
  readonly seed: number;
  /** Tells the guest that a connection cannot be: ICMP code. */
  readonly refuse: (address: FlowAddress, syn: TcpSegment, code: number) => void;
}

/** Bytes of each direction's buffer, by the number of connections: 160 MiB in all at most. */
function bufferFor(flows: number): number {
  if (flows < 64) return 512 * 1024;
  return flows < 256 ? 128 * 1024 : 32 * 1024;
}

export class TcpNat {
  readonly #parts: TcpParts;
  readonly flows = new FlowTable();
  readonly #forwards = new Map<number, number>();
  readonly #timers = new TimerQueue<Flow>();
  #dirty: Flow[] = [];
  #opening = 0;
  #nextPort = FIRST_PORT;
  #serial = 0;

  constructor(parts: TcpParts) {
    this.#parts = parts;
  }

  /** Streams accepted by `listener` go to the guest's `port`. */
  forward(listener: number, port: number): void {
    this.#forwards.set(listener, port);
  }

  // ---- the guest ----

  fromGuest(address: FlowAddress, segment: TcpSegment): void {
    let flow = this.flows.find(address);
    if (flow?.connection && mayReopen(flow.connection.tcb, segment)) {
      this.#remove(flow);
      flow = undefined;
    }
    if (!flow && isOpening(segment)) this.#open(address, segment);
    else if (!flow) this.#reset(address, segment);
    else if (flow.connection) {
      flow.connection.arrive(segment, this.#parts.now());
      this.#touch(flow);
    } else this.#arriveEarly(flow, segment);
  }

  /** A segment for a flow whose stream is not connected yet. */
  #arriveEarly(flow: Flow, segment: TcpSegment): void {
    if (segment.flags & TcpFlag.RST) {
      this.#parts.host.reset(flow.stream);
      this.#remove(flow);
    } else if (isOpening(segment)) flow.syn = withoutPayload(segment);
  }

  #reset(address: FlowAddress, segment: TcpSegment): void {
    const reset = resetFor(segment);
    if (reset) this.#sendAlone(address, reset);
  }

  /** A segment of no connection; lost if the link is full. */
  #sendAlone(address: FlowAddress, segment: OutSegment): void {
    const { link, now } = this.#parts;
    if (link.ready()) link.sendTcp(portsOf(address), segment, NO_BYTES, { now: now() });
  }

  #open(address: FlowAddress, syn: TcpSegment): void {
    const { host, routing, newId, now } = this.#parts;
    const { remote, remotePort } = address;
    const isDns = remote === Subnet.DNS && remotePort === DNS_PORT;
    if (remotePort === 0 || (remote === Subnet.DNS && !isDns)) {
      this.#reset(address, syn);
      return;
    }
    const to = isDns ? null : route(routing, remote, remotePort, now());
    if (to?.kind === "unreachable") {
      this.#parts.refuse(address, syn, to.code);
      return;
    }
    if (!this.#hasRoom()) return;
    const flow = new Flow(address, to ? newId() : NO_STREAM, this.#serial++);
    this.flows.add(flow);
    flow.syn = withoutPayload(syn);
    this.#opening++;
    if (to) host.connect(flow.stream, to.address, remotePort);
    else this.#accept(flow);
  }

  /** Makes room by what only waits out its time; false if there is none. The guest repeats its SYN. */
  #hasRoom(): boolean {
    if (this.#opening >= MAX_OPENING) return false;
    if (this.flows.size < MAX_FLOWS) return true;
    for (const flow of this.flows) {
      if (flow.connection?.state !== TcpState.TIME_WAIT) continue;
      this.#remove(flow);
      return true;
    }
    return false;
  }

  /** Answers the SYN that the flow holds. */
  #accept(flow: Flow): void {
    const { syn } = flow;
    if (!syn) return;
    this.#opening--;
    flow.syn = null;
    const connection = this.#connect(flow);
    connection.accept(syn, this.#parts.now());
    this.#touch(flow);
  }

  // ---- the embedder ----

  onConnected(stream: number): void {
    const flow = this.flows.ofStream(stream);
    if (flow) this.#accept(flow);
    else this.#parts.host.reset(stream);
  }

  onFailed(stream: number, failure: HostFailure): void {
    const flow = this.flows.ofStream(stream);
    if (!flow?.syn) return;
    const { address, syn } = flow;
    this.#remove(flow);
    if (failure === "refused") this.#reset(address, syn);
    else this.#parts.refuse(address, syn, codeOf(failure));
  }

  onData(stream: number, bytes: Uint8Array): void {
    this.#with(stream, ({ connection }) => connection?.write(bytes));
  }

  onSent(stream: number, bytes: number): void {
    this.#with(stream, ({ connection }) => connection?.consumed(bytes));
  }

  onEnd(stream: number): void {
    this.#with(stream, ({ connection }) => connection?.shutdown());
  }

  onReset(stream: number): void {
    this.#with(stream, (flow) => {
      flow.state.streamGone = true;
      if (flow.connection) flow.connection.abort();
      else this.#remove(flow);
    });
  }

  #with(stream: number, act: (flow: Flow) => void): void {
    const flow = this.flows.ofStream(stream);
    if (!flow) return;
    act(flow);
    this.#touch(flow);
  }

  /** A stream was accepted on a forwarded port: opens a connection into the guest. */
  onAccepted(listener: number, stream: number): void {
    const guestPort = this.#forwards.get(listener);
    const address =
      guestPort === undefined || !this.#hasRoom() ? null : this.#freeAddress(guestPort);
    if (!address) {
      this.#parts.host.reset(stream);
      return;
    }
    const flow = new Flow(address, stream, this.#serial++);
    this.flows.add(flow);
    this.#connect(flow).connect();
    this.#touch(flow);
  }

  #freeAddress(guestPort: number): FlowAddress | null {
    for (let tries = 0; tries <= MAX_FLOWS; tries++) {
      const remotePort = this.#nextPort;
      this.#nextPort = remotePort === 0xffff ? FIRST_PORT : remotePort + 1;
      const address = { guest: Subnet.GUEST, guestPort, remote: Subnet.GATEWAY, remotePort };
      if (!this.flows.find(address)) return address;
    }
    return null;
  }

  onDnsAnswer(address: FlowAddress, answer: Uint8Array): void {
    const flow = this.flows.find(address);
    if (flow?.stream !== NO_STREAM) return;
    writeDnsAnswer(flow, answer);
    this.#touch(flow);
  }

  // ---- connections ----

  /** Gives the flow its connection. */
  #connect(flow: Flow, capacity = bufferFor(this.flows.size)): TcpConnection {
    const { host, dns, link, seed, now } = this.#parts;
    const iss = initialSequence(flow.address, seed, now(), flow.serial);
    const ownMss = link.mtu - IPV4_HEADER - TCP_HEADER;
    const events = flow.stream === NO_STREAM ? dnsEnd(flow, dns, now) : streamEnd(flow, host);
    flow.connection = new TcpConnection({ iss, ownMss, capacity }, events);
    return flow.connection;
  }

  #remove(flow: Flow): void {
    if (flow.syn) this.#opening--;
    flow.syn = null;
    this.flows.remove(flow);
    this.#timers.remove(flow);
  }

  #touch(flow: Flow): void {
    if (flow.isDirty) return;
    flow.isDirty = true;
    this.#dirty.push(flow);
  }

  // ---- time and output ----

  deadline(): number {
    return this.#timers.next();
  }

  advance(now: number): void {
    for (let flow = this.#timers.takeDue(now); flow; flow = this.#timers.takeDue(now)) {
      flow.connection?.advance(now);
      this.#touch(flow);
    }
  }

  /** Sends what may be sent, in turns, until the link is full. */
  flush(): void {
    while (this.#dirty.length > 0 && this.#parts.link.ready()) {
      const turn = this.#dirty;
      this.#dirty = [];
      for (const flow of turn) {
        flow.isDirty = false;
        if (this.#output(flow)) this.#touch(flow);
      }
    }
  }

  /** True if the flow has more to send. */
  #output(flow: Flow): boolean {
    const { connection, ports } = flow;
    if (!connection) return false;
    const { link, now } = this.#parts;
    const time = now();
    let left = TURN;
    const when = { now: time, mss: connection.tcb.send.mss };
    const hasMore = connection.output(
      time,
      () => left > 0 && link.ready(),
      (segment, queue) => {
        left--;
        link.sendTcp(ports, segment, queue, when);
      },
      link.burst,
    );
    if (connection.isClosed && !hasMore) this.#remove(flow);
    else this.#timers.schedule(flow, connection.deadline());
    return hasMore;
  }

  // ---- snapshots ----

  /** Resets every connection: the embedder's streams are gone. */
  abandon(): void {
    for (const flow of [...this.flows]) {
      flow.state.streamGone = true;
      if (flow.connection) {
        flow.connection.abort();
        this.#touch(flow);
      } else this.#remove(flow);
    }
  }

  save(): SavedTcp {
    return {
      flows: [...this.flows].map((flow) => flow.save()),
      dirty: this.#dirty.map(({ serial }) => serial),
      nextPort: this.#nextPort,
      serial: this.#serial,
    };
  }

  restore(saved: SavedTcp): void {
    for (const flow of [...this.flows]) this.#remove(flow);
    this.#dirty = [];
    this.#opening = 0;
    this.#nextPort = saved.nextPort;
    this.#serial = saved.serial;
    for (const from of saved.flows) this.#restoreFlow(from, saved.dirty);
    this.#dirty.sort((a, b) => saved.dirty.indexOf(a.serial) - saved.dirty.indexOf(b.serial));
  }

  #restoreFlow(saved: SavedFlow, dirty: readonly number[]): void {
    const flow = new Flow({ ...saved.address }, saved.stream, saved.serial);
    flow.state.ungranted = saved.ungranted;
    flow.state.streamGone = saved.streamGone;
    flow.state.message = saved.message.slice();
    flow.syn = saved.syn[0] ?? null;
    if (flow.syn) this.#opening++;
    this.flows.add(flow);
    for (const connection of saved.connection) {
      this.#connect(flow, saved.capacity).restore(connection);
      this.#timers.schedule(flow, flow.connection!.deadline());
    }
    if (dirty.includes(flow.serial)) this.#touch(flow);
  }
}

export interface SavedTcp {
  readonly flows: readonly SavedFlow[];
  readonly dirty: readonly number[];
  readonly nextPort: number;
  readonly serial: number;
}

const NO_BYTES = new SendQueue(0);

const isOpening = ({ flags }: TcpSegment): boolean =>
  (flags & (TcpFlag.SYN | TcpFlag.ACK | TcpFlag.RST)) === TcpFlag.SYN;

/** What is kept of a SYN: nothing that shares memory with a frame. Data in it is sent again. */
const withoutPayload = (syn: TcpSegment): TcpSegment => ({ ...syn, payload: new Uint8Array() });
