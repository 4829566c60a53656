/**
 * The ledger: where a VM's time goes, by one clock that is read at every transition between guest, kernel and services.
 *
 * A stretch of time belongs to exactly one account, so the accounts sum up to the whole. A service runs on its donor's time: what it
 * used is charged to the vCPU whose exit it served, or to the VM for timers, input and signals.
 */
export interface Account {
  readonly name: string;
  /** Milliseconds of the embedder's monotonic clock. */
  ms: number;
}

export class Ledger {
  readonly guest: Account = { name: "guest", ms: 0 };
  readonly kernel: Account = { name: "kernel", ms: 0 };
  readonly #clock: () => number;
  #current: Account = this.kernel;
  #since = 0;
  #isRunning = false;

  /** `clock`: monotonic, in milliseconds. */
  constructor(clock: () => number) {
    this.#clock = clock;
  }

  /** The machine is given the thread. */
  resume(): void {
    this.#current = this.kernel;
    this.#since = this.#clock();
    this.#isRunning = true;
  }

  /** It gives it back. */
  pause(): void {
    this.to(this.kernel);
    this.#isRunning = false;
  }

  /** From now on it is the time of `account`; answers whose it was. */
  to(account: Account): Account {
    const before = this.#current;
    if (this.#isRunning) {
      const now = this.#clock();
      before.ms += now - this.#since;
      this.#since = now;
    }
    this.#current = account;
    return before;
  }

  now(): number {
    return this.#clock();
  }
}
