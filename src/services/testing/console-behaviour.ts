/**
 * What a console service does, whatever it is written in and wherever it runs: 16550A UARTs as drivers find them, output that is gathered,
 * input with back pressure, interrupts on its lines, restarts.
 * Spec: PC16550D datasheet, "Registers", "FIFO Interrupt Mode Operation"; Linux, drivers/tty/serial/8250, as a driver.
 */
import assert from "node:assert/strict";
import { SignalNumber } from "../../hypervisor/abi/message.ts";
import type { ConsoleRig } from "./console-rig.ts";

const COM1 = 0x3f8;
const COM1_IRQ = 4;
const [DATA, IER, IIR, LCR, MCR, LSR, MSR, SCR] = [0, 1, 2, 3, 4, 5, 6, 7];
const FCR = IIR;
const DLAB = 0x80;
const FLUSH_NS = 1_000_000;
const BACKLOG = 4096;
const FIFO = 16;

export interface Behaviour {
  readonly title: string;
  readonly run: (rig: ConsoleRig) => void;
}

const read = (rig: ConsoleRig, register: number): number => rig.read(COM1 + register);
const write = (rig: ConsoleRig, register: number, value: number): void =>
  rig.write(COM1 + register, value);
const counted = (count: number): number[] => Array.from({ length: count }, (_, i) => (i + 1) & 255);

/** As a driver leaves it: FIFOs on, trigger 8, DTR RTS OUT2, 115200 8N1. */
function open(rig: ConsoleRig): void {
  write(rig, LCR, 0x03);
  write(rig, FCR, 0x81);
  write(rig, MCR, 0x0b);
}

const PROBING: readonly Behaviour[] = [
  {
    title: "a driver's autoconfig finds a 16550A and no relative of it",
    run: (rig) => {
      write(rig, IER, 0);
      assert.equal(read(rig, IER) & 0x0f, 0);
      write(rig, IER, 0xff);
      assert.equal(read(rig, IER), 0x0f);
      write(rig, IER, 0);
      write(rig, MCR, 0x1a);
      assert.equal(read(rig, MSR) & 0xf0, 0x90);
      write(rig, MCR, 0);
      write(rig, LCR, 0xbf);
      write(rig, IIR, 0);
      write(rig, LCR, 0);
      write(rig, FCR, 1);
      assert.equal(read(rig, IIR) >> 6, 3);
      write(rig, LCR, DLAB);
      assert.notEqual(read(rig, IIR), 0);
      write(rig, FCR, 0x21);
      assert.equal(read(rig, IIR) >> 5, 6);
      write(rig, LCR, 0);
      for (const value of [0xa5, 0x5a]) {
        write(rig, SCR, value);
        assert.equal(read(rig, SCR), value);
      }
    },
  },
  {
    title: "16 bytes fit the FIFO in loopback, and nothing leaves",
    run: (rig) => {
      write(rig, LCR, 0x03);
      write(rig, FCR, 0x07);
      write(rig, MCR, 0x10);
      for (let i = 0; i < 256; i++) write(rig, DATA, i);
      let count = 0;
      for (; read(rig, LSR) & 1; count++) assert.equal(read(rig, DATA), count);
      assert.equal(count, FIFO);
      rig.run(rig.time + 10 * FLUSH_NS);
      assert.deepEqual(rig.output, []);
    },
  },
  {
    title: "DLAB opens the divisor and hides the data",
    run: (rig) => {
      write(rig, LCR, DLAB);
      write(rig, DATA, 0x0c);
      write(rig, IER, 0x01);
      assert.deepEqual([read(rig, DATA), read(rig, IER)], [0x0c, 0x01]);
      write(rig, LCR, 0x03);
      assert.equal(read(rig, IER), 0);
    },
  },
  {
    title: "words and doublewords are bytes at consecutive ports, and ones where nobody is",
    run: (rig) => {
      rig.write(COM1 + LCR, 0x0b1b, 2);
      assert.equal(read(rig, LCR), 0x1b);
      assert.equal(read(rig, MCR), 0x0b);
      assert.equal(rig.read(COM1 + LCR, 2), 0x0b1b);
      write(rig, SCR, 0x5a);
      assert.equal(rig.read(COM1 + SCR, 4), 0xffff_ff5a);
      assert.equal(rig.read(COM1 + MSR, 2), 0x5ab0);
    },
  },
  {
    title: "string accesses and other exits are not handled",
    run: (rig) => {
      rig.unhandled(30, COM1 * 0x1_0000 + 0x10);
      rig.unhandled(48, 0x182);
      rig.unhandled(12, 0);
    },
  },
];

const TRANSMITTER: readonly Behaviour[] = [
  {
    title: "each port talks on its own stream and interrupts on its own line",
    run: (rig) => {
      const ports = [
        [0x3f8, 4],
        [0x2f8, 3],
        [0x3e8, 10],
        [0x2e8, 11],
      ] as const;
      for (const [stream, [base, irq]] of ports.entries()) {
        rig.write(base, 0x61 + stream);
        rig.run(rig.time + 2 * FLUSH_NS);
        assert.deepEqual(rig.output.at(-1), [stream, String.fromCharCode(0x61 + stream)]);
        rig.write(base + MCR, 0x0b);
        rig.write(base + IER, 1);
        assert.equal(rig.level(irq), false);
        assert.equal(rig.input(stream, [1]), 1);
        assert.equal(rig.level(irq), true);
      }
    },
  },
  {
    title: "a line, a full chunk, a millisecond and the end of the VM send what was gathered",
    run: (rig) => {
      for (const c of "AB\nC") write(rig, DATA, c.charCodeAt(0));
      assert.deepEqual(rig.output, [[0, "AB\n"]]);
      assert.equal(rig.deadline, rig.time + FLUSH_NS);
      rig.run(rig.time + FLUSH_NS);
      assert.deepEqual(rig.output.at(-1), [0, "C"]);
      assert.equal(rig.deadline, Number.POSITIVE_INFINITY);
      for (let i = 0; i < 512; i++) write(rig, DATA, 68);
      assert.equal(rig.output.at(-1)?.[1], "D".repeat(512));
      write(rig, DATA, 69);
      rig.signal(SignalNumber.POWER_BUTTON);
      assert.equal(rig.output.length, 3);
      rig.signal(SignalNumber.STOPPING);
      assert.deepEqual(rig.output.at(-1), [0, "E"]);
    },
  },
  {
    title: "THRE is requested on enabling and after each write, withdrawn by reading IIR",
    run: (rig) => {
      open(rig);
      write(rig, IER, 0x02);
      assert.equal(rig.level(COM1_IRQ), true);
      assert.equal(read(rig, IIR), 0xc2);
      assert.equal(rig.level(COM1_IRQ), false);
      assert.equal(read(rig, IIR), 0xc1);
      write(rig, DATA, 0x41);
      assert.equal(rig.rises.get(COM1_IRQ), 2);
      write(rig, DATA, 0x42);
      assert.equal(rig.rises.get(COM1_IRQ), 3, "an edge for each emptied holding register");
      write(rig, IER, 0);
      assert.equal(rig.level(COM1_IRQ), false);
    },
  },
  {
    title: "OUT2 gates the interrupt onto the bus, loopback forces it off",
    run: (rig) => {
      open(rig);
      write(rig, IER, 0x02);
      for (const [mcr, level] of [
        [0x03, false],
        [0x0b, true],
        [0x1b, false],
      ] as const) {
        write(rig, MCR, mcr);
        assert.equal(rig.level(COM1_IRQ), level);
      }
    },
  },
];

const RECEIVER: readonly Behaviour[] = [
  {
    title: "the data interrupt comes at the trigger level and goes below it",
    run: (rig) => {
      open(rig);
      write(rig, IER, 0x01);
      rig.input(0, counted(7));
      assert.equal(rig.level(COM1_IRQ), false);
      rig.input(0, [8]);
      assert.equal(rig.level(COM1_IRQ), true);
      assert.equal(read(rig, IIR), 0xc4);
      assert.equal(read(rig, DATA), 1);
      assert.equal(rig.level(COM1_IRQ), false);
    },
  },
  {
    title: "four silent characters below the trigger level are a timeout interrupt",
    run: (rig) => {
      open(rig);
      write(rig, IER, 0x01);
      rig.input(0, counted(2));
      const characterNs = (10 * 1e9) / 115_200;
      assert.ok(Math.abs(rig.deadline - rig.time - 4 * characterNs) < 10);
      rig.run(rig.deadline - 1);
      assert.equal(rig.level(COM1_IRQ), false);
      rig.run(rig.deadline);
      assert.equal(rig.level(COM1_IRQ), true);
      assert.equal(read(rig, IIR), 0xcc);
      read(rig, DATA);
      assert.equal(rig.level(COM1_IRQ), false);
      assert.ok(rig.deadline > rig.time);
      read(rig, DATA);
      assert.equal(rig.deadline, Number.POSITIVE_INFINITY);
    },
  },
  {
    title: "input that finds no room is left to the embedder, and none of it is lost or doubled",
    run: (rig) => {
      open(rig);
      const input = Uint8Array.from({ length: 3 * BACKLOG }, (_, i) => (i * 7) & 0xff);
      let offered = rig.input(0, input);
      assert.equal(offered, BACKLOG + FIFO);
      assert.equal(rig.input(0, input.subarray(offered)), 0);
      const got: number[] = [];
      while (read(rig, LSR) & 1) {
        got.push(read(rig, DATA));
        if (got.length % 100 === 0 && offered < input.length)
          offered += rig.input(0, input.subarray(offered));
      }
      assert.deepEqual(Uint8Array.from(got), input);
      assert.equal(read(rig, LSR) & 0x02, 0, "no overrun");
    },
  },
  {
    title: "input for a stream that it has not is taken and forgotten",
    run: (rig) => {
      assert.equal(rig.input(4, counted(5)), 5);
      assert.deepEqual(rig.effects, []);
    },
  },
  {
    title: "the far end holds its bytes until RTS or the receive interrupt",
    run: (rig) => {
      rig.input(0, counted(3));
      write(rig, FCR, 0x07);
      read(rig, DATA);
      assert.equal(read(rig, LSR) & 1, 0);
      write(rig, MCR, 0x02);
      assert.deepEqual([read(rig, DATA), read(rig, DATA), read(rig, DATA)], [1, 2, 3]);
    },
  },
  {
    title: "overrun keeps the FIFO's bytes and is a line status interrupt until LSR is read",
    run: (rig) => {
      open(rig);
      write(rig, MCR, 0x1b);
      for (let i = 0; i < 17; i++) write(rig, DATA, i);
      write(rig, IER, 0x04);
      assert.equal(read(rig, IIR), 0xc6);
      assert.equal(read(rig, LSR) & 0x03, 0x03);
      assert.equal(read(rig, LSR) & 0x02, 0);
      assert.equal(read(rig, IIR), 0xc1);
      assert.equal(read(rig, DATA), 0);
    },
  },
  {
    title: "without FIFO the holding register is overwritten",
    run: (rig) => {
      write(rig, LCR, 0x03);
      write(rig, MCR, 0x10);
      write(rig, DATA, 1);
      write(rig, DATA, 2);
      assert.equal(read(rig, LSR) & 0x03, 0x03);
      assert.equal(read(rig, DATA), 2);
      assert.equal(read(rig, IIR), 0x01);
    },
  },
  {
    title: "a break sent in loopback is received with its byte, behind what waits",
    run: (rig) => {
      open(rig);
      write(rig, MCR, 0x1b);
      write(rig, DATA, 1);
      write(rig, LCR, 0x43);
      assert.equal(read(rig, LSR) & 0x90, 0x80);
      assert.equal(read(rig, DATA), 1);
      assert.equal(read(rig, LSR) & 0x90, 0x90);
      assert.equal(read(rig, LSR) & 0x90, 0);
      assert.equal(read(rig, DATA), 0);
    },
  },
  {
    title: "modem status deltas: set by a change, cleared by reading, RI by its trailing edge only",
    run: (rig) => {
      open(rig);
      assert.equal(read(rig, MSR), 0xb0);
      write(rig, IER, 0x08);
      write(rig, MCR, 0x1f);
      assert.equal(read(rig, MSR), 0xf0);
      write(rig, MCR, 0x1b);
      assert.equal(read(rig, MSR), 0xb4);
      write(rig, MCR, 0x18);
      assert.equal(read(rig, MSR), 0x83);
      write(rig, MCR, 0x0b);
      assert.equal(read(rig, IIR), 0xc0);
      assert.equal(rig.level(COM1_IRQ), true);
      assert.equal(read(rig, MSR), 0xb3);
      assert.equal(rig.level(COM1_IRQ), false);
    },
  },
];

const RESTARTS: readonly Behaviour[] = [
  {
    title: "a restart between any two accesses loses nothing: gathered output, backlog, registers",
    run: (rig) => {
      open(rig);
      write(rig, IER, 0x01);
      for (const c of "half a li") write(rig, DATA, c.charCodeAt(0));
      rig.input(0, counted(40));
      rig.restart();
      const got: number[] = [];
      while (read(rig, LSR) & 1) {
        got.push(read(rig, DATA));
        if (got.length % 7 === 0) rig.restart();
      }
      assert.deepEqual(got, counted(40));
      for (const c of "ne\n") write(rig, DATA, c.charCodeAt(0));
      assert.deepEqual(rig.output, [[0, "half a line\n"]]);
      assert.deepEqual([read(rig, LCR), read(rig, MCR), read(rig, IER)], [0x03, 0x0b, 0x01]);
    },
  },
];

export const CONSOLE_BEHAVIOUR: readonly Behaviour[] = [
  ...PROBING,
  ...TRANSMITTER,
  ...RECEIVER,
  ...RESTARTS,
];
