import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { EffectWriter, type Move } from "../abi/effects.ts";
import type { Message } from "../abi/message.ts";
import type { ServiceFactory } from "../abi/service.ts";
import { Status } from "../abi/status.ts";
import { DEAD } from "./service-calls.ts";
import { ServiceBench } from "./testing/service-bench.ts";

const WINDOWS = [
  { from: 0x1000, to: 0x2000, write: false },
  { from: 0x3000, to: 0x6000, write: true },
];
const HEADER = Uint8Array.of(7, 8, 9);

/** A service whose every exit asks for one move, or replies with what `forge` writes. */
function mover(move: Partial<Move>, forge?: (message: Message) => void) {
  const bench = new ServiceBench();
  const statuses: Status[] = [];
  const factory: ServiceFactory = (calls) => ({
    onEvent(message) {
      const segments = { addresses: [0x3ff0, 0x1800], lengths: [32, 4] };
      const whole = { stream: 0, toMemory: false, header: HEADER, segments, ...move };
      if (!forge) statuses.push(calls.move(whole));
      message.groups = 0;
      return Status.OK;
    },
    save: () => null,
    restore() {},
  });
  const service = bench.service(factory, { streams: [0], windows: WINDOWS });
  const portal = bench.portal(service);
  if (forge) {
    const { placement } = service;
    const call = placement!.call.bind(placement);
    placement!.call = (deadline) => {
      const outcome = call(deadline);
      forge(placement!.message);
      return outcome;
    };
  }
  return { bench, service, portal, statuses };
}

describe("moves between guest memory and a stream", () => {
  test("the embedder gets the header and the memory itself, once, however often the service dies", () => {
    for (const drill of [null, "kill", "lose-reply"] as const) {
      const { bench, service, portal } = mover({});
      bench.ram.fill(5, 0x3ff0, 0x4010);
      bench.ram.fill(6, 0x1800, 0x1804);
      service.drill = drill;
      assert.equal(bench.exit(portal), Status.OK);
      const bytes = [...new Array(32).fill(5), ...new Array(4).fill(6)];
      assert.deepEqual(bench.moves, [{ stream: 0, toMemory: false, header: [...HEADER], bytes }]);
      assert.deepEqual(bench.noticed, [], "memory that is read is not written");
    }
  });

  test("what is moved into memory is noticed page by page, before it is there", () => {
    const segments = { addresses: [0x3ff0, 0x5000], lengths: [32, 3] };
    const { bench, portal } = mover({ toMemory: true, segments });
    bench.exit(portal);
    assert.deepEqual(bench.noticed, [
      [0x3ff0, 16],
      [0x4000, 16],
      [0x5000, 3],
    ]);
    assert.deepEqual([...bench.ram.subarray(0x4ffe, 0x5004)], [0, 0, 2, 2, 2, 0]);
    assert.deepEqual([...bench.ram.subarray(0x400e, 0x4012)], [1, 1, 0, 0]);
  });

  test("a service that asks for more than it may is told so, and nothing moves", () => {
    const outside: Partial<Move>[] = [
      { stream: 1 },
      { segments: { addresses: [0x2000], lengths: [1] } },
      { segments: { addresses: [0x1fff], lengths: [2] } },
      { toMemory: true },
    ];
    for (const move of outside) {
      const { bench, portal, statuses } = mover(move);
      assert.equal(bench.exit(portal), Status.OK);
      assert.deepEqual([statuses, bench.moves], [[Status.DENIED], []]);
    }
    const many = new Array(5000);
    const { bench, portal, statuses } = mover({
      segments: { addresses: many.fill(0x3000), lengths: many.slice().fill(1) },
    });
    assert.equal(bench.exit(portal), Status.OK);
    assert.deepEqual([statuses, bench.moves], [[Status.LIMIT], []]);
  });

  test("a program that writes its records itself is held to the same", () => {
    const forged: [Partial<Move>, RegExp][] = [
      [{ stream: 1 }, /stream 1 is not a capability/],
      [{ toMemory: true }, /outside the memory windows/],
      [{ segments: { addresses: [2 ** 40], lengths: [1] } }, /outside the memory windows/],
      [{ segments: { addresses: [0x3000], lengths: [0xffff_ffff] } }, /outside the memory windows/],
      [{ header: new Uint8Array(4104) }, /malformed move/],
    ];
    for (const [move, why] of forged) {
      const { bench, portal, service } = mover(move, (message) => {
        const writer = new EffectWriter(message);
        const segments = { addresses: [0x1000], lengths: [1] };
        writer.addMove({ stream: 0, toMemory: false, header: HEADER, segments, ...move });
        message.dataBytes = writer.used;
      });
      // The new lives are honest.
      assert.equal(bench.exit(portal), Status.OK);
      assert.match(service.lastFailure ?? "", why);
    }
  });

  test("any words in a move: memory outside the windows is neither read nor written", () => {
    const word = fc.oneof(fc.nat(64), fc.integer({ min: 0, max: 0x7000 }), fc.nat(0xffff_ffff));
    fc.assert(
      fc.property(fc.array(word, { maxLength: 24 }), (words) => {
        const { bench, portal } = mover({}, (message) => {
          const writer = new EffectWriter(message);
          writer.add(9, words);
          message.dataBytes = writer.used;
        });
        const before = bench.ram.slice();
        assert.notEqual(bench.exit(portal), DEAD);
        for (let at = 0; at < before.length; at++)
          if (at < 0x3000 || at >= 0x6000) assert.equal(bench.ram[at], before[at]);
      }),
      { numRuns: 200 },
    );
  });
});
