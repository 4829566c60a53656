/**
 * The host's end of the socket device: connections between guest ports and whoever uses them here, with credit both ways.
 * Spec: virtio 1.2, "Socket Device", "Buffer Space Management", "Stream Sockets".
 *
 * A guest gets RESET for what makes no sense. What waits for a guest is bounded by the credit that it gave, and what it may send by ours: a
 * guest that sends more has its connection reset. Packets leave by `take`, in order, when the device has buffers.
 */
import { invariant } from "../../base/invariant.ts";
import {
  decodeSocketPacket,
  encodeSocketPacket,
  HOST_CID,
  ShutdownFlag,
  SocketOperation,
  type SocketPacket,
  STREAM,
} from "./socket-packet.ts";

/** Data of one packet: a guest's receive buffer is a page, less what its network stack keeps there. */
const MAX_DATA_BYTES = 3584;
/** So much credit also bounds one packet of the guest: it fits into a message between places. */
const BUFFER_BYTES = 32 << 10;
/** Half of it is told to the guest at once. */
const UPDATE_BYTES = BUFFER_BYTES / 2;
const MAX_CONNECTIONS = 1024;
/** Packets that wait for the guest before its questions are no longer answered. */
const MAX_WAITING = 1024;
/** What is believed of a guest's receive buffer. */
const MAX_PEER_BUFFER = 1 << 20;
const FIRST_HOST_PORT = 0x4000_0000;

/** What a connection tells its user. */
export interface SocketEvents {
  /** The guest has accepted what `connect` asked for. */
  opened?(): void;
  /** Bytes from the guest. They take up its credit until `consume`. */
  data(bytes: Uint8Array): void;
  /** The guest sends no more. */
  ended?(): void;
  /** `write` takes bytes again. */
  writable?(): void;
  /** Over, in either way; nothing comes after it. */
  closed(): void;
}

export interface SocketConnection {
  readonly guestPort: number;
  readonly hostPort: number;
  /** Answers how many bytes were taken: the rest when `writable` was called. */
  write(bytes: Uint8Array): number;
  /** Bytes that `data` brought are done with. */
  consume(count: number): void;
  /** Nothing more will be written. */
  end(): void;
  reset(): void;
}

export interface SocketHostWires {
  /** Packets wait for `take`. */
  ready(): void;
}

type Listener = (connection: SocketConnection) => SocketEvents | undefined;

export class SocketHost {
  readonly #guestCid: number;
  readonly #wires: SocketHostWires;
  readonly #connections = new Map<string, Connection>();
  readonly #listeners = new Map<number, Listener>();
  readonly #outbox: Uint8Array[] = [];
  #nextPort = FIRST_HOST_PORT;

  constructor(guestCid: number, wires: SocketHostWires) {
    this.#guestCid = guestCid;
    this.#wires = wires;
  }

  /** `accept` answers who uses a connection that the guest makes to `port`, or undefined to refuse it. */
  listen(port: number, accept: Listener): void {
    this.#listeners.set(port, accept);
  }

  /** A connection to a port that the guest listens on. */
  connect(guestPort: number, events: SocketEvents): SocketConnection {
    while (this.#connections.has(keyOf(guestPort, this.#nextPort))) this.#nextPort++;
    const connection = this.#create(guestPort, this.#nextPort++);
    connection.events = events;
    connection.send(SocketOperation.REQUEST);
    return connection;
  }

  /** The next packet for the device. */
  peek(): Uint8Array | undefined {
    return this.#outbox[0];
  }

  /** The device has taken that many packets. */
  taken(count: number): void {
    this.#outbox.splice(0, count);
  }

  /** A packet of the guest. */
  receive(bytes: Uint8Array): void {
    const packet = decodeSocketPacket(bytes);
    if (!packet || packet.sourceCid !== this.#guestCid) return;
    const { sourcePort, targetPort, operation } = packet;
    // A guest that asks and does not take the answers hurts itself alone.
    const isQuestion =
      operation === SocketOperation.REQUEST || operation === SocketOperation.CREDIT_REQUEST;
    if (isQuestion && this.#outbox.length >= MAX_WAITING) return;
    const isForUs = packet.targetCid === HOST_CID && packet.type === STREAM;
    const connection = isForUs ? this.#connections.get(keyOf(sourcePort, targetPort)) : undefined;
    if (connection) connection.receive(packet);
    else if (isForUs && operation === SocketOperation.REQUEST) this.#accept(packet);
    else if (operation !== SocketOperation.RESET) this.#refuse(packet);
  }

  /** The guest has gone, with all its connections. */
  reset(): void {
    this.#outbox.length = 0;
    for (const connection of [...this.#connections.values()]) connection.close();
  }

  #accept(packet: SocketPacket): void {
    const accept = this.#listeners.get(packet.targetPort);
    if (!accept || this.#connections.size >= MAX_CONNECTIONS) {
      this.#refuse(packet);
      return;
    }
    const connection = this.#create(packet.sourcePort, packet.targetPort);
    connection.learn(packet);
    const events = accept(connection);
    if (!events) {
      connection.reset();
      return;
    }
    connection.events = events;
    connection.isOpen = true;
    connection.send(SocketOperation.RESPONSE);
  }

  /** A guest that provokes resets and does not take them gets no more of them. */
  #refuse(packet: SocketPacket): void {
    if (this.#outbox.length >= MAX_WAITING) return;
    this.#post({
      sourceCid: packet.targetCid,
      targetCid: packet.sourceCid,
      sourcePort: packet.targetPort,
      targetPort: packet.sourcePort,
      type: packet.type,
      operation: SocketOperation.RESET,
      ...{ flags: 0, bufferBytes: 0, forwarded: 0, data: NOTHING },
    });
  }

  #create(guestPort: number, hostPort: number): Connection {
    const key = keyOf(guestPort, hostPort);
    const connection: Connection = new Connection(guestPort, hostPort, {
      post: (fields) =>
        this.#post({
          sourceCid: HOST_CID,
          targetCid: this.#guestCid,
          sourcePort: hostPort,
          targetPort: guestPort,
          type: STREAM,
          ...fields,
        }),
      forget: () => this.#connections.delete(key),
    });
    this.#connections.set(key, connection);
    return connection;
  }

  #post(packet: SocketPacket): void {
    this.#outbox.push(encodeSocketPacket(packet));
    this.#wires.ready();
  }
}

const NOTHING = new Uint8Array(0);
const keyOf = (guestPort: number, hostPort: number): string => `${guestPort} ${hostPort}`;

type Fields = Pick<SocketPacket, "operation" | "flags" | "bufferBytes" | "forwarded" | "data">;

interface ConnectionWires {
  post(fields: Fields): void;
  forget(): void;
}

class Connection implements SocketConnection {
  readonly guestPort: number;
  readonly hostPort: number;
  events: SocketEvents | undefined;
  isOpen = false;
  readonly #wires: ConnectionWires;
  /** the guest's receive buffer and what has left it; what we have sent: modulo 2^32 */
  #peerBuffer = 0;
  #peerForwarded = 0;
  #sent = 0;
  /** bytes that came, that were consumed, and that the guest knows to be */
  #received = 0;
  #forwarded = 0;
  #told = 0;
  #isStarved = false;
  #isEnded = false;
  #hasPeerEnded = false;
  #isClosed = false;

  constructor(guestPort: number, hostPort: number, wires: ConnectionWires) {
    this.guestPort = guestPort;
    this.hostPort = hostPort;
    this.#wires = wires;
  }

  write(bytes: Uint8Array): number {
    if (!this.isOpen || this.#isEnded || this.#isClosed) return 0;
    let taken = 0;
    while (taken < bytes.length) {
      const room = this.#peerBuffer - ((this.#sent - this.#peerForwarded) >>> 0);
      const length = Math.min(room, bytes.length - taken, MAX_DATA_BYTES);
      if (length <= 0) break;
      this.send(SocketOperation.DATA, { data: bytes.subarray(taken, taken + length) });
      this.#sent = (this.#sent + length) >>> 0;
      taken += length;
    }
    if (taken < bytes.length) {
      if (!this.#isStarved) this.send(SocketOperation.CREDIT_REQUEST);
      this.#isStarved = true;
    }
    return taken;
  }

  consume(count: number): void {
    this.#forwarded = (this.#forwarded + count) >>> 0;
    invariant(
      (this.#received - this.#forwarded) >>> 0 <= BUFFER_BYTES,
      "more bytes consumed than came",
    );
    const untold = (this.#forwarded - this.#told) >>> 0;
    if (untold >= UPDATE_BYTES && !this.#isClosed) this.send(SocketOperation.CREDIT_UPDATE);
  }

  end(): void {
    if (this.#isEnded || this.#isClosed) return;
    this.#isEnded = true;
    this.send(SocketOperation.SHUTDOWN, { flags: ShutdownFlag.SEND });
    if (this.#hasPeerEnded) this.reset();
  }

  reset(): void {
    if (this.#isClosed) return;
    this.send(SocketOperation.RESET);
    this.close();
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.isOpen = false;
    this.#wires.forget();
    this.events?.closed();
  }

  send(operation: number, fields: { data?: Uint8Array; flags?: number } = {}): void {
    const { data = NOTHING, flags = 0 } = fields;
    this.#told = this.#forwarded;
    const credit = { bufferBytes: BUFFER_BYTES, forwarded: this.#forwarded };
    this.#wires.post({ operation, flags, data, ...credit });
  }

  learn({ bufferBytes, forwarded }: SocketPacket): void {
    this.#peerBuffer = Math.min(bufferBytes, MAX_PEER_BUFFER);
    // What it has forwarded cannot be more than what we have sent.
    const isSane = (this.#sent - forwarded) >>> 0 <= (this.#sent - this.#peerForwarded) >>> 0;
    if (isSane) this.#peerForwarded = forwarded;
  }

  receive(packet: SocketPacket): void {
    this.learn(packet);
    switch (packet.operation) {
      case SocketOperation.RESPONSE:
        if (this.isOpen) this.reset();
        else {
          this.isOpen = true;
          this.events?.opened?.();
        }
        break;
      case SocketOperation.DATA:
        this.#take(packet.data);
        break;
      case SocketOperation.SHUTDOWN:
        this.#shutDown(packet.flags);
        break;
      case SocketOperation.CREDIT_REQUEST:
        this.send(SocketOperation.CREDIT_UPDATE);
        break;
      case SocketOperation.CREDIT_UPDATE:
        break;
      case SocketOperation.RESET:
        this.close();
        break;
      default:
        this.reset();
    }
    const unread = (this.#sent - this.#peerForwarded) >>> 0;
    if (this.#isStarved && this.isOpen && this.#peerBuffer > unread) {
      this.#isStarved = false;
      this.events?.writable?.();
    }
  }

  #take(data: Uint8Array): void {
    const pending = (this.#received - this.#forwarded) >>> 0;
    if (!this.isOpen || this.#hasPeerEnded || pending + data.length > BUFFER_BYTES) this.reset();
    else {
      this.#received = (this.#received + data.length) >>> 0;
      this.events?.data(data);
    }
  }

  #shutDown(flags: number): void {
    if (flags & ShutdownFlag.SEND && !this.#hasPeerEnded) {
      this.#hasPeerEnded = true;
      this.events?.ended?.();
    }
    if (flags & ShutdownFlag.RECEIVE) this.#isEnded = true;
    // Both directions are done: the answer is a reset, and then the connection is gone.
    if (this.#hasPeerEnded && this.#isEnded) this.reset();
  }
}
