/** An interrupt port that a criterion plays by hand. */
import { type InterruptPort, Request } from "../../src/processor/vmx/interrupt-port.ts";

export class TestInterrupts implements InterruptPort {
  /** Vectors that ask, in the order in which they are acknowledged. */
  readonly pending: number[] = [];
  readonly acknowledged: number[] = [];
  readonly level = new Set<number>();
  ends = 0;
  nmi = false;
  nmisTaken = 0;
  /** At this TSC `arrive` is called, once. */
  nextAt = Infinity;
  arrive: () => void = () => {};
  now: () => number = () => 0;

  request(): number {
    this.#look();
    return this.pending.length > 0 ? Request.APIC : Request.NONE;
  }

  /** Asked first of all at every boundary that is looked at. */
  #look(): void {
    if (this.now() < this.nextAt) return;
    this.nextAt = Infinity;
    this.arrive();
  }

  acknowledge(): number {
    const vector = this.pending.shift() ?? 0xff;
    this.acknowledged.push(vector);
    return vector;
  }

  isLevel(vector: number): boolean {
    return this.level.has(vector);
  }

  end(): void {
    this.ends++;
  }

  takeNmi(): void {
    this.nmi = false;
    this.nmisTaken++;
  }
}
