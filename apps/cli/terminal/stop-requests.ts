/**
 * Signals that ask us to stop. The first one asks, the second one insists.
 *
 * While nothing runs yet, a request aborts `signal`. Once a machine runs, its handler decides.
 * bin/hypo passes signals on, and a terminal sends Ctrl-C to both it and us: two SIGINT at once are one request.
 */
const STOP_SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT"] as const;
export type StopSignal = (typeof STOP_SIGNALS)[number];

const NUMBERS: Readonly<Record<StopSignal, number>> = {
  SIGINT: 2,
  SIGTERM: 15,
  SIGHUP: 1,
  SIGQUIT: 3,
};
const SAME_REQUEST_MS = 100;

export class StopRequests {
  readonly #abort = new AbortController();
  #handler: ((signal: StopSignal, count: number) => void) | undefined;
  #count = 0;
  #first: StopSignal | undefined;
  #lastAt = Number.NEGATIVE_INFINITY;

  constructor() {
    for (const signal of STOP_SIGNALS) process.on(signal, () => this.request(signal));
    // bin/hypo in front of us died without a word; who started it cannot see us any more.
    process.once("disconnect", () => this.request("SIGHUP"));
    process.channel?.unref();
  }

  /** Aborted by the first request. */
  get signal(): AbortSignal {
    return this.#abort.signal;
  }

  /** 128 + the number of the first signal, as shells count. */
  get exitCode(): number | undefined {
    return this.#first && 128 + NUMBERS[this.#first];
  }

  /** From now on requests are the handler's; `count` is 1 for the first. One that came before is repeated to it. */
  handle(handler: (signal: StopSignal, count: number) => void): void {
    this.#handler = handler;
    if (this.#first) handler(this.#first, this.#count);
  }

  request(signal: StopSignal): void {
    const now = performance.now();
    const repeated = this.#first === signal && now - this.#lastAt < SAME_REQUEST_MS;
    this.#lastAt = now;
    if (repeated) return;
    this.#first ??= signal;
    this.#count += 1;
    this.#abort.abort(new StoppedError(signal));
    if (this.#handler) this.#handler(signal, this.#count);
    else if (this.#count > 1) process.exit(this.exitCode);
  }
}

/** Why work was given up: the user asked for it. */
export class StoppedError extends Error {
  constructor(signal: StopSignal) {
    super(`stopped by ${signal}`);
    this.name = "StoppedError";
  }
}
