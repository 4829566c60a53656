/**
 * An .xz file that stores its content as it is: enough of an encoder for tests of the decoder's users.
 * Spec: "The .xz File Format" 1.1; LZMA2 chunks of control byte 1 and 2 (uncompressed).
 */
import { crc32 } from "node:zlib";

const STREAM_FLAGS = [0x00, 0x01];
const LARGEST_CHUNK = 0x10000;

export function storeXz(content: Uint8Array): Buffer {
  const blockHeader = withCrc(Buffer.from([0x02, 0x00, 0x21, 0x01, 0x16, 0, 0, 0]));
  const data = storedChunks(content);
  const index = Buffer.from([
    ...[0x00, 0x01],
    ...variableLength(blockHeader.length + data.length + 4),
    ...variableLength(content.length),
  ]);
  const paddedIndex = withCrc(padded(index));
  const backward = Buffer.alloc(6);
  backward.writeUInt32LE(paddedIndex.length / 4 - 1);
  backward.set(STREAM_FLAGS, 4);
  return Buffer.concat([
    ...[Buffer.from([0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00]), withCrc(Buffer.from(STREAM_FLAGS))],
    ...[blockHeader, padded(data), little32(crc32(content)), paddedIndex],
    ...[little32(crc32(backward)), backward, Buffer.from("YZ")],
  ]);
}

function storedChunks(content: Uint8Array): Buffer {
  const parts: Uint8Array[] = [];
  for (let at = 0; at < content.length; at += LARGEST_CHUNK) {
    const chunk = content.subarray(at, at + LARGEST_CHUNK);
    const size = chunk.length - 1;
    parts.push(Uint8Array.of(at === 0 ? 1 : 2, size >> 8, size & 0xff), chunk);
  }
  return Buffer.concat([...parts, Uint8Array.of(0)]);
}

function variableLength(value: number): number[] {
  const bytes: number[] = [];
  for (let rest = value; ; rest = Math.floor(rest / 128)) {
    if (rest < 128) return [...bytes, rest];
    bytes.push((rest & 0x7f) | 0x80);
  }
}

function padded(bytes: Buffer): Buffer {
  return Buffer.concat([bytes, Buffer.alloc(-bytes.length & 3)]);
}

function withCrc(bytes: Buffer): Buffer {
  return Buffer.concat([bytes, little32(crc32(bytes))]);
}

function little32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
}
