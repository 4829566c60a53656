/**
 * Connections by vsock between the application and its guest: the control protocol on one side, the socket device's host end on the other.
 *
 * Bytes for a guest without room wait here, no more than SOCKET_WINDOW of them: what was passed on is acknowledged. Bytes for the application
 * take up the guest's credit until it acknowledges them, so an application that does not read stops its guest's writes, and nothing piles up.
 */
import {
  type FromMachine,
  SOCKET_WINDOW,
  type SocketTraffic,
  type ToMachine,
} from "../control/protocol.ts";
import { type SocketConnection, SocketHost } from "../devices/virtio/socket-host.ts";

interface Line {
  readonly connection: SocketConnection;
  /** What the guest had no room for. */
  waiting: Uint8Array[];
  waitingBytes: number;
  /** Bytes that the application has not acknowledged. */
  unread: number;
  hasEnded: boolean;
}

export class SocketBridge {
  readonly host: SocketHost;
  readonly #send: (message: FromMachine) => void;
  readonly #lines = new Map<number, Line>();

  constructor(guestCid: number, send: (message: FromMachine) => void) {
    this.#send = send;
    // The machine asks for packets at each of its turns.
    this.host = new SocketHost(guestCid, { ready: () => {} });
  }

  serve(message: ToMachine): void {
    switch (message.type) {
      case "connect":
        this.#connect(message.id, message.port);
        break;
      case "socketData":
      case "socketTaken":
      case "socketEnded":
      case "socketClosed": {
        const line = this.#lines.get(message.id);
        if (line) this.#follow(line, message);
        break;
      }
    }
  }

  #connect(id: number, port: number): void {
    const connection = this.host.connect(port, {
      opened: () => {
        this.#send({ type: "socketOpen", id });
        const line = this.#lines.get(id);
        if (line) this.#flush(line, id);
      },
      // The packet's memory is its sender's.
      data: (bytes) => {
        const line = this.#lines.get(id);
        if (line) line.unread += bytes.length;
        this.#send({ type: "socketData", id, data: bytes.slice() });
      },
      ended: () => this.#send({ type: "socketEnded", id }),
      writable: () => {
        const line = this.#lines.get(id);
        if (line) this.#flush(line, id);
      },
      closed: () => {
        this.#lines.delete(id);
        this.#send({ type: "socketClosed", id });
      },
    });
    this.#lines.set(id, {
      connection,
      waiting: [],
      waitingBytes: 0,
      unread: 0,
      hasEnded: false,
    });
  }

  #follow(line: Line, message: SocketTraffic): void {
    switch (message.type) {
      case "socketData":
        line.waiting.push(message.data);
        line.waitingBytes += message.data.length;
        if (line.waitingBytes > SOCKET_WINDOW) line.connection.reset();
        else this.#flush(line, message.id);
        break;
      case "socketTaken": {
        const bytes = Math.min(line.unread, message.bytes);
        line.unread -= bytes;
        line.connection.consume(bytes);
        break;
      }
      case "socketEnded":
        line.hasEnded = true;
        this.#flush(line, message.id);
        break;
      case "socketClosed":
        line.connection.reset();
        break;
    }
  }

  #flush(line: Line, id: number): void {
    const { connection, waiting } = line;
    let taken = 0;
    while (waiting.length > 0) {
      const head = waiting[0]!;
      const count = connection.write(head);
      taken += count;
      if (count < head.length) {
        waiting[0] = head.subarray(count);
        break;
      }
      waiting.shift();
    }
    line.waitingBytes -= taken;
    if (taken > 0) this.#send({ type: "socketTaken", id, bytes: taken });
    if (line.hasEnded && waiting.length === 0) connection.end();
  }
}
