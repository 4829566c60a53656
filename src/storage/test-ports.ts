/** Block ports for tests: one that answers later, one that remembers what a crash could leave, one on a file. */
import { closeSync, fstatSync, ftruncateSync, openSync, readSync, writeSync } from "node:fs";
import type { BlockPort } from "./block-port.ts";
import { MemoryPort } from "./memory-port.ts";

/** Every answer comes in a later turn of the event loop. */
export class LaterPort implements BlockPort {
  readonly readOnly = false;
  readonly #inner = new MemoryPort();

  get size(): number {
    return this.#inner.size;
  }

  read(offset: number, into: Uint8Array): PromiseLike<void> {
    return this.#later(() => this.#inner.read(offset, into));
  }

  write(offset: number, bytes: Uint8Array): PromiseLike<void> {
    return this.#later(() => this.#inner.write(offset, bytes));
  }

  flush(): PromiseLike<void> {
    return this.#later(() => {});
  }

  truncate(size: number): PromiseLike<void> {
    return this.#later(() => this.#inner.truncate(size));
  }

  async #later(work: () => void): Promise<void> {
    await new Promise((resolve) => setImmediate(resolve));
    work();
  }
}

interface Written {
  readonly offset: number;
  readonly bytes: Uint8Array;
}

const SECTOR_BYTES = 512;

/** Keeps all writes in order, and where the flushes were between them. */
export class CrashPort implements BlockPort {
  readonly readOnly = false;
  readonly #now = new MemoryPort();
  readonly writes: Written[] = [];
  /** number of writes before each flush */
  readonly flushes: number[] = [];

  get size(): number {
    return this.#now.size;
  }

  read(offset: number, into: Uint8Array): void {
    this.#now.read(offset, into);
  }

  write(offset: number, bytes: Uint8Array): void {
    this.writes.push({ offset, bytes: bytes.slice() });
    this.#now.write(offset, bytes);
  }

  flush(): void {
    this.flushes.push(this.writes.length);
  }

  truncate(size: number): void {
    this.#now.truncate(size);
  }

  /** What the death of the process leaves after `count` writes. */
  afterWrites(count: number): MemoryPort {
    const port = new MemoryPort();
    for (const { offset, bytes } of this.writes.slice(0, count)) port.write(offset, bytes);
    return port;
  }

  /**
   * What a power failure leaves after `count` writes: all up to the last flush before, and of the later ones those sectors
   * that `isKept` picks.
   */
  afterPowerFailure(count: number, isKept: () => boolean): MemoryPort {
    const safe = this.flushes.findLast((writes) => writes <= count) ?? 0;
    const port = this.afterWrites(safe);
    for (const { offset, bytes } of this.writes.slice(safe, count)) {
      for (let at = 0; at < bytes.length; ) {
        const next = Math.min(bytes.length, at + SECTOR_BYTES - ((offset + at) % SECTOR_BYTES));
        if (isKept()) port.write(offset + at, bytes.subarray(at, next));
        at = next;
      }
    }
    return port;
  }
}

export class FilePort implements BlockPort {
  readonly readOnly: boolean;
  readonly #file: number;

  constructor(path: string, mode: "r" | "r+" | "w+" = "r+") {
    this.readOnly = mode === "r";
    this.#file = openSync(path, mode);
  }

  get size(): number {
    return fstatSync(this.#file).size;
  }

  read(offset: number, into: Uint8Array): void {
    const count = readSync(this.#file, into, 0, into.length, offset);
    into.fill(0, count);
  }

  write(offset: number, bytes: Uint8Array): void {
    writeSync(this.#file, bytes, 0, bytes.length, offset);
  }

  flush(): void {}

  truncate(size: number): void {
    ftruncateSync(this.#file, size);
  }

  close(): void {
    closeSync(this.#file);
  }
}
