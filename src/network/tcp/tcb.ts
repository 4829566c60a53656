/**
 * Transmission control block: the plain state of a connection. RFC 9293, "Key Connection State Variables".
 *
 * Positions, not sequence numbers: the SYN is at position 0 of its direction, the first byte at 1, and they never wrap. seqOf and
 * positionOf translate at the wire. Times are ns of the VM, NEVER for a timer that is off.
 */
import type { TcpSegment } from "../packet/tcp-segment.ts";
import { type Congestion, freshCongestion } from "./congestion.ts";
import { freshRoundTrip, type RoundTrip } from "./round-trip.ts";

export const NEVER = Number.MAX_SAFE_INTEGER;

export const TcpState = {
  CLOSED: 0,
  SYN_SENT: 1,
  SYN_RECEIVED: 2,
  ESTABLISHED: 3,
  FIN_WAIT_1: 4,
  FIN_WAIT_2: 5,
  CLOSE_WAIT: 6,
  CLOSING: 7,
  LAST_ACK: 8,
  TIME_WAIT: 9,
} as const;
export type TcpState = (typeof TcpState)[keyof typeof TcpState];

export interface SendState {
  /** Initial sequence number. */
  iss: number;
  /** First position not acknowledged. */
  una: number;
  /** Next to send. */
  nxt: number;
  /** After the last ever sent. */
  max: number;
  /** Window of the peer, bytes. */
  wnd: number;
  maxWnd: number;
  /** Position and acknowledgement of the segment that `wnd` is from. */
  wl1: number;
  wl2: number;
  scale: number;
  mss: number;
  /** The application sends no more: a FIN follows its last byte. */
  shut: boolean;
  /** Repeat the segment at `una`. */
  repeatFirst: boolean;
  /** Send what the window allows, and a byte if that is nothing. */
  probe: boolean;
}

export interface ReceiveState {
  irs: number;
  nxt: number;
  /** Right edge of the window that the peer knows of. */
  edge: number;
  scale: number;
  sack: boolean;
  /** Bytes that may be on their way to the application. */
  capacity: number;
  /** Delivered, and not consumed yet. */
  unconsumed: number;
  /** Position of the peer's FIN, -1 while unknown. */
  fin: number;
}

export interface AckState {
  now: boolean;
  /** Ask the peer whether it is still there. */
  keepAlive: boolean;
  /** Segments with data since the last acknowledgement. */
  segments: number;
}

/** One measurement of the round trip at a time, -1 for none. */
export interface Timing {
  position: number;
  since: number;
}

export interface Timers {
  retransmit: number;
  delayedAck: number;
  /** End of TIME_WAIT. */
  timeWait: number;
  keepAlive: number;
}

export interface Tcb {
  state: TcpState;
  /** What we take in one segment. */
  ownMss: number;
  /** Retransmissions or window probes since the peer was last heard to make progress. */
  retries: number;
  keepAlives: number;
  send: SendState;
  receive: ReceiveState;
  ack: AckState;
  timing: Timing;
  timers: Timers;
  rtt: RoundTrip;
  congestion: Congestion;
}

export const DEFAULT_MSS = 536;
const MAX_SCALE = 14;

export interface TcbOptions {
  readonly iss: number;
  /** What we take in one segment. */
  readonly ownMss: number;
  /** Bytes of the receive window, at most 1 GiB. */
  readonly capacity: number;
}

export function freshTcb({ iss, ownMss, capacity }: TcbOptions): Tcb {
  return {
    state: TcpState.CLOSED,
    ownMss,
    retries: 0,
    keepAlives: 0,
    send: {
      ...{ iss: iss >>> 0, una: 0, nxt: 0, max: 0, wnd: 0, maxWnd: 0, wl1: -1, wl2: 0 },
      ...{ scale: 0, mss: DEFAULT_MSS, shut: false, repeatFirst: false, probe: false },
    },
    receive: {
      ...{ irs: 0, nxt: 0, edge: 0, scale: scaleFor(capacity), sack: true },
      ...{ capacity, unconsumed: 0, fin: -1 },
    },
    ack: { now: false, keepAlive: false, segments: 0 },
    timing: { position: -1, since: 0 },
    timers: { retransmit: NEVER, delayedAck: NEVER, timeWait: NEVER, keepAlive: NEVER },
    rtt: freshRoundTrip(),
    congestion: freshCongestion(),
  };
}

function scaleFor(capacity: number): number {
  let scale = 0;
  while (scale < MAX_SCALE && capacity >> scale > 0xffff) scale++;
  return scale;
}

export const sendSeq = (tcb: Tcb, position: number): number => (tcb.send.iss + position) >>> 0;

export const receiveSeq = (tcb: Tcb, position: number): number =>
  (tcb.receive.irs + position) >>> 0;

/** Position of an acknowledgement number, which may be any distance up to 2^31 from what is unacknowledged. */
export const ackPosition = (tcb: Tcb, ack: number): number =>
  tcb.send.una + ((ack - sendSeq(tcb, tcb.send.una)) | 0);

export const seqPosition = (tcb: Tcb, seq: number): number =>
  tcb.receive.nxt + ((seq - receiveSeq(tcb, tcb.receive.nxt)) | 0);

export const has = (segment: Pick<TcpSegment, "flags">, flag: number): boolean =>
  (segment.flags & flag) !== 0;

export function firstDeadline(timers: Timers): number {
  return Math.min(timers.retransmit, timers.delayedAck, timers.timeWait, timers.keepAlive);
}

/** A copy that shares nothing. */
export function copyTcb(tcb: Tcb): Tcb {
  const copy = Object.entries(tcb).map(([key, value]) => [
    key,
    typeof value === "object" ? { ...value } : value,
  ]);
  return Object.fromEntries(copy) as Tcb;
}
