/**
 * What the block device and its medium say to each other when they are in different places.
 *
 *   request  0 tag u64 · 8 kind u32 · 12 flags u32 (bit 0: unmap) · 16 offset u64 · 24 length u64 · 32 data of a write
 *   answer   0 tag u64 · 8 ok u32 · 12 0 · 16 data of a read
 *
 * Each side checks what it gets: a message that cannot be is undefined.
 */
import type { BlockOperation } from "./block-device.ts";

export const REQUEST_BYTES = 32;
const ANSWER_BYTES = 16;
const KINDS = ["read", "write", "discard", "zeroes", "flush"] as const;
const UNMAP = 1;
const WORD = 2 ** 32;

const viewOf = (bytes: Uint8Array): DataView =>
  new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

function setWide(view: DataView, at: number, value: number): void {
  view.setUint32(at, value % WORD, true);
  view.setUint32(at + 4, Math.floor(value / WORD), true);
}

const getWide = (view: DataView, at: number): number =>
  view.getUint32(at, true) + view.getUint32(at + 4, true) * WORD;

export function encodeRequest(tag: number, operation: BlockOperation): Uint8Array {
  const data = operation.kind === "write" ? operation.bytes : undefined;
  const bytes = new Uint8Array(REQUEST_BYTES + (data?.length ?? 0));
  const view = viewOf(bytes);
  setWide(view, 0, tag);
  view.setUint32(8, KINDS.indexOf(operation.kind), true);
  if (operation.kind !== "flush") setWide(view, 16, operation.offset);
  if ("length" in operation) setWide(view, 24, operation.length);
  if ("unmap" in operation) view.setUint32(12, operation.unmap ? UNMAP : 0, true);
  if (data) bytes.set(data, REQUEST_BYTES);
  return bytes;
}

export function decodeRequest(
  bytes: Uint8Array,
): { tag: number; operation: BlockOperation } | undefined {
  if (bytes.length < REQUEST_BYTES) return undefined;
  const view = viewOf(bytes);
  const tag = getWide(view, 0);
  const kind = KINDS[view.getUint32(8, true)];
  const offset = getWide(view, 16);
  const length = getWide(view, 24);
  const unmap = (view.getUint32(12, true) & UNMAP) !== 0;
  const data = bytes.subarray(REQUEST_BYTES);
  if (kind === undefined || ![tag, offset, length].every(Number.isSafeInteger)) return undefined;
  if (kind === "flush") return { tag, operation: { kind } };
  if (kind === "write") return { tag, operation: { kind, offset, bytes: data } };
  if (kind === "read") return { tag, operation: { kind, offset, length } };
  return { tag, operation: { kind, offset, length, unmap } };
}

export function encodeAnswer(tag: number, ok: boolean, data?: Uint8Array): Uint8Array {
  const answer = createAnswer(tag, ok, data?.length ?? 0);
  if (data) answer.data.set(data);
  return answer.bytes;
}

/** An answer whose data is filled in where it is: it is as good as sent when it is read. */
export function createAnswer(
  tag: number,
  ok: boolean,
  length: number,
): { readonly bytes: Uint8Array; readonly data: Uint8Array } {
  const bytes = new Uint8Array(ANSWER_BYTES + length);
  const view = viewOf(bytes);
  setWide(view, 0, tag);
  view.setUint32(8, ok ? 1 : 0, true);
  return { bytes, data: bytes.subarray(ANSWER_BYTES) };
}

export function decodeAnswer(
  bytes: Uint8Array,
): { tag: number; ok: boolean; data: Uint8Array } | undefined {
  if (bytes.length < ANSWER_BYTES) return undefined;
  const view = viewOf(bytes);
  return {
    tag: getWide(view, 0),
    ok: view.getUint32(8, true) === 1,
    data: bytes.subarray(ANSWER_BYTES),
  };
}
