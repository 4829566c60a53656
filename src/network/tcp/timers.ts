/**
 * What time does to a connection: retransmission (RFC 6298), window probes (RFC 9293, "Zero-Window Probing"), delayed acknowledgements, the
 * end of TIME_WAIT, and keep-alives (RFC 9293, "TCP Keep-Alives") so that a peer that is gone does not hold memory for ever.
 */
import { TcpFlag } from "../packet/tcp-segment.ts";
import { onTimeout } from "./congestion.ts";
import type { TcpConnection } from "./connection.ts";
import { backOff } from "./round-trip.ts";
import { NEVER, sendSeq, type Tcb, TcpState } from "./tcb.ts";

/** Twice a segment's lifetime of 30 s, as Linux has it. */
export const TIME_WAIT_NS = 60e9;
/** 1 + 2 + 4 + ... seconds: over a minute for a SYN, over three for data (RFC 9293: at least 100 s). */
const SYN_RETRIES = 5;
const RETRIES = 8;
const KEEP_ALIVE_IDLE_NS = 7200e9;
const KEEP_ALIVE_INTERVAL_NS = 75e9;
const KEEP_ALIVES = 9;

export function advanceTimers(c: TcpConnection, now: number): void {
  const { tcb } = c;
  const { timers } = tcb;
  if (now >= timers.timeWait) {
    timers.timeWait = NEVER;
    c.finish("closed");
    return;
  }
  if (now >= timers.delayedAck) {
    timers.delayedAck = NEVER;
    tcb.ack.now = true;
  }
  if (now >= timers.keepAlive) keepAliveDue(c, now);
  if (now >= timers.retransmit) retransmitDue(c, now);
}

function giveUp(c: TcpConnection): void {
  const { state, send } = c.tcb;
  if (state !== TcpState.SYN_SENT)
    c.owe({ seq: sendSeq(c.tcb, send.max), ack: 0, flags: TcpFlag.RST });
  c.finish("timeout");
}

function retransmitDue(c: TcpConnection, now: number): void {
  const { tcb } = c;
  const { send, timers, timing } = tcb;
  const isOpening = tcb.state === TcpState.SYN_SENT || tcb.state === TcpState.SYN_RECEIVED;
  if (tcb.retries++ >= (isOpening ? SYN_RETRIES : RETRIES)) {
    giveUp(c);
    return;
  }
  const isBlocked = send.wnd === 0 || send.una === send.max;
  send.probe = !isOpening && isBlocked;
  send.repeatFirst = !isOpening && !isBlocked;
  if (send.repeatFirst) onTimeout(tcb.congestion, send.una, send.max, send.mss);
  send.nxt = send.una;
  timing.position = -1;
  backOff(tcb.rtt);
  timers.retransmit = now + tcb.rtt.timeout;
}

export function restartKeepAlive(tcb: Tcb, now: number): void {
  tcb.keepAlives = 0;
  if (tcb.state !== TcpState.TIME_WAIT) tcb.timers.keepAlive = now + KEEP_ALIVE_IDLE_NS;
}

function keepAliveDue(c: TcpConnection, now: number): void {
  const { tcb } = c;
  if (tcb.keepAlives++ >= KEEP_ALIVES) {
    giveUp(c);
    return;
  }
  tcb.ack.keepAlive = tcb.send.una === tcb.send.max;
  tcb.timers.keepAlive = now + KEEP_ALIVE_INTERVAL_NS;
}
