import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { portAccesses, RecordingLine, TestClock, throughJson } from "../test-wires.ts";
import { Uart16550a } from "./uart-16550a.ts";

const BASE = 0x3f8;
const [DATA, IER, IIR, LCR, MCR, LSR, MSR, SCR] = [0, 1, 2, 3, 4, 5, 6, 7];
const FCR = IIR;
const DLAB = 0x80;

function setUp() {
  const clock = new TestClock();
  const irq = new RecordingLine();
  const sent: number[] = [];
  let ready = 0;
  const uart = new Uart16550a({
    irq,
    clock,
    output: (byte) => sent.push(byte),
    receiveReady: () => ready++,
  });
  const read = (register: number) => uart.readPort(BASE + register);
  const write = (register: number, value: number) => uart.writePort(BASE + register, 1, value);
  return { clock, irq, sent, uart, read, write, readyCount: () => ready };
}

/** As a driver leaves it: FIFOs on, trigger 8, DTR RTS OUT2, 115200 8N1. */
function opened() {
  const port = setUp();
  port.write(LCR, 0x03);
  port.write(FCR, 0x81);
  port.write(MCR, 0x0b);
  return port;
}

const bytes = (count: number) => Uint8Array.from({ length: count }, (_, i) => i + 1);

describe("Linux 8250 probing", () => {
  test("autoconfig finds a 16550A and no relative of it", () => {
    const { read, write } = setUp();
    write(IER, 0);
    assert.equal(read(IER) & 0x0f, 0);
    write(IER, 0xff);
    assert.equal(read(IER), 0x0f, "no sleep mode and no UUE bit");
    write(IER, 0);
    write(MCR, 0x10 | 0x0a);
    assert.equal(read(MSR) & 0xf0, 0x90, "loopback test");
    write(MCR, 0);
    write(LCR, 0xbf);
    write(IIR, 0);
    write(LCR, 0);
    write(FCR, 1);
    assert.equal(read(IIR) >> 6, 3, "FIFOs work");
    write(LCR, DLAB);
    assert.notEqual(read(IIR), 0, "no 16650 EFR");
    write(FCR, 0x21);
    assert.equal(read(IIR) >> 5, 6, "no 64-byte FIFO");
    write(LCR, 0);
    for (const value of [0xa5, 0x5a]) {
      write(SCR, value);
      assert.equal(read(SCR), value);
    }
  });

  test("size_fifo counts 16 bytes in loopback", () => {
    const { read, write, sent } = setUp();
    write(LCR, 0x03);
    write(FCR, 0x07);
    write(MCR, 0x10);
    for (let i = 0; i < 256; i++) write(DATA, i);
    let count = 0;
    while (read(LSR) & 1 && count < 256) {
      assert.equal(read(DATA), count);
      count++;
    }
    assert.equal(count, 16);
    assert.deepEqual(sent, [], "nothing leaves in loopback");
  });

  test("the THRE tests of startup find no bug", () => {
    const { read, write } = opened();
    write(IER, 0x02);
    const first = read(IIR);
    write(IER, 0);
    write(IER, 0x02);
    const second = read(IIR);
    write(IER, 0);
    assert.deepEqual([first & 0x0f, second & 0x0f], [2, 2]);
    write(IER, 0x02);
    assert.equal(read(LSR) & 0x60, 0x60);
    assert.equal(read(IIR) & 1, 0, "UART_BUG_TXEN");
  });
});

describe("transmitter", () => {
  test("THRE is requested on enabling and after each write, withdrawn by reading IIR", () => {
    const { read, write, irq, sent } = opened();
    write(IER, 0x02);
    assert.equal(irq.level, true);
    assert.equal(read(IIR), 0xc2);
    assert.equal(irq.level, false);
    assert.equal(read(IIR), 0xc1);
    write(DATA, 0x41);
    assert.deepEqual(sent, [0x41]);
    assert.equal(irq.rises, 2);
    write(DATA, 0x42);
    assert.equal(irq.rises, 3, "an edge for each emptied holding register");
    write(IER, 0);
    assert.equal(irq.level, false);
  });

  test("reading an IIR that reports something else leaves THRE requested", () => {
    const { read, write, uart } = opened();
    write(IER, 0x03);
    uart.receive(bytes(8));
    assert.equal(read(IIR), 0xc4);
    for (let i = 0; i < 8; i++) read(DATA);
    assert.equal(read(IIR), 0xc2);
  });

  test("OUT2 gates the interrupt onto the bus, loopback forces it off", () => {
    const { write, irq } = opened();
    write(IER, 0x02);
    write(MCR, 0x03);
    assert.equal(irq.level, false);
    write(MCR, 0x0b);
    assert.equal(irq.level, true);
    write(MCR, 0x1b);
    assert.equal(irq.level, false);
  });
});

describe("receiver", () => {
  test("the data interrupt comes at the trigger level and goes below it", () => {
    const { read, write, uart, irq } = opened();
    write(IER, 0x01);
    uart.receive(bytes(7));
    assert.equal(irq.level, false);
    uart.receive(bytes(1));
    assert.equal(read(IIR), 0xc4);
    assert.equal(read(DATA), 1);
    assert.equal(irq.level, false);
  });

  test("four silent characters below the trigger level are a timeout interrupt", () => {
    const { read, write, uart, irq, clock } = opened();
    write(IER, 0x01);
    uart.receive(bytes(2));
    const characterNs = (10 * 1e9) / 115_200;
    assert.ok(Math.abs(uart.deadline() - 4 * characterNs) < 10);
    clock.run(uart, uart.deadline() - 1);
    assert.equal(irq.level, false);
    clock.run(uart, uart.deadline());
    assert.equal(irq.level, true);
    assert.equal(read(IIR), 0xcc);
    read(DATA);
    assert.equal(irq.level, false, "reading restarts the wait");
    assert.ok(uart.deadline() > clock.time);
    read(DATA);
    assert.equal(uart.deadline(), Number.POSITIVE_INFINITY);
  });

  test("no byte is lost while the FIFO is full, and the far end is told when to go on", () => {
    const { read, uart, readyCount } = opened();
    const input = Uint8Array.from({ length: 10_000 }, (_, i) => (i * 7) & 0xff);
    let offered = uart.receive(input);
    assert.ok(offered < input.length && !uart.canReceive());
    const got: number[] = [];
    let seenReady = 0;
    while (read(LSR) & 1) {
      got.push(read(DATA));
      if (readyCount() === seenReady) continue;
      seenReady = readyCount();
      offered += uart.receive(input.subarray(offered));
    }
    assert.deepEqual(Uint8Array.from(got), input);
    assert.equal(read(LSR) & 0x02, 0, "no overrun");
  });

  test("the far end holds its bytes until RTS or the receive interrupt says that somebody reads", () => {
    const { read, write, uart } = setUp();
    uart.receive(bytes(3));
    write(FCR, 0x07);
    read(DATA);
    assert.equal(read(LSR) & 1, 0);
    write(MCR, 0x02);
    assert.deepEqual([read(DATA), read(DATA), read(DATA)], [1, 2, 3]);
  });

  test("overrun keeps the FIFO's bytes and is a line status interrupt until LSR is read", () => {
    const { read, write } = opened();
    write(MCR, 0x1b);
    for (let i = 0; i < 17; i++) write(DATA, i);
    write(IER, 0x04);
    assert.equal(read(IIR), 0xc6);
    assert.equal(read(LSR) & 0x03, 0x03);
    assert.equal(read(LSR) & 0x02, 0);
    assert.equal(read(IIR), 0xc1);
    assert.equal(read(DATA), 0);
  });

  test("without FIFO the holding register is overwritten", () => {
    const { read, write } = setUp();
    write(LCR, 0x03);
    write(MCR, 0x10);
    write(DATA, 1);
    write(DATA, 2);
    assert.equal(read(LSR) & 0x03, 0x03);
    assert.equal(read(DATA), 2);
    assert.equal(read(IIR), 0x01);
  });

  test("a break is reported with its byte, and bit 7 says that it waits in the FIFO", () => {
    const { read, uart } = opened();
    uart.receive(bytes(1));
    uart.receiveBreak();
    assert.equal(read(LSR) & 0x90, 0x80);
    assert.equal(read(DATA), 1);
    assert.equal(read(LSR) & 0x90, 0x90);
    assert.equal(read(LSR) & 0x90, 0);
    assert.equal(read(DATA), 0);
  });
});

test("modem status deltas: set by a change, cleared by reading, RI by its trailing edge only", () => {
  const { read, write, uart, irq } = opened();
  assert.equal(read(MSR), 0xb0);
  write(IER, 0x08);
  uart.setModemPins(0x30 | 0x40);
  assert.equal(read(IIR), 0xc0);
  assert.equal(irq.level, true);
  assert.equal(read(MSR), 0x78);
  assert.equal(irq.level, false);
  uart.setModemPins(0x30);
  assert.equal(read(MSR), 0x34);
});

test("DLAB opens the divisor and hides the data", () => {
  const { read, write, sent } = setUp();
  write(LCR, DLAB);
  write(DATA, 0x0c);
  write(IER, 0x01);
  assert.deepEqual([read(DATA), read(IER)], [0x0c, 0x01]);
  write(LCR, 0x03);
  assert.equal(read(IER), 0);
  assert.deepEqual(sent, []);
});

test("any guest: bytes in range, deadlines ahead, and save, restore, continue equals continue", () => {
  const ports = Array.from({ length: 8 }, (_, i) => BASE + i);
  fc.assert(
    fc.property(portAccesses(ports), fc.nat(200), (accesses, cut) => {
      const a = setUp();
      const b = setUp();
      for (const [i, access] of accesses.entries()) {
        if (i === cut) b.uart.restore(throughJson(a.uart.save()));
        for (const side of i < cut ? [a] : [a, b]) side.clock.time += access.wait;
        if (i < cut) b.clock.time = a.clock.time;
        const answers = (i < cut ? [a] : [a, b]).map(({ uart, clock }) => {
          uart.advance(clock.time);
          assert.ok(uart.deadline() > clock.time);
          if (access.value % 5 === 0) uart.receive(bytes(access.value % 40));
          if (access.write) uart.writePort(access.port, 1, access.value);
          return access.write ? 0 : uart.readPort(access.port);
        });
        assert.ok(answers[0] >= 0 && answers[0] <= 0xff);
        assert.equal(answers.at(-1), answers[0]);
      }
    }),
    { numRuns: 60 },
  );
});
