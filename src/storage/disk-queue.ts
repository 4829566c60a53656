/**
 * One operation on a disk after the other, in the order in which they were asked for, with callbacks: for whoever has many at once.
 * An operation whose ports answer at once is done when `submit` returns, unless another is under way.
 */
import { type Io, start } from "./block-port.ts";

interface Waiting {
  readonly work: () => Io<void>;
  readonly done: () => void;
  readonly failed: (error: unknown) => void;
}

export class DiskQueue {
  readonly #waiting: Waiting[] = [];
  #isBusy = false;

  submit(work: () => Io<void>, done: () => void, failed: (error: unknown) => void): void {
    this.#waiting.push({ work, done, failed });
    if (!this.#isBusy) this.#run();
  }

  get isIdle(): boolean {
    return !this.#isBusy && this.#waiting.length === 0;
  }

  /** A loop, so that operations that are done at once do not nest. */
  #run(): void {
    for (let next = this.#waiting.shift(); next; next = this.#waiting.shift()) {
      const { work, done, failed } = next;
      let isDone = false;
      let isLate = false;
      this.#isBusy = true;
      const settle = (tell: () => void): void => {
        this.#isBusy = false;
        isDone = true;
        tell();
        if (isLate) this.#run();
      };
      start(
        work(),
        () => settle(done),
        (error) => settle(() => failed(error)),
      );
      if (!isDone) {
        isLate = true;
        return;
      }
    }
  }
}
