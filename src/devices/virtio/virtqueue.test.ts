import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { restoreState, saveState } from "../state.ts";
import { throughJson } from "../test-wires.ts";
import { FlatMemory, guestAddress, NOWHERE } from "./guest-memory.ts";
import { type RingFeatures, Virtqueue } from "./virtqueue.ts";

const RAM = 0x1_0000;
const DESC = 0x1000;
const AVAILABLE = 0x2000;
const USED = 0x3000;
const SIZE = 8;
const NEXT = 1;
const WRITE = 2;
const INDIRECT = 4;

function setUp(features: Partial<RingFeatures> = {}, size = SIZE) {
  const ram = new Uint8Array(RAM);
  const view = new DataView(ram.buffer);
  const log = { interrupts: 0, reasons: [] as string[] };
  const queue = new Virtqueue(256, new FlatMemory(ram), {
    interrupt: () => log.interrupts++,
    broken: (reason) => log.reasons.push(reason),
  });
  const ring = { indirect: false, eventIndex: false, ...features };
  queue.state.size = size;
  queue.state.addresses = [DESC, 0, AVAILABLE, 0, USED, 0];
  queue.enable(ring);
  const descriptor = (
    at: number,
    address: number,
    length: number,
    flags: number,
    next = 0,
    high = 0,
  ) => {
    view.setUint32(at, address, true);
    view.setUint32(at + 4, high, true);
    view.setUint32(at + 8, length, true);
    view.setUint16(at + 12, flags, true);
    view.setUint16(at + 14, next, true);
  };
  const set = (index: number, ...rest: [number, number, number, number?, number?]) =>
    descriptor(DESC + 16 * index, ...rest);
  let index = 0;
  const offer = (...heads: number[]) => {
    for (const head of heads) view.setUint16(AVAILABLE + 4 + 2 * (index++ % size), head, true);
    view.setUint16(AVAILABLE + 2, index, true);
  };
  const event = (value: number) => view.setUint16(AVAILABLE + 4 + 2 * size, value, true);
  return { ram, view, log, queue, ring, descriptor, set, offer, event };
}

describe("popping", () => {
  test("a chain comes with its readable and writable bytes, seen as one run each", () => {
    const { ram, queue, set, offer } = setUp();
    set(3, 0x4000, 4, NEXT, 5);
    set(5, 0x5000, 3, NEXT, 1);
    set(1, 0x6000, 2, NEXT | WRITE, 2);
    set(2, 0x7000, 6, WRITE);
    ram.set([1, 2, 3, 4], 0x4000);
    ram.set([5, 6, 7], 0x5000);
    offer(3);
    const chain = queue.pop()!;
    assert.equal(chain.head, 3);
    assert.deepEqual([chain.readableBytes, chain.writableBytes], [7, 8]);
    assert.deepEqual([...chain.take(2, 4)!], [3, 4, 5, 6]);
    assert.equal(chain.take(4, 4), undefined, "beyond the readable bytes");
    assert.ok(chain.write(1, Uint8Array.of(9, 8, 7)));
    assert.deepEqual([...ram.subarray(0x6000, 0x6002)], [0, 9]);
    assert.deepEqual([...ram.subarray(0x7000, 0x7002)], [8, 7]);
    assert.ok(!chain.write(6, new Uint8Array(3)));
    assert.equal(queue.pop(), undefined);
  });

  test("an indirect table may end a chain of direct descriptors, and be longer than the queue", () => {
    const { queue, set, descriptor, offer, log } = setUp({ indirect: true });
    set(0, 0x4000, 1, NEXT, 1);
    set(1, 0x8000, 16 * 20, INDIRECT | WRITE);
    for (let i = 0; i < 20; i++)
      descriptor(0x8000 + 16 * i, 0x5000, 2, i < 19 ? NEXT : WRITE, i + 1);
    offer(0);
    const chain = queue.pop()!;
    assert.deepEqual(log.reasons, []);
    assert.deepEqual([chain.readableBytes, chain.writableBytes], [1 + 2 * 19, 2]);
  });

  test("the indices run on past 65535", () => {
    const { queue, set, view, log } = setUp();
    set(0, 0x4000, 4, 0);
    for (let i = 0; i < 70_000; i++) {
      view.setUint16(AVAILABLE + 4 + 2 * (i % SIZE), 0, true);
      view.setUint16(AVAILABLE + 2, i + 1, true);
      queue.push(queue.pop()!, 0);
      queue.flush();
    }
    assert.equal(view.getUint16(USED + 2, true), 70_000 & 0xffff);
    assert.deepEqual(log.reasons, []);
  });
});

describe("what the specification forbids breaks the queue, once", () => {
  const cases: Record<string, (q: ReturnType<typeof setUp>) => void> = {
    "a loop": ({ set, offer }) => {
      set(0, 0x4000, 4, NEXT, 1);
      set(1, 0x4000, 4, NEXT, 0);
      offer(0);
    },
    "a head beyond the queue": ({ offer }) => offer(SIZE),
    "a next beyond the queue": ({ set, offer }) => {
      set(0, 0x4000, 4, NEXT, SIZE);
      offer(0);
    },
    "readable after writable": ({ set, offer }) => {
      set(0, 0x4000, 4, NEXT | WRITE, 1);
      set(1, 0x4000, 4, 0);
      offer(0);
    },
    "a buffer past the end of memory": ({ set, offer }) => {
      set(0, RAM - 2, 4, 0);
      offer(0);
    },
    "a buffer that wraps the address space": ({ set, offer }) => {
      set(0, 0xffff_fff0, 0x20, 0, 0, 0xffff_ffff);
      offer(0);
    },
    "an index too far ahead": ({ view }) => view.setUint16(AVAILABLE + 2, SIZE + 1, true),
    "an index that went back": ({ view, queue, set, offer }) => {
      set(0, 0x4000, 4, 0);
      offer(0);
      queue.pop();
      view.setUint16(AVAILABLE + 2, 0, true);
    },
    "a head that is in flight": ({ queue, set, offer }) => {
      set(0, 0x4000, 4, 0);
      offer(0, 0);
      queue.pop();
    },
    "an indirect descriptor that was not negotiated": ({ set, offer }) => {
      set(0, 0x4000, 16, INDIRECT);
      offer(0);
    },
  };
  for (const [title, provoke] of Object.entries(cases)) {
    test(title, () => {
      const all = setUp();
      provoke(all);
      assert.equal(all.queue.pop(), undefined);
      assert.equal(all.queue.pop(), undefined);
      assert.equal(all.log.reasons.length, 1);
      assert.equal(all.queue.isLive, false);
    });
  }

  const indirect: Record<string, (q: ReturnType<typeof setUp>) => void> = {
    "a table in a table": ({ set, descriptor }) => {
      set(0, 0x4000, 16, INDIRECT);
      descriptor(0x4000, 0x4000, 16, INDIRECT);
    },
    "a table with a next": ({ set, descriptor }) => {
      set(0, 0x4000, 16, INDIRECT | NEXT, 1);
      descriptor(0x4000, 0x5000, 16, 0);
    },
    "an empty table": ({ set }) => set(0, 0x4000, 0, INDIRECT),
    "a table of a piece of a descriptor": ({ set }) => set(0, 0x4000, 24, INDIRECT),
    "a table of more entries than there may be": ({ set }) => set(0, 0, 16 * 1025, INDIRECT),
    "a table outside memory": ({ set }) => set(0, RAM - 8, 16, INDIRECT),
    "a loop in a table": ({ set, descriptor }) => {
      set(0, 0x4000, 32, INDIRECT);
      descriptor(0x4000, 0x5000, 1, NEXT, 1);
      descriptor(0x4010, 0x5000, 1, NEXT, 0);
    },
    "a next beyond a table": ({ set, descriptor }) => {
      set(0, 0x4000, 16, INDIRECT);
      descriptor(0x4000, 0x5000, 1, NEXT, 1);
    },
  };
  for (const [title, provoke] of Object.entries(indirect)) {
    test(title, () => {
      const all = setUp({ indirect: true });
      provoke(all);
      all.offer(0);
      assert.equal(all.queue.pop(), undefined);
      assert.equal(all.log.reasons.length, 1);
    });
  }

  test("set-ups that cannot be", () => {
    const bad: [number, number[]][] = [
      [0, [DESC, 0, AVAILABLE, 0, USED, 0]],
      [3, [DESC, 0, AVAILABLE, 0, USED, 0]],
      [512, [DESC, 0, AVAILABLE, 0, USED, 0]],
      [8, [DESC + 8, 0, AVAILABLE, 0, USED, 0]],
      [8, [DESC, 0, AVAILABLE + 1, 0, USED, 0]],
      [8, [DESC, 0, AVAILABLE, 0, USED + 2, 0]],
      [8, [DESC, 1, AVAILABLE, 0, USED, 0]],
      [8, [DESC, 0, AVAILABLE, 0, RAM - 16, 0]],
      [8, [DESC, 0, AVAILABLE, 0, DESC + 64, 0]],
      [8, [DESC, 0, AVAILABLE, 0, AVAILABLE + 4, 0]],
      [8, [DESC, 0xffff_ffff, AVAILABLE, 0xffff_ffff, USED, 0xffff_ffff]],
    ];
    for (const [size, addresses] of bad) {
      const { log, queue, ring } = setUp();
      queue.reset();
      Object.assign(queue.state, { size, addresses });
      queue.enable(ring);
      assert.equal(log.reasons.length, 1, JSON.stringify([size, addresses]));
      assert.equal(queue.pop(), undefined);
    }
  });

  test("a driver that changes a descriptor while it is walked is judged by what was read once", () => {
    // A table that lies inside its own buffers: what the device writes there is never read as a descriptor.
    const { ram, queue, set, descriptor, offer } = setUp({ indirect: true });
    set(0, 0x4000, 32, INDIRECT);
    descriptor(0x4000, 0x4000, 16, NEXT | WRITE, 1);
    descriptor(0x4010, 0x4010, 16, WRITE);
    offer(0);
    const chain = queue.pop()!;
    assert.ok(chain.write(0, new Uint8Array(32).fill(0xff)));
    assert.deepEqual(chain.addresses, [0x4000, 0x4010]);
    assert.equal(ram[0x401f], 0xff);
  });
});

describe("interrupts and notifications", () => {
  const cycle = ({ queue, offer }: ReturnType<typeof setUp>, count: number) => {
    for (let i = 0; i < count; i++) {
      offer(i % SIZE);
      queue.push(queue.pop()!, 5);
    }
    queue.flush();
  };
  const many = (features: Partial<RingFeatures>) => {
    const all = setUp(features);
    for (let i = 0; i < SIZE; i++) all.set(i, 0x4000, 4, WRITE);
    return all;
  };

  test("used elements appear only with flush, and one interrupt is for all of them", () => {
    const all = many({});
    all.offer(2, 4);
    all.queue.push(all.queue.pop()!, 7);
    all.queue.push(all.queue.pop()!, 9);
    assert.equal(all.view.getUint16(USED + 2, true), 0);
    assert.equal(all.log.interrupts, 0);
    all.queue.flush();
    assert.equal(all.view.getUint16(USED + 2, true), 2);
    assert.deepEqual(
      [4, 8, 12, 16].map((at) => all.view.getUint32(USED + at, true)),
      [2, 7, 4, 9],
    );
    assert.equal(all.log.interrupts, 1);
    all.queue.flush();
    assert.equal(all.log.interrupts, 1);
  });

  test("flags: the driver's NO_INTERRUPT, the device's NO_NOTIFY", () => {
    const all = many({});
    all.view.setUint16(AVAILABLE, 1, true);
    cycle(all, 3);
    assert.equal(all.log.interrupts, 0);
    all.queue.setNotify(false);
    assert.equal(all.view.getUint16(USED, true), 1);
    all.offer(1);
    assert.equal(all.queue.setNotify(true), true, "one waits already");
    assert.equal(all.view.getUint16(USED, true), 0);
  });

  test("event index: an interrupt when the driver's index is passed, and only then", () => {
    const all = many({ eventIndex: true });
    all.event(2);
    cycle(all, 2);
    assert.equal(all.log.interrupts, 0);
    cycle(all, 1);
    assert.equal(all.log.interrupts, 1);
    cycle(all, 5);
    assert.equal(all.log.interrupts, 1);
    all.event(7);
    cycle(all, 1);
    assert.equal(all.log.interrupts, 1);
    all.event(9);
    cycle(all, 4);
    assert.equal(all.log.interrupts, 2);
    all.queue.setNotify(true);
    assert.equal(all.view.getUint16(USED + 4 + 8 * SIZE, true), 13);
  });
});

test("state: what was in flight at a save can be pushed after the restore", () => {
  const all = setUp();
  for (let i = 0; i < SIZE; i++) all.set(i, 0x4000, 4, WRITE);
  all.offer(5, 2, 7);
  const first = all.queue.pop()!;
  const second = all.queue.pop()!;
  all.queue.push(second, 0);
  all.queue.flush();
  const copy = setUp();
  copy.ram.set(all.ram);
  restoreState(copy.queue.state, throughJson(saveState(all.queue.state)));
  copy.queue.resume(copy.ring);
  const again = copy.queue.restoreChain(throughJson(first.save()));
  assert.deepEqual(again.addresses, first.addresses);
  copy.queue.push(again, 1);
  copy.queue.push(again, 1);
  copy.queue.flush();
  assert.equal(copy.view.getUint16(USED + 2, true), 2, "once");
  assert.equal(copy.queue.pop()?.head, 7);
  for (const bad of [
    null,
    {},
    { ...first.save(), addresses: [RAM] },
    { ...first.save(), head: "5" },
  ])
    assert.throws(() => copy.queue.restoreChain(bad), { code: "snapshot-shape" });
});

test("a chain of more than 4 GiB is refused even where memory would have it", () => {
  const { ram, set, offer, log, ring } = setUp();
  const small = new FlatMemory(ram);
  const queue = new Virtqueue(
    SIZE,
    {
      contains: () => true,
      read: (gpa, into) => small.read(gpa, into),
      write: (gpa, bytes) => small.write(gpa, bytes),
    },
    { interrupt() {}, broken: (reason) => log.reasons.push(reason) },
  );
  queue.state.addresses = [DESC, 0, AVAILABLE, 0, USED, 0];
  queue.enable(ring);
  for (let i = 0; i < 4; i++) set(i, 0, 0x5000_0000, i < 3 ? NEXT : 0, i + 1);
  offer(1);
  assert.equal(queue.pop()?.readableBytes, 3 * 0x5000_0000);
  offer(0);
  assert.equal(queue.pop(), undefined);
  assert.deepEqual(log.reasons, ["a descriptor chain of more than 4 GiB"]);
});

test("addresses above 2^52 lead nowhere", () => {
  assert.equal(guestAddress(0xffff_ffff, 0xf_ffff), 2 ** 52 - 1);
  assert.equal(guestAddress(0, 0x10_0000), NOWHERE);
  assert.equal(guestAddress(-1, -1), NOWHERE);
});

/** A driver that writes anything anywhere: rings, descriptors, tables, indices; and changes them between any two steps. */
const hostileStep = fc.oneof(
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constant("descriptor" as const),
      at: fc.oneof(
        fc.nat(SIZE - 1).map((i) => DESC + 16 * i),
        fc.nat(40).map((i) => 0x4000 + 16 * i),
      ),
      address: fc.oneof(
        fc.constantFrom(0x4000, 0x4010, DESC, USED, RAM - 8, 0xffff_ffff),
        fc.nat(RAM),
      ),
      high: fc.constantFrom(0, 0, 0, 0, 1, 0xffff_ffff),
      length: fc.oneof(
        fc.constantFrom(0, 1, 16, 32, 48, 16 * 40, 0xffff_ffff, 0x8000_0000),
        fc.nat(256),
      ),
      flags: fc.oneof(fc.nat(7), fc.constantFrom(1, 2, 3, 4)),
      next: fc.oneof(fc.nat(SIZE), fc.nat(40), fc.constant(0xffff)),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constant("offer" as const),
      head: fc.oneof(fc.nat(SIZE - 1), fc.nat(SIZE), fc.nat(0xffff)),
    }),
  },
  fc.record({ kind: fc.constant("index" as const), value: fc.nat(0xffff) }),
  fc.record({ kind: fc.constant("event" as const), value: fc.nat(0xffff) }),
  fc.record({ kind: fc.constant("poke" as const), at: fc.nat(RAM - 1), value: fc.nat(255) }),
  fc.record({ kind: fc.constant("pop" as const) }),
  fc.record({ kind: fc.constant("push" as const), written: fc.nat(0xffff) }),
  fc.record({ kind: fc.constant("notify" as const), wanted: fc.boolean() }),
);

test("a hostile driver: every call ends, stays in memory, throws nothing, and a broken queue stays silent", () => {
  fc.assert(
    fc.property(
      fc.array(hostileStep, { maxLength: 60, size: "max" }),
      fc.record({ indirect: fc.boolean(), eventIndex: fc.boolean() }),
      (steps, features) => {
        const all = setUp(features);
        const { queue, view, descriptor, log } = all;
        const held: NonNullable<ReturnType<Virtqueue["pop"]>>[] = [];
        for (const step of steps) {
          if (step.kind === "descriptor")
            descriptor(step.at, step.address, step.length, step.flags, step.next, step.high);
          else if (step.kind === "offer") all.offer(step.head);
          else if (step.kind === "index") view.setUint16(AVAILABLE + 2, step.value, true);
          else if (step.kind === "event") all.event(step.value);
          else if (step.kind === "poke") view.setUint8(step.at, step.value);
          else if (step.kind === "notify") queue.setNotify(step.wanted);
          else if (step.kind === "push") {
            const chain = held.shift();
            if (chain) queue.push(chain, step.written);
            queue.flush();
          } else {
            const chain = queue.pop();
            if (!chain) continue;
            held.push(chain);
            const { addresses, lengths, readableBytes, writableBytes } = chain;
            const total = lengths.reduce((sum, length) => sum + length, 0);
            assert.equal(total, readableBytes + writableBytes);
            for (const [i, address] of addresses.entries())
              assert.ok(address + lengths[i]! <= RAM, "inside memory");
            assert.ok(lengths.length <= SIZE + 1024);
            chain.write(0, new Uint8Array(Math.min(writableBytes, 4096)).fill(0xee));
          }
        }
        assert.ok(log.reasons.length <= 1);
        if (log.reasons.length > 0) {
          const { interrupts } = log;
          const before = all.ram.slice(USED, USED + 100);
          for (const chain of held) queue.push(chain, 1);
          queue.flush();
          assert.equal(queue.pop(), undefined);
          assert.deepEqual(all.ram.slice(USED, USED + 100), before);
          assert.equal(log.interrupts, interrupts);
        } else {
          assert.equal(new Set(held.map(({ head }) => head)).size, held.length);
        }
      },
    ),
    { numRuns: 2000 },
  );
});
