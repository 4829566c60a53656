/**
 * What is said of a frame between a network card and its other end, beside the frame itself: 8 bytes.
 *
 *   0 length u32 · 4 flags u16 · 6 segment u16
 *
 * From the guest, `flags` also say what it takes in return (FrameFlag.TAKES_...). A tag without a frame, of length 0, tells the card of its link.
 */
export interface FrameTag {
  /** bytes of the frame */
  readonly length: number;
  readonly flags: number;
  /** payload bytes of each TCP segment that the frame stands for; 0: it is one packet */
  readonly segment: number;
}

export const FrameFlag = {
  /** The TCP or UDP checksum covers the pseudo header alone, or is known to be right. Its place is the protocol's. */
  UNFINISHED: 1,
  /** The guest takes unfinished checksums. */
  TAKES_UNFINISHED: 2,
  /** The guest takes frames that stand for many TCP segments. */
  TAKES_SEGMENTS: 4,
  /** No frame: the link is up, or down. */
  LINK_UP: 8,
  LINK_DOWN: 16,
} as const;

export const TAG_BYTES = 8;

export function putTag(bytes: Uint8Array, at: number, { length, flags, segment }: FrameTag): void {
  bytes[at] = length;
  bytes[at + 1] = length >>> 8;
  bytes[at + 2] = length >>> 16;
  bytes[at + 3] = length >>> 24;
  bytes[at + 4] = flags;
  bytes[at + 5] = flags >>> 8;
  bytes[at + 6] = segment;
  bytes[at + 7] = segment >>> 8;
}

export function getTag(bytes: Uint8Array, at: number): FrameTag {
  const byte = (offset: number): number => bytes[at + offset]!;
  return {
    length: (byte(0) | (byte(1) << 8) | (byte(2) << 16) | (byte(3) << 24)) >>> 0,
    flags: byte(4) | (byte(5) << 8),
    segment: byte(6) | (byte(7) << 8),
  };
}

export function encodeTag(tag: FrameTag): Uint8Array {
  const bytes = new Uint8Array(TAG_BYTES);
  putTag(bytes, 0, tag);
  return bytes;
}
