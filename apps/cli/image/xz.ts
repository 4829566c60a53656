/** The xz codec as a Node stream. */
import { Readable } from "node:stream";
import xz from "xz-decompress";

export function decompressXz(bytes: Uint8Array): Readable {
  const source = new ReadableStream<Uint8Array>({
    start(controller) {
      for (let at = 0; at < bytes.length; at += CHUNK) {
        controller.enqueue(bytes.subarray(at, at + CHUNK));
      }
      controller.close();
    },
  });
  return Readable.fromWeb(
    new xz.XzReadableStream(source) as Parameters<typeof Readable.fromWeb>[0],
  );
}

const CHUNK = 1 << 16;
