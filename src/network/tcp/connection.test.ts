import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { TcpFlag, type TcpSegment } from "../packet/tcp-segment.ts";
import { TcpState } from "./tcb.ts";
import { type End, pattern, TestWire } from "./test-wire.ts";

const NO_OPTIONS = { mss: 0, windowScale: -1, sackPermitted: false, sack: [] };

function segmentTo(end: End, fields: Partial<TcpSegment>): TcpSegment {
  const { send, receive } = end.connection.tcb;
  return {
    sourcePort: 1,
    destinationPort: 2,
    seq: (receive.irs + receive.nxt) >>> 0,
    ack: (send.iss + send.nxt) >>> 0,
    flags: TcpFlag.ACK,
    window: 1000,
    payload: new Uint8Array(),
    ...NO_OPTIONS,
    ...fields,
  };
}

const states = (wire: TestWire): TcpState[] => wire.ends.map(({ connection }) => connection.state);

/** Sends in pieces while less than `bound` bytes wait, as a bridge with credits does. */
function pump(end: End, bytes: Uint8Array, chunk: number, bound = 65_536): () => boolean {
  let at = 0;
  return () => {
    if (end.connection.isClosed) return false;
    while (at < bytes.length && at - end.ackedBytes < bound) {
      end.connection.write(bytes.slice(at, at + chunk));
      at = Math.min(at + chunk, bytes.length);
    }
    if (at === bytes.length) end.connection.shutdown();
    return at === bytes.length;
  };
}

test("an exchange on a good wire: open, data both ways, close, TIME_WAIT", () => {
  const wire = new TestWire({ seed: 1 });
  const [a, b] = wire.ends;
  wire.open();
  a.connection.write(pattern(100_000, 1));
  b.connection.write(pattern(50_000, 2));
  a.connection.shutdown();
  wire.until(() => b.heardBytes === 100_000 && a.heardBytes === 50_000 && b.peerEnded);
  wire.run(0.1);
  assert.deepEqual(states(wire), [TcpState.FIN_WAIT_2, TcpState.CLOSE_WAIT]);
  b.connection.write(pattern(10, 3));
  b.connection.shutdown();
  wire.until(() => b.closed !== null);
  assert.equal(b.closed, "closed");
  assert.equal(a.connection.state, TcpState.TIME_WAIT);
  assert.deepEqual(a.bytes(), Buffer.concat([pattern(50_000, 2), pattern(10, 3)]));
  assert.deepEqual(b.bytes(), Buffer.from(pattern(100_000, 1)));
  wire.run(61);
  assert.equal(a.closed, "closed");
  assert.equal(a.connection.deadline(), Number.MAX_SAFE_INTEGER);
});

test("property: whatever the wire loses, doubles and reorders, the bytes arrive as they were sent, once", () => {
  const wireOptions = fc.record({
    seed: fc.integer({ min: 1, max: 2 ** 31 - 1 }),
    loss: fc.constantFrom(0, 0.01, 0.1, 0.3),
    duplicate: fc.constantFrom(0, 0.05, 0.3),
    reorder: fc.constantFrom(0, 0.1, 0.5),
    mss: fc.constantFrom(64, 536, 1460, 9000),
    capacity: fc.constantFrom(1000, 4096, 65_535, 300_000),
    room: fc.constantFrom(1, 3, 64),
    iss: fc.tuple(fc.nat(2 ** 32 - 1), fc.nat(2 ** 32 - 1)),
  });
  const traffic = fc.record({
    forward: fc.nat(60_000),
    backward: fc.nat(20_000),
    chunk: fc.integer({ min: 1, max: 5000 }),
    eager: fc.boolean(),
  });
  fc.assert(
    fc.property(wireOptions, traffic, (options, { forward, backward, chunk, eager }) => {
      const wire = new TestWire(options);
      const [a, b] = wire.ends;
      const [toB, toA] = [pattern(forward, 1), pattern(backward, 2)];
      b.eager = eager;
      a.connection.connect();
      const pumpA = pump(a, toB, Math.max(chunk, forward / 200));
      const pumpB = pump(b, toA, Math.max(chunk, backward / 200));
      const isDead = () => a.closed === "timeout" || b.closed === "timeout";
      wire.until(() => {
        pumpA();
        pumpB();
        b.consume(wire.random() * 3000);
        wire.flush();
        return (a.peerEnded && b.peerEnded) || isDead();
      }, 1e6);
      assert.ok(b.held <= options.capacity && b.held >= 0);
      // With a third lost, a connection may die; what it delivered must be right all the same.
      if (options.loss < 0.2) assert.ok(!isDead(), wire.describe());
      if (isDead()) assert.deepEqual(b.bytes(), Buffer.from(toB.subarray(0, b.heardBytes)));
      else {
        assert.deepEqual(b.bytes(), Buffer.from(toB));
        assert.deepEqual(a.bytes(), Buffer.from(toA));
      }
    }),
    { numRuns: 150 },
  );
});

test("property: received bytes never exceed the window that was offered", () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 2 ** 31 - 1 }), fc.constantFrom(0, 0.1), (seed, loss) => {
      const wire = new TestWire({ seed, loss, capacity: 5000 });
      const [a, b] = wire.ends;
      b.eager = false;
      wire.open();
      a.connection.write(pattern(50_000, 1));
      let most = 0;
      wire.until(() => {
        most = Math.max(most, b.held);
        if (wire.random() < 0.3) b.consume(wire.random() * 9000);
        return b.heardBytes === 50_000;
      }, 1e6);
      assert.ok(most <= 5000, `${most}`);
    }),
    { numRuns: 30 },
  );
});

test("a reader that stops closes the window; probes find it open again even if the update is lost", () => {
  const wire = new TestWire({ seed: 1, capacity: 4000 });
  const [a, b] = wire.ends;
  b.eager = false;
  wire.open();
  a.connection.write(pattern(10_000, 1));
  wire.run(600);
  assert.equal(b.held, 4000);
  assert.equal(a.closed, null, "answers to probes keep it alive");
  let lost = 0;
  wire.filter = (from, { window }) => {
    if (from !== 1 || window === 0 || lost > 0) return true;
    lost++;
    return false;
  };
  b.consume(4000);
  wire.flush();
  assert.equal(lost, 1);
  wire.until(() => b.heardBytes === 8000, 130);
  b.consume(4000);
  wire.until(() => b.heardBytes === 10_000, 130);
  assert.deepEqual(b.bytes(), Buffer.from(pattern(10_000, 1)));
});

test("a FIN behind a closed window goes out when it opens", () => {
  const wire = new TestWire({ seed: 1, capacity: 4000 });
  const [a, b] = wire.ends;
  b.eager = false;
  wire.open();
  a.connection.write(pattern(4000, 1));
  a.connection.shutdown();
  wire.run(100);
  b.consume(4000);
  wire.until(() => b.peerEnded, 130);
});

test("silly windows: a slow reader is not fed with crumbs", () => {
  const wire = new TestWire({ seed: 1, capacity: 20_000 });
  const [a, b] = wire.ends;
  b.eager = false;
  wire.open();
  a.connection.write(pattern(100_000, 1));
  while (b.heardBytes < 100_000) {
    b.consume(50);
    wire.run(0.001);
  }
  assert.ok(wire.segments < 200, `${wire.segments} segments`);
});

test("both sides close at once: CLOSING, then TIME_WAIT on both", () => {
  const wire = new TestWire({ seed: 1 });
  const [a, b] = wire.ends;
  wire.open();
  a.connection.shutdown();
  b.connection.shutdown();
  wire.flush();
  assert.deepEqual(states(wire), [TcpState.FIN_WAIT_1, TcpState.FIN_WAIT_1]);
  wire.step();
  assert.ok(a.peerEnded && b.peerEnded);
  wire.run(1);
  assert.deepEqual(states(wire), [TcpState.TIME_WAIT, TcpState.TIME_WAIT]);
});

test("both sides open at once: one connection", () => {
  const wire = new TestWire({ seed: 1 });
  const [a, b] = wire.ends;
  a.connection.connect();
  b.connection.connect();
  wire.until(() => a.established && b.established);
  a.connection.write(pattern(5000, 1));
  b.connection.write(pattern(5000, 2));
  wire.until(() => a.heardBytes === 5000 && b.heardBytes === 5000);
});

test("a lost segment in a flight is repeated at once by three duplicates, not by the timer", () => {
  const wire = new TestWire({ seed: 1 });
  const [a, b] = wire.ends;
  wire.open();
  const started = wire.now;
  let dropped = 0;
  wire.filter = (from, { payload }) =>
    !(from === 0 && payload.length > 0 && wire.segments > 6 && dropped++ === 0);
  a.connection.write(pattern(40_000, 1));
  wire.until(() => b.heardBytes === 40_000);
  assert.ok(dropped > 1);
  assert.ok(wire.now - started < 0.5e9, `${(wire.now - started) / 1e6} ms`);
});

test("retransmissions back off by doubling and give up, with a reset", () => {
  const wire = new TestWire({ seed: 1 });
  const [a] = wire.ends;
  wire.open();
  const times: number[] = [];
  let resets = 0;
  wire.filter = (from, { flags, payload }) => {
    if (from === 0 && payload.length > 0) times.push(wire.now);
    if (from === 0 && (flags & TcpFlag.RST) !== 0) resets++;
    return false;
  };
  a.connection.write(pattern(10, 1));
  wire.run(1000);
  assert.equal(a.closed, "timeout");
  assert.equal(resets, 1);
  const gaps = times.slice(1).map((time, i) => Math.round((time - times[i]!) / 1e9));
  assert.deepEqual(gaps, [1, 2, 4, 8, 16, 32, 60, 60]);
});

test("a SYN that nobody answers is repeated and given up", () => {
  const wire = new TestWire({ seed: 1 });
  wire.filter = () => false;
  wire.ends[0].connection.connect();
  wire.run(200);
  assert.equal(wire.ends[0].closed, "timeout");
  assert.equal(wire.segments, 6);
});

test("a reset must be at the exact place; elsewhere in the window it is challenged (RFC 5961)", () => {
  const wire = new TestWire({ seed: 1 });
  const [a] = wire.ends;
  wire.open();
  const { tcb } = a.connection;
  wire.filter = () => false;
  const seq = (tcb.receive.irs + tcb.receive.nxt) >>> 0;
  const before = wire.segments;
  wire.deliver(0, segmentTo(a, { seq: (seq + 5) >>> 0, flags: TcpFlag.RST }));
  wire.flush();
  assert.equal(a.closed, null);
  assert.equal(wire.segments, before + 1, "a challenge");
  wire.deliver(0, segmentTo(a, { seq: (seq + 100_000) >>> 0, flags: TcpFlag.RST }));
  wire.flush();
  assert.equal(a.closed, null);
  assert.equal(wire.segments, before + 1);
  wire.deliver(0, segmentTo(a, { seq, flags: TcpFlag.RST }));
  assert.equal(a.closed, "reset");
});

test("a SYN inside a connection is challenged and changes nothing", () => {
  const wire = new TestWire({ seed: 1 });
  const [a] = wire.ends;
  wire.open();
  wire.filter = () => false;
  const before = wire.segments;
  wire.deliver(0, segmentTo(a, { flags: TcpFlag.SYN }));
  wire.flush();
  assert.equal(a.connection.state, TcpState.ESTABLISHED);
  assert.equal(wire.segments, before + 1);
});

test("an acknowledgement of what was never sent is answered and ignored", () => {
  const wire = new TestWire({ seed: 1 });
  const [a] = wire.ends;
  wire.open();
  wire.filter = () => false;
  const before = wire.segments;
  const ack = (a.connection.tcb.send.iss + 1000) >>> 0;
  wire.deliver(0, segmentTo(a, { ack, payload: new Uint8Array(5) }));
  wire.flush();
  assert.equal(a.heardBytes, 0);
  assert.equal(wire.segments, before + 1);
});

test("a refusal of an opening connection is told from a reset", () => {
  const wire = new TestWire({ seed: 1 });
  const [a, b] = wire.ends;
  a.connection.connect();
  wire.flush();
  const flags = TcpFlag.RST | TcpFlag.ACK;
  wire.deliver(0, segmentTo(a, { ack: 77, flags }));
  assert.equal(a.closed, null, "a reset that acknowledges something else");
  wire.deliver(0, segmentTo(a, { flags }));
  assert.equal(a.closed, "refused");
  assert.equal(b.closed, null);
});

test("abort in every state ends the connection at once, with a reset where a peer knows of it", () => {
  for (const state of Object.values(TcpState)) {
    if (state === TcpState.CLOSED) continue;
    const wire = new TestWire({ seed: 1 });
    const [a] = wire.ends;
    wire.open();
    a.connection.tcb.state = state;
    let resets = 0;
    wire.filter = (_from, { flags }) => {
      resets += flags & TcpFlag.RST ? 1 : 0;
      return false;
    };
    a.connection.abort();
    wire.flush();
    assert.equal(a.closed, "aborted");
    const knows = state !== TcpState.SYN_SENT && state !== TcpState.TIME_WAIT;
    assert.equal(resets, knows ? 1 : 0, `state ${state}`);
  }
});

test("small answers wait for data to go with; the second segment is acknowledged at once", () => {
  const wire = new TestWire({ seed: 1 });
  const [a, b] = wire.ends;
  wire.open();
  wire.run(1);
  const started = wire.now;
  a.connection.write(pattern(10, 1));
  wire.until(() => a.ackedBytes === 10);
  assert.ok(wire.now - started > 40e6, "delayed");
  assert.ok(wire.now - started < 50e6);
  const again = wire.now;
  a.connection.write(pattern(2920, 1));
  wire.until(() => a.ackedBytes === 2930);
  assert.ok(wire.now - again < 10e6, "at once");
  assert.equal(b.heardBytes, 2930);
});

test("a peer that is gone is noticed by keep-alives; one that answers is kept", () => {
  const wire = new TestWire({ seed: 1 });
  const [a, b] = wire.ends;
  wire.open();
  wire.run(8 * 3600);
  assert.equal(a.closed, null);
  wire.filter = () => false;
  wire.run(3 * 3600);
  assert.equal(a.closed, "timeout");
  assert.equal(b.closed, "timeout");
});

test("property: any segments, in any state, leave a connection in bounds and never throw", () => {
  const segment = fc.record({
    seq: fc.integer({ min: -70_000, max: 70_000 }),
    ack: fc.integer({ min: -70_000, max: 70_000 }),
    flags: fc.nat(63),
    window: fc.nat(65_535),
    mss: fc.constantFrom(0, 1, 64, 1460, 65_535),
    windowScale: fc.integer({ min: -1, max: 14 }),
    length: fc.nat(3000),
    elapsed: fc.constantFrom(0, 1e6, 1e9, 100e9),
  });
  const opening = fc.constantFrom("connect", "accept", "open", "shut");
  fc.assert(
    fc.property(opening, fc.array(segment, { maxLength: 60 }), (how, segments) => {
      const wire = new TestWire({ seed: 3, capacity: 8192 });
      const [a, b] = wire.ends;
      if (how === "connect") a.connection.connect();
      else if (how !== "accept") wire.open();
      if (how === "shut") a.connection.shutdown();
      const end = how === "accept" ? b : a;
      wire.filter = () => false;
      end.connection.write(pattern(4000, 1));
      for (const { seq, ack, length, elapsed, ...rest } of segments) {
        const { send, receive } = end.connection.tcb;
        const fields = {
          ...rest,
          seq: (receive.irs + receive.nxt + seq) >>> 0,
          ack: (send.iss + send.una + ack) >>> 0,
          payload: new Uint8Array(length),
        };
        wire.deliver(how === "accept" ? 1 : 0, segmentTo(end, fields));
        wire.now += elapsed;
        end.connection.advance(wire.now);
        wire.flush();
        const { tcb } = end.connection;
        assert.ok(tcb.send.una <= tcb.send.nxt || tcb.state === 0, wire.describe());
        assert.ok(tcb.send.nxt <= tcb.send.max, wire.describe());
        assert.ok(tcb.receive.unconsumed >= 0);
        assert.ok(end.connection.outOfOrder.bytes <= 8192 + 1460, "bounded");
        assert.ok(end.connection.deadline() > wire.now);
      }
    }),
    { numRuns: 300 },
  );
});

test("save, restore, continue equals continue", () => {
  const wire = new TestWire({ seed: 7, loss: 0.1, reorder: 0.2 });
  const [a, b] = wire.ends;
  b.eager = false;
  wire.open();
  a.connection.write(pattern(30_000, 1));
  a.connection.shutdown();
  for (let i = 0; i < 300 && !(b.peerEnded && a.closed); i++) {
    for (const end of wire.ends) {
      const saved = JSON.parse(JSON.stringify(end.connection.save(), encode), decode);
      end.connection.restore(saved);
    }
    b.consume(500);
    wire.step();
  }
  wire.until(() => {
    b.consume(5000);
    return b.peerEnded;
  });
  assert.deepEqual(b.bytes(), Buffer.from(pattern(30_000, 1)));
});

const encode = (_key: string, value: unknown): unknown =>
  value instanceof Uint8Array ? { hex: Buffer.from(value).toString("hex") } : value;
const decode = (_key: string, value: unknown): unknown =>
  typeof value === "object" && value !== null && "hex" in value
    ? new Uint8Array(Buffer.from(String(value.hex), "hex"))
    : value;
