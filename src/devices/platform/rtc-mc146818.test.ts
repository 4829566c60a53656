import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { portAccesses, RecordingLine, TestClock, throughJson } from "../test-wires.ts";
import { RtcMc146818 } from "./rtc-mc146818.ts";

const [A, B, C, D] = [0x0a, 0x0b, 0x0c, 0x0d];
const SECOND = 1e9;

function setUp(time = "2026-11-24T23:59:58Z") {
  const clock = new TestClock();
  const irq = new RecordingLine();
  const rtc = new RtcMc146818({ irq, clock }, { epochMs: Date.parse(time), cmos: { 21: 0x80 } });
  const read = (index: number) => {
    rtc.writePort(0x70, 1, index);
    return rtc.readPort(0x71);
  };
  const write = (index: number, value: number) => {
    rtc.writePort(0x70, 1, index);
    rtc.writePort(0x71, 1, value);
  };
  const hex = (...indices: number[]) =>
    indices.map((index) => read(index).toString(16).padStart(2, "0")).join(" ");
  /** century year month day, hour minute second, weekday */
  const now = () => hex(0x32, 9, 8, 7, 4, 2, 0, 6);
  return { clock, irq, rtc, read, write, now };
}

describe("time", () => {
  test("BCD, 24 hours, century; it passes midnight and the end of a year", () => {
    const { clock, now } = setUp();
    assert.equal(now(), "20 26 11 24 23 59 58 03");
    clock.time = 2 * SECOND;
    assert.equal(now(), "20 26 11 25 00 00 00 04");
    const end = setUp("1999-12-31T23:59:59.250Z");
    end.clock.time = 0.75 * SECOND - 1;
    assert.equal(end.now(), "19 99 12 31 23 59 59 06");
    end.clock.time = 0.75 * SECOND;
    assert.equal(end.now(), "20 00 01 01 00 00 00 07");
  });

  test("time that the world is ahead is added to the millisecond, unless the clock is being set", () => {
    const { clock, rtc, now, write } = setUp();
    rtc.skip(86_400_000 + 1500);
    assert.equal(now(), "20 26 11 25 23 59 59 04");
    clock.time = SECOND / 2 - 1;
    assert.equal(now(), "20 26 11 25 23 59 59 04");
    clock.time = SECOND / 2;
    assert.equal(now(), "20 26 11 26 00 00 00 05");
    rtc.skip(0);
    assert.equal(now(), "20 26 11 26 00 00 00 05");
    write(B, 0x82);
    rtc.skip(10_000);
    assert.equal(now(), "20 26 11 26 00 00 00 05");
  });

  test("the format of register B holds for what is counted on, not for what stands there", () => {
    const { clock, write, read, now } = setUp("2026-01-01T12:30:10Z");
    write(B, 0x80 | 0x04);
    assert.equal(now().slice(0, 11), "20 26 01 01");
    for (const [index, value] of Object.entries({
      0: 10,
      2: 30,
      4: 0x8c,
      7: 1,
      8: 1,
      9: 26,
      50: 20,
    })) {
      write(Number(index), value);
    }
    write(B, 0x04);
    clock.time += 3600 * SECOND;
    assert.equal(read(4), 0x81, "1 pm in 12 hours");
    assert.equal(read(9), 26);
  });

  test("SET freezes the registers for the guest to write", () => {
    const { clock, write, now } = setUp();
    write(B, 0x82);
    clock.time = 10 * SECOND;
    assert.equal(now(), "20 26 11 24 23 59 58 03");
    for (const [index, value] of Object.entries({
      0: 0x56,
      2: 0x34,
      4: 0x12,
      7: 0x29,
      8: 2,
      9: 0x24,
    })) {
      write(Number(index), value);
    }
    write(B, 0x02);
    clock.time = 11 * SECOND;
    assert.equal(now(), "20 24 02 29 12 34 57 05");
  });

  test("leaving divider reset starts a second that ends 500 ms later, as Linux sets the clock", () => {
    const { clock, write, read } = setUp();
    clock.time = 123_456_789;
    write(A, 0x76);
    clock.time += 7 * SECOND;
    write(A, 0x26);
    clock.time += SECOND / 2 - 1;
    assert.equal(read(0), 0x58);
    assert.equal(read(A) & 0x80, 0x80);
    clock.time += 1;
    assert.equal(read(0), 0x59);
    assert.equal(read(A) & 0x80, 0);
  });

  test("UIP announces the update by 244 us at least and is clear while SET", () => {
    const { clock, read, write } = setUp();
    clock.time = SECOND - 3_000_000;
    assert.equal(read(A), 0x26);
    clock.time = SECOND - 244_000;
    assert.equal(read(A), 0xa6);
    write(B, 0x82);
    assert.equal(read(A), 0x26);
  });
});

describe("interrupts", () => {
  test("update-ended: each second, and the line stays until C is read", () => {
    const { clock, rtc, irq, read, write } = setUp();
    write(B, 0x12);
    assert.equal(clock.run(rtc, 3.5 * SECOND), 3);
    assert.equal(irq.rises, 1);
    assert.equal(read(C) & 0x90, 0x90);
    assert.equal(irq.level, false);
    assert.equal(read(C), 0);
    clock.run(rtc, 4 * SECOND);
    assert.equal(irq.rises, 2);
  });

  test("periodic: 1024 Hz and 8192 Hz", () => {
    for (const [rateBits, hertz] of [
      [6, 1024],
      [3, 8192],
    ]) {
      const { clock, rtc, write } = setUp();
      write(A, 0x20 | rateBits);
      write(B, 0x42);
      assert.equal(clock.run(rtc, SECOND), hertz);
    }
  });

  test("alarm: at its time, with don't-care bytes, also when nobody looked meanwhile", () => {
    const { clock, rtc, irq, read, write } = setUp("2026-01-01T00:00:00Z");
    for (const [index, value] of Object.entries({ 1: 0x05, 3: 0x01, 5: 0xff })) {
      write(Number(index), value);
    }
    write(B, 0x22);
    clock.run(rtc, 64.5 * SECOND);
    assert.equal(irq.level, false);
    clock.run(rtc, 65 * SECOND);
    assert.equal(irq.level, true);
    assert.equal(read(C) & 0xb0, 0xb0);
    clock.time = 7200 * SECOND;
    assert.equal(read(C) & 0x20, 0x20);
    clock.time += 50 * SECOND;
    assert.equal(read(C) & 0x20, 0);
  });

  test("nobody is woken while nothing is enabled", () => {
    assert.equal(setUp().rtc.deadline(), Number.POSITIVE_INFINITY);
  });
});

test("CMOS: RAM keeps what is written, D is valid and read-only, the index port reads nothing", () => {
  const { rtc, read, write } = setUp();
  assert.equal(read(0x15), 0x80);
  write(0x7f, 0x5a);
  assert.equal(read(0xff), 0x5a, "bit 7 is the NMI mask");
  write(D, 0);
  assert.equal(read(D), 0x80);
  assert.equal(rtc.readPort(0x70), 0xff);
});

test("any guest: bytes in range, deadlines ahead, and save, restore, continue equals continue", () => {
  fc.assert(
    fc.property(portAccesses([0x70, 0x71, 0x71]), fc.nat(200), (accesses, cut) => {
      const a = setUp();
      const b = setUp();
      for (const [i, access] of accesses.entries()) {
        a.clock.time += access.wait;
        b.clock.time = a.clock.time;
        if (i === cut) b.rtc.restore(throughJson(a.rtc.save()));
        const answers = (i < cut ? [a] : [a, b]).map(({ rtc, clock }) => {
          rtc.advance(clock.time);
          assert.ok(rtc.deadline() > clock.time);
          const value = access.port === 0x70 ? access.value % 16 : access.value;
          if (access.write) rtc.writePort(access.port, 1, value);
          return access.write ? 0 : rtc.readPort(access.port);
        });
        assert.ok(answers[0] >= 0 && answers[0] <= 0xff);
        assert.equal(answers.at(-1), answers[0]);
      }
    }),
    { numRuns: 60 },
  );
});
