/**
 * A disk at the other end of a block service's stream: requests in, answers out, one operation on the disk after the other.
 *
 * Data goes straight between the disk and guest memory while nobody else runs, so a disk's ports have to answer at once: one that would
 * fill guest memory later could do so after the guest has reset the device and used the memory for something else.
 *
 * The service is suspect: what it asks is checked like a guest's request. A failure of the disk is an answer "not done", and a line of log
 * for the first of its kind, since a full host disk would otherwise only show as I/O errors in the guest.
 */
import { HypolithError } from "../base/errors.ts";
import { PIECE_BYTES } from "../devices/virtio/block-device.ts";
import {
  type BlockAnswer,
  type BlockRequest,
  decodeRequest,
  encodeAnswers,
} from "../devices/virtio/block-message.ts";
import { runNow } from "../storage/block-port.ts";
import type { Disk } from "../storage/disk.ts";
import { lengthOf, scatter, WholeBuffer } from "./scattered.ts";
import type { StreamServer } from "./stream-server.ts";

const NO_MEMORY: readonly Uint8Array[] = [];

export class DiskStream implements StreamServer {
  readonly #disk: Disk;
  /** Why operations fail, once for each reason. */
  readonly #failed: (text: string) => void;
  readonly #told = new Set<string>();
  #answers: BlockAnswer[] = [];
  /** What a request in many pieces of memory is put together in: the disk wants one. */
  readonly #whole = new WholeBuffer();

  constructor(disk: Disk, failed: (text: string) => void) {
    this.#disk = disk;
    this.#failed = failed;
  }

  /** A request without data. */
  take(header: Uint8Array): void {
    this.#handle(header, NO_MEMORY, false);
  }

  move(toMemory: boolean, header: Uint8Array, memory: readonly Uint8Array[]): void {
    this.#handle(header, memory, toMemory);
  }

  get hasMore(): boolean {
    return this.#answers.length > 0;
  }

  give(): Uint8Array | null {
    const answers = this.#answers;
    if (answers.length === 0) return null;
    this.#answers = [];
    return encodeAnswers(answers);
  }

  /** Answers that nobody has asked for yet. */
  save(): unknown {
    return this.#answers.map((answer) => ({ ...answer }));
  }

  restore(state: unknown): void {
    const isAnswer = ({ tag, ok }: Partial<BlockAnswer>): boolean =>
      Number.isSafeInteger(tag) && typeof ok === "boolean";
    if (!Array.isArray(state) || !state.every(isAnswer))
      throw new HypolithError("snapshot-shape", "the saved end of a disk does not fit");
    this.#answers = state as BlockAnswer[];
  }

  #handle(header: Uint8Array, memory: readonly Uint8Array[], toMemory: boolean): void {
    const request = decodeRequest(header);
    if (!request) return;
    const { tag, kind, length } = request;
    const moved = lengthOf(memory);
    const isTransfer = kind === "read" || kind === "write";
    const fits = isTransfer
      ? moved === length && moved <= PIECE_BYTES && toMemory === (kind === "read")
      : moved === 0;
    let ok = fits;
    try {
      if (fits) this.#carryOut(request, memory);
    } catch (error) {
      ok = false;
      this.#tell(kind, error);
    }
    this.#answers.push({ tag, ok });
  }

  #carryOut({ kind, offset, length, unmap }: BlockRequest, memory: readonly Uint8Array[]): void {
    const disk = this.#disk;
    if (kind === "read") this.#read(offset, length, memory);
    // A copy, also of one piece: what is judged must be what is written.
    else if (kind === "write") runNow(disk.write(offset, this.#whole.gather(memory, length)));
    else if (kind === "discard") runNow(disk.discard(offset, length));
    else if (kind === "zeroes") runNow(disk.writeZeroes(offset, length, unmap));
    else runNow(disk.flush());
  }

  #read(offset: number, length: number, memory: readonly Uint8Array[]): void {
    if (memory.length === 1) {
      runNow(this.#disk.read(offset, memory[0]!));
      return;
    }
    const whole = this.#whole.room(length);
    runNow(this.#disk.read(offset, whole));
    scatter(whole, memory);
  }

  #tell(kind: string, error: unknown): void {
    const message = error instanceof Error ? error.message : String(error);
    const code = error instanceof HypolithError ? error.code : message;
    if (this.#told.has(code)) return;
    this.#told.add(code);
    this.#failed(`${kind} failed: ${message}`);
  }
}
