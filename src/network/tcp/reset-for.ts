/** The reset that a segment gets where no connection is. RFC 9293, "CLOSED STATE"; null for a reset, which gets nothing. */
import { TcpFlag, type TcpSegment } from "../packet/tcp-segment.ts";
import type { OutSegment } from "./connection.ts";

const PLAIN = {
  ...{ window: 0, mss: 0, windowScale: -1, sackPermitted: false, sack: [] },
  ...{ position: 0, length: 0 },
};

export function resetFor(segment: TcpSegment): OutSegment | null {
  const { flags, seq, ack, payload } = segment;
  if (flags & TcpFlag.RST) return null;
  if (flags & TcpFlag.ACK) return { ...PLAIN, seq: ack, ack: 0, flags: TcpFlag.RST };
  const length = payload.length + (flags & TcpFlag.SYN ? 1 : 0) + (flags & TcpFlag.FIN ? 1 : 0);
  const next = (seq + length) >>> 0;
  return { ...PLAIN, seq: 0, ack: next, flags: TcpFlag.RST | TcpFlag.ACK };
}
