/**
 * What a file device and its other end say to each other, as bytes of a stream.
 *
 *   out  0 tag u64 · 8 bytes of the request u32 · 12 room for the reply u32 · 16 offset u32 · 20 0 u32 · 24 bytes
 *   in   0 tag u64 · 8 bytes of the reply u32 · 12 offset u32 · 16 bytes here u32 · 20 kind u32 · 24 bytes; any number, one behind the other
 */
import type { FilePiece } from "./file-device.ts";

export const PIECE_HEADER_BYTES = 24;

/** ACCEPTED: the piece has been taken, the next may come. REPLY: a part of the reply. */
export const FileAnswerKind = { ACCEPTED: 0, REPLY: 1 } as const;

export interface FileAnswer {
  readonly kind: number;
  readonly tag: number;
  /** of the whole reply */
  readonly length: number;
  readonly offset: number;
  readonly bytes: Uint8Array;
}

const WORD = 0x1_0000_0000;
const NO_BYTES = new Uint8Array(0);

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function putHeader(view: DataView, tag: number, words: readonly number[]): void {
  view.setUint32(0, tag % WORD, true);
  view.setUint32(4, Math.floor(tag / WORD), true);
  for (const [i, word] of words.entries()) view.setUint32(8 + 4 * i, word, true);
}

const getTag = (view: DataView, at: number): number =>
  view.getUint32(at, true) + view.getUint32(at + 4, true) * WORD;

export function encodePiece({ tag, length, room, offset, bytes }: FilePiece): Uint8Array {
  const message = new Uint8Array(PIECE_HEADER_BYTES + bytes.length);
  putHeader(viewOf(message), tag, [length, Math.min(room, WORD - 1), offset, 0]);
  message.set(bytes, PIECE_HEADER_BYTES);
  return message;
}

export function decodePiece(message: Uint8Array): FilePiece | undefined {
  if (message.length < PIECE_HEADER_BYTES) return undefined;
  const view = viewOf(message);
  const [length, room, offset] = [8, 12, 16].map((at) => view.getUint32(at, true));
  const bytes = message.subarray(PIECE_HEADER_BYTES);
  if (offset + bytes.length > length) return undefined;
  return { tag: getTag(view, 0), length, room, offset, bytes };
}

/** Writes an answer at `at` of `target`; answers where it ends. */
export function putAnswer(target: Uint8Array, at: number, answer: FileAnswer): number {
  const { kind, tag, length, offset, bytes } = answer;
  const view = new DataView(target.buffer, target.byteOffset + at, PIECE_HEADER_BYTES);
  putHeader(view, tag, [length, offset, bytes.length, kind]);
  target.set(bytes, at + PIECE_HEADER_BYTES);
  return at + PIECE_HEADER_BYTES + bytes.length;
}

/** All answers of a message; what is cut off at its end is left out. */
export function decodeAnswers(message: Uint8Array): FileAnswer[] {
  const view = viewOf(message);
  const answers: FileAnswer[] = [];
  for (let at = 0; at + PIECE_HEADER_BYTES <= message.length; ) {
    const [length, offset, size, kind] = [8, 12, 16, 20].map((word) =>
      view.getUint32(at + word, true),
    );
    const end = at + PIECE_HEADER_BYTES + size;
    if (end > message.length) break;
    const bytes = size === 0 ? NO_BYTES : message.subarray(at + PIECE_HEADER_BYTES, end);
    answers.push({ kind, tag: getTag(view, at), length, offset, bytes });
    at = end;
  }
  return answers;
}
