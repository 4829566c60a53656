/**
 * Core modules that have been made: once in a thread, and once at all if the embedder keeps bytes for us. To generate one takes longer than
 * anything else at the start of a machine, and it depends on nothing but our own code and the size of the memory.
 */
import type { MemoryShape, Signature } from "../ir/module.ts";
import { buildCoreModule, type CoreBytes } from "./core-module.ts";
import type { HotHandler } from "./run-loop.ts";

/** Bytes by name, made by this very code. What it answers must be what was put in, or nothing. */
export interface ArtifactStore {
  get(name: string): Uint8Array | undefined;
  put(name: string, bytes: Uint8Array): void;
}

export interface Core {
  readonly module: WebAssembly.Module;
  readonly signatures: ReadonlyMap<string, Signature>;
}

/** Of the shapes used last: a machine's, and those of its services' VMs. */
const KEPT = 4;
const made = new Map<string, Core>();
const LENGTH_BYTES = 4;

export function coreFor(
  memory: MemoryShape,
  hot: readonly HotHandler[],
  regions: boolean,
  artifacts?: ArtifactStore,
): Core {
  const name = `core-${memory.minimum}-${memory.maximum}${regions ? "-regions" : ""}`;
  const known = made.get(name);
  if (known) return known;
  const kept = artifacts?.get(name);
  const built = kept ? unpack(kept) : buildCoreModule(memory, hot, regions);
  if (!kept) artifacts?.put(name, pack(built));
  const core = {
    module: new WebAssembly.Module(built.bytes),
    signatures: built.signatures,
  };
  made.set(name, core);
  const [oldest] = made.keys();
  if (made.size > KEPT) made.delete(oldest!);
  return core;
}

/** Length of the signatures' text, the text, the module. */
function pack({ bytes, signatures }: CoreBytes): Uint8Array {
  const text = JSON.stringify([...signatures]);
  const packed = new Uint8Array(LENGTH_BYTES + text.length + bytes.length);
  new DataView(packed.buffer).setUint32(0, text.length, true);
  for (let i = 0; i < text.length; i++) packed[LENGTH_BYTES + i] = text.charCodeAt(i);
  packed.set(bytes, LENGTH_BYTES + text.length);
  return packed;
}

function unpack(packed: Uint8Array): CoreBytes {
  const length = new DataView(packed.buffer, packed.byteOffset).getUint32(0, true);
  let text = "";
  for (let i = 0; i < length; i++) text += String.fromCharCode(packed[LENGTH_BYTES + i]!);
  return {
    bytes: packed.subarray(LENGTH_BYTES + length),
    signatures: new Map(JSON.parse(text) as [string, Signature][]),
  };
}
