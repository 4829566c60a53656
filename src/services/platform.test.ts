/** The platform as its services make it: interrupt wiring, what is not there, restarts in the middle of anything. */
import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { MemoryMap, Port } from "../devices/platform/platform-map.ts";
import { portAccesses } from "../devices/test-wires.ts";
import { SignalNumber } from "../hypervisor/abi/message.ts";
import { Board } from "./testing/board.ts";

function redirect(board: Board, pin: number, low: number): void {
  board.writeMemory(MemoryMap.IOAPIC_BASE, 4, 0x10 + 2 * pin);
  board.writeMemory(MemoryMap.IOAPIC_BASE + 0x10, 4, low);
}

/** Two 8259s as Linux sets them up, with everything unmasked. */
function startPics(board: Board): void {
  for (const [base, ...words] of [
    [0x20, 0x30, 4, 1, 0],
    [0xa0, 0x38, 2, 1, 0],
  ] as const) {
    board.writePort(base, 1, 0x11);
    for (const word of words) board.writePort(base + 1, 1, word);
  }
}

test("the PIT interrupts through PIC input 0 and through IOAPIC pin 2", () => {
  const board = new Board();
  startPics(board);
  redirect(board, 2, 0x30);
  board.writePort(0x43, 1, 0x30);
  board.writePort(0x40, 1, 10);
  board.writePort(0x40, 1, 0);
  board.run(1e6);
  assert.equal(board.controllers.pic.acknowledge(), 0x30);
  assert.deepEqual(
    board.sent.map(({ vector, trigger }) => [vector, trigger]),
    [[0x30, 0]],
  );
});

test("with the HPET's legacy route the PIT is cut off and comparator 0 has its line", () => {
  const board = new Board();
  const hpet = MemoryMap.HPET_BASE;
  redirect(board, 2, 0x30);
  board.writePort(0x43, 1, 0x34);
  board.writePort(0x40, 2, 0x1000);
  board.writeMemory(hpet + 0x10, 4, 3);
  board.writeMemory(hpet + 0x100, 4, 0x4);
  board.writeMemory(hpet + 0x108, 8, 1000n);
  const before = board.sent.length;
  board.run(1e9);
  assert.equal(board.sent.length - before, 1);
});

test("each serial port talks on its own stream and interrupts on its ISA line", () => {
  const board = new Board();
  for (const [port, base, irq] of [
    [0, 0x3f8, 4],
    [1, 0x2f8, 3],
    [2, 0x3e8, 10],
    [3, 0x2e8, 11],
  ] as const) {
    redirect(board, irq, 0x40 + port);
    board.writePort(base, 1, 0x61 + port);
    board.run(board.time + 2e6);
    board.writePort(base + 4, 1, 0x0b);
    board.writePort(base + 1, 1, 1);
    assert.equal(board.input(port, [1]), 1);
    assert.deepEqual(board.output.at(-1), [port, [0x61 + port]]);
    assert.equal(board.sent.at(-1)?.vector, 0x40 + port);
  }
});

test("a line, a full chunk, a millisecond and the end of the VM send what was gathered", () => {
  const board = new Board();
  for (const byte of [65, 66, 10, 67]) board.writePort(0x3f8, 1, byte);
  assert.deepEqual(board.output, [[0, [65, 66, 10]]]);
  board.run(1e6);
  assert.deepEqual(board.output.at(-1), [0, [67]]);
  for (let i = 0; i < 512; i++) board.writePort(0x3f8, 1, 68);
  assert.equal(board.output.at(-1)?.[1].length, 512);
  board.writePort(0x3f8, 1, 69);
  board.signal(board.named("console"), SignalNumber.STOPPING);
  assert.deepEqual(board.output.at(-1), [0, [69]]);
});

test("power button, soft off, and all the ways to reset", () => {
  const board = new Board();
  redirect(board, 9, 0x8000 | 0x49);
  board.writePort(Port.PM1_EVENT + 2, 2, 0x100);
  board.signal(board.named("timers"), SignalNumber.POWER_BUTTON);
  assert.deepEqual([board.sent[0]?.vector, board.sent[0]?.trigger], [0x49, 1]);
  board.writePort(Port.PM1_CONTROL, 2, 0x3400);
  board.writePort(0xcf9, 1, 6);
  board.writePort(0x64, 1, 0xfe);
  board.writePort(0x92, 1, 1);
  assert.deepEqual(board.events, ["off", "reset", "reset", "reset"]);
});

test("INTx reaches its IOAPIC pin and, for PIC guests, the shared level input 5, as the OR of who drives it", () => {
  const board = new Board();
  startPics(board);
  redirect(board, 17, 0x8000 | 0x51);
  const { controllers } = board;
  controllers.setLine(17, 5, true);
  controllers.setLine(17, 6, true);
  assert.equal(board.sent[0]?.vector, 0x51);
  for (let i = 0; i < 2; i++) {
    assert.equal(controllers.pic.acknowledge(), 0x35);
    board.writePort(0x20, 1, 0x20);
  }
  controllers.setLine(17, 5, false);
  assert.equal(controllers.intr, true);
  controllers.setLine(17, 6, false);
  assert.equal(controllers.intr, false);
});

test("what is not there reads as all ones: VGA, DMA page registers, ROM", () => {
  const board = new Board();
  for (const port of [0x3d4, 0x87, 0x2f0, 0xcf8, 0xed])
    assert.equal(board.readPort(port, 1), 0xff, port.toString(16));
  assert.equal(board.readMemory(0xb_8000, 2), 0xffffn);
  assert.equal(board.readMemory(0xc000_0000, 8), 0xffff_ffff_ffff_ffffn);
});

test("services that are restarted between any two accesses answer and act as those that are not", () => {
  const ports = [
    ...[0x20, 0x21, 0xa0, 0xa1, 0x4d0, 0x40, 0x42, 0x43, 0x60, 0x61, 0x64, 0x70, 0x71],
    ...[0x3f8, 0x3f9, 0x3fa, 0x3fc, 0x600, 0x602, 0x604, 0x608, 0xcf8, 0xcfc, 0xcf9, 0x92],
  ];
  const offsets = fc.array(fc.nat(0x3ff), { maxLength: 200, size: "max" });
  fc.assert(
    fc.property(
      portAccesses(ports),
      offsets,
      fc.integer({ min: 8, max: 80 }),
      (accesses, places, every) => {
        const boards = [new Board(), new Board()] as const;
        for (const [i, { wait, port, size, value, write }] of accesses.entries()) {
          if (i % every === 0) boards[1].restart();
          const gpa = (i % 2 ? MemoryMap.HPET_BASE : MemoryMap.IOAPIC_BASE) + (places[i] ?? 0);
          const answers = boards.map((board) => {
            board.jump(board.time + wait);
            for (const { deadline } of board.services) assert.ok(deadline > board.time);
            if (value % 5 === 0) board.input(0, [value & 0xff, 10]);
            if (value % 7 === 0) board.controllers.pic.acknowledge();
            if (!write) return [board.readPort(port, size), board.readMemory(gpa, 4)];
            board.writePort(port, size, value);
            board.writeMemory(gpa, 4, value);
            return [];
          });
          assert.deepEqual(answers[1], answers[0]);
        }
        const [a, b] = boards.map(({ sent, output, events }) => ({ sent, output, events }));
        assert.deepEqual(b, a);
      },
    ),
    { numRuns: 40 },
  );
});
