/**
 * What a group of rows comes to for each of our engines: speed against a peer, which is the peer's time by ours, so that more than 1 is
 * faster than the peer. The mean is the geometric one; the lowest row is where work is due.
 */
import { best, geometricMean } from "./statistics.ts";
import type { RowResult } from "./workload.ts";

export interface Summary {
  readonly engine: string;
  readonly peer: string;
  readonly rows: number;
  readonly meanSpeed: number;
  readonly lowest: { readonly name: string; readonly speed: number };
}

/** The best CPU seconds of a contestant; NaN if it has none. */
export function cpuOf({ samples }: RowResult, name: string): number {
  const own = samples[name];
  return own?.length ? best(own.map(({ cpu }) => cpu)) : Number.NaN;
}

export function speedOf(row: RowResult, engine: string, peer: string): number {
  return cpuOf(row, peer) / cpuOf(row, engine);
}

export function summarize(
  rows: readonly RowResult[],
  engine: string,
  peer: string,
): Summary | undefined {
  const speeds = rows
    .map((row) => ({ name: row.name, speed: speedOf(row, engine, peer) }))
    .filter(({ speed }) => Number.isFinite(speed))
    .sort((a, b) => a.speed - b.speed);
  const [lowest] = speeds;
  if (!lowest) return undefined;
  const meanSpeed = geometricMean(speeds.map(({ speed }) => speed));
  return { engine, peer, rows: speeds.length, meanSpeed, lowest };
}
