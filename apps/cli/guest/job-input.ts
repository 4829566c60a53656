/**
 * The host's standard input on its way to a job: one block for each time the guest asks.
 *
 * Reads nothing before it is asked, so a job that wants no input leaves ours to the next command.
 */
import type { Readable } from "node:stream";

/** Well below what the kernel's serial receiver holds (64 KiB in the oldest kernels) while nobody reads. */
const LARGEST_BLOCK = 32768;

export class JobInput {
  readonly #source: Readable;
  readonly #send: (bytes: Uint8Array) => void;
  #wanted = false;
  #ended = false;
  #listening = false;

  constructor(source: Readable, send: (bytes: Uint8Array) => void) {
    this.#source = source;
    this.#send = send;
  }

  /** The guest waits for a block. */
  get isWanted(): boolean {
    return this.#wanted;
  }

  /** Send the next block as soon as there is one. */
  next(): void {
    this.#wanted = true;
    if (!this.#listening) this.#listen();
    this.#offer();
  }

  #listen(): void {
    this.#listening = true;
    const end = (): void => {
      this.#ended = true;
      this.#offer();
    };
    this.#source.on("readable", () => this.#offer());
    this.#source.once("end", end);
    // A terminal that goes away, a descriptor that cannot be read: for the job, the end.
    this.#source.once("error", end);
  }

  #offer(): void {
    if (!this.#wanted) return;
    const block = this.#ended ? undefined : this.#read();
    if (!block && !this.#ended) return;
    this.#wanted = false;
    const length = Buffer.from(`${block?.length ?? 0}\n`);
    this.#send(block ? Buffer.concat([length, block]) : length);
  }

  #read(): Buffer | undefined {
    const available = this.#source.readableLength;
    const block = this.#source.read(Math.min(available, LARGEST_BLOCK) || undefined);
    if (!block || block.length <= LARGEST_BLOCK) return block ?? undefined;
    this.#source.unshift(block.subarray(LARGEST_BLOCK));
    return block.subarray(0, LARGEST_BLOCK);
  }
}
