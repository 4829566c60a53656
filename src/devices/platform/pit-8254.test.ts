import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { portAccesses, RecordingLine, TestClock, throughJson } from "../test-wires.ts";
import { TickRate } from "../tick-rate.ts";
import { Pit8254 } from "./pit-8254.ts";

const [CONTROL, CONTROL_B] = [0x43, 0x61];
const rate = new TickRate(1_193_182);

function setUp() {
  const clock = new TestClock();
  const irq = new RecordingLine();
  const pit = new Pit8254({ irq, clock });
  const write = (port: number, ...values: number[]) => {
    for (const value of values) pit.writePort(port, 1, value);
  };
  const read = (port: number) => pit.readPort(port);
  /** Goes to the first nanosecond of a tick, through all deadlines. */
  const goTo = (tick: number) => clock.run(pit, rate.ns(tick));
  const program = (counter: number, mode: number, count: number) => {
    write(CONTROL, (counter << 6) | 0x30 | (mode << 1));
    write(0x40 + counter, count & 0xff, count >> 8);
  };
  const count = (counter: number) => {
    write(CONTROL, counter << 6);
    return read(0x40 + counter) | (read(0x40 + counter) << 8);
  };
  const status = (counter: number) => {
    write(CONTROL, 0xe0 | (2 << counter));
    return read(0x40 + counter);
  };
  return { clock, irq, pit, write, read, goTo, program, count, status };
}

type Port = ReturnType<typeof setUp>;

/** OUT of counter 2 at each of the ticks 1..n, as a string of H and L. */
function wave({ goTo, status }: Port, from: number, ticks: number): string {
  return Array.from({ length: ticks }, (_, i) => {
    goTo(from + i);
    return status(2) & 0x80 ? "H" : "L";
  }).join("");
}

describe("modes, as in the datasheet's timing diagrams (counter 2, count written at tick 0)", () => {
  const gate = (port: Port, on: boolean) => port.write(CONTROL_B, on ? 1 : 0);

  test("0: OUT rises N + 1 clocks after the write", () => {
    const port = setUp();
    gate(port, true);
    port.program(2, 0, 4);
    assert.equal(wave(port, 0, 8), "LLLLLHHH");
    assert.equal(port.count(2), 0x10000 - 2);
  });

  test("0: GATE low holds the count, a first byte stops it", () => {
    const port = setUp();
    gate(port, true);
    port.program(2, 0, 10);
    port.goTo(4);
    gate(port, false);
    assert.equal(port.count(2), 7);
    port.goTo(50);
    assert.equal(port.count(2), 7);
    gate(port, true);
    port.goTo(52);
    assert.equal(port.count(2), 5);
    port.write(0x42, 9);
    assert.equal(wave(port, 60, 3), "LLL");
  });

  test("1: a rising GATE starts a low pulse of N clocks, again restarts it", () => {
    const port = setUp();
    port.program(2, 1, 3);
    assert.equal(wave(port, 0, 3), "HHH");
    gate(port, true);
    assert.equal(wave(port, 3, 5), "LLLHH");
    gate(port, false);
    gate(port, true);
    port.goTo(9);
    gate(port, false);
    gate(port, true);
    assert.equal(wave(port, 10, 5), "LLLHH");
  });

  test("2: low for the last clock of each N; a new count waits for the end of the cycle", () => {
    const port = setUp();
    gate(port, true);
    port.program(2, 2, 3);
    assert.equal(wave(port, 1, 6), "HHLHHL");
    port.goTo(7);
    port.write(0x42, 4, 0);
    assert.equal(wave(port, 8, 8), "HLHHHLHH");
    gate(port, false);
    assert.equal(wave(port, 16, 3), "HHH");
  });

  test("3: high for half the count; an odd count is one clock longer high", () => {
    const even = setUp();
    gate(even, true);
    even.program(2, 3, 4);
    assert.equal(wave(even, 1, 8), "HHLLHHLL");
    const odd = setUp();
    gate(odd, true);
    odd.program(2, 3, 5);
    const seen = Array.from({ length: 10 }, (_, i) => {
      odd.goTo(1 + i);
      return odd.count(2);
    });
    assert.deepEqual(seen, [5, 4, 2, 5, 2, 5, 4, 2, 5, 2]);
    assert.equal(wave(odd, 11, 5), "HHHLL");
  });

  test("3: a new count takes over at the end of the half cycle", () => {
    const port = setUp();
    gate(port, true);
    port.program(2, 3, 8);
    port.goTo(2);
    port.write(0x42, 4, 0);
    assert.equal(wave(port, 3, 9), "HHLLHHLLH");
  });

  test("4 and 5: one low clock after N, by software or by GATE", () => {
    const software = setUp();
    gate(software, true);
    software.program(2, 4, 3);
    assert.equal(wave(software, 1, 6), "HHHLHH");
    const hardware = setUp();
    hardware.program(2, 5, 3);
    hardware.goTo(10);
    gate(hardware, true);
    assert.equal(wave(hardware, 11, 6), "HHHLHH");
  });
});

describe("programming", () => {
  test("latched count and status stand still and are read once", () => {
    const port = setUp();
    port.program(0, 2, 0x1234);
    port.goTo(1);
    port.write(CONTROL, 0xc2);
    port.goTo(0x100);
    assert.equal(port.read(0x40), 0xb4, "status first: OUT, both bytes, mode 2");
    assert.equal(port.read(0x40) | (port.read(0x40) << 8), 0x1234);
    assert.notEqual(port.count(0), 0x1234);
  });

  test("the null count flag is up from the write until the count is loaded", () => {
    const port = setUp();
    port.write(CONTROL, 0x34);
    assert.equal(port.status(0) & 0x40, 0x40);
    port.write(0x40, 0x10, 0);
    assert.equal(port.status(0) & 0x40, 0x40);
    port.goTo(1);
    assert.equal(port.status(0) & 0x40, 0);
  });

  test("BCD counts down decimally and wraps at 9999", () => {
    const port = setUp();
    port.write(CONTROL, 0x31);
    port.write(0x40, 0x00, 0x10);
    port.goTo(2);
    assert.equal(port.count(0), 0x0999);
    port.goTo(1 + 1001);
    assert.equal(port.count(0), 0x9999);
  });

  test("single byte access modes", () => {
    const port = setUp();
    port.write(CONTROL, 0x14);
    port.write(0x40, 0x80);
    port.goTo(1);
    assert.equal(port.read(0x40), 0x80);
    port.write(CONTROL, 0x24);
    port.write(0x40, 0x12);
    port.goTo(2);
    assert.equal(port.read(0x40), 0x12);
  });
});

describe("interrupt of counter 0", () => {
  test("mode 2 at 250 Hz interrupts exactly 250 times a second, without drift", () => {
    const port = setUp();
    port.program(0, 2, 4773);
    assert.equal(port.clock.run(port.pit, 10e9), 2499);
    assert.equal(port.irq.rises, 2499 + 1, "the control word itself raised OUT");
    assert.equal(Math.floor((10 * 1_193_182 - 1) / 4773), 2499);
  });

  test("one shot modes 0 and 4 interrupt once", () => {
    for (const [mode, at] of [
      [0, 101],
      [4, 102],
    ]) {
      const port = setUp();
      port.program(0, mode, 100);
      const { rises } = port.irq;
      assert.equal(port.pit.deadline(), rate.ns(at));
      port.goTo(at - 1);
      assert.equal(port.irq.rises, rises);
      port.goTo(1e6);
      assert.equal(port.irq.rises, rises + 1);
      assert.equal(port.pit.deadline(), Number.POSITIVE_INFINITY);
    }
  });

  test("a late embedder sees one edge, and the phase is kept", () => {
    const port = setUp();
    port.program(0, 2, 1000);
    port.clock.time = rate.ns(10_500);
    const { rises } = port.irq;
    port.pit.advance(port.clock.time);
    assert.equal(port.irq.rises, rises + 1);
    assert.equal(port.pit.deadline(), rate.ns(11_001));
  });
});

test("port 0x61: gate and OUT of counter 2, refresh toggles every 15 us, no parity error", () => {
  const port = setUp();
  port.write(CONTROL_B, 0x01);
  port.program(2, 0, 100);
  assert.equal(port.read(CONTROL_B) & ~0x10, 0x01);
  port.goTo(101);
  assert.equal(port.read(CONTROL_B) & ~0x10, 0x21);
  let toggles = 0;
  for (let tick = 101, last = 0; tick < 101 + 1800; tick++) {
    port.goTo(tick);
    const bit = port.read(CONTROL_B) & 0x10;
    if (bit !== last) toggles++;
    last = bit;
  }
  assert.ok(toggles >= 100 && toggles <= 101);
});

test("any guest: bytes in range, deadlines ahead, and save, restore, continue equals continue", () => {
  const ports = [0x40, 0x41, 0x42, CONTROL, CONTROL, CONTROL_B];
  fc.assert(
    fc.property(portAccesses(ports), fc.nat(200), (accesses, cut) => {
      const a = setUp();
      const b = setUp();
      for (const [i, access] of accesses.entries()) {
        a.clock.time += access.wait;
        b.clock.time = a.clock.time;
        if (i === cut) b.pit.restore(throughJson(a.pit.save()));
        const answers = (i < cut ? [a] : [a, b]).map(({ pit, clock }) => {
          pit.advance(clock.time);
          assert.ok(pit.deadline() > clock.time);
          if (access.write) pit.writePort(access.port, 1, access.value);
          return access.write ? 0 : pit.readPort(access.port);
        });
        assert.ok(answers[0] >= 0 && answers[0] <= 0xff);
        assert.equal(answers.at(-1), answers[0]);
      }
    }),
    { numRuns: 100 },
  );
});
