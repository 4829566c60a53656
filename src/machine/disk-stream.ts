/**
 * A disk at the other end of a block service's stream: requests in, answers out, one operation on the disk after the other.
 *
 * The service is suspect: what it asks is checked like a guest's request. A failure of the disk is an answer "not done", and a line of log
 * for the first of its kind, since a full host disk would otherwise only show as I/O errors in the guest.
 */
import { HypolithError } from "../base/errors.ts";
import { type BlockOperation, PIECE_BYTES } from "../devices/virtio/block-device.ts";
import { createAnswer, decodeRequest, encodeAnswer } from "../devices/virtio/block-message.ts";
import type { Io } from "../storage/block-port.ts";
import type { Disk } from "../storage/disk.ts";
import { DiskQueue } from "../storage/disk-queue.ts";

export interface DiskStreamWires {
  answer(bytes: Uint8Array): void;
  /** Why operations fail, once for each reason. */
  failed(text: string): void;
}

export class DiskStream {
  readonly #disk: Disk;
  readonly #wires: DiskStreamWires;
  readonly #queue = new DiskQueue();
  readonly #told = new Set<string>();

  constructor(disk: Disk, wires: DiskStreamWires) {
    this.#disk = disk;
    this.#wires = wires;
  }

  get isBusy(): boolean {
    return !this.#queue.isIdle;
  }

  take(bytes: Uint8Array): void {
    const request = decodeRequest(bytes);
    if (!request) return;
    const { tag, operation } = request;
    const isRead = operation.kind === "read";
    if (isRead && operation.length > PIECE_BYTES) {
      this.#wires.answer(encodeAnswer(tag, false));
      return;
    }
    const answer = createAnswer(tag, true, isRead ? operation.length : 0);
    this.#queue.submit(
      () => this.#carryOut(operation, answer.data),
      () => this.#wires.answer(answer.bytes),
      (error) => {
        this.#tell(operation.kind, error);
        this.#wires.answer(encodeAnswer(tag, false));
      },
    );
  }

  #carryOut(operation: BlockOperation, data: Uint8Array): Io<void> {
    const disk = this.#disk;
    switch (operation.kind) {
      case "read":
        return disk.read(operation.offset, data);
      case "write":
        return disk.write(operation.offset, operation.bytes);
      case "discard":
        return disk.discard(operation.offset, operation.length);
      case "zeroes":
        return disk.writeZeroes(operation.offset, operation.length, operation.unmap);
      case "flush":
        return disk.flush();
    }
  }

  #tell(kind: string, error: unknown): void {
    const message = error instanceof Error ? error.message : String(error);
    const code = error instanceof HypolithError ? error.code : message;
    if (this.#told.has(code)) return;
    this.#told.add(code);
    this.#wires.failed(`${kind} failed: ${message}`);
  }
}
