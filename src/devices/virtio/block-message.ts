/**
 * What the block device and its medium say to each other when they are in different places. Data is not in it: it goes beside, between medium and guest
 * memory.
 *
 *   request  0 tag u64 · 8 kind u32 · 12 flags u32 (bit 0: unmap) · 16 offset u64 · 24 length u64
 *   answer   0 tag u64 · 8 ok u32 · 12 0; several may come together
 *
 * Each side checks what it gets: a message that cannot be is undefined.
 */
import type { BlockOperation } from "./block-device.ts";
import { getWide, setWide, viewOf } from "./message-fields.ts";

export const REQUEST_BYTES = 32;
const ANSWER_BYTES = 16;
const KINDS = ["read", "write", "discard", "zeroes", "flush"] as const;
const UNMAP = 1;

/** An operation without the memory that it is about. */
export interface BlockRequest {
  readonly tag: number;
  readonly kind: BlockOperation["kind"];
  readonly offset: number;
  readonly length: number;
  readonly unmap: boolean;
}

export interface BlockAnswer {
  readonly tag: number;
  readonly ok: boolean;
}

export function encodeRequest(tag: number, operation: BlockOperation): Uint8Array {
  const bytes = new Uint8Array(REQUEST_BYTES);
  const view = viewOf(bytes);
  setWide(view, 0, tag);
  view.setUint32(8, KINDS.indexOf(operation.kind), true);
  if (operation.kind !== "flush") {
    setWide(view, 16, operation.offset);
    setWide(view, 24, operation.length);
  }
  if ("unmap" in operation) view.setUint32(12, operation.unmap ? UNMAP : 0, true);
  return bytes;
}

export function decodeRequest(bytes: Uint8Array): BlockRequest | undefined {
  if (bytes.length !== REQUEST_BYTES) return undefined;
  const view = viewOf(bytes);
  const tag = getWide(view, 0);
  const kind = KINDS[view.getUint32(8, true)];
  const offset = getWide(view, 16);
  const length = getWide(view, 24);
  const unmap = (view.getUint32(12, true) & UNMAP) !== 0;
  if (kind === undefined || ![tag, offset, length].every(Number.isSafeInteger)) return undefined;
  return { tag, kind, offset, length, unmap };
}

export function encodeAnswers(answers: readonly BlockAnswer[]): Uint8Array {
  const bytes = new Uint8Array(ANSWER_BYTES * answers.length);
  const view = viewOf(bytes);
  for (const [i, { tag, ok }] of answers.entries()) {
    setWide(view, ANSWER_BYTES * i, tag);
    view.setUint32(ANSWER_BYTES * i + 8, ok ? 1 : 0, true);
  }
  return bytes;
}

/** What is there of whole answers. */
export function decodeAnswers(bytes: Uint8Array): BlockAnswer[] {
  const view = viewOf(bytes);
  const answers: BlockAnswer[] = [];
  for (let at = 0; at + ANSWER_BYTES <= bytes.length; at += ANSWER_BYTES)
    answers.push({ tag: getWide(view, at), ok: view.getUint32(at + 8, true) === 1 });
  return answers;
}
