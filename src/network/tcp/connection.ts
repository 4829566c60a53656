/**
 * One TCP connection, from the first SYN until TIME_WAIT is over. RFC 9293.
 *
 * Four callers: the wire (`arrive`), the application (`write`, `shutdown`, `abort`, `consumed`), time (`advance`), and the owner of the
 * link, which asks for segments with `output` after each of them while there is room on the link. The application hears of things by
 * TcpEvents; handlers may call back into the connection. Received bytes are handed over at once and count against the window until they
 * are `consumed`: that is the back pressure. Nothing here allocates more than the windows allow.
 *
 * Not here: who the connection belongs to (user/), addresses and ports, and what of it is sent by which frame.
 */
import { TcpFlag, type TcpHeader, type TcpSegment } from "../packet/tcp-segment.ts";
import { OutOfOrder, type Piece } from "./out-of-order.ts";
import { output } from "./output.ts";
import { segmentArrives } from "./segment-arrives.ts";
import { SendQueue } from "./send-queue.ts";
import {
  copyTcb,
  firstDeadline,
  freshTcb,
  NEVER,
  type Tcb,
  type TcbOptions,
  TcpState,
} from "./tcb.ts";
import { advanceTimers } from "./timers.ts";

export type TcpEnd =
  /** Both directions ended in order. */
  | "closed"
  /** The peer sent a reset: in SYN_SENT, a refusal. */
  | "reset"
  | "refused"
  /** The peer answers no more. */
  | "timeout"
  | "aborted";

export interface TcpEvents {
  onEstablished(): void;
  /** Bytes in order; they share memory with the segment and are valid during the call. */
  onData(bytes: Uint8Array): void;
  /** The peer sends no more. */
  onEnd(): void;
  /** The peer has acknowledged bytes: so many more may be written. */
  onAcked(bytes: number): void;
  /** The connection is gone; the last event. */
  onClosed(end: TcpEnd): void;
}

/** A segment to be sent; `payload` bytes from `position` on are in the send queue. */
export interface OutSegment extends TcpHeader {
  readonly position: number;
  readonly length: number;
}

export type Emit = (segment: OutSegment, queue: SendQueue) => void;

/** Plain state for a snapshot. */
export interface SavedConnection {
  readonly tcb: Tcb;
  readonly queueStart: number;
  readonly queue: Uint8Array;
  readonly pieces: readonly Piece[];
}

export class TcpConnection {
  readonly tcb: Tcb;
  readonly events: TcpEvents;
  readonly outOfOrder = new OutOfOrder();
  queue = new SendQueue(1);
  /** RST segments owed to the peer. */
  readonly resets: OutSegment[] = [];

  constructor(options: TcbOptions, events: TcpEvents) {
    this.tcb = freshTcb(options);
    this.events = events;
  }

  get state(): TcpState {
    return this.tcb.state;
  }

  get isClosed(): boolean {
    return this.tcb.state === TcpState.CLOSED;
  }

  /** Active OPEN. */
  connect(): void {
    this.tcb.state = TcpState.SYN_SENT;
  }

  /** Passive OPEN by a SYN that the application has accepted. */
  accept(syn: TcpSegment, now: number): void {
    this.tcb.state = TcpState.SYN_RECEIVED;
    segmentArrives(this, syn, now);
  }

  arrive(segment: TcpSegment, now: number): void {
    segmentArrives(this, segment, now);
  }

  /** Takes `bytes`, which belong to the connection from now on. How much may wait is the caller's to bound (onAcked). */
  write(bytes: Uint8Array): void {
    if (!this.tcb.send.shut && !this.isClosed) this.queue.append(bytes);
  }

  /** No more bytes will be written: a FIN follows the last one. */
  shutdown(): void {
    this.tcb.send.shut = true;
  }

  /** Ends the connection at once with a reset. */
  abort(): void {
    if (this.isClosed) return;
    const { state, send } = this.tcb;
    if (state !== TcpState.SYN_SENT && state !== TcpState.TIME_WAIT)
      this.owe({ seq: (send.iss + send.max) >>> 0, ack: 0, flags: TcpFlag.RST });
    this.finish("aborted");
  }

  /** So many delivered bytes have left for good. */
  consumed(bytes: number): void {
    this.tcb.receive.unconsumed = Math.max(0, this.tcb.receive.unconsumed - bytes);
  }

  advance(now: number): void {
    if (now >= this.deadline()) advanceTimers(this, now);
  }

  /** When `advance` has something to do next. */
  deadline(): number {
    return firstDeadline(this.tcb.timers);
  }

  /**
   * Emits what may be sent now, until `room` says that the link is full. True if there is more. `burst`: the link takes so many bytes of payload at once and
   * cuts them into segments itself.
   */
  output(now: number, room: () => boolean, emit: Emit, burst = 0): boolean {
    return output(this, now, { room, emit, burst });
  }

  /** A reset is due: seq, ack and flags of it. */
  owe(reset: { seq: number; ack: number; flags: number }): void {
    const rest = { window: 0, mss: 0, windowScale: -1, sackPermitted: false, sack: [] };
    this.resets.push({ ...reset, ...rest, position: 0, length: 0 });
  }

  /** Enters CLOSED. */
  finish(end: TcpEnd): void {
    if (this.isClosed) return;
    this.tcb.state = TcpState.CLOSED;
    const { timers } = this.tcb;
    timers.retransmit = timers.delayedAck = timers.timeWait = timers.keepAlive = NEVER;
    this.tcb.ack.now = false;
    this.queue = new SendQueue(this.queue.end);
    this.outOfOrder.clear();
    this.events.onClosed(end);
  }

  save(): SavedConnection {
    return {
      tcb: copyTcb(this.tcb),
      queueStart: this.queue.start,
      queue: this.queue.toBytes(),
      pieces: this.outOfOrder.save(),
    };
  }

  /** Continues a saved connection. */
  restore(saved: SavedConnection): void {
    Object.assign(this.tcb, copyTcb(saved.tcb));
    this.queue = SendQueue.from(saved.queueStart, saved.queue);
    this.outOfOrder.restore(saved.pieces);
  }
}
