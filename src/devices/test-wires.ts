/** What the tests of devices are wired to: a clock turned by hand, lines that remember, and random guest accesses. */
import fc from "fast-check";
import type { Clock, IrqLine, PortSize, TimedDevice } from "./model.ts";

export class TestClock implements Clock {
  time = 0;

  now(): number {
    return this.time;
  }

  /** Goes to `time`, stopping at each deadline of `device` on the way; answers how often it stopped. */
  run(device: TimedDevice, time: number): number {
    let stops = 0;
    for (let next = device.deadline(); next <= time; next = device.deadline()) {
      this.time = Math.max(this.time, next);
      device.advance(this.time);
      stops++;
    }
    this.time = time;
    device.advance(time);
    return stops;
  }
}

export class RecordingLine implements IrqLine {
  level = false;
  rises = 0;

  set(level: boolean): void {
    if (level && !this.level) this.rises++;
    this.level = level;
  }
}

export interface PortAccess {
  readonly port: number;
  readonly size: PortSize;
  readonly value: number;
  readonly write: boolean;
  readonly wait: number;
}

/** Random accesses to the given ports, with random pauses up to about ten seconds. */
export function portAccesses(ports: readonly number[]): fc.Arbitrary<PortAccess[]> {
  return fc.array(
    fc.record({
      port: fc.constantFrom(...ports),
      size: fc.constantFrom(1 as const, 2 as const, 4 as const),
      value: fc.oneof(fc.nat(0xff), fc.nat(0xffff_ffff)),
      write: fc.boolean(),
      wait: fc.oneof(fc.nat(2000), fc.nat(1e7), fc.nat(1e10)),
    }),
    { maxLength: 200, size: "max" },
  );
}

/** JSON there and back, keeping byte arrays: what a snapshot file does to a saved state. */
export function throughJson(state: unknown): unknown {
  const text = JSON.stringify(state, (_, value) =>
    value instanceof Uint8Array ? { bytes: [...value] } : value,
  );
  return JSON.parse(text, (_, value) =>
    Array.isArray(value?.bytes) ? Uint8Array.from(value.bytes) : value,
  );
}
