/**
 * Congestion control: NewReno. RFC 5681, "Congestion Control Algorithms"; RFC 6582, "Protocol Specification".
 *
 * One departure: the initial window is as large as a receive window. Between this stack and a guest is one wire with back pressure and
 * nobody else's traffic; what a guest drops for want of buffers, the first loss teaches. The state is plain.
 */
export interface Congestion {
  window: number;
  threshold: number;
  duplicates: number;
  /** In fast recovery until this position is acknowledged; 0 otherwise. */
  recover: number;
  /** Bytes acknowledged since the window grew, in congestion avoidance. */
  counted: number;
  /** Sent before the last time-out: duplicates of what is below it say nothing. RFC 6582, "Retransmit Timeouts". */
  guard: number;
}

const DUPLICATES_FOR_LOSS = 3;
export const INITIAL_WINDOW = 1 << 20;
const MAX_WINDOW = 1 << 30;

export const freshCongestion = (): Congestion => ({
  window: INITIAL_WINDOW,
  threshold: MAX_WINDOW,
  duplicates: 0,
  recover: 0,
  counted: 0,
  guard: 0,
});

/** `acked` new bytes, up to position `una`. True if the first unacknowledged segment is lost, too, and must be repeated. */
export function onAck(c: Congestion, acked: number, una: number, mss: number): boolean {
  c.duplicates = 0;
  if (c.recover > 0) {
    if (una < c.recover) {
      c.window = Math.max(c.window - acked + mss, mss);
      return true;
    }
    c.window = Math.max(c.threshold, mss);
    c.recover = 0;
    return false;
  }
  if (c.window < c.threshold) c.window = Math.min(c.window + Math.min(acked, mss), MAX_WINDOW);
  else {
    c.counted += acked;
    if (c.counted >= c.window) {
      c.counted -= c.window;
      c.window = Math.min(c.window + mss, MAX_WINDOW);
    }
  }
  return false;
}

interface Flight {
  readonly una: number;
  readonly max: number;
  readonly mss: number;
}

/** A duplicate acknowledgement, which also names `sacked` whole segments. True if the first unacknowledged segment is to be repeated. */
export function onDuplicate(c: Congestion, { una, max, mss }: Flight, sacked: number): boolean {
  if (una < c.guard) return false;
  if (c.recover > 0) {
    c.window = Math.min(c.window + mss, MAX_WINDOW);
    return false;
  }
  c.duplicates = Math.max(c.duplicates + 1, sacked);
  if (c.duplicates < DUPLICATES_FOR_LOSS) return false;
  c.threshold = Math.max(Math.floor((max - una) / 2), 2 * mss);
  c.window = c.threshold + DUPLICATES_FOR_LOSS * mss;
  c.recover = max;
  c.counted = 0;
  return true;
}

/** The retransmission timer went off with all from `una` to `max` sent. */
export function onTimeout(c: Congestion, una: number, max: number, mss: number): void {
  // RFC 5681 (4): not again for the same data.
  if (una >= c.guard) c.threshold = Math.max(Math.floor((max - una) / 2), 2 * mss);
  c.window = mss;
  c.duplicates = 0;
  c.recover = 0;
  c.counted = 0;
  c.guard = max;
}
