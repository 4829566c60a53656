/**
 * The exit log: one record per VM exit, kept as the last few for crash dumps and given out as lines when traced.
 * In deterministic mode the lines of two runs are equal.
 */
import { exitReasonName } from "../../processor/isa/exit-reasons.ts";
import { formatTransition, GUEST, TransitionLog } from "./transition-log.ts";

export interface ExitRecord {
  seq: number;
  vcpu: number;
  /** Virtual time in ns. */
  time: number;
  /** Guest instructions executed in all. */
  retired: number;
  reason: number;
  qualification: number;
  rip: bigint;
}

const KEPT = 32;

export class ExitLog {
  readonly #records: ExitRecord[] = Array.from({ length: KEPT }, () => ({
    seq: -1,
    vcpu: 0,
    time: 0,
    retired: 0,
    reason: 0,
    qualification: 0,
    rip: 0n,
  }));
  readonly #counts = new Map<number, number>();
  #sink: ((line: string) => void) | null = null;
  #seq = 0;
  readonly transitions = new TransitionLog();

  /** Sends every record as a line, and what services' VMs do between two. */
  trace(sink: (line: string) => void): void {
    this.#sink = sink;
    this.transitions.watch((t) => {
      if (t.vm !== GUEST) sink(formatTransition(t));
    });
  }

  get isTraced(): boolean {
    return this.#sink !== null;
  }

  /** A line between the records: a message to a service, a restart. */
  note(line: string): void {
    this.#sink?.(line);
  }

  get total(): number {
    return this.#seq;
  }

  /** Goes on with the numbers of another log; its records are not there. */
  continueAt(seq: number): void {
    this.#seq = seq;
    for (const record of this.#records) record.seq = -1;
  }

  /** Exits by basic reason, most frequent first. */
  counts(): [string, number][] {
    return [...this.#counts]
      .sort((a, b) => b[1] - a[1])
      .map(([reason, n]) => [exitReasonName(reason), n]);
  }

  record(fields: Omit<ExitRecord, "seq">): void {
    const r = this.#records[this.#seq % KEPT]!;
    Object.assign(r, fields);
    r.seq = this.#seq++;
    this.#counts.set(r.reason & 0xffff, (this.#counts.get(r.reason & 0xffff) ?? 0) + 1);
    this.#sink?.(formatExit(r));
  }

  /** The last exits, oldest first. */
  last(count = 8): ExitRecord[] {
    const from = Math.max(0, this.#seq - Math.min(count, KEPT));
    const records = Array.from(
      { length: this.#seq - from },
      (_, i) => this.#records[(from + i) % KEPT]!,
    );
    return records.filter(({ seq }) => seq >= 0);
  }
}

export function formatExit(r: ExitRecord): string {
  return (
    `${r.seq} vcpu${r.vcpu} t=${r.time} n=${r.retired} ${exitReasonName(r.reason)} ` +
    `q=${r.qualification.toString(16)} rip=${r.rip.toString(16)}`
  );
}
