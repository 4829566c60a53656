/**
 * What a connection may send now. RFC 9293, "Data Communication" and "Silly Window Syndrome Avoidance"; no Nagle: the bytes come from another
 * connection, whose sender has thought about that.
 *
 * Segments are described, not built: `emit` copies their bytes from the queue into a frame. Hot path.
 */
import { TcpFlag } from "../packet/tcp-segment.ts";
import type { Emit, TcpConnection } from "./connection.ts";
import { NEVER, receiveSeq, sendSeq, type Tcb, TcpState } from "./tcb.ts";

export interface Link {
  /** False while the link takes no more segments. */
  room(): boolean;
  readonly emit: Emit;
  /** Payload bytes that the link cuts into segments of the peer's size itself; 0: it cuts none. */
  readonly burst: number;
}

/** True if there is more to send than the link took. */
export function output(c: TcpConnection, now: number, link: Link): boolean {
  while (c.resets.length > 0) {
    if (!link.room()) return true;
    link.emit(c.resets.shift()!, c.queue);
  }
  const { tcb } = c;
  if (tcb.state === TcpState.CLOSED) return false;
  if (tcb.state === TcpState.SYN_SENT || tcb.state === TcpState.SYN_RECEIVED) {
    return sendSyn(c, now, link);
  }
  const isBlocked = sendText(c, now, link);
  if (!isBlocked) armRetransmit(c, now);
  if (isBlocked) return true;
  if (tcb.ack.keepAlive) {
    if (!link.room()) return true;
    tcb.ack.keepAlive = false;
    emitSegment(c, { position: tcb.send.una - 1, length: 0, fin: false }, link);
  }
  if (!tcb.ack.now && !opensWindow(tcb)) return false;
  if (!link.room()) return true;
  emitSegment(c, { position: ackAt(tcb), length: 0, fin: false }, link);
  return false;
}

/** Where an acknowledgement without data stands: not at `nxt`, which goes back for retransmissions, and inside the peer's window. */
function ackAt({ send }: Tcb): number {
  return Math.max(send.una, Math.min(send.max, send.una + send.wnd));
}

function sendSyn(c: TcpConnection, now: number, link: Link): boolean {
  const { tcb } = c;
  const { send, receive, timing } = tcb;
  if (send.nxt > 0) {
    if (!tcb.ack.now || tcb.state === TcpState.SYN_SENT) return false;
    if (!link.room()) return true;
    emitSegment(c, { position: ackAt(tcb), length: 0, fin: false }, link);
    return false;
  }
  if (!link.room()) return true;
  const isReply = tcb.state === TcpState.SYN_RECEIVED;
  const isScaled = !isReply || send.scale > 0 || receive.scale > 0;
  const window = Math.min(receive.capacity, 0xffff);
  link.emit(
    {
      seq: send.iss,
      ack: isReply ? receiveSeq(tcb, receive.nxt) : 0,
      flags: TcpFlag.SYN | (isReply ? TcpFlag.ACK : 0),
      window,
      mss: tcb.ownMss,
      windowScale: isScaled ? receive.scale : -1,
      sackPermitted: receive.sack,
      sack: [],
      position: 0,
      length: 0,
    },
    c.queue,
  );
  receive.edge = Math.max(receive.edge, receive.nxt + window);
  if (send.max === 0) {
    timing.position = 1;
    timing.since = now;
  }
  send.nxt = 1;
  send.max = Math.max(send.max, 1);
  tcb.ack.now = false;
  if (tcb.timers.retransmit === NEVER) tcb.timers.retransmit = now + tcb.rtt.timeout;
  return false;
}

/** Data and FIN. True if the link was full. */
function sendText(c: TcpConnection, now: number, link: Link): boolean {
  const { send } = c.tcb;
  if (send.repeatFirst) {
    if (!link.room()) return true;
    repeatFirst(c, now, link);
  }
  if (send.probe) {
    if (!link.room()) return true;
    sendProbe(c, link);
  }
  for (;;) {
    const length = textLength(c, link.burst);
    const fin = length >= 0 && finFits(c, send.nxt + length);
    if (length <= 0 && !fin) return false;
    if (!link.room()) return true;
    const position = send.nxt;
    emitSegment(c, { position, length, fin }, link);
    const end = position + length + Number(fin);
    if (position < send.max) c.tcb.timing.position = -1;
    else if (c.tcb.timing.position < 0) {
      c.tcb.timing.position = end;
      c.tcb.timing.since = now;
    }
    send.nxt = end;
    send.max = Math.max(send.max, end);
  }
}

/** Bytes of the next segment: 0 if there are none to send, -1 if sending a small one is to be put off. */
function textLength(c: TcpConnection, burst: number): number {
  const { send, congestion } = c.tcb;
  const available = c.queue.end - send.nxt;
  if (available <= 0) return 0;
  const usable = send.una + Math.min(send.wnd, congestion.window) - send.nxt;
  const most = Math.max(burst - (burst % send.mss), send.mss);
  const length = Math.min(available, most, usable);
  if (length <= 0) return -1;
  if (length > send.mss) return length < available ? length - (length % send.mss) : length;
  const isWorthIt = length === send.mss || length === available || length * 2 >= send.maxWnd;
  return isWorthIt ? length : -1;
}

/** Does the FIN go with a segment that ends at `position`? */
function finFits(c: TcpConnection, position: number): boolean {
  const { send } = c.tcb;
  return send.shut && position === c.queue.end && position < send.una + send.wnd;
}

function repeatFirst(c: TcpConnection, now: number, link: Link): void {
  const { send, timing, timers, rtt } = c.tcb;
  send.repeatFirst = false;
  if (send.una >= send.max) return;
  const most = Math.min(send.mss, Math.max(send.wnd, 1));
  const length = Math.max(0, Math.min(most, c.queue.end - send.una, send.max - send.una));
  timing.position = -1;
  timers.retransmit = now + rtt.timeout;
  const fin = send.max > c.queue.end && send.una + length === c.queue.end;
  emitSegment(c, { position: send.una, length, fin }, link);
  send.nxt = Math.max(send.nxt, send.una + length + Number(fin));
}

/** What the window takes, at least one byte or the FIN. */
function sendProbe(c: TcpConnection, link: Link): void {
  const { send } = c.tcb;
  send.probe = false;
  const available = Math.max(0, c.queue.end - send.una);
  const length = Math.min(available, send.mss, Math.max(send.wnd, 1));
  const fin = send.shut && send.una + length === c.queue.end;
  if (length === 0 && !fin) return;
  emitSegment(c, { position: send.una, length, fin }, link);
  const end = send.una + length + Number(fin);
  send.max = Math.max(send.max, end);
  if (send.wnd > 0) send.nxt = end;
}

function armRetransmit(c: TcpConnection, now: number): void {
  const { send, timers, rtt } = c.tcb;
  const isPending = send.nxt < c.queue.end || (send.shut && send.nxt === c.queue.end);
  if (send.una === send.max && !isPending) timers.retransmit = NEVER;
  else if (timers.retransmit === NEVER) timers.retransmit = now + rtt.timeout;
}

/** Has the application made so much room that the peer should hear of it? RFC 9293, "Receiver's Algorithm -- When to Send a Window Update". */
function opensWindow(tcb: Tcb): boolean {
  const { receive, ownMss } = tcb;
  if (tcb.state >= TcpState.CLOSE_WAIT) return false;
  const gain = receive.nxt + windowOf(tcb) - receive.edge;
  return gain >= Math.min(receive.capacity / 2, 2 * ownMss);
}

function windowOf({ receive }: Tcb): number {
  const room = Math.max(0, receive.capacity - receive.unconsumed);
  return Math.min(room, 0xffff * 2 ** receive.scale);
}

interface Text {
  readonly position: number;
  readonly length: number;
  readonly fin: boolean;
}

function emitSegment(c: TcpConnection, { position, length, fin }: Text, link: Link): void {
  const { tcb } = c;
  const { receive, ack, timers } = tcb;
  // The edge moves by whole steps only: a window of crumbs would be filled with crumbs.
  const edge = receive.nxt + windowOf(tcb);
  const step = Math.min(receive.capacity / 2, tcb.ownMss);
  const offered = edge - receive.edge >= step ? edge : Math.max(receive.edge, receive.nxt);
  const window = Math.min(Math.floor((offered - receive.nxt) / 2 ** receive.scale), 0xffff);
  receive.edge = Math.max(receive.edge, receive.nxt + window * 2 ** receive.scale);
  if (fin && tcb.state === TcpState.ESTABLISHED) tcb.state = TcpState.FIN_WAIT_1;
  else if (fin && tcb.state === TcpState.CLOSE_WAIT) tcb.state = TcpState.LAST_ACK;
  const isLast = length > 0 && position + length === c.queue.end;
  link.emit(
    {
      seq: sendSeq(tcb, position),
      ack: receiveSeq(tcb, receive.nxt),
      flags: TcpFlag.ACK | (isLast ? TcpFlag.PSH : 0) | (fin ? TcpFlag.FIN : 0),
      window,
      mss: 0,
      windowScale: -1,
      sackPermitted: false,
      // Not beside data, where there is no room for them in the segment.
      sack: length === 0 && receive.sack && !c.outOfOrder.isEmpty ? sackBlocks(c) : NO_SACK,
      position,
      length,
    },
    c.queue,
  );
  ack.now = false;
  ack.segments = 0;
  timers.delayedAck = NEVER;
}

const NO_SACK: readonly number[] = [];

function sackBlocks(c: TcpConnection): number[] {
  return c.outOfOrder
    .blocks()
    .flatMap(({ start, end }) => [receiveSeq(c.tcb, start), receiveSeq(c.tcb, end)]);
}
