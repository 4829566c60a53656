import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { runNow, toPromise } from "../block-port.ts";
import type { Disk } from "../disk.ts";
import { MemoryPort } from "../memory-port.ts";
import { openImage } from "../open-image.ts";
import { RawDisk } from "../raw-disk.ts";
import { CrashPort, LaterPort } from "../test-ports.ts";
import { checkQcow2, repairQcow2 } from "./check.ts";
import { createQcow2 } from "./create.ts";
import { HeaderAt } from "./header.ts";
import { MetadataLog } from "./metadata-log.ts";
import { Qcow2Disk, type Qcow2Options, readHeader } from "./qcow2-disk.ts";

const SIZE = 96 * 1024;
const SECTOR = 512;

const operation = fc.oneof(
  {
    weight: 5,
    arbitrary: fc.record({
      kind: fc.constant("write" as const),
      at: fc.nat(SIZE / SECTOR - 1),
      sectors: fc.oneof(fc.integer({ min: 1, max: 4 }), fc.integer({ min: 1, max: 40 })),
      seed: fc.integer({ min: 1, max: 255 }),
    }),
  },
  fc.record({
    kind: fc.constantFrom("discard" as const, "zeroes" as const, "unmap" as const),
    at: fc.nat(SIZE / SECTOR - 1),
    sectors: fc.integer({ min: 1, max: 60 }),
    seed: fc.constant(0),
  }),
  fc.record({
    kind: fc.constant("flush" as const),
    at: fc.constant(0),
    sectors: fc.constant(0),
    seed: fc.constant(0),
  }),
);
type Operation = typeof operation extends fc.Arbitrary<infer T> ? T : never;

const content = (sectors: number, seed: number) =>
  Uint8Array.from({ length: sectors * SECTOR }, (_, i) => ((i >> 9) * 13 + seed) & 0xff || 1);

function* perform(disk: Disk, { kind, at, sectors, seed }: Operation) {
  const offset = at * SECTOR;
  const length = Math.min(sectors * SECTOR, SIZE - offset);
  if (kind === "flush") yield* disk.flush();
  else if (kind === "write") yield* disk.write(offset, content(length / SECTOR, seed));
  else if (kind === "discard") yield* disk.discard(offset, length);
  else yield* disk.writeZeroes(offset, length, kind === "unmap");
}

/** Carries an operation out; a discarded range may read as before or as zeros, so the disk itself says which. */
function* carryOut(disk: Disk, model: Uint8Array, op: Operation) {
  const { kind, at, sectors, seed } = op;
  const offset = at * SECTOR;
  const length = Math.min(sectors * SECTOR, SIZE - offset);
  const before = model.slice();
  yield* perform(disk, op);
  if (kind === "write") model.set(content(length / SECTOR, seed), offset);
  else if (kind === "discard") {
    yield* disk.read(offset, model.subarray(offset, offset + length));
    for (let i = offset; i < offset + length; i++)
      assert.ok(model[i] === before[i] || model[i] === 0, "discarded: as it was, or zero");
  } else if (kind !== "flush") model.fill(0, offset, offset + length);
}

const backingBytes = (size = SIZE) =>
  Uint8Array.from({ length: size }, (_, i) => ((i >> 9) * 7 + 101) & 0xff);
const backingPort = () => new MemoryPort(backingBytes());

function backingDisk(size = SIZE): { disk: Disk; bytes: Uint8Array } {
  const bytes = backingBytes(size);
  return { disk: new RawDisk(new MemoryPort(bytes), { readOnly: true }), bytes };
}

function create(port: MemoryPort | CrashPort, clusterBits: number, hasBacking: boolean): void {
  const backing = hasBacking ? { backing: { name: "base.img", format: "raw" as const } } : {};
  runNow(createQcow2(port, { size: SIZE, clusterBits, ...backing }));
}

const open = (port: MemoryPort, options: Qcow2Options = {}) =>
  runNow(Qcow2Disk.open(port, options));

function readAll(disk: Disk): Uint8Array {
  const bytes = new Uint8Array(disk.size);
  runNow(disk.read(0, bytes));
  return bytes;
}

const shape = fc.record({
  clusterBits: fc.constantFrom(9, 9, 10, 12, 16),
  hasBacking: fc.boolean(),
  writeThrough: fc.boolean(),
});

describe("as a disk", () => {
  test("a new image reads as zeros, or as its backing file and zeros beyond it", () => {
    const plain = new MemoryPort();
    create(plain, 16, false);
    assert.deepEqual(readAll(open(plain)), new Uint8Array(SIZE));
    const overlay = new MemoryPort();
    create(overlay, 16, true);
    const { disk, bytes } = backingDisk(50 * SECTOR);
    const expected = new Uint8Array(SIZE);
    expected.set(bytes);
    assert.deepEqual(readAll(open(overlay, { backing: disk })), expected);
  });

  test("any operations: reads like a plain array, before and after reopening, and every cluster counts right", () => {
    fc.assert(
      fc.property(
        shape,
        fc.array(operation, { maxLength: 40, size: "max" }),
        ({ clusterBits, hasBacking, writeThrough }, operations) => {
          const port = new MemoryPort();
          create(port, clusterBits, hasBacking);
          const backing = backingDisk();
          const options = { writeThrough, ...(hasBacking ? { backing: backing.disk } : {}) };
          const disk = open(port, options);
          const model = hasBacking ? backing.bytes.slice() : new Uint8Array(SIZE);
          for (const op of operations) runNow(carryOut(disk, model, op));
          assert.deepEqual(readAll(disk), model);
          runNow(disk.close());
          assert.deepEqual(readAll(open(port, options)), model);
          assert.deepEqual(runNow(checkQcow2(port)), { leaks: 0, errors: 0 });
        },
      ),
      { numRuns: 120 },
    );
  });

  test("a port that answers later does the same", async () => {
    const port = new LaterPort();
    await toPromise(createQcow2(port, { size: SIZE, clusterBits: 12 }));
    const disk = await toPromise(Qcow2Disk.open(port));
    const model = new Uint8Array(SIZE);
    for (const [i, op] of fc.sample(operation, { seed: 7, numRuns: 60 }).entries())
      await toPromise(carryOut(disk, model, { ...op, seed: op.seed + i } as Operation));
    await toPromise(disk.flush());
    const bytes = new Uint8Array(SIZE);
    await toPromise(disk.read(0, bytes));
    assert.deepEqual(bytes, model);
    assert.deepEqual(await toPromise(checkQcow2(port)), { leaks: 0, errors: 0 });
  });

  test("the refcount table grows and moves with small clusters", () => {
    const port = new MemoryPort();
    const size = 20 << 20;
    runNow(createQcow2(port, { size, clusterBits: 9 }));
    const disk = open(port);
    const block = content(2048, 9);
    for (let at = 0; at < size; at += block.length) runNow(disk.write(at, block));
    runNow(disk.flush());
    assert.deepEqual(runNow(checkQcow2(port)), { leaks: 0, errors: 0 });
    const again = open(port);
    assert.notEqual(again.header.refcountOffset, 512, "it has moved");
    for (let at = 0; at < size; at += block.length) {
      const bytes = new Uint8Array(block.length);
      runNow(again.read(at, bytes));
      assert.deepEqual(bytes, block);
    }
  });

  test("space that is given back is used again", () => {
    const port = new MemoryPort();
    create(port, 12, false);
    const disk = open(port);
    for (let round = 0; round < 50; round++) {
      runNow(disk.write(0, content(SIZE / SECTOR, round + 1)));
      runNow(disk.flush());
      runNow(disk.discard(0, SIZE));
      runNow(disk.flush());
    }
    assert.ok(port.size < 2.5 * SIZE, `${port.size} bytes`);
  });

  test("read-only means read-only", () => {
    const port = new MemoryPort();
    create(port, 16, false);
    const before = port.bytes();
    const disk = open(port, { readOnly: true });
    assert.throws(() => runNow(disk.write(0, new Uint8Array(512))), { code: "disk-read-only" });
    assert.throws(() => runNow(disk.discard(0, 512)), { code: "disk-read-only" });
    assert.throws(() => runNow(disk.read(SIZE, new Uint8Array(1))), { code: "disk-range" });
    runNow(disk.flush());
    assert.deepEqual(port.bytes(), before);
  });
});

describe("crashes", () => {
  const run = fc.record({
    clusterBits: fc.constantFrom(9, 10, 12),
    hasBacking: fc.boolean(),
    operations: fc.array(operation, { minLength: 1, maxLength: 25, size: "max" }),
    cut: fc.double({ min: 0, max: 1, noNaN: true }),
    seed: fc.nat(),
  });

  /** For each sector, all contents that it may have: those since the last flush. */
  class Allowed {
    readonly #sectors: Uint8Array[][];

    constructor(model: Uint8Array) {
      this.#sectors = Array.from({ length: SIZE / SECTOR }, (_, i) => [sectorOf(model, i)]);
    }

    add(model: Uint8Array): void {
      for (const [i, list] of this.#sectors.entries()) {
        const now = sectorOf(model, i);
        if (!equal(now, list.at(-1)!)) list.push(now);
      }
    }

    check(bytes: Uint8Array): void {
      for (const [i, list] of this.#sectors.entries()) {
        const is = sectorOf(bytes, i);
        assert.ok(
          list.some((one) => equal(one, is)),
          `sector ${i} has neither its old nor a newer content`,
        );
      }
    }
  }

  const sectorOf = (bytes: Uint8Array, i: number) => bytes.slice(i * SECTOR, (i + 1) * SECTOR);
  const equal = (a: Uint8Array, b: Uint8Array) => a.every((byte, i) => byte === b[i]);

  /** Runs operations over a fresh image and remembers how many writes each had made. */
  function history(
    {
      clusterBits,
      hasBacking,
      operations,
    }: { clusterBits: number; hasBacking: boolean; operations: readonly Operation[] },
    writeThrough: boolean,
  ) {
    const port = new CrashPort();
    create(port, clusterBits, hasBacking);
    const backing = backingDisk();
    const options = { writeThrough, ...(hasBacking ? { backing: backing.disk } : {}) };
    const disk = runNow(Qcow2Disk.open(port, options));
    const model = hasBacking ? backing.bytes.slice() : new Uint8Array(SIZE);
    const first = port.writes.length;
    const steps = [{ writes: first, model: model.slice(), isFlush: true }];
    for (const op of operations) {
      runNow(carryOut(disk, model, op));
      steps.push({
        writes: port.writes.length,
        model: model.slice(),
        isFlush: op.kind === "flush",
      });
    }
    return { port, options, steps, first };
  }

  test("power failure at any moment, any of the unflushed sectors kept: consistent, and nothing flushed is lost", () => {
    fc.assert(
      fc.property(run, ({ cut, seed, ...rest }) => {
        const { port, options, steps, first } = history(rest, false);
        const count = first + Math.floor(cut * (port.writes.length - first + 1));
        let random = seed;
        const isKept = () => {
          random = (Math.imul(random, 1_103_515_245) + 12_345) >>> 0;
          return (random & 0x1_0000) !== 0;
        };
        const left = port.afterPowerFailure(count, isKept);
        const done = steps.filter(({ writes }) => writes <= count);
        const last = done.findLastIndex(({ isFlush }) => isFlush);
        const allowed = new Allowed(done[last]!.model);
        // One more step: the operation in which the power failed.
        for (const { model } of steps.slice(last, done.length + 1)) allowed.add(model);
        assert.equal(runNow(checkQcow2(left)).errors, 0);
        const disk = runNow(Qcow2Disk.open(left, options));
        allowed.check(readAll(disk));
        runNow(disk.write(0, content(8, 77)));
        runNow(disk.flush());
        assert.equal(runNow(checkQcow2(left)).errors, 0);
      }),
      { numRuns: 150 },
    );
  });

  test("power failure with metadata written through: the image opens, counts again, and is consistent", () => {
    fc.assert(
      fc.property(run, ({ cut, seed, ...rest }) => {
        const { port, options, first } = history(rest, true);
        const count = first + Math.floor(cut * (port.writes.length - first + 1));
        let random = seed;
        const left = port.afterPowerFailure(count, () => {
          random = (Math.imul(random, 1_103_515_245) + 12_345) >>> 0;
          return (random & 0x1_0000) !== 0;
        });
        const source = {
          port: left,
          backing: () => ({ port: backingPort(), backing: assert.fail }),
        };
        const disk = runNow(openImage(source, { writeThrough: true }));
        assert.deepEqual(runNow(checkQcow2(left)), { leaks: 0, errors: 0 });
        readAll(disk);
        runNow(disk.write(0, content(40, 77)));
        runNow(disk.close());
        assert.deepEqual(runNow(checkQcow2(left)), { leaks: 0, errors: 0 });
        assert.deepEqual(readAll(open(left, options)).subarray(0, 40 * SECTOR), content(40, 77));
      }),
      { numRuns: 150 },
    );
  });

  test("death of the process at any moment, metadata written through: no finished operation is lost", () => {
    fc.assert(
      fc.property(run, ({ cut, ...rest }) => {
        const { port, options, steps, first } = history(rest, true);
        const count = first + Math.floor(cut * (port.writes.length - first + 1));
        const left = port.afterWrites(count);
        const done = steps.filter(({ writes }) => writes <= count);
        const allowed = new Allowed(done.at(-1)!.model);
        for (const { model } of steps.slice(done.length - 1, done.length + 1)) allowed.add(model);
        assert.equal(runNow(checkQcow2(left)).errors, 0);
        const isMarked = runNow(readHeader(left)).isDirty;
        allowed.check(readAll(runNow(Qcow2Disk.open(left, { ...options, readOnly: true }))));
        assert.equal(isMarked, count > first, "open until it is closed");
        assert.equal(runNow(checkQcow2(left)).errors, 0);
        // Leaks are all that repair finds.
        assert.equal(runNow(repairQcow2(left)).errors, 0);
        assert.deepEqual(runNow(checkQcow2(left)), { leaks: 0, errors: 0 });
      }),
      { numRuns: 150 },
    );
  });
});

describe("a log of what is held back", () => {
  const run = fc.record({
    ...{ clusterBits: fc.constantFrom(9, 10, 12), hasBacking: fc.boolean() },
    operations: fc.array(operation, { minLength: 1, maxLength: 25, size: "max" }),
    ...{ cut: fc.double({ min: 0, max: 1, noNaN: true }), seed: fc.nat() },
  });

  /** Operations over a fresh image with a log, and what both ports had after each of their writes. */
  function history({
    clusterBits,
    hasBacking,
    operations,
  }: {
    readonly clusterBits: number;
    readonly hasBacking: boolean;
    readonly operations: readonly Operation[];
  }) {
    const [port, logPort] = [new CrashPort(), new CrashPort()];
    create(port, clusterBits, hasBacking);
    const backing = backingDisk();
    const first = port.writes.length;
    const options = hasBacking ? { backing: backing.disk } : {};
    const disk = runNow(
      Qcow2Disk.open(port, { ...options, log: new MetadataLog(logPort, "boot 1") }),
    );
    /** How many writes of each there were: one entry for each write of either. */
    const moments = [{ image: first, log: logPort.writes.length }];
    for (const one of [port, logPort]) {
      const write = one.write.bind(one);
      one.write = (offset, bytes) => {
        write(offset, bytes);
        moments.push({ image: port.writes.length, log: logPort.writes.length });
      };
    }
    const model = hasBacking ? backing.bytes.slice() : new Uint8Array(SIZE);
    const steps = [{ moment: 0, model: model.slice(), isFlush: true }];
    for (const op of operations) {
      runNow(carryOut(disk, model, op));
      const isFlush = op.kind === "flush";
      steps.push({ moment: moments.length - 1, model: model.slice(), isFlush });
    }
    return { port, logPort, moments, steps, disk };
  }

  const reopen = (port: MemoryPort, log: MemoryPort, boot: string) => {
    const source = { port, backing: () => ({ port: backingPort(), backing: assert.fail }) };
    return runNow(openImage(source, { log: new MetadataLog(log, boot) }));
  };
  const isSector = (bytes: Uint8Array, model: Uint8Array, i: number) =>
    Buffer.compare(
      bytes.subarray(i * SECTOR, (i + 1) * SECTOR),
      model.subarray(i * SECTOR, (i + 1) * SECTOR),
    ) === 0;

  test("death of the process at any moment loses no finished operation", () => {
    fc.assert(
      fc.property(run, ({ cut, ...rest }) => {
        const { port, logPort, moments, steps } = history(rest);
        const moment = Math.floor(cut * (moments.length - 1));
        const { image, log } = moments[moment]!;
        const left = port.afterWrites(image);
        const disk = reopen(left, logPort.afterWrites(log), "boot 1");
        const bytes = readAll(disk);
        const done = steps.findLastIndex((step) => step.moment <= moment);
        // One more: the operation in which it died.
        const allowed = steps.slice(done, done + 2).map(({ model }) => model);
        for (let i = 0; i < SIZE / SECTOR; i++)
          assert.ok(
            allowed.some((model) => isSector(bytes, model, i)),
            `sector ${i}`,
          );
        runNow(disk.write(0, content(40, 77)));
        runNow(disk.close());
        assert.deepEqual(runNow(checkQcow2(left)), { leaks: 0, errors: 0 });
      }),
      { numRuns: 150 },
    );
  });

  test("a power failure at any moment loses nothing that was flushed, and invents nothing", () => {
    fc.assert(
      fc.property(run, ({ cut, seed, ...rest }) => {
        const { port, logPort, moments, steps } = history(rest);
        const moment = Math.floor(cut * (moments.length - 1));
        let random = seed;
        const isKept = () => {
          random = (Math.imul(random, 1_103_515_245) + 12_345) >>> 0;
          return (random & 0x1_0000) !== 0;
        };
        const left = port.afterPowerFailure(moments[moment]!.image, isKept);
        const log = logPort.afterPowerFailure(moments[moment]!.log, isKept);
        const disk = reopen(left, log, "boot 2");
        const bytes = readAll(disk);
        const done = steps.findLastIndex((step) => step.moment <= moment);
        const flushed = steps.slice(0, done + 1).findLastIndex(({ isFlush }) => isFlush);
        const allowed = steps.slice(flushed, done + 2).map(({ model }) => model);
        for (let i = 0; i < SIZE / SECTOR; i++)
          assert.ok(
            allowed.some((model) => isSector(bytes, model, i)),
            `sector ${i}`,
          );
        runNow(disk.close());
        assert.deepEqual(runNow(checkQcow2(left)), { leaks: 0, errors: 0 });
      }),
      { numRuns: 150 },
    );
  });

  test("an image that was closed since, by whomever, is not touched by what its log says", () => {
    const { port, logPort, steps } = history({
      ...{ clusterBits: 12, hasBacking: true },
      operations: [
        { kind: "write", at: 8, sectors: 8, seed: 3 },
        { kind: "write", at: 64, sectors: 8, seed: 4 },
      ],
    });
    const left = port.afterWrites(port.writes.length);
    const log = logPort.afterWrites(logPort.writes.length);
    runNow(repairQcow2(left));
    const before = left.bytes();
    const closed = reopen(left, log, "boot 1");
    assert.equal(Buffer.compare(left.bytes(), before), 0);
    // The first made tables, which are written at once; the second was in the log alone.
    assert.equal(Buffer.compare(readAll(closed), steps[1]!.model), 0);
    const died = port.afterWrites(port.writes.length);
    const kept = reopen(died, logPort.afterWrites(logPort.writes.length), "boot 1");
    assert.equal(Buffer.compare(readAll(kept), steps[2]!.model), 0, "it was there to be had");
  });

  test("any bytes as a log: the image opens and is consistent", () => {
    const { port, logPort } = history({
      ...{ clusterBits: 9, hasBacking: false },
      operations: [{ kind: "write", at: 8, sectors: 8, seed: 3 }],
    });
    const good = logPort.afterWrites(logPort.writes.length).bytes();
    fc.assert(
      fc.property(fc.nat(good.length - 1), fc.nat(good.length), fc.nat(255), (at, end, byte) => {
        const bytes = good.slice(0, end);
        if (at < end) bytes[at] = byte;
        const left = port.afterWrites(port.writes.length);
        reopen(left, new MemoryPort(bytes), "boot 1");
        assert.equal(runNow(checkQcow2(left)).errors, 0);
      }),
      { numRuns: 200 },
    );
  });
});

describe("closing", () => {
  test("a closed image has no mark, and all that was written", () => {
    const port = new MemoryPort();
    create(port, 12, false);
    const disk = open(port, { writeThrough: true });
    runNow(disk.write(4096, content(8, 3)));
    assert.ok(runNow(readHeader(port)).isDirty);
    assert.throws(() => open(port), { code: "qcow2-corrupt" });
    runNow(disk.close());
    assert.ok(!runNow(readHeader(port)).isDirty);
    assert.deepEqual(runNow(checkQcow2(port)), { leaks: 0, errors: 0 });
  });
});

describe("hostile images", () => {
  const make = (clusterBits: number) => {
    const port = new MemoryPort();
    create(port, clusterBits, false);
    const disk = open(port);
    runNow(disk.write(3000, content(40, 5).subarray(0, 20_000)));
    runNow(disk.flush());
    return port.bytes();
  };

  const known = /^(qcow2-corrupt|qcow2-unsupported|disk-[a-z0-9-]+)$/;

  test("any bytes changed anywhere: opened or refused with a code; reads and writes end", () => {
    const images = [9, 12].map(make);
    const change = fc.record({
      at: fc.oneof(fc.nat(112), fc.nat(6 * 4096)),
      value: fc.constantFrom(0, 1, 2, 0x40, 0x7f, 0x80, 0xff),
    });
    fc.assert(
      fc.property(
        fc.nat(1),
        fc.array(change, { minLength: 1, maxLength: 8 }),
        fc.array(operation, { maxLength: 6 }),
        (image, changes, operations) => {
          const bytes = images[image]!.slice();
          for (const { at, value } of changes) bytes[at % bytes.length] = value;
          const port = new MemoryPort(bytes);
          const attempt = (work: () => void) => {
            try {
              work();
            } catch (error) {
              assert.match((error as { code?: string }).code ?? String(error), known);
            }
          };
          attempt(() => {
            const disk = open(port);
            if (disk.size < SIZE) return;
            attempt(() => runNow(disk.read(0, new Uint8Array(SIZE))));
            for (const op of operations) attempt(() => runNow(perform(disk, op)));
            attempt(() => runNow(disk.flush()));
          });
          if (port.size < 1 << 22) attempt(() => runNow(checkQcow2(port)));
        },
      ),
      { numRuns: 1500 },
    );
  });

  test("a guest cannot reach the header through an L2 entry that leads there", () => {
    const bytes = make(12);
    const view = new DataView(bytes.buffer);
    const l2 = view.getUint32(view.getUint32(HeaderAt.L1_OFFSET + 4) + 4);
    for (const target of [0, 4096, 2 * 4096, l2]) {
      const image = bytes.slice();
      // Cluster 0 of the disk: cluster `target` of the file, marked as its own.
      new DataView(image.buffer).setUint32(l2, 0x8000_0000);
      new DataView(image.buffer).setUint32(l2 + 4, target || 0);
      const port = new MemoryPort(image);
      const disk = open(port);
      if (target === 0) continue;
      assert.throws(() => runNow(disk.write(0, new Uint8Array(512))), { code: "qcow2-corrupt" });
      assert.throws(() => runNow(disk.write(8192, new Uint8Array(512))), { code: "qcow2-corrupt" });
      assert.deepEqual(port.bytes(), image, "and nothing was changed");
    }
  });

  const refused: [string, number, number[], string][] = [
    ["another version", HeaderAt.VERSION, [0, 0, 0, 4], "qcow2-unsupported"],
    ["encryption", HeaderAt.CRYPT, [0, 0, 0, 1], "qcow2-unsupported"],
    ["an unknown feature", HeaderAt.INCOMPATIBLE, [0x80], "qcow2-unsupported"],
    ["an external data file", HeaderAt.INCOMPATIBLE + 7, [4], "qcow2-unsupported"],
    ["zstd", HeaderAt.INCOMPATIBLE + 7, [8], "qcow2-unsupported"],
    ["extended L2 entries", HeaderAt.INCOMPATIBLE + 7, [16], "qcow2-unsupported"],
    ["tiny clusters", HeaderAt.CLUSTER_BITS + 3, [8], "qcow2-corrupt"],
    ["huge clusters", HeaderAt.CLUSTER_BITS + 3, [22], "qcow2-corrupt"],
    ["an L1 table that is too small", HeaderAt.SIZE, [0, 0, 0x10], "qcow2-corrupt"],
    ["a huge L1 table", HeaderAt.L1_ENTRIES, [0x10], "qcow2-corrupt"],
    ["an L1 table off its cluster", HeaderAt.L1_OFFSET + 7, [8], "qcow2-corrupt"],
    ["an L1 table outside the file", HeaderAt.L1_OFFSET + 2, [1], "qcow2-corrupt"],
    ["a refcount table outside the file", HeaderAt.REFCOUNT_OFFSET, [1], "qcow2-corrupt"],
    ["a huge refcount table", HeaderAt.REFCOUNT_CLUSTERS, [1], "qcow2-corrupt"],
    ["wide refcounts", HeaderAt.REFCOUNT_ORDER + 3, [7], "qcow2-corrupt"],
    ["the mark of corruption", HeaderAt.INCOMPATIBLE + 7, [2], "qcow2-corrupt"],
  ];
  for (const [title, at, value, code] of refused) {
    test(`${title}: ${code}`, () => {
      const bytes = make(12);
      bytes.set(value, at);
      assert.throws(() => open(new MemoryPort(bytes)), { code });
    });
  }

  test("what is no qcow2 image", () => {
    for (const length of [0, 3, 71, 1000])
      assert.throws(() => open(new MemoryPort(new Uint8Array(length))), {
        code: "disk-not-qcow2",
      });
  });
});
