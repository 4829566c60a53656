/**
 * User-mode network: the gateway of a guest's virtual subnet, made of nothing but sockets of the embedder.
 *
 *   10.0.2.2   gateway, DHCP server; its ports are those of the embedder's loopback     10.0.2.3   DNS
 *   10.0.2.15  the guest, by DHCP                                                       all else   through the embedder's sockets
 *
 * Three sides call in: the guest's link (`receive`, and `flush` when a batch of frames is over or the link has room again), time (`deadline`,
 * `advance`), and the embedder's network (`events`). Each call does a bounded amount of work and never throws on anything the guest sends.
 * All but `receive` send what can be sent before they return. State is plain and bounded everywhere.
 *
 * A snapshot holds every connection. Who restores one without the embedder's sockets that belonged to it calls `abandon`: connections are
 * reset, questions forgotten. Not here: IPv6.
 */
import { HypolithError } from "../../base/errors.ts";
import { formatIpv4Address } from "../packet/address.ts";
import { DNS_PORT } from "../packet/dns.ts";
import { Unreachable } from "../packet/icmp.ts";
import { IpProtocol } from "../packet/ipv4.ts";
import type { TcpSegment } from "../packet/tcp-segment.ts";
import { buildUdp } from "../packet/udp.ts";
import { DhcpServer } from "./dhcp-server.ts";
import { type DnsAsker, DnsForwarder } from "./dns-forwarder.ts";
import { EchoNat } from "./echo-nat.ts";
import { EgressPolicy, type EgressRules, OPEN_EGRESS } from "./egress.ts";
import type { FlowAddress } from "./flow.ts";
import { Gateway } from "./gateway.ts";
import { type FramePort, GuestLink, type LinkOffload } from "./guest-link.ts";
import type { HostEvents, HostFailure, HostNetwork } from "./host-network.ts";
import { formatPortForward, type PortForward } from "./port-forward.ts";
import { isShapedLike } from "./snapshot-shape.ts";
import { Subnet } from "./subnet.ts";
import { TcpNat } from "./tcp-nat.ts";
import { UdpNat } from "./udp-nat.ts";
import { sendUnreachable } from "./unreachable.ts";

export interface UserNetworkOptions {
  /** Nanoseconds; never goes back. */
  readonly clock: { now(): number };
  readonly link: FramePort;
  readonly host: HostNetwork;
  /** Bytes of an IPv4 packet, 576 to 65,535; default 1500. */
  readonly mtu?: number;
  readonly egress?: EgressRules;
  readonly forwards?: readonly PortForward[];
  /** May the guest reach the embedder's loopback at 10.0.2.2? Default: yes. */
  readonly hostAccess?: boolean;
  /** What DHCP calls the guest. */
  readonly hostName?: string;
  /** Any number; a secret one if somebody else sees the guest's traffic. */
  readonly seed?: number;
  /** Lines for a person: what was refused, which ports could not be had. */
  readonly report?: (level: "info" | "warn", text: string) => void;
}

const DEFAULT_MTU = 1500;
const MIN_MTU = 576;
const MAX_MTU = 65_535;

/** Lines that one machine may report; a guest could make any number. */
const MAX_REPORTS = 100;

export class UserNetwork {
  readonly #options: UserNetworkOptions;
  readonly #link: GuestLink;
  readonly #policy: EgressPolicy;
  readonly #dhcp: DhcpServer;
  readonly #dns: DnsForwarder;
  readonly #tcp: TcpNat;
  readonly #udp: UdpNat;
  readonly #echo: EchoNat;
  readonly #gateway: Gateway;
  readonly #listeners = new Map<number, PortForward>();
  /** Of streams, sockets and queries: even numbers. */
  #nextId = 2;
  #reports = 0;
  /** What the embedder tells. */
  readonly events: HostEvents;

  constructor(options: UserNetworkOptions) {
    const { mtu = DEFAULT_MTU, host, egress = OPEN_EGRESS, hostAccess = true, seed = 0 } = options;
    if (!Number.isInteger(mtu) || mtu < MIN_MTU || mtu > MAX_MTU)
      throw new HypolithError("mtu", `an MTU of ${mtu} is not between ${MIN_MTU} and ${MAX_MTU}`);
    this.#options = options;
    const newId = (): number => this.#newId();
    const now = (): number => options.clock.now();
    const policy = new EgressPolicy(egress);
    const link = new GuestLink(options.link, mtu);
    const common = { host, link, newId, routing: { policy, hostAccess } };
    this.#policy = policy;
    this.#link = link;
    this.#dhcp = new DhcpServer({ mtu, hostName: options.hostName });
    this.#dns = new DnsForwarder({
      ...{ host, policy, newId },
      answer: (asker, answer, at) => this.#answerDns(asker, answer, at),
      refused: (name) => this.#reportRefusal(name),
    });
    this.#udp = new UdpNat(common);
    this.#echo = new EchoNat({ ...common, report: (text) => this.#report("info", text) });
    this.#tcp = new TcpNat({
      ...{ ...common, dns: this.#dns, now, seed },
      refuse: (address, syn, code) => this.#refuse(address, syn, code),
    });
    const { dhcp, dns, tcp, udp, echo } = {
      ...{ dhcp: this.#dhcp, dns: this.#dns, tcp: this.#tcp, udp: this.#udp, echo: this.#echo },
    };
    this.#gateway = new Gateway({ link, now, dhcp, dns, tcp, udp, echo });
    this.events = this.#hostEvents();
  }

  #newId(): number {
    const id = this.#nextId;
    this.#nextId += 2;
    return id;
  }

  /** Opens the forwarded ports; `events` tells what came of it. */
  start(): void {
    for (const forward of this.#options.forwards ?? []) {
      const listener = this.#newId();
      this.#listeners.set(listener, forward);
      if (forward.kind === "tcp") this.#tcp.forward(listener, forward.guestPort);
      else this.#udp.forward(listener, forward.guestPort);
      this.#options.host.listen(listener, forward.kind, forward.hostAddress, forward.hostPort);
    }
  }

  /**
   * A frame from the guest, valid during the call. What it leads to is sent by `flush`. `isVerified`: nobody has finished its TCP or UDP checksum. `offload`:
   * what the guest takes from now on.
   */
  receive(frame: Uint8Array, isVerified = false, offload?: LinkOffload): void {
    if (offload) this.#link.offload = offload;
    this.#gateway.receive(frame, isVerified);
  }

  /** Sends what may be sent: after a batch of frames, and when the link has room again. */
  flush(): void {
    this.#link.flush();
    this.#tcp.flush();
  }

  /** When `advance` is to be called, or Infinity. */
  deadline(): number {
    return Math.min(this.#tcp.deadline(), this.#udp.deadline());
  }

  advance(now: number): void {
    this.#tcp.advance(now);
    this.#udp.advance(now);
    this.flush();
  }

  get statistics(): { connections: number; mappings: number; dropped: number } {
    return {
      connections: this.#tcp.flows.size,
      mappings: this.#udp.mappings,
      dropped: this.#link.dropped,
    };
  }

  #report(level: "info" | "warn", text: string): void {
    if (this.#reports++ < MAX_REPORTS) this.#options.report?.(level, text);
  }

  #reportRefusal(what: string): void {
    this.#report("warn", `the guest may not reach ${what} (--egress)`);
  }

  #answerDns(asker: DnsAsker, answer: Uint8Array, now: number): void {
    if (asker.kind === "tcp") {
      this.#tcp.onDnsAnswer(asker, answer);
      return;
    }
    const { guest: destination, guestPort: destinationPort } = asker;
    const source = Subnet.DNS;
    const ports = { sourcePort: DNS_PORT, destinationPort };
    const payload = buildUdp({ ...ports, payload: answer }, source, destination);
    this.#link.sendPacket({ source, destination, protocol: IpProtocol.UDP, payload }, now);
  }

  #refuse(address: FlowAddress, syn: TcpSegment, code: number): void {
    if (code === Unreachable.ADMINISTRATIVELY_PROHIBITED)
      this.#reportRefusal(`${formatIpv4Address(address.remote)}:${address.remotePort}`);
    const subject = { address, protocol: IpProtocol.TCP, seq: syn.seq };
    sendUnreachable(this.#link, subject, code, this.#options.clock.now());
  }

  #onFailed(number: number, failure: HostFailure): void {
    const forward = this.#listeners.get(number);
    if (forward)
      this.#report("warn", `port ${formatPortForward(forward)} is not forwarded: ${failure}`);
    else this.#tcp.onFailed(number, failure);
  }

  #onListening(listener: number, port: number): void {
    const forward = this.#listeners.get(listener);
    if (!forward) return;
    this.#report("info", `forwarding ${formatPortForward({ ...forward, hostPort: port })}`);
  }

  #hostEvents(): HostEvents {
    const [tcp, udp] = [this.#tcp, this.#udp];
    const now = (): number => this.#options.clock.now();
    const andFlush =
      <A extends unknown[]>(act: (...args: A) => void) =>
      (...args: A): void => {
        act(...args);
        this.flush();
      };
    return {
      onConnected: andFlush((stream) => tcp.onConnected(stream)),
      onFailed: andFlush((number, failure) => this.#onFailed(number, failure)),
      onData: andFlush((stream, bytes) => tcp.onData(stream, bytes)),
      onSent: andFlush((stream, bytes) => tcp.onSent(stream, bytes)),
      onEnd: andFlush((stream) => tcp.onEnd(stream)),
      onReset: andFlush((stream) => tcp.onReset(stream)),
      onAccepted: andFlush((listener, stream) => tcp.onAccepted(listener, stream)),
      onListening: (listener, port) => this.#onListening(listener, port),
      onDatagram: (socket, address, port, bytes) =>
        udp.onDatagram({ socket, address, port, bytes }, now()),
      onDatagramFailed: (socket, address, port, failure) =>
        udp.onDatagramFailed({ socket, address, port, failure }, now()),
      onResolved: andFlush((query, status, records) =>
        this.#dns.onResolved({ query, status, records }, now()),
      ),
      onEcho: (query) => this.#echo.onEcho(query, now()),
    };
  }

  // ---- snapshots ----

  /** The embedder's sockets are gone: resets connections, forgets questions, opens the forwarded ports anew. */
  abandon(): void {
    this.#tcp.abandon();
    this.#udp.abandon();
    this.#dns.clear();
    this.#echo.clear();
    this.#listeners.clear();
    this.start();
    this.flush();
  }

  save(): SavedNetwork {
    return {
      version: VERSION,
      nextId: this.#nextId,
      listeners: [...this.#listeners].map(([listener, forward]) => ({ listener, ...forward })),
      link: this.#link.save(),
      pins: this.#policy.save(),
      dhcp: this.#dhcp.save(),
      dns: this.#dns.save(),
      echo: this.#echo.save(),
      udp: this.#udp.save(),
      tcp: this.#tcp.save(),
    };
  }

  /** Throws HypolithError "snapshot-shape" and changes nothing if it is no state of a network. */
  restore(state: unknown): void {
    const saved = state as SavedNetwork;
    checkSaved(saved);
    this.#restore(saved);
  }

  /** Whether it is the same again when it is saved. */
  static tryOut(trial: UserNetwork, saved: SavedNetwork): boolean {
    trial.#restore(saved);
    return isShapedLike(saved, trial.save()) && isShapedLike(trial.save(), saved);
  }

  #restore(saved: SavedNetwork): void {
    this.#nextId = saved.nextId;
    this.#link.restore(saved.link);
    this.#policy.restore(saved.pins);
    this.#dhcp.restore(saved.dhcp);
    this.#dns.restore(saved.dns);
    this.#echo.restore(saved.echo);
    this.#udp.restore(saved.udp);
    this.#tcp.restore(saved.tcp);
    this.#gateway.reassembly.clear();
    this.#listeners.clear();
    for (const { listener, ...forward } of saved.listeners) {
      this.#listeners.set(listener, forward);
      (forward.kind === "tcp" ? this.#tcp : this.#udp).forward(listener, forward.guestPort);
    }
  }
}

const VERSION = 1;

/** Tries it on a network that does nothing. */
function checkSaved(saved: SavedNetwork): void {
  const trial = new UserNetwork(IDLE);
  try {
    const isShaped = isShapedLike(trial.save(), saved) && saved.version === VERSION;
    if (isShaped && UserNetwork.tryOut(trial, saved)) return;
  } catch (cause) {
    throw new HypolithError("snapshot-shape", "the saved network does not fit", { cause });
  }
  throw new HypolithError("snapshot-shape", "the saved network does not fit");
}

/** Options of a network that does nothing, to know the shape of a snapshot by. */
const nothing = (): void => {};
const IDLE: UserNetworkOptions = {
  clock: { now: () => 0 },
  link: { ready: () => false, send: nothing },
  host: {
    ...{ connect: nothing, grant: nothing, send: nothing, shutdown: nothing, reset: nothing },
    ...{ listen: nothing, openUdp: nothing, sendUdp: nothing, close: nothing, resolve: nothing },
  },
};

export interface SavedNetwork {
  readonly version: number;
  readonly nextId: number;
  readonly listeners: readonly (PortForward & { readonly listener: number })[];
  readonly link: ReturnType<GuestLink["save"]>;
  readonly pins: ReturnType<EgressPolicy["save"]>;
  readonly dhcp: ReturnType<DhcpServer["save"]>;
  readonly dns: ReturnType<DnsForwarder["save"]>;
  readonly echo: ReturnType<EchoNat["save"]>;
  readonly udp: ReturnType<UdpNat["save"]>;
  readonly tcp: ReturnType<TcpNat["save"]>;
}
