/**
 * Two connections of ours, back to back over a wire that loses, doubles, delays and reorders, in virtual time.
 *
 * Segments cross as bytes: built, parsed and checked as on a real wire.
 */
import { MAX_FRAME } from "../packet/ethernet.ts";
import { parseTcp, type TcpSegment, tcpHeaderLength, writeTcp } from "../packet/tcp-segment.ts";
import { type OutSegment, TcpConnection, type TcpEnd } from "./connection.ts";
import type { SendQueue } from "./send-queue.ts";

export interface WireOptions {
  readonly seed: number;
  /** Probability of each, 0 to 1. */
  readonly loss?: number;
  readonly duplicate?: number;
  readonly reorder?: number;
  readonly delayNs?: number;
  readonly mss?: number;
  readonly capacity?: number;
  readonly iss?: readonly [number, number];
  /** Segments that the link takes at once. */
  readonly room?: number;
}

const ADDRESSES = [0x0a00_020f, 0x0a00_0202] as const;
const PORTS = [40_000, 80] as const;

/** One end: what it wants to send, how eagerly it reads, what it heard. */
export class End {
  readonly connection: TcpConnection;
  readonly heard: Uint8Array[] = [];
  heardBytes = 0;
  established = false;
  peerEnded = false;
  closed: TcpEnd | null = null;
  /** Bytes heard and not consumed yet. */
  held = 0;
  /** Consume at once. */
  eager = true;
  ackedBytes = 0;

  constructor(iss: number, mss: number, capacity: number) {
    this.connection = new TcpConnection(
      { iss, ownMss: mss, capacity },
      {
        onEstablished: () => {
          this.established = true;
        },
        onData: (bytes) => {
          this.heard.push(bytes.slice());
          this.heardBytes += bytes.length;
          if (this.eager) this.connection.consumed(bytes.length);
          else this.held += bytes.length;
        },
        onEnd: () => {
          this.peerEnded = true;
        },
        onAcked: (bytes) => {
          this.ackedBytes += bytes;
        },
        onClosed: (end) => {
          this.closed = end;
        },
      },
    );
  }

  consume(bytes: number): void {
    const count = Math.min(bytes, this.held);
    this.held -= count;
    this.connection.consumed(count);
  }

  bytes(): Uint8Array {
    return Buffer.concat(this.heard);
  }
}

interface Flight {
  readonly at: number;
  readonly to: number;
  readonly bytes: Uint8Array;
  readonly serial: number;
}

export class TestWire {
  readonly ends: readonly [End, End];
  now = 1e9;
  segments = 0;
  /** Called for each segment before the wire does anything to it; false drops it. */
  filter: (from: number, segment: TcpSegment) => boolean = () => true;
  readonly #options: WireOptions;
  readonly random: () => number;
  #flights: Flight[] = [];
  #serial = 0;

  constructor(options: WireOptions) {
    this.#options = options;
    this.random = generator(options.seed);
    const { mss = 1460, capacity = 65_536, iss = [0xffff_ff00, 5] } = options;
    this.ends = [new End(iss[0], mss, capacity), new End(iss[1], mss, capacity)];
  }

  /** Sends what both ends may send. */
  flush(): void {
    for (const from of [0, 1]) {
      let room = this.#options.room ?? Infinity;
      this.ends[from]!.connection.output(
        this.now,
        () => room-- > 0,
        (segment, queue) => this.#launch(from, segment, queue),
      );
    }
  }

  #launch(from: number, segment: OutSegment, queue: SendQueue): void {
    this.segments++;
    const header = tcpHeaderLength(segment);
    const bytes = new Uint8Array(header + segment.length);
    if (bytes.length > MAX_FRAME) throw new Error("too long");
    if (segment.length > 0) queue.copy(segment.position, segment.length, bytes, header);
    const to = 1 - from;
    const ports = {
      source: ADDRESSES[from]!,
      destination: ADDRESSES[to]!,
      sourcePort: PORTS[from]!,
      destinationPort: PORTS[to]!,
    };
    writeTcp(bytes, 0, { ...segment, ...ports }, segment.length);
    const parsed = parseTcp(bytes, ports.source, ports.destination);
    if (!parsed) throw new Error("a segment of ours does not parse");
    if (!this.filter(from, parsed)) return;
    const { loss = 0, duplicate = 0, reorder = 0, delayNs = 1e6 } = this.#options;
    if (this.random() < loss) return;
    const copies = this.random() < duplicate ? 2 : 1;
    for (let i = 0; i < copies; i++) {
      const late = this.random() < reorder ? this.random() * 8 * delayNs : 0;
      this.#flights.push({ at: this.now + delayNs + late, to, bytes, serial: this.#serial++ });
    }
  }

  /** Lets time pass to the next thing that happens; false if nothing will. */
  step(limit = Infinity): boolean {
    this.flush();
    const due = Math.min(
      ...this.#flights.map(({ at }) => at),
      ...this.ends.map((end) => (end.closed ? Infinity : end.connection.deadline())),
    );
    if (due >= Number.MAX_SAFE_INTEGER || due > limit) return false;
    this.now = Math.max(this.now, due);
    const arrived = this.#flights.filter(({ at }) => at <= this.now);
    this.#flights = this.#flights.filter(({ at }) => at > this.now);
    arrived.sort((a, b) => a.at - b.at || a.serial - b.serial);
    for (const { to, bytes } of arrived) {
      const segment = parseTcp(bytes, ADDRESSES[1 - to]!, ADDRESSES[to]!);
      if (segment) this.deliver(to, segment);
    }
    for (const end of this.ends) end.connection.advance(this.now);
    this.flush();
    return true;
  }

  deliver(to: number, segment: TcpSegment): void {
    const end = this.ends[to]!;
    if (to === 1 && end.connection.isClosed && !end.closed && isSyn(segment))
      end.connection.accept(segment, this.now);
    else end.connection.arrive(segment, this.now);
  }

  /** Steps until `done`, or throws after `seconds` of virtual time or too many steps. */
  until(done: () => boolean, seconds = 3600, steps = 200_000): void {
    const limit = this.now + seconds * 1e9;
    for (let i = 0; !done(); i++) {
      if (i > steps || !this.step(limit)) {
        if (done()) return;
        throw new Error(`not done at ${this.now / 1e9} s: ${this.describe()}`);
      }
    }
  }

  run(seconds: number): void {
    const limit = this.now + seconds * 1e9;
    while (this.step(limit)) {}
    this.now = limit;
    for (const end of this.ends) end.connection.advance(this.now);
    this.flush();
  }

  open(): void {
    this.ends[0].connection.connect();
    this.until(() => this.ends.every((end) => end.established));
  }

  describe(): string {
    return JSON.stringify(
      this.ends.map(({ connection, heardBytes, closed }) => ({
        heardBytes,
        closed,
        queue: connection.queue.length,
        ...connection.tcb,
      })),
    );
  }
}

const isSyn = ({ flags }: TcpSegment): boolean => (flags & 0x16) === 2;

/** xorshift32, as numbers from 0 to 1. */
export function generator(seed: number): () => number {
  let x = seed | 1;
  return () => {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    return (x >>> 0) / 2 ** 32;
  };
}

export function pattern(length: number, seed: number): Uint8Array {
  const random = generator(seed * 2 + 1);
  return Uint8Array.from({ length }, () => random() * 256);
}
