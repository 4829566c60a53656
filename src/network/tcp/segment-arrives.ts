/**
 * What a segment does to a connection. RFC 9293, "SEGMENT ARRIVES", in its order; RFC 5961 for resets, SYNs and acknowledgements that do
 * not fit: they are answered with an acknowledgement and change nothing.
 *
 * Hot path for segments with data.
 */
import { TcpFlag, type TcpSegment } from "../packet/tcp-segment.ts";
import { onAck, onDuplicate } from "./congestion.ts";
import type { TcpConnection } from "./connection.ts";
import { afterSynLoss, forgetBackOff, measured } from "./round-trip.ts";
import {
  ackPosition,
  DEFAULT_MSS,
  has,
  NEVER,
  receiveSeq,
  seqPosition,
  type Tcb,
  TcpState,
} from "./tcb.ts";
import { restartKeepAlive, TIME_WAIT_NS } from "./timers.ts";

const DELAYED_ACK_NS = 40e6;
const MAX_SCALE = 14;
const MIN_MSS = 64;

export function segmentArrives(c: TcpConnection, segment: TcpSegment, now: number): void {
  const { tcb } = c;
  if (tcb.state === TcpState.CLOSED) return;
  if (tcb.state === TcpState.SYN_SENT) {
    arriveInSynSent(c, segment, now);
    return;
  }
  if (tcb.receive.nxt === 0) {
    acceptSyn(tcb, segment);
    restartKeepAlive(tcb, now);
    return;
  }
  const position = seqPosition(tcb, segment.seq);
  if (!isAcceptable(c, segment, position, now)) return;
  restartKeepAlive(tcb, now);
  if (!processAck(c, segment, position, now) || c.isClosed) return;
  takeData(c, segment, position, now);
}

/** Remembers what the peer's SYN says; from SYN_RECEIVED and SYN_SENT. */
function acceptSyn(tcb: Tcb, segment: TcpSegment): void {
  const { send, receive } = tcb;
  receive.irs = segment.seq;
  receive.nxt = 1;
  receive.edge = Math.max(receive.edge, 1 + Math.min(receive.capacity, 0xffff));
  receive.sack &&= segment.sackPermitted;
  if (segment.windowScale >= 0) send.scale = Math.min(segment.windowScale, MAX_SCALE);
  else {
    send.scale = 0;
    receive.scale = 0;
  }
  send.mss = Math.max(MIN_MSS, Math.min(segment.mss || DEFAULT_MSS, tcb.ownMss));
  send.wnd = segment.window;
  send.maxWnd = segment.window;
  send.wl1 = 0;
  send.wl2 = send.una;
}

function arriveInSynSent(c: TcpConnection, segment: TcpSegment, now: number): void {
  const { tcb } = c;
  const { send } = tcb;
  const hasAck = has(segment, TcpFlag.ACK);
  const acked = hasAck ? ackPosition(tcb, segment.ack) : 0;
  if (hasAck && (acked <= 0 || acked > send.max)) {
    if (!has(segment, TcpFlag.RST)) c.owe({ seq: segment.ack, ack: 0, flags: TcpFlag.RST });
    return;
  }
  if (has(segment, TcpFlag.RST)) {
    if (hasAck) c.finish("refused");
    return;
  }
  if (!has(segment, TcpFlag.SYN)) return;
  acceptSyn(tcb, segment);
  restartKeepAlive(tcb, now);
  if (!hasAck) {
    // Simultaneous open: our SYN goes out again, with an acknowledgement.
    tcb.state = TcpState.SYN_RECEIVED;
    send.nxt = 0;
    return;
  }
  tcb.ack.now = true;
  synAcknowledged(c, now);
}

function synAcknowledged(c: TcpConnection, now: number): void {
  const { tcb } = c;
  const { send, timing } = tcb;
  tcb.state = TcpState.ESTABLISHED;
  send.una = 1;
  send.nxt = Math.max(send.nxt, 1);
  send.wl2 = 1;
  if (timing.position >= 0) measured(tcb.rtt, now - timing.since);
  else afterSynLoss(tcb.rtt);
  timing.position = -1;
  tcb.retries = 0;
  tcb.timers.retransmit = NEVER;
  c.events.onEstablished();
}

/** The first four steps: sequence number, RST, SYN. */
function isAcceptable(
  c: TcpConnection,
  segment: TcpSegment,
  position: number,
  now: number,
): boolean {
  const { tcb } = c;
  const { receive } = tcb;
  const length =
    segment.payload.length + Number(has(segment, TcpFlag.SYN)) + Number(has(segment, TcpFlag.FIN));
  const end = position + length;
  const isOld = end < receive.nxt || (length > 0 && end <= receive.nxt);
  if (isOld || position > receive.edge) {
    if (has(segment, TcpFlag.RST)) return false;
    if (tcb.state === TcpState.SYN_RECEIVED && isSynAlone(segment) && position === 0)
      tcb.send.nxt = 0;
    else tcb.ack.now = true;
    if (tcb.state === TcpState.TIME_WAIT && has(segment, TcpFlag.FIN))
      tcb.timers.timeWait = now + TIME_WAIT_NS;
    return false;
  }
  if (has(segment, TcpFlag.RST)) {
    if (tcb.state === TcpState.TIME_WAIT) return false;
    if (position === receive.nxt) c.finish("reset");
    else tcb.ack.now = true;
    return false;
  }
  if (has(segment, TcpFlag.SYN)) {
    tcb.ack.now = true;
    return false;
  }
  return has(segment, TcpFlag.ACK);
}

const isSynAlone = ({ flags }: TcpSegment): boolean =>
  (flags & (TcpFlag.SYN | TcpFlag.ACK)) === TcpFlag.SYN;

/** The fifth step. False if the segment is to be dropped. */
function processAck(c: TcpConnection, segment: TcpSegment, position: number, now: number): boolean {
  const { tcb } = c;
  const { send } = tcb;
  const acked = ackPosition(tcb, segment.ack);
  if (tcb.state === TcpState.SYN_RECEIVED) {
    if (acked < 1 || acked > send.max) {
      c.owe({ seq: segment.ack, ack: 0, flags: TcpFlag.RST });
      return false;
    }
    synAcknowledged(c, now);
    if (c.isClosed) return false;
  }
  if (acked > send.max || acked < send.una - Math.max(send.maxWnd, 1)) {
    tcb.ack.now = true;
    return false;
  }
  const isNew = acked > send.una;
  if (isNew) advanceUna(c, acked, now);
  const tellsOfHole = isNew && segment.sack.length > 0 && tcb.congestion.recover === 0;
  if (tellsOfHole || (!isNew && isDuplicate(tcb, segment, acked)))
    send.repeatFirst ||= onDuplicate(tcb.congestion, send, sackedSegments(tcb, segment));
  updateWindow(tcb, segment, position, acked);
  return finAcknowledged(c, now);
}

/** RFC 5681, "DUPLICATE ACKNOWLEDGMENT". */
function isDuplicate(tcb: Tcb, segment: TcpSegment, acked: number): boolean {
  const { send } = tcb;
  return (
    acked === send.una &&
    send.una < send.max &&
    segment.payload.length === 0 &&
    !has(segment, TcpFlag.FIN) &&
    segment.window * 2 ** send.scale === send.wnd
  );
}

/** How many full segments the peer says it has above a hole: each of them is as good as a duplicate (RFC 6675, "IsLost"). */
function sackedSegments({ send }: Tcb, { sack }: TcpSegment): number {
  let bytes = 0;
  for (let i = 0; i + 1 < sack.length; i += 2) {
    const size = (sack[i + 1]! - sack[i]!) >>> 0;
    if (size <= send.max - send.una) bytes += size;
  }
  return Math.floor(bytes / send.mss);
}

function advanceUna(c: TcpConnection, acked: number, now: number): void {
  const { tcb } = c;
  const { send, timing } = tcb;
  const count = acked - send.una;
  send.una = acked;
  send.nxt = Math.max(send.nxt, acked);
  if (timing.position >= 0 && acked >= timing.position) {
    measured(tcb.rtt, now - timing.since);
    timing.position = -1;
  } else forgetBackOff(tcb.rtt);
  tcb.retries = 0;
  tcb.timers.retransmit = acked < send.max ? now + tcb.rtt.timeout : NEVER;
  send.repeatFirst = onAck(tcb.congestion, count, acked, send.mss) && acked < send.max;
  const held = c.queue.length;
  c.queue.release(acked);
  const freed = held - c.queue.length;
  if (freed > 0) c.events.onAcked(freed);
}

function updateWindow(tcb: Tcb, segment: TcpSegment, position: number, acked: number): void {
  const { send } = tcb;
  const isNewer = send.wl1 < position || (send.wl1 === position && send.wl2 <= acked);
  if (!isNewer) return;
  send.wnd = segment.window * 2 ** send.scale;
  send.maxWnd = Math.max(send.maxWnd, send.wnd);
  send.wl1 = position;
  send.wl2 = acked;
  // A peer that keeps its window closed but answers is alive. RFC 9293, "Zero-Window Probing".
  if (send.wnd === 0) tcb.retries = 0;
}

function finAcknowledged(c: TcpConnection, now: number): boolean {
  const { tcb } = c;
  const { send } = tcb;
  if (!send.shut || send.una !== c.queue.end + 1) return true;
  if (tcb.state === TcpState.FIN_WAIT_1) tcb.state = TcpState.FIN_WAIT_2;
  else if (tcb.state === TcpState.CLOSING) enterTimeWait(c, now);
  else if (tcb.state === TcpState.LAST_ACK) {
    c.finish("closed");
    return false;
  }
  return true;
}

function enterTimeWait(c: TcpConnection, now: number): void {
  const { tcb } = c;
  tcb.state = TcpState.TIME_WAIT;
  tcb.timers.retransmit = NEVER;
  tcb.timers.keepAlive = NEVER;
  tcb.timers.timeWait = now + TIME_WAIT_NS;
}

/** Steps seven and eight: text and FIN. */
function takeData(c: TcpConnection, segment: TcpSegment, position: number, now: number): void {
  const { tcb } = c;
  const { receive, state } = tcb;
  const takes =
    state === TcpState.ESTABLISHED ||
    state === TcpState.FIN_WAIT_1 ||
    state === TcpState.FIN_WAIT_2;
  if (!takes) return;
  const end = position + segment.payload.length;
  if (has(segment, TcpFlag.FIN) && end <= receive.edge && receive.fin < 0) receive.fin = end;
  const from = Math.max(receive.nxt, position);
  const to = Math.min(end, receive.edge);
  if (from < to) {
    const bytes = segment.payload.subarray(from - position, to - position);
    if (from === receive.nxt) deliverInOrder(c, bytes, now);
    else {
      c.outOfOrder.add(from, bytes);
      tcb.ack.now = true;
    }
  } else if (segment.payload.length > 0) tcb.ack.now = true;
  if (!c.isClosed && receive.fin === receive.nxt) takeFin(c, now);
  else if (has(segment, TcpFlag.FIN)) tcb.ack.now = true;
}

function deliverInOrder(c: TcpConnection, bytes: Uint8Array, now: number): void {
  const { ack, timers } = c.tcb;
  deliver(c, bytes);
  if (!c.outOfOrder.isEmpty) {
    ack.now = true;
    while (!c.isClosed) {
      const next = c.outOfOrder.takeAt(c.tcb.receive.nxt);
      if (!next) break;
      deliver(c, next);
    }
  }
  if (++ack.segments >= 2) ack.now = true;
  else if (timers.delayedAck === NEVER) timers.delayedAck = now + DELAYED_ACK_NS;
}

function deliver(c: TcpConnection, bytes: Uint8Array): void {
  const { receive } = c.tcb;
  receive.nxt += bytes.length;
  receive.unconsumed += bytes.length;
  c.events.onData(bytes);
}

function takeFin(c: TcpConnection, now: number): void {
  const { tcb } = c;
  tcb.receive.nxt++;
  tcb.ack.now = true;
  if (tcb.state === TcpState.ESTABLISHED) tcb.state = TcpState.CLOSE_WAIT;
  else if (tcb.state === TcpState.FIN_WAIT_1) tcb.state = TcpState.CLOSING;
  else if (tcb.state === TcpState.FIN_WAIT_2) enterTimeWait(c, now);
  c.events.onEnd();
}

/** A SYN that may take the place of a connection in TIME_WAIT: its numbers are beyond all that the old one used. RFC 9293, "TIME-WAIT". */
export function mayReopen(tcb: Tcb, segment: TcpSegment): boolean {
  if (tcb.state !== TcpState.TIME_WAIT) return false;
  const isPlainSyn = (segment.flags & (TcpFlag.SYN | TcpFlag.ACK | TcpFlag.RST)) === TcpFlag.SYN;
  return isPlainSyn && ((segment.seq - receiveSeq(tcb, tcb.receive.nxt)) | 0) > 0;
}
