/** The virtio services as the kernel runs them: by messages and effects, through restarts. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { BalloonFeature } from "../devices/virtio/balloon-device.ts";
import { BlockFeature, BlockRequestType } from "../devices/virtio/block-device.ts";
import { encodeTag, FrameFlag, putTag, TAG_BYTES } from "../devices/virtio/frame-tag.ts";
import { BusDriver } from "../devices/virtio/test-driver.ts";
import { DeviceStatus } from "../devices/virtio/virtio-device.ts";
import { DiskStream } from "../machine/disk-stream.ts";
import { MemoryPort } from "../storage/memory-port.ts";
import { RawDisk } from "../storage/raw-disk.ts";
import { VirtioBoard } from "./testing/virtio-board.ts";

const DISK_BYTES = 4 << 20;
const STREAM = 16;

/** A board with a disk behind its stream; `work` carries out what the service has asked, one answer a message. */
function blockBoard(readOnly = false) {
  const port = new MemoryPort(new Uint8Array(DISK_BYTES));
  const device = {
    kind: "block",
    stream: STREAM,
    size: DISK_BYTES,
    readOnly,
    serial: "s0",
  } as const;
  const board = new VirtioBoard(device);
  const failures: string[] = [];
  const disk = new DiskStream(new RawDisk(port, { readOnly }), (text) => failures.push(text));
  const work = () => {
    do {
      for (let next = board.moves.shift(); next; next = board.moves.shift())
        disk.move(next.toMemory, next.header, next.memory);
      const answers = disk.give();
      if (answers) assert.equal(board.input(answers), answers.length);
    } while (board.moves.length > 0);
  };
  return { board, port, work, failures, driver: new BusDriver(board) };
}

function header(type: number, sector: number): Uint8Array {
  const bytes = new Uint8Array(16);
  new DataView(bytes.buffer).setUint32(0, type, true);
  new DataView(bytes.buffer).setUint32(8, sector, true);
  return bytes;
}

const pattern = (length: number, seed: number) =>
  Uint8Array.from({ length }, (_, i) => ((i >> 3) * 31 + i + seed) & 0xff);

for (const restarts of [false, true]) {
  describe(restarts ? "a disk whose service is restarted at every message" : "a disk", () => {
    const start = () => {
      const all = blockBoard();
      all.board.restarts = restarts;
      all.driver.start({ features: [BlockFeature.FLUSH], indirect: true });
      return all;
    };

    test("large transfers go in pieces, straight between disk and memory", () => {
      const { board, driver, port, work } = start();
      const data = pattern(2_408_448, 3);
      driver.add(0, [{ bytes: header(BlockRequestType.OUT, 16) }, { bytes: data }, { room: 1 }]);
      work();
      assert.deepEqual([...driver.collect(0)[0]!.data], [0]);
      assert.deepEqual(port.bytes().subarray(8192, 8192 + data.length), data);
      driver.add(0, [
        { bytes: header(BlockRequestType.IN, 16) },
        { room: 1_204_000 },
        { room: 1_204_448 },
        { room: 1 },
      ]);
      work();
      const [answer] = driver.collect(0);
      assert.deepEqual(answer!.data.subarray(0, data.length), data);
      assert.equal(answer!.data[data.length], 0);
      assert.ok(board.largest < 4096, "no data in messages");
      assert.deepEqual(driver.vectors(), [0x41, 0x41]);
    });

    test("more writes at once than a message has room for", () => {
      const { board, driver, port, work } = start();
      const blocks = Array.from({ length: 12 }, (_, i) => pattern(64 << 10, i));
      // Pieces that are no neighbours, 128 bytes of memory each.
      const scattered = (bytes: Uint8Array) =>
        Array.from({ length: 512 }, (_, i) => {
          const at = driver.allocate(256);
          driver.ram.set(bytes.subarray(128 * i, 128 * i + 128), at);
          return { at, length: 128 };
        });
      for (const [i, bytes] of blocks.entries())
        driver.add(
          0,
          [{ bytes: header(BlockRequestType.OUT, 128 * i) }, ...scattered(bytes), { room: 1 }],
          { kick: false },
        );
      driver.kick(0);
      assert.ok(board.moves.length < blocks.length, "the rest waits");
      work();
      const answers = driver.collect(0);
      assert.equal(answers.length, blocks.length);
      assert.ok(answers.every(({ data }) => data[0] === 0));
      for (const [i, bytes] of blocks.entries())
        assert.deepEqual(port.bytes().subarray(i * bytes.length, (i + 1) * bytes.length), bytes);
    });

    test("a driver that breaks the rules is told so, and logged", () => {
      const { board, driver } = start();
      driver.offer(driver.queues[0]!, 999);
      driver.kick(0);
      assert.equal(driver.status & DeviceStatus.NEEDS_RESET, DeviceStatus.NEEDS_RESET);
      assert.match(board.logs[0]!, /queue 0/);
    });
  });
}

test("the BAR is decoded where the guest puts it, inside the window of devices, and nowhere else", () => {
  const { board, driver } = blockBoard();
  assert.equal(driver.read(1, 18, 2), 1);
  driver.config(0x10, 4, 0xd000_0000);
  assert.equal(Number(board.readMemory(0xd000_0000 + 18, 2)), 1);
  assert.equal(Number(board.readMemory(0xc000_0000 + 18, 2)), 0xffff);
  for (const bad of [0, 0x10_0000, 0xfee0_0000, 0xfffe_0000]) {
    driver.config(0x10, 4, bad);
    assert.equal(Number(board.readMemory(bad + 18, 2)), 0xffff, bad.toString(16));
  }
  driver.config(0x10, 4, 0xd000_0000);
  driver.config(4, 2, 0);
  assert.equal(Number(board.readMemory(0xd000_0000 + 18, 2)), 0xffff);
});

test("INTx until MSI-X is switched on", () => {
  const { board, driver, work } = blockBoard();
  driver.start({ msix: false });
  driver.add(0, [{ bytes: header(BlockRequestType.FLUSH, 0) }, { room: 1 }]);
  assert.equal(board.level, false);
  work();
  assert.equal(board.level, true);
  assert.equal(driver.read(3, 0, 1), 1);
  assert.equal(board.level, false);
});

test("a disk that fails gives the guest I/O errors, and the user one line", () => {
  const { driver, work, failures } = blockBoard();
  driver.start();
  // The service believes in a larger disk than there is: nothing that it asks is trusted.
  for (const sector of [8191, 8191]) {
    driver.add(0, [{ bytes: header(BlockRequestType.IN, sector) }, { room: 512 }, { room: 1 }]);
    work();
  }
  assert.equal(driver.collect(0).length, 2);
  assert.deepEqual(failures, []);
});

test("a balloon's pages are moved as they are, none outside memory, and its target comes by the stream", () => {
  const board = new VirtioBoard({ kind: "balloon", stream: STREAM });
  board.restarts = true;
  const driver = new BusDriver(board).start({ features: [BalloonFeature.PAGE_REPORTING] });
  const pages = Uint32Array.of(100, 101, 300, 0xffff_ffff);
  driver.add(0, [{ bytes: new Uint8Array(pages.buffer) }]);
  const moved = board.moves.splice(0).map(({ toMemory, memory }) => {
    assert.ok(toMemory);
    return memory.map((part) => [part.byteOffset, part.length]);
  });
  assert.deepEqual(moved, [[[100 * 4096, 8192]], [[300 * 4096, 4096]]]);
  assert.equal(driver.collect(0).length, 1);
  board.input(Uint8Array.of(9, 1, 0, 0));
  assert.equal(driver.read(4, 0, 4), 265);
});

test("a console's bytes cross its stream both ways, and wait where there is no room", () => {
  const board = new VirtioBoard({ kind: "console", stream: 4 });
  board.restarts = true;
  const driver = new BusDriver(board).start({ indirect: true });
  const text = (seed: number) => pattern(4096, seed);
  for (let i = 0; i < 30; i++) driver.add(1, [{ bytes: text(i) }], { kick: false });
  driver.kick(1);
  assert.ok(board.output.length < 30 && board.deadline < Number.POSITIVE_INFINITY);
  while (board.deadline < Number.POSITIVE_INFINITY) board.timer();
  const sent = board.output.splice(0);
  assert.deepEqual(
    sent.map((bytes) => bytes[1]),
    Array.from({ length: 30 }, (_, i) => text(i)[1]),
  );
  driver.collect(1);
  driver.resetHeap();
  driver.add(0, [{ room: 10 }]);
  assert.equal(board.input(text(3).subarray(0, 25)), 10);
  driver.add(0, [{ room: 100 }]);
  assert.equal(board.input(text(3).subarray(10, 25)), 15);
  const received = driver.collect(0).flatMap(({ data }) => [...data]);
  assert.deepEqual(Uint8Array.from(received), text(3).subarray(0, 25));
});

test("entropy comes from the stream, and is asked for only when somebody waits", () => {
  const board = new VirtioBoard({ kind: "entropy", stream: STREAM });
  const driver = new BusDriver(board).start();
  driver.add(0, [{ room: 16 }]);
  assert.deepEqual([...board.output.shift()!], [0, 1]);
  board.restarts = true;
  board.input(pattern(256, 9));
  assert.deepEqual(driver.collect(0)[0]!.data, pattern(256, 9).subarray(0, 16));
});

test("frames of a card go between memory and its stream, and wait where there is no room", () => {
  const mac = [0x52, 0x54, 0, 0, 0, 1];
  const board = new VirtioBoard({ kind: "network", stream: STREAM, mac });
  board.restarts = true;
  const driver = new BusDriver(board).start({ indirect: true });
  const frame = (seed: number) => pattern(1514, seed);
  const scattered = (bytes: Uint8Array) =>
    Array.from({ length: 50 }, (_, i) => {
      const part = bytes.subarray(31 * i, 31 * i + 31);
      const at = driver.allocate(64);
      driver.ram.set(part, at);
      return { at, length: part.length };
    }).filter(({ length }) => length > 0);
  for (let i = 0; i < 60; i++)
    driver.add(1, [{ bytes: new Uint8Array(12) }, ...scattered(frame(i))], { kick: false });
  driver.kick(1);
  assert.ok(board.moves.length < 60 && board.deadline < Number.POSITIVE_INFINITY);
  while (board.deadline < Number.POSITIVE_INFINITY) board.timer();
  assert.deepEqual(
    board.moves.map(({ memory }) => memory.reduce((sum, { length }) => sum + length, 0)),
    new Array(60).fill(1514),
  );
  assert.deepEqual(board.moves[7]!.memory[0]!, frame(7).subarray(0, 31));
  board.moves.splice(0);
  driver.resetHeap();
  driver.add(0, [{ room: 1526 }]);
  const both = new Uint8Array(2 * TAG_BYTES);
  for (const i of [0, 1]) putTag(both, TAG_BYTES * i, { length: 1514, flags: 0, segment: 0 });
  assert.equal(board.input(both), TAG_BYTES, "the first");
  driver.add(0, [{ room: 1526 }]);
  assert.equal(board.input(both.subarray(TAG_BYTES)), TAG_BYTES);
  assert.deepEqual(
    board.moves.map(({ toMemory, memory }) => [toMemory, memory.map(({ length }) => length)]),
    [
      [true, [1514]],
      [true, [1514]],
    ],
  );
  assert.deepEqual(
    driver.collect(0).map(({ length }) => length),
    [1526, 1526],
  );
  driver.vectors();
  for (const flags of [FrameFlag.LINK_DOWN, FrameFlag.LINK_UP]) {
    assert.equal(board.input(encodeTag({ length: 0, flags, segment: 0 })), TAG_BYTES);
    assert.equal(driver.read(4, 6, 2), flags === FrameFlag.LINK_UP ? 1 : 0);
    assert.equal(driver.vectors().length, 1, "the driver hears of it");
  }
});
