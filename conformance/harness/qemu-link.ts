/**
 * A user-mode network of ours behind a network card of QEMU's: frames over QEMU's `stream` back end, each after its length in 32 bits,
 * big endian. Real time, real sockets.
 */
import { rmSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { NodeNetwork } from "../../src/machine/embedder-node-network.ts";
import { UserNetwork, type UserNetworkOptions } from "../../src/network/user/user-network.ts";

const MAX_UNSENT = 1 << 20;

export interface LinkFaults {
  /** Probability that a frame is lost, in each direction. */
  readonly loss: number;
  /** Probability that a frame comes after its successors. */
  readonly delay: number;
}

type NetworkOptions = Omit<UserNetworkOptions, "clock" | "link" | "host">;

export class QemuLink {
  readonly #server: Server;
  readonly #path = join(tmpdir(), `hypolith-link-${process.pid}-${serial++}`);
  #socket: Socket | null = null;
  #network!: UserNetwork;
  #host!: NodeNetwork;
  #timer: NodeJS.Timeout | undefined;
  #input: Buffer = Buffer.alloc(0);
  faults: LinkFaults = { loss: 0, delay: 0 };
  readonly #random = random(12_345);
  frames = 0;
  lost = 0;

  constructor(options: NetworkOptions) {
    this.replace(options);
    this.#server = createServer((socket) => this.#serve(socket)).listen(this.#path);
  }

  /** Another network on the same wire. */
  replace(options: NetworkOptions): void {
    this.#host?.end();
    this.#host = new NodeNetwork();
    this.#network = new UserNetwork({
      ...options,
      clock: { now: () => Math.round(performance.now() * 1e6) },
      link: {
        ready: () => (this.#socket?.writableLength ?? MAX_UNSENT) < MAX_UNSENT,
        send: (frame) => this.#faulty(frame, (f) => this.#send(f)),
      },
      host: this.#host,
    });
    this.#host.attach(this.#network.events, () => this.#arm());
    this.#network.start();
  }

  get network(): UserNetwork {
    return this.#network;
  }

  /** For QEMU's command line. */
  devices(card: string): string[] {
    const path = this.#path;
    return [
      ...["-netdev", `stream,id=net,server=off,addr.type=unix,addr.path=${path}`],
      ...["-device", `${card},netdev=net,mac=52:54:00:12:34:56`],
    ];
  }

  #serve(socket: Socket): void {
    this.#socket = socket;
    socket.on("data", (data) => this.#receive(data));
    socket.on("drain", () => this.#network.flush());
    socket.on("error", () => {});
    socket.on("close", () => {
      this.#socket = null;
    });
  }

  #receive(data: Buffer): void {
    const input = this.#input.length > 0 ? Buffer.concat([this.#input, data]) : data;
    let at = 0;
    while (input.length - at >= 4) {
      const end = at + 4 + input.readUInt32BE(at);
      if (end > input.length) break;
      this.frames++;
      this.#faulty(input.subarray(at + 4, end), (frame) => this.#network.receive(frame));
      at = end;
    }
    this.#input = input.subarray(at);
    this.#network.flush();
    this.#arm();
  }

  #send(frame: Uint8Array): void {
    const framed = Buffer.allocUnsafe(4 + frame.length);
    framed.writeUInt32BE(frame.length);
    framed.set(frame, 4);
    this.#socket?.write(framed);
  }

  #faulty(frame: Uint8Array, pass: (frame: Uint8Array) => void): void {
    const { loss, delay } = this.faults;
    if (loss > 0 && this.#random() < loss) this.lost++;
    else if (delay > 0 && this.#random() < delay) {
      const copy = frame.slice();
      setTimeout(() => {
        pass(copy);
        this.#network.flush();
        this.#arm();
      }, this.#random() * 4);
    } else pass(frame);
  }

  #arm(): void {
    clearTimeout(this.#timer);
    const deadline = this.#network.deadline();
    if (deadline === Infinity) return;
    const delay = Math.max(0, Math.ceil(deadline / 1e6 - performance.now()));
    this.#timer = setTimeout(() => {
      this.#network.advance(Math.round(performance.now() * 1e6));
      this.#arm();
    }, delay);
  }

  close(): void {
    clearTimeout(this.#timer);
    this.#host.end();
    this.#socket?.destroy();
    this.#server.close();
    rmSync(this.#path, { force: true });
  }
}

let serial = 0;

function random(seed: number): () => number {
  let x = seed;
  return () => {
    x = (Math.imul(x, 1_103_515_245) + 12_345) >>> 0;
    return x / 2 ** 32;
  };
}
