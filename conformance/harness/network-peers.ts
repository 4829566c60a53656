/** Servers and clients outside the guest: HTTP, raw TCP, TFTP, each with bytes that can be checked. */
import { createHash } from "node:crypto";
import { createSocket, type Socket as UdpSocket } from "node:dgram";
import { once } from "node:events";
import { createServer as createHttpServer } from "node:http";
import { type AddressInfo, connect, createServer, type Server } from "node:net";

export const sha256 = (bytes: Uint8Array): string =>
  createHash("sha256").update(bytes).digest("hex");

/** The same pseudo-random bytes for the same length and seed. */
export function payload(length: number, seed = 1): Buffer {
  const block = createHash("sha512").update(String(seed)).digest();
  const bytes = Buffer.alloc(length);
  for (let at = 0; at < length; at += block.length) {
    block.writeUInt32LE(at >>> 6, 0);
    block.copy(bytes, at);
  }
  return bytes;
}

export interface Peer {
  readonly port: number;
  close(): void;
}

async function listening(server: Server): Promise<Peer> {
  server.listen(0, "0.0.0.0");
  await once(server, "listening");
  return { port: (server.address() as AddressInfo).port, close: () => server.close() };
}

/** GET /LENGTH/SEED answers so many bytes. */
export function httpServer(): Promise<Peer> {
  const server = createHttpServer((request, response) => {
    const [, length, seed] = request.url!.split("/").map(Number);
    response.end(payload(length!, seed));
  });
  return listening(server as unknown as Server);
}

export interface Sink extends Peer {
  /** Digests of what connections have brought, in the order of their ends. */
  readonly digests: string[];
}

/** Takes all of each connection, then answers with its digest and ends. `slow` reads no faster than that many bytes a second. */
export async function sinkServer(slow = Number.POSITIVE_INFINITY): Promise<Sink> {
  const digests: string[] = [];
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    const hash = createHash("sha256");
    socket.on("data", (data) => {
      hash.update(data);
      if (slow === Number.POSITIVE_INFINITY) return;
      socket.pause();
      setTimeout(() => socket.resume(), (data.length / slow) * 1000);
    });
    socket.on("end", () => {
      const digest = hash.digest("hex");
      digests.push(digest);
      socket.end(`${digest}\n`);
    });
    socket.on("error", () => {});
  });
  return { ...(await listening(server)), digests };
}

/** Connects, sends, and answers all that comes back until the other side ends. */
export function exchange(port: number, bytes: Uint8Array): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const parts: Buffer[] = [];
    const socket = connect({ port, host: "127.0.0.1", allowHalfOpen: true }, () => {
      socket.end(bytes);
    });
    socket.on("data", (data) => parts.push(data));
    socket.on("end", () => resolve(Buffer.concat(parts)));
    socket.on("error", reject);
  });
}

/** Sends a datagram and answers the first that comes back, nothing after five seconds. */
export async function datagramExchange(port: number, bytes: Uint8Array): Promise<Buffer> {
  const socket = createSocket("udp4");
  socket.send(bytes, port, "127.0.0.1");
  const late = new Promise<[Buffer]>((resolve) => setTimeout(resolve, 5000, [Buffer.alloc(0)]));
  const [answer] = (await Promise.race([once(socket, "message"), late])) as [Buffer];
  socket.close();
  return answer;
}

/** Read requests only. RFC 1350; block sizes of RFC 2348. The file "LENGTH" has so many bytes. */
export async function tftpServer(): Promise<Peer> {
  const server = createSocket("udp4");
  server.on("message", (message, { address, port }) => {
    const [name = "", , ...options] = message.subarray(2).toString("latin1").split("\0");
    const hasOption = options.includes("blksize");
    const block = hasOption ? Number(options[options.indexOf("blksize") + 1]) : 512;
    const peer = { address, port };
    new TftpSession(payload(Number(name)), block, peer).start(hasOption);
  });
  server.bind(0, "127.0.0.1");
  await once(server, "listening");
  return { port: server.address().port, close: () => server.close() };
}

class TftpSession {
  readonly #socket: UdpSocket = createSocket("udp4");
  readonly #bytes: Buffer;
  readonly #block: number;
  readonly #peer: { address: string; port: number };

  constructor(bytes: Buffer, block: number, peer: { address: string; port: number }) {
    this.#bytes = bytes;
    this.#block = block;
    this.#peer = peer;
    this.#socket.on("message", (message) => this.#acknowledged(message.readUInt16BE(2)));
  }

  start(hasOption: boolean): void {
    if (hasOption) this.#send(Buffer.from(`\0\x06blksize\0${this.#block}\0`, "latin1"));
    else this.#acknowledged(0);
  }

  #acknowledged(block: number): void {
    const at = block * this.#block;
    if (at > this.#bytes.length) {
      this.#socket.close();
      return;
    }
    const head = Buffer.from([0, 3, 0, 0]);
    head.writeUInt16BE(block + 1, 2);
    this.#send(Buffer.concat([head, this.#bytes.subarray(at, at + this.#block)]));
  }

  #send(message: Buffer): void {
    this.#socket.send(message, this.#peer.port, this.#peer.address);
  }
}
