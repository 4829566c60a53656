/**
 * Kernels with a gzip payload in a browser, which decompresses gzip only asynchronously: the payload is unpacked before the machine is
 * built, and the loader is given a decompressor that answers the result.
 */
import { isBzImage, parseBzImage } from "./boot/bzimage.ts";
import { type Decompressors, type KernelPayload, kernelPayload } from "./boot/payload.ts";

/** What a kernel of this file needs beyond the loader's own decoders. Never fails: what is wrong is said by the loader, if it gets there. */
export async function unpackAhead(kernel: Uint8Array, memoryBytes: number): Promise<Decompressors> {
  const payload = gzipPayload(kernel);
  // The loader refuses what does not fit, and before it unpacks anything.
  if (!payload || payload.size > memoryBytes) return {};
  try {
    const elf = await gunzip(payload);
    return { gzip: () => elf };
  } catch (error) {
    return {
      gzip: () => {
        throw error;
      },
    };
  }
}

function gzipPayload(kernel: Uint8Array): KernelPayload | undefined {
  if (!isBzImage(kernel)) return undefined;
  try {
    const payload = kernelPayload(parseBzImage(kernel));
    return payload?.format === "gzip" ? payload : undefined;
  } catch {
    return undefined;
  }
}

/** Exactly `size` bytes, so that a stream that unpacks to more than it says takes no memory. */
async function gunzip({ stream, size }: KernelPayload): Promise<Uint8Array> {
  const elf = new Uint8Array(size);
  let at = 0;
  const source = new Blob([stream as Uint8Array<ArrayBuffer>]).stream();
  const reader = source.pipeThrough(new DecompressionStream("gzip")).getReader();
  for (let next = await reader.read(); !next.done; next = await reader.read()) {
    const part: Uint8Array = next.value;
    if (at + part.length > size) throw new Error(`it unpacks to more than ${size} bytes`);
    elf.set(part, at);
    at += part.length;
  }
  if (at !== size) throw new Error(`it unpacks to ${at} bytes, not ${size}`);
  return elf;
}
