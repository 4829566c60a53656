/**
 * Node embedder of a user-mode network: streams, datagrams and names by node:net, node:dgram and node:dns (HostNetwork).
 *
 * Lives in a thread whose event loop runs. Streams are read in paused mode, no more than was granted; what the kernel takes from us is told
 * when it is written. Echo requests leave by the computer's ping program, if it has one.
 */
import { createSocket, type Socket as UdpSocket } from "node:dgram";
import { connect, createServer, type Server, type Socket } from "node:net";
import { DnsStatus } from "../network/packet/dns.ts";
import type { HostEvents, HostFailure, HostNetwork } from "../network/user/host-network.ts";
import { NodeEcho } from "./embedder-node-echo.ts";
import { resolveOnHost } from "./embedder-node-resolver.ts";

const CONNECT_TIMEOUT_MS = 30_000;
/** Datagrams that wait in a socket; more are dropped. */
const MAX_UDP_QUEUE_BYTES = 1 << 20;
/** Questions at once; of more, the resolver would only make a longer queue. */
const MAX_QUERIES = 128;
const MAX_BACKLOG = 128;
/** Accepted streams of one listener. */
const MAX_ACCEPTED = 512;

interface Stream {
  readonly socket: Socket;
  credit: number;
  connected: boolean;
}

export class NodeNetwork implements HostNetwork {
  #events: HostEvents | null = null;
  readonly #streams = new Map<number, Stream>();
  readonly #servers = new Map<number, Server>();
  readonly #sockets = new Map<number, UdpSocket>();
  /** Streams that we accept are odd. */
  #nextAccepted = 1;
  #queries = 0;
  readonly echo?: Required<HostNetwork>["echo"];

  /** `report`: for a person, what the computer does not let us do. */
  constructor(report: (text: string) => void = () => {}) {
    const echo = NodeEcho.find({
      answered: (query) => this.#events?.onEcho(query),
      failed: (why) => report(`echo requests of the guest (ping) do not leave: ${why}`),
    });
    if (echo) this.echo = (query, address, data) => echo.ask(query, address, data.length);
  }

  /** Who hears of things, before the first call; `settle` is called after each of them. */
  attach(events: HostEvents, settle: () => void = () => {}): void {
    const wrapped = Object.entries(events).map(([name, tell]) => [
      name,
      (...words: unknown[]): void => {
        (tell as (...words: unknown[]) => void)(...words);
        settle();
      },
    ]);
    this.#events = Object.fromEntries(wrapped) as HostEvents;
  }

  get #tell(): HostEvents {
    if (!this.#events) throw new Error("no events attached");
    return this.#events;
  }

  // ---- streams ----

  connect(stream: number, address: string, port: number): void {
    const socket = connect({ host: address, port, allowHalfOpen: true, noDelay: true });
    const own = this.#adopt(stream, socket);
    socket.setTimeout(CONNECT_TIMEOUT_MS, () => {
      if (!own.connected) socket.destroy(Object.assign(new Error(), { code: "ETIMEDOUT" }));
    });
    socket.once("connect", () => {
      socket.setTimeout(0);
      own.connected = true;
      this.#tell.onConnected(stream);
    });
  }

  #adopt(stream: number, socket: Socket): Stream {
    const own: Stream = { socket, credit: 0, connected: false };
    this.#streams.set(stream, own);
    socket.pause();
    socket.on("readable", () => this.#read(stream, own));
    socket.on("end", () => {
      if (this.#streams.get(stream) === own) this.#tell.onEnd(stream);
    });
    socket.on("error", (error: NodeJS.ErrnoException) => {
      if (!this.#streams.delete(stream)) return;
      if (own.connected) this.#tell.onReset(stream);
      else this.#tell.onFailed(stream, failureOf(error));
    });
    socket.on("close", () => this.#streams.delete(stream));
    return own;
  }

  /** Delivers what is there and granted. Reading on after the last byte is what lets the stream end. */
  #read(stream: number, own: Stream): void {
    const { socket } = own;
    while (own.credit > 0 || socket.readableLength === 0) {
      const length = Math.min(own.credit, socket.readableLength);
      const bytes: Buffer | null = length > 0 ? socket.read(length) : socket.read();
      if (!bytes) return;
      own.credit -= bytes.length;
      this.#tell.onData(stream, bytes);
    }
  }

  grant(stream: number, bytes: number): void {
    const own = this.#streams.get(stream);
    if (!own) return;
    own.credit += bytes;
    this.#read(stream, own);
  }

  send(stream: number, bytes: Uint8Array): void {
    this.#streams.get(stream)?.socket.write(bytes, (error) => {
      if (!error && this.#streams.has(stream)) this.#tell.onSent(stream, bytes.length);
    });
  }

  shutdown(stream: number): void {
    this.#streams.get(stream)?.socket.end();
  }

  reset(stream: number): void {
    const own = this.#streams.get(stream);
    if (!own) return;
    this.#streams.delete(stream);
    if (own.connected) own.socket.resetAndDestroy();
    else own.socket.destroy();
  }

  // ---- listeners ----

  listen(listener: number, kind: "tcp" | "udp", address: string, port: number): void {
    if (kind === "udp") this.#bindUdp(listener, address, port);
    else this.#listenTcp(listener, address, port);
  }

  #listenTcp(listener: number, address: string, port: number): void {
    const options = { allowHalfOpen: true, pauseOnConnect: true, noDelay: true };
    const server = createServer(options, (socket) => {
      const stream = this.#nextAccepted;
      this.#nextAccepted += 2;
      this.#adopt(stream, socket).connected = true;
      this.#tell.onAccepted(listener, stream);
    });
    server.maxConnections = MAX_ACCEPTED;
    this.#servers.set(listener, server);
    server.on("error", (error) => {
      if (this.#servers.delete(listener)) this.#tell.onFailed(listener, failureOf(error));
    });
    server.listen({ host: address, port, backlog: MAX_BACKLOG }, () => {
      const bound = server.address();
      if (bound && typeof bound === "object") this.#tell.onListening(listener, bound.port);
    });
  }

  #bindUdp(listener: number, address: string, port: number): void {
    const socket = this.#createUdp(listener, address.includes(":") ? "udp6" : "udp4");
    socket.bind({ address, port, exclusive: true }, () => {
      if (this.#sockets.get(listener) === socket)
        this.#tell.onListening(listener, socket.address().port);
    });
  }

  // ---- datagrams ----

  openUdp(socket: number): void {
    this.#createUdp(socket, "udp4").bind(0);
  }

  #createUdp(number: number, type: "udp4" | "udp6"): UdpSocket {
    const socket = createSocket(type);
    this.#sockets.set(number, socket);
    socket.on("message", (bytes, { address, port }) => {
      if (this.#sockets.get(number) === socket) this.#tell.onDatagram(number, address, port, bytes);
    });
    socket.on("error", (error) => {
      if (this.#sockets.get(number) !== socket) return;
      this.#sockets.delete(number);
      socket.close();
      this.#tell.onFailed(number, failureOf(error));
    });
    return socket;
  }

  sendUdp(number: number, address: string, port: number, bytes: Uint8Array): void {
    const socket = this.#sockets.get(number);
    if (!socket || socket.getSendQueueSize() > MAX_UDP_QUEUE_BYTES) return;
    socket.send(bytes, port, address, (error) => {
      if (error && this.#sockets.get(number) === socket)
        this.#tell.onDatagramFailed(number, address, port, failureOf(error));
    });
  }

  close(number: number): void {
    this.#sockets.get(number)?.close();
    this.#sockets.delete(number);
    this.#servers.get(number)?.close();
    this.#servers.delete(number);
  }

  // ---- names ----

  resolve(query: number, name: string, type: number): void {
    if (this.#queries >= MAX_QUERIES) {
      setImmediate(() => this.#events?.onResolved(query, DnsStatus.SERVER_FAILURE, []));
      return;
    }
    this.#queries++;
    resolveOnHost(name, type).then(({ status, records }) => {
      this.#queries--;
      this.#events?.onResolved(query, status, records);
    });
  }

  /** Closes everything. No event comes after. */
  end(): void {
    for (const stream of [...this.#streams.keys()]) this.reset(stream);
    for (const number of [...this.#sockets.keys(), ...this.#servers.keys()]) this.close(number);
    this.#events = null;
  }
}

const FAILURES: Readonly<Record<string, HostFailure>> = {
  ECONNREFUSED: "refused",
  ECONNRESET: "refused",
  EHOSTUNREACH: "host-unreachable",
  EHOSTDOWN: "host-unreachable",
  ENETUNREACH: "net-unreachable",
  ENETDOWN: "net-unreachable",
  ETIMEDOUT: "timeout",
  EACCES: "denied",
  EPERM: "denied",
  EADDRINUSE: "unavailable",
  EADDRNOTAVAIL: "unavailable",
  EMSGSIZE: "too-long",
};

function failureOf(error: NodeJS.ErrnoException): HostFailure {
  return FAILURES[error.code ?? ""] ?? "failed";
}
