/**
 * How long both sides of a mailbox look before they sleep, chosen by what it costs here and now.
 *
 * With a processor to spare, looking finds the reply in a microsecond or two, where a sleep costs ten or more. With none to spare, who looks
 * keeps the other from running, and it costs a hundred times as much. Nobody says which it is, and it changes; so both are
 * tried now and then, and the cheaper one is used in between.
 */

/** Looks before sleeping. */
const CHOICES = [0, 2000] as const;
const TRIED_CALLS = 16;
const USED_CALLS = 1500;
/** One call that meets something else is not the whole story. */
const MOST_MS = 0.5;

export class SpinChoice {
  #trying = 0;
  #left = TRIED_CALLS;
  #cost = 0;
  readonly #costs: number[] = [];
  #spins: number = CHOICES[0];

  /** For the next call. */
  get spins(): number {
    return this.#spins;
  }

  /** A call has taken `ms`. */
  took(ms: number): void {
    this.#cost += Math.min(ms, MOST_MS);
    if (--this.#left > 0) return;
    if (this.#trying < CHOICES.length) {
      this.#costs[this.#trying++] = this.#cost;
      if (this.#trying < CHOICES.length) this.#use(CHOICES[this.#trying]!, TRIED_CALLS);
      else this.#use(this.#cheapest(), USED_CALLS);
      return;
    }
    this.#trying = 0;
    this.#use(CHOICES[0], TRIED_CALLS);
  }

  #use(spins: number, calls: number): void {
    this.#spins = spins;
    this.#left = calls;
    this.#cost = 0;
  }

  #cheapest(): number {
    const best = Math.min(...this.#costs);
    return CHOICES[this.#costs.indexOf(best)]!;
  }
}
