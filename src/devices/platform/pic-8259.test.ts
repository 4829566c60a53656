import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { portAccesses, RecordingLine, throughJson } from "../test-wires.ts";
import { PicPair } from "./pic-8259.ts";

const [MASTER, SLAVE, ELCR] = [0x20, 0xa0, 0x4d0];
const [EOI, READ_IRR, READ_ISR, POLL] = [0x20, 0x0a, 0x0b, 0x0c];
const PORTS = [MASTER, MASTER + 1, SLAVE, SLAVE + 1, ELCR, ELCR + 1];
const INPUTS = Array.from({ length: 16 }, (_, i) => i).filter((irq) => irq !== 2);

/** As Linux initialises the pair: vectors 0x30 and 0x38, everything unmasked. */
function setUp(icw4 = 0x01) {
  const intr = new RecordingLine();
  const pic = new PicPair({ intr });
  const write = (port: number, value: number) => pic.writePort(port, 1, value);
  for (const [base, vector, icw3] of [
    [MASTER, 0x30, 0x04],
    [SLAVE, 0x38, 0x02],
  ]) {
    write(base, 0x11);
    write(base + 1, vector);
    write(base + 1, icw3);
    write(base + 1, icw4);
    write(base + 1, 0);
  }
  const read = (port: number, command?: number) => {
    if (command !== undefined) write(port, command);
    return pic.readPort(port);
  };
  return { pic, intr, write, read };
}

test("after construction every line is masked and INTR is low", () => {
  const intr = new RecordingLine();
  const pic = new PicPair({ intr });
  for (const irq of INPUTS) pic.line(irq).set(true);
  assert.equal(intr.level, false);
  assert.equal(pic.readPort(MASTER + 1), 0xff);
  assert.throws(() => pic.line(2));
});

describe("requests", () => {
  test("Linux's probe reads back the mask that it wrote", () => {
    const { write, read } = setUp();
    write(MASTER + 1, 0xfb);
    assert.equal(read(MASTER + 1), 0xfb);
  });

  test("an edge is acknowledged once and stays in service until EOI", () => {
    const { pic, intr, write, read } = setUp();
    pic.line(4).set(true);
    assert.equal(intr.level, true);
    assert.equal(read(MASTER, READ_IRR), 0x10);
    assert.equal(pic.acknowledge(), 0x34);
    assert.equal(intr.level, false);
    assert.equal(read(MASTER, READ_IRR), 0);
    assert.equal(read(MASTER, READ_ISR), 0x10);
    pic.line(4).set(false);
    pic.line(4).set(true);
    assert.equal(intr.level, false, "a new edge waits for the EOI");
    write(MASTER, EOI);
    assert.equal(intr.level, true);
    assert.equal(pic.acknowledge(), 0x34);
  });

  test("a higher request interrupts a lower one in service, a lower one waits", () => {
    const { pic, intr, write } = setUp();
    pic.line(5).set(true);
    pic.acknowledge();
    pic.line(6).set(true);
    assert.equal(intr.level, false);
    pic.line(3).set(true);
    assert.equal(pic.acknowledge(), 0x33);
    write(MASTER, EOI);
    write(MASTER, EOI);
    assert.equal(pic.acknowledge(), 0x36);
  });

  test("a level line asks again after EOI for as long as it is asserted", () => {
    const { pic, intr, write, read } = setUp();
    write(ELCR, 0xff);
    write(ELCR + 1, 0xff);
    assert.equal(read(ELCR), 0xf8, "PIT, keyboard and cascade stay edge");
    assert.equal(read(ELCR + 1), 0xde, "RTC and FPU stay edge");
    pic.line(5).set(true);
    assert.equal(pic.acknowledge(), 0x35);
    write(MASTER, EOI);
    assert.equal(pic.acknowledge(), 0x35);
    pic.line(5).set(false);
    write(MASTER, EOI);
    assert.equal(intr.level, false);
  });

  test("a masked edge is remembered", () => {
    const { pic, intr, write } = setUp();
    write(MASTER + 1, 0x10);
    pic.line(4).set(true);
    assert.equal(intr.level, false);
    write(MASTER + 1, 0);
    assert.equal(intr.level, true);
  });
});

describe("cascade", () => {
  test("a slave request comes through IR2 and needs both EOIs", () => {
    const { pic, intr, write, read } = setUp();
    pic.line(8).set(true);
    assert.equal(pic.acknowledge(), 0x38);
    assert.equal(read(MASTER, READ_ISR), 0x04);
    assert.equal(read(SLAVE, READ_ISR), 0x01);
    pic.line(12).set(true);
    write(SLAVE, EOI);
    assert.equal(intr.level, false, "IR2 is still in service");
    write(MASTER, EOI);
    assert.equal(pic.acknowledge(), 0x3c);
  });

  test("special fully nested mode lets a higher slave request through", () => {
    const { pic, intr } = setUp(0x11);
    pic.line(12).set(true);
    assert.equal(pic.acknowledge(), 0x3c);
    pic.line(9).set(true);
    assert.equal(intr.level, true);
    assert.equal(pic.acknowledge(), 0x39);
  });
});

describe("spurious interrupts", () => {
  test("a request withdrawn before acknowledge is IR7 without an ISR bit", () => {
    const { pic, read } = setUp();
    pic.line(3).set(true);
    pic.line(3).set(false);
    assert.equal(pic.acknowledge(), 0x37);
    assert.equal(read(MASTER, READ_ISR), 0);
  });

  test("a slave that withdraws takes IR2 with it: the two INTA cycles are one step here", () => {
    const { pic, write, read } = setUp();
    pic.line(10).set(true);
    write(SLAVE + 1, 0xff);
    assert.equal(pic.acknowledge(), 0x37);
    write(SLAVE + 1, 0);
    assert.equal(pic.acknowledge(), 0x3a);
    assert.equal(read(MASTER, READ_ISR), 0x04);
  });
});

describe("commands", () => {
  test("automatic EOI leaves nothing in service, with rotation it goes to the bottom", () => {
    const { pic, write, read } = setUp(0x03);
    write(MASTER, 0x80);
    pic.line(0).set(true);
    assert.equal(pic.acknowledge(), 0x30);
    assert.equal(read(MASTER, READ_ISR), 0);
    for (const irq of [0, 1]) {
      pic.line(irq).set(false);
      pic.line(irq).set(true);
    }
    assert.equal(pic.acknowledge(), 0x31, "IR0 has the lowest priority now");
  });

  test("specific EOI, rotation on EOI and set priority", () => {
    const { pic, write, read } = setUp();
    pic.line(1).set(true);
    pic.acknowledge();
    pic.line(0).set(true);
    pic.acknowledge();
    write(MASTER, 0x61);
    assert.equal(read(MASTER, READ_ISR), 0x01);
    write(MASTER, 0xa0);
    assert.equal(read(MASTER, READ_ISR), 0);
    write(MASTER, 0xc3);
    for (const irq of [3, 4]) pic.line(irq).set(true);
    assert.equal(pic.acknowledge(), 0x34);
    write(MASTER, 0xe4);
    assert.equal(pic.acknowledge(), 0x33, "after IR4 the order begins at IR5");
  });

  test("special mask mode lets lower requests pass a masked one in service", () => {
    const { pic, intr, write, read } = setUp();
    pic.line(3).set(true);
    pic.acknowledge();
    pic.line(6).set(true);
    write(MASTER + 1, 0x08);
    assert.equal(intr.level, false);
    write(MASTER, 0x68);
    assert.equal(pic.acknowledge(), 0x36);
    write(MASTER, EOI);
    assert.equal(read(MASTER, READ_ISR), 0x08, "non-specific EOI spares the masked bit");
  });

  test("poll acknowledges in place of INTA", () => {
    const { pic, intr, read } = setUp();
    assert.equal(read(MASTER, POLL), 0);
    pic.line(6).set(true);
    assert.equal(read(MASTER, POLL), 0x86);
    assert.equal(intr.level, false);
    assert.equal(read(MASTER, READ_ISR), 0x40);
  });
});

test("any guest and any lines: INTR agrees with itself, vectors are the programmed ones, restore continues", () => {
  const lines = fc.array(fc.record({ irq: fc.constantFrom(...INPUTS), level: fc.boolean() }), {
    maxLength: 200,
    size: "max",
  });
  fc.assert(
    fc.property(portAccesses(PORTS), lines, (accesses, changes) => {
      const { pic, intr } = setUp();
      for (const [i, access] of accesses.entries()) {
        const change = changes[i];
        if (change) pic.line(change.irq).set(change.level);
        if (access.write) pic.writePort(access.port, 1, access.value & 0xff);
        else assert.ok((pic.readPort(access.port) & ~0xff) === 0);
        assert.equal(pic.isRequesting(), intr.level);
        if (access.value % 3 === 0) {
          const vector = pic.acknowledge();
          assert.ok(vector >= 0 && vector <= 0xff);
        }
      }
      const copy = new PicPair({ intr: new RecordingLine() });
      copy.restore(throughJson(pic.save()));
      assert.deepEqual(copy.save(), pic.save());
      assert.equal(copy.acknowledge(), pic.acknowledge());
    }),
    { numRuns: 60 },
  );
});
