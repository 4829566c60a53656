import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { Message } from "../abi/message.ts";
import type { Hypercalls, ServiceFactory, ServiceProgram } from "../abi/service.ts";
import { Status } from "../abi/status.ts";
import { Outcome, type Placement } from "./placement.ts";
import { DEAD } from "./service-calls.ts";
import { type Drill, NO_CAPABILITIES } from "./service-domain.ts";
import { ServiceBench } from "./testing/service-bench.ts";

/** Counts its exits, and says the count on stream 0 each time: a byte lost or doubled shows. */
class Counter implements ServiceProgram {
  count = 0;
  readonly #calls: Hypercalls;

  constructor(calls: Hypercalls) {
    this.#calls = calls;
  }

  onEvent(message: Message): Status {
    this.count++;
    this.#calls.put(
      0,
      Uint8Array.from(`${this.count} `, (c) => c.charCodeAt(0)),
    );
    message.groups = 0;
    return Status.OK;
  }

  save(): unknown {
    return { count: this.count };
  }

  restore(state: unknown): void {
    this.count = (state as { count: number }).count;
  }
}

const counter: ServiceFactory = (calls) => new Counter(calls);
const STREAM = { streams: [0] };

const said = (bench: ServiceBench): string => bench.puts.map(([, text]) => text).join("");

test("whatever happens to a service between and within messages, its effects happen once and in order", () => {
  const drills = fc.array(
    fc.constantFrom<Drill | "checkpoint" | null>("kill", "lose-reply", "checkpoint", null, null),
    { minLength: 1, maxLength: 300 },
  );
  fc.assert(
    fc.property(drills, (plan) => {
      const bench = new ServiceBench();
      const policy = { maxRestarts: 1000 };
      const service = bench.service(counter, STREAM, policy);
      const portal = bench.portal(service);
      for (const drill of plan) {
        if (drill === "checkpoint") bench.calls.checkpoint(service);
        else service.drill = drill;
        assert.equal(bench.exit(portal), Status.OK);
      }
      assert.equal(said(bench), plan.map((_, i) => `${i + 1} `).join(""));
      const kills = plan.filter((drill) => drill === "kill" || drill === "lose-reply").length;
      assert.equal(service.restarts, kills);
    }),
    { numRuns: 50 },
  );
});

test("a long journal is cut by checkpoints, and a restart after thousands of messages finds its place", () => {
  const bench = new ServiceBench();
  const service = bench.service(counter, STREAM);
  const portal = bench.portal(service);
  for (let i = 0; i < 5000; i++) bench.exit(portal);
  assert.ok(service.journal.entries <= 1024 && service.checkpoints >= 4);
  service.drill = "lose-reply";
  bench.exit(portal);
  assert.equal(bench.puts.at(-1)?.[1], "5001 ");
});

test("a program that throws is restarted and asked again; on one message it may fail three times", () => {
  let failures = 2;
  let badTime = 0;
  const flaky: ServiceFactory = (calls) => {
    const program = new Counter(calls);
    return {
      onEvent(message) {
        if (failures > 0 && calls.now() === badTime) {
          failures--;
          throw new Error("a bug");
        }
        return program.onEvent(message);
      },
      save: () => program.save(),
      restore: (state) => program.restore(state),
    };
  };
  const bench = new ServiceBench();
  const service = bench.service(flaky, STREAM);
  const portal = bench.portal(service);
  assert.equal(bench.exit(portal), Status.OK);
  assert.deepEqual([service.restarts, said(bench)], [2, "1 "]);
  failures = 100;
  badTime = 7;
  bench.time = 7;
  assert.equal(bench.exit(portal), DEAD);
  assert.match(bench.vm.end?.message ?? "", /service test given up: failed 4 times .*a bug/);
  assert.match(bench.logs.at(-1) ?? "", /given up/);
  assert.equal(said(bench), "1 ");
});

test("too many restarts in a while end the VM, the same number spread out does not", () => {
  for (const [step, ends] of [
    [1e6, true],
    [2e9, false],
  ] as const) {
    const bench = new ServiceBench();
    const service = bench.service(counter, STREAM, { maxRestarts: 5, windowNs: 5e9 });
    const portal = bench.portal(service);
    for (let i = 0; i < 8; i++) {
      service.drill = "kill";
      bench.time += step;
      bench.exit(portal);
    }
    assert.equal(bench.vm.end !== null, ends);
    if (ends) assert.match(bench.vm.end?.message ?? "", /5 restarts in 5 s/);
  }
});

test("nothing of a refused reply is committed: neither of its good effects, nor any of its state", () => {
  const greedy: ServiceFactory = (calls) => ({
    onEvent(message) {
      calls.put(0, Uint8Array.of(65));
      // Past the program's own check: a hostile one writes records itself.
      const { view } = message;
      view.setUint32(256 + 24, 3, true);
      view.setUint32(256 + 28, 8, true);
      message.dataBytes = 40;
      message.groups = 0;
      return Status.OK;
    },
    save: () => 0,
    restore() {},
  });
  const bench = new ServiceBench();
  const service = bench.service(greedy, STREAM);
  // The runtime sets the length, so it has to be lied about below it.
  const { placement } = service;
  assert.ok(placement);
  const forged = (inner: Placement): Placement => ({
    ...{ kind: inner.kind, message: inner.message, failure: "" },
    call(deadline) {
      const outcome = inner.call(deadline);
      if (inner.message.kind === 0) inner.message.dataBytes = 40;
      return outcome;
    },
    save: (deadline) => inner.save(deadline),
    restore: (state, deadline) => inner.restore(state, deadline),
    kill: () => inner.kill(),
  });
  service.placement = forged(placement);
  assert.equal(bench.exit(bench.portal(service)), Status.OK);
  assert.match(service.lastFailure ?? "", /interrupt message/);
  // Once, by the second life, which was not forged.
  assert.deepEqual(bench.puts, [[0, "A"]]);
});

test("a program that is not a function of its messages is found out by a replay, and given up", () => {
  let lives = 0;
  const moody: ServiceFactory = (calls) => {
    const mood = lives++;
    return {
      onEvent(message) {
        message.groups = 0;
        for (let i = 0; i < mood % 2; i++) calls.log("again");
        return Status.OK;
      },
      save: () => 0,
      restore() {},
    };
  };
  const bench = new ServiceBench();
  const service = bench.service(moody);
  const portal = bench.portal(service);
  bench.exit(portal);
  service.drill = "kill";
  bench.exit(portal);
  assert.ok(bench.logs.some((line) => /no function of its messages/.test(line)));
});

test("memory is reached by windows only; a replay reads what was read, and writes are effects", () => {
  const copier: ServiceFactory = (calls) => {
    const statuses: number[] = [];
    return {
      onEvent(message) {
        const bytes = new Uint8Array(4);
        statuses.push(calls.readMemory(0x1000, bytes), calls.readMemory(0x1ffe, bytes));
        statuses.push(calls.writeMemory(0x1000, bytes), calls.writeMemory(0x3000, bytes));
        calls.put(0, Uint8Array.from(`${statuses.slice(-4).join("")}:${[...bytes]} `, code));
        message.groups = 0;
        return Status.OK;
      },
      save: () => statuses,
      restore(state) {
        statuses.push(...(state as number[]));
      },
    };
  };
  const bench = new ServiceBench();
  const windows = [
    { from: 0x1000, to: 0x2000, write: false },
    { from: 0x3000, to: 0x3004, write: true },
  ];
  const service = bench.service(copier, { ...STREAM, windows });
  const portal = bench.portal(service);
  bench.ram.set([1, 2, 3, 4], 0x1000);
  bench.exit(portal);
  assert.deepEqual([...bench.ram.subarray(0x3000, 0x3004)], [1, 2, 3, 4]);
  bench.ram.set([5, 6, 7, 8], 0x1000);
  service.drill = "lose-reply";
  bench.exit(portal);
  assert.equal(said(bench), "0110:1,2,3,4 0110:5,6,7,8 ");
  assert.equal(service.restarts, 1);
});

const code = (c: string): number => c.charCodeAt(0);

/** A placement that answers what `forge` makes of the message. */
function forger(forge: (message: Message) => void): () => Placement {
  return () => {
    const message = new Message(new ArrayBuffer(4096));
    return {
      ...{ kind: "linked", message, failure: "" },
      call() {
        message.status = Status.OK;
        message.groups = 0;
        message.dataBytes = 0;
        if (message.kind === 0) forge(message);
        return Outcome.REPLIED;
      },
      save: () => 0,
      restore: () => true,
      kill() {},
    };
  };
}

test("a service that is late is ended: the placement says so, the kernel goes on", () => {
  const bench = new ServiceBench();
  let late = 1;
  let kills = 0;
  const good = forger(() => {});
  const service = bench.placed(() => {
    const placement = good();
    return {
      ...placement,
      call(deadlineMs) {
        assert.equal(deadlineMs > 0, true);
        if (placement.message.kind === 0 && late-- > 0) return Outcome.LATE;
        return placement.call(deadlineMs);
      },
      kill: () => kills++,
    };
  });
  assert.equal(bench.exit(bench.portal(service)), Status.OK);
  assert.deepEqual([service.restarts, kills], [1, 1]);
  assert.match(service.lastFailure ?? "", /no reply within 2000 ms/);
});

const refusals: [what: string, forge: (m: Message) => void, why: RegExp][] = [
  ["another seq", (m) => (m.seq += 1), /another message/],
  ["an unknown status", (m) => (m.status = 77), /status 77/],
  ["a forward to nobody", (m) => (m.status = Status.FORWARD), /no portal of its own/],
  ["foreign groups", (m) => (m.groups = 1 << 2), /outside the capability/],
  ["too much data", (m) => (m.dataBytes = 1 << 20), /impossible length/],
  ["odd data", (m) => (m.dataBytes = 12), /impossible length/],
  ["a record past the end", (m) => effect(m, 6, 4096, 16), /malformed effects/],
  ["an unknown effect", (m) => effect(m, 99, 0, 8), /unknown effect/],
  ["a line", (m) => effect(m, 2, 8, 16), /line 0 is not a capability/],
  ["an interrupt message", (m) => effect(m, 3, 8, 16, 0xfee0_0000), /not a capability/],
  ["an address that is none", (m) => effect(m, 3, 8, 16, 0x1000), /no interrupt message/],
  ["output", (m) => effect(m, 4, 8, 16), /stream 0 is not/],
  ["the end", (m) => effect(m, 5, 8, 16, 1), /poweroff is not/],
  ["a write", (m) => effect(m, 7, 12, 24), /outside the memory windows/],
  ["decoding", (m) => effect(m, 8, 24, 32), /decoding is not/],
];

function effect(m: Message, kind: number, length: number, total: number, first = 0): void {
  m.view.setUint32(256, kind, true);
  m.view.setUint32(260, length, true);
  m.view.setUint32(264, first, true);
  m.dataBytes = total;
}

for (const [what, forge, why] of refusals) {
  test(`without the capability a reply with ${what} is refused, and ends the VM if it comes again`, () => {
    const bench = new ServiceBench();
    const service = bench.placed(forger(forge), NO_CAPABILITIES);
    assert.equal(bench.exit(bench.portal(service)), DEAD);
    assert.match(bench.vm.end?.message ?? "", why);
    assert.deepEqual(bench.puts, []);
  });
}

test("a flood of log lines is cut off, and what is not printable does not reach the log", () => {
  const talker: ServiceFactory = (calls) => ({
    onEvent(message) {
      for (let i = 0; i < 300; i++) calls.log("\u001b[2J");
      message.groups = 0;
      return Status.OK;
    },
    save: () => 0,
    restore() {},
  });
  const bench = new ServiceBench();
  bench.exit(bench.portal(bench.service(talker)));
  assert.deepEqual([bench.logs.length, bench.logs[0]], [200, "test: ?[2J"]);
  assert.match(bench.logs[199] ?? "", /dropped/);
});

test("the ledger charges a service's time to its donor: the vCPU for its exits, the VM for the rest", () => {
  const busy: ServiceFactory = () => ({
    onEvent(message) {
      for (const end = performance.now() + 5; performance.now() < end; );
      message.groups = 0;
      return Status.OK;
    },
    onInput() {
      for (const end = performance.now() + 5; performance.now() < end; );
      return 1;
    },
    save: () => 0,
    restore() {},
  });
  const bench = new ServiceBench();
  const service = bench.service(busy);
  const { ledger } = bench.vm;
  const start = performance.now();
  ledger.resume();
  bench.exit(bench.portal(service));
  bench.input(service, 1);
  ledger.pause();
  const whole = performance.now() - start;
  const sum = ledger.guest.ms + ledger.kernel.ms + service.account.ms;
  assert.ok(service.vcpuMs >= 5 && service.account.ms - service.vcpuMs >= 5);
  assert.ok(Math.abs(sum - whole) < 0.5, `${sum} of ${whole}`);
});
