/**
 * The block port: bytes by offset on something of the embedder's, such as a file; and how formats wait for it.
 *
 * A port may answer at once (files in a worker) or later (a service's messages, network): its methods return nothing when the work
 * is done, or a PromiseLike when it is not. Formats are generators (Io) that yield only what is not done yet, so one text serves both:
 * `runNow` never waits, `start` waits with callbacks and needs no event loop, `toPromise` is for ordinary asynchronous code.
 */
import { HypolithError } from "../base/errors.ts";

/** undefined: done. Failures are thrown, or reject. */
export type Done = void | PromiseLike<void>;

export interface BlockPort {
  /** Bytes at present; grows with writes beyond it. */
  readonly size: number;
  readonly readOnly: boolean;
  /** Fills `into`; what lies beyond the end reads as zeros. */
  read(offset: number, into: Uint8Array): Done;
  /** The port has copied `bytes` when it is done. */
  write(offset: number, bytes: Uint8Array): Done;
  /** Everything written before is safe from a power failure when it is done. */
  flush(): Done;
  /** Cuts the end off, or adds zeros. */
  truncate(size: number): Done;
}

/** Work on ports that ends with a T. */
export type Io<T> = Generator<PromiseLike<void>, T, void>;

/** For ports that answer at once. Throws HypolithError "io-not-ready" if one does not. */
export function runNow<T>(io: Io<T>): T {
  const step = io.next();
  if (step.done) return step.value;
  throw new HypolithError("io-not-ready", "a block port answers later where only now will do");
}

/** Runs until done or failed, whenever that is; `done` and `failed` may be called before this returns. */
export function start<T>(
  io: Io<T>,
  done: (value: T) => void,
  failed: (error: unknown) => void,
): void {
  const go = (resume: () => IteratorResult<PromiseLike<void>, T>): void => {
    let step: IteratorResult<PromiseLike<void>, T>;
    try {
      step = resume();
    } catch (error) {
      failed(error);
      return;
    }
    if (step.done) done(step.value);
    else
      step.value.then(
        () => go(() => io.next()),
        (error: unknown) => go(() => io.throw(error)),
      );
  };
  go(() => io.next());
}

export const toPromise = <T>(io: Io<T>): Promise<T> =>
  new Promise((resolve, reject) => start(io, resolve, reject));
