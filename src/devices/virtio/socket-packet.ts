/**
 * Packets of the socket device: 44 bytes of header, and data.
 * Spec: virtio 1.2, "Socket Device", "Device Operation".
 *
 *   0 source CID u64 · 8 destination CID u64 · 16 source port u32 · 20 destination port u32 · 24 data bytes u32 · 28 type u16 ·
 *   30 operation u16 · 32 flags u32 · 36 buffer bytes u32 · 40 bytes forwarded u32
 */
export const SOCKET_HEADER_BYTES = 44;
export const HOST_CID = 2;
export const STREAM = 1;

export const SocketOperation = {
  REQUEST: 1,
  RESPONSE: 2,
  RESET: 3,
  SHUTDOWN: 4,
  DATA: 5,
  CREDIT_UPDATE: 6,
  CREDIT_REQUEST: 7,
} as const;

/** Of SHUTDOWN: the sender will not receive, will not send. */
export const ShutdownFlag = { RECEIVE: 1, SEND: 2, BOTH: 3 } as const;

export interface SocketPacket {
  readonly sourceCid: number;
  readonly targetCid: number;
  readonly sourcePort: number;
  readonly targetPort: number;
  readonly type: number;
  readonly operation: number;
  readonly flags: number;
  /** room of the sender's receive buffer, and bytes that have left it: both count modulo 2^32 */
  readonly bufferBytes: number;
  readonly forwarded: number;
  readonly data: Uint8Array;
}

const WORD = 2 ** 32;

export function encodeSocketPacket(packet: SocketPacket): Uint8Array {
  const bytes = new Uint8Array(SOCKET_HEADER_BYTES + packet.data.length);
  const view = new DataView(bytes.buffer);
  for (const [i, cid] of [packet.sourceCid, packet.targetCid].entries()) {
    view.setUint32(8 * i, cid % WORD, true);
    view.setUint32(8 * i + 4, Math.floor(cid / WORD), true);
  }
  view.setUint32(16, packet.sourcePort, true);
  view.setUint32(20, packet.targetPort, true);
  view.setUint32(24, packet.data.length, true);
  view.setUint16(28, packet.type, true);
  view.setUint16(30, packet.operation, true);
  view.setUint32(32, packet.flags, true);
  view.setUint32(36, packet.bufferBytes, true);
  view.setUint32(40, packet.forwarded, true);
  bytes.set(packet.data, SOCKET_HEADER_BYTES);
  return bytes;
}

/** Of the packet at `at`, whose header is all there. */
export function socketPacketBytes(bytes: Uint8Array, at: number): number {
  const view = new DataView(bytes.buffer, bytes.byteOffset + at, SOCKET_HEADER_BYTES);
  return SOCKET_HEADER_BYTES + view.getUint32(24, true);
}

/** Undefined if the bytes are not exactly one packet. CIDs of more than 53 bits, which nobody has, become inexact. */
export function decodeSocketPacket(bytes: Uint8Array): SocketPacket | undefined {
  if (bytes.length < SOCKET_HEADER_BYTES) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const data = bytes.subarray(SOCKET_HEADER_BYTES);
  if (view.getUint32(24, true) !== data.length) return undefined;
  const cid = (at: number): number =>
    view.getUint32(at, true) + view.getUint32(at + 4, true) * WORD;
  return {
    sourceCid: cid(0),
    targetCid: cid(8),
    sourcePort: view.getUint32(16, true),
    targetPort: view.getUint32(20, true),
    type: view.getUint16(28, true),
    operation: view.getUint16(30, true),
    flags: view.getUint32(32, true),
    bufferBytes: view.getUint32(36, true),
    forwarded: view.getUint32(40, true),
    data,
  };
}
