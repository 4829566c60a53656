/**
 * What a file device and its other end say to each other. The bytes of requests and replies are not in it: they go beside, between the
 * other end and guest memory.
 *
 *   header   0 tag u64 · 8 bytes of the request u32 · 12 room for the reply u32. It comes with the request's memory, then, if there is
 *            room for a reply, with that one's
 *   answer   0 tag u64 · 8 bytes written u32 · 12 0; several may come together
 */
import { getWide, setWide, viewOf } from "./message-fields.ts";

export const HEADER_BYTES = 16;
const ANSWER_BYTES = 16;
const MAX_ROOM = 2 ** 32 - 1;

export interface FileHeader {
  readonly tag: number;
  readonly length: number;
  readonly room: number;
}

export interface FileAnswer {
  readonly tag: number;
  readonly written: number;
}

export function encodeFileHeader({ tag, length, room }: FileHeader): Uint8Array {
  const bytes = new Uint8Array(HEADER_BYTES);
  const view = viewOf(bytes);
  setWide(view, 0, tag);
  view.setUint32(8, length, true);
  view.setUint32(12, Math.min(room, MAX_ROOM), true);
  return bytes;
}

export function decodeFileHeader(bytes: Uint8Array): FileHeader | undefined {
  if (bytes.length !== HEADER_BYTES) return undefined;
  const view = viewOf(bytes);
  const tag = getWide(view, 0);
  if (!Number.isSafeInteger(tag)) return undefined;
  return { tag, length: view.getUint32(8, true), room: view.getUint32(12, true) };
}

export function encodeFileAnswers(answers: readonly FileAnswer[]): Uint8Array {
  const bytes = new Uint8Array(ANSWER_BYTES * answers.length);
  const view = viewOf(bytes);
  for (const [i, { tag, written }] of answers.entries()) {
    setWide(view, ANSWER_BYTES * i, tag);
    view.setUint32(ANSWER_BYTES * i + 8, written, true);
  }
  return bytes;
}

/** What is there of whole answers. */
export function decodeFileAnswers(bytes: Uint8Array): FileAnswer[] {
  const view = viewOf(bytes);
  const answers: FileAnswer[] = [];
  for (let at = 0; at + ANSWER_BYTES <= bytes.length; at += ANSWER_BYTES)
    answers.push({ tag: getWide(view, at), written: view.getUint32(at + 8, true) });
  return answers;
}
