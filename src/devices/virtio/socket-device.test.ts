import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { throughJson } from "../test-wires.ts";
import { SocketDevice } from "./socket-device.ts";
import { type SocketConnection, type SocketEvents, SocketHost } from "./socket-host.ts";
import {
  decodeSocketPacket,
  encodeSocketPacket,
  SocketOperation as Op,
  ShutdownFlag,
  type SocketPacket,
} from "./socket-packet.ts";
import { TestDriver } from "./test-driver.ts";
import { DeviceStatus } from "./virtio-device.ts";

const CID = 42;
const packetOf = (fields: Partial<SocketPacket> = {}): Uint8Array =>
  encodeSocketPacket({
    ...{ sourceCid: CID, targetCid: 2, sourcePort: 1000, targetPort: 7, type: 1 },
    ...{ operation: Op.DATA, flags: 0, bufferBytes: 8192, forwarded: 0 },
    data: new Uint8Array(0),
    ...fields,
  });

describe("the device", () => {
  const setUp = () => {
    const sent: Uint8Array[] = [];
    const log = { ready: 0, room: Number.POSITIVE_INFINITY };
    const create = () =>
      new SocketDevice(
        {
          transmit: (packet) => {
            log.room--;
            sent.push(packet);
          },
          canTransmit: () => log.room > 0,
          receiveReady: () => log.ready++,
        },
        CID,
      );
    const device = create();
    return { device, create, sent, log, driver: new TestDriver(device).start() };
  };

  test("packets of the guest leave whole; forged and broken ones do not", () => {
    const { driver, sent } = setUp();
    assert.equal(driver.read(4, 0, 8), CID);
    const good = packetOf({ data: Uint8Array.of(1, 2, 3) });
    driver.add(1, [{ bytes: good.subarray(0, 44) }, { bytes: good.subarray(44) }]);
    assert.deepEqual(sent, [good]);
    driver.add(1, [{ bytes: packetOf({ sourceCid: 43 }) }]);
    driver.add(1, [{ bytes: good.subarray(0, 46) }]);
    driver.add(1, [{ bytes: good.subarray(0, 43) }]);
    assert.equal(sent.length, 1);
    assert.equal(driver.collect(1).length, 4);
    assert.equal(driver.status & DeviceStatus.NEEDS_RESET, 0);
  });

  test("packets for the guest wait with the other end until there are buffers", () => {
    const { driver, device, log, create } = setUp();
    const packet = packetOf({ data: Uint8Array.of(5) });
    assert.equal(device.receive([packet]), 0);
    const ready = log.ready;
    driver.add(0, [{ room: 44 }, { room: 4096 }]);
    assert.equal(log.ready, ready + 1);
    assert.equal(device.receive([packet, packet]), 1);
    assert.deepEqual(driver.collect(0)[0]!.data, packet);
    const other = create();
    const copy = driver.moveTo(other, throughJson);
    copy.add(0, [{ room: 100 }]);
    assert.equal(log.ready, ready + 2);
    assert.equal(other.receive([packet]), 1);
  });

  test("a guest whose transport was reset is told, and what it had sent is looked at again", () => {
    const { driver, device, log, sent } = setUp();
    device.resetTransport();
    driver.add(2, [{ room: 4 }]);
    device.resetTransport();
    assert.deepEqual([...driver.collect(2)[0]!.data], [0, 0, 0, 0]);
    log.room = 0;
    driver.add(1, [{ bytes: packetOf() }]);
    assert.equal(sent.length, 0);
    log.room = 1;
    device.resetTransport();
    assert.equal(sent.length, 1);
  });

  test("a wire without room", () => {
    const { driver, device, log, sent } = setUp();
    log.room = 1;
    for (let i = 0; i < 3; i++) driver.add(1, [{ bytes: packetOf({ forwarded: i }) }]);
    assert.equal(sent.length, 1);
    assert.ok(device.isTransmitting);
    log.room = 5;
    device.resume();
    assert.equal(sent.length, 3);
  });
});

describe("the host's end", () => {
  const setUp = () => {
    const host = new SocketHost(CID, { ready: () => {} });
    const log: string[] = [];
    let connection: SocketConnection | undefined;
    const events: SocketEvents = {
      opened: () => log.push("opened"),
      data: (bytes) => log.push(`data ${bytes.length}`),
      ended: () => log.push("ended"),
      writable: () => log.push("writable"),
      closed: () => log.push("closed"),
    };
    host.listen(7, (incoming) => {
      connection = incoming;
      return events;
    });
    /** What waits for the guest, as operation names and sizes. */
    const out = () => {
      const packets: SocketPacket[] = [];
      for (let next = host.peek(); next; next = host.peek()) {
        packets.push(decodeSocketPacket(next)!);
        host.taken(1);
      }
      return packets;
    };
    const operations = () => out().map(({ operation }) => operation);
    const say = (operation: number, fields: Partial<SocketPacket> = {}) =>
      host.receive(packetOf({ operation, ...fields }));
    return { host, log, out, operations, say, events, incoming: () => connection! };
  };

  test("the guest connects, both send, both end", () => {
    const { say, operations, log, incoming, out } = setUp();
    say(Op.REQUEST);
    assert.deepEqual(operations(), [Op.RESPONSE]);
    say(Op.DATA, { data: new Uint8Array(10) });
    assert.equal(incoming().write(new Uint8Array(5000)), 5000);
    assert.deepEqual(
      out().map(({ operation, data }) => [operation, data.length]),
      [
        [Op.DATA, 3584],
        [Op.DATA, 1416],
      ],
    );
    say(Op.SHUTDOWN, { flags: ShutdownFlag.SEND });
    incoming().end();
    assert.deepEqual(operations(), [Op.SHUTDOWN, Op.RESET]);
    assert.deepEqual(log, ["data 10", "ended", "closed"]);
    say(Op.DATA);
    assert.deepEqual(operations(), [Op.RESET], "nobody is there any more");
  });

  test("we connect: accepted, or refused", () => {
    const { host, say, out, log, events } = setUp();
    const made = host.connect(99, events);
    const [request] = out();
    assert.deepEqual([request!.operation, request!.targetPort], [Op.REQUEST, 99]);
    assert.equal(made.write(Uint8Array.of(1)), 0, "not yet");
    const address = { sourcePort: 99, targetPort: request!.sourcePort };
    say(Op.RESPONSE, address);
    assert.equal(made.write(Uint8Array.of(1)), 1);
    host.connect(98, events);
    say(Op.RESET, { sourcePort: 98, targetPort: request!.sourcePort + 1 });
    assert.deepEqual(log, ["opened", "closed"]);
  });

  test("no more leaves than the guest has room for, and more when it has", () => {
    const { say, out, log, incoming } = setUp();
    say(Op.REQUEST, { bufferBytes: 4000 });
    out();
    assert.equal(incoming().write(new Uint8Array(9000)), 4000);
    assert.equal(out().at(-1)!.operation, Op.CREDIT_REQUEST);
    say(Op.CREDIT_UPDATE, { bufferBytes: 4000, forwarded: 1000 });
    assert.deepEqual(log, ["writable"]);
    assert.equal(incoming().write(new Uint8Array(9000)), 1000);
    say(Op.CREDIT_UPDATE, { bufferBytes: 4000, forwarded: 0xffff_0000 });
    assert.equal(incoming().write(new Uint8Array(10)), 0, "it cannot have forwarded that");
  });

  test("a guest that sends more than it may is cut off; credit comes back with consume", () => {
    const { say, out, operations, log, incoming } = setUp();
    say(Op.REQUEST);
    out();
    for (let i = 0; i < 2; i++) say(Op.DATA, { data: new Uint8Array(16 << 10) });
    incoming().consume(16 << 10);
    const [update] = out();
    assert.deepEqual([update!.operation, update!.forwarded], [Op.CREDIT_UPDATE, 16 << 10]);
    say(Op.DATA, { data: new Uint8Array(16 << 10) });
    say(Op.DATA, { data: new Uint8Array(1) });
    assert.deepEqual(operations(), [Op.RESET]);
    assert.equal(log.at(-1), "closed");
  });

  test("what makes no sense is reset; a reset is never answered", () => {
    const { host, say, operations } = setUp();
    say(Op.REQUEST, { targetPort: 8 });
    say(Op.DATA);
    say(Op.REQUEST, { type: 2 });
    say(Op.REQUEST, { targetCid: 9 });
    assert.deepEqual(operations(), [Op.RESET, Op.RESET, Op.RESET, Op.RESET]);
    say(Op.RESET);
    host.receive(packetOf({ sourceCid: 1 }));
    host.receive(new Uint8Array(10));
    say(Op.REQUEST);
    operations();
    say(Op.REQUEST);
    assert.deepEqual(operations(), [Op.RESET], "twice the same");
  });

  test("any packets: bounded, and events in a sane order", () => {
    const step = fc.record({
      operation: fc.nat(9),
      flags: fc.nat(3),
      sourcePort: fc.nat(2),
      targetPort: fc.constantFrom(7, 7, 8, 0x4000_0000),
      bufferBytes: fc.oneof(fc.nat(10_000), fc.constant(0xffff_ffff)),
      forwarded: fc.oneof(fc.nat(10_000), fc.constant(0xffff_ffff)),
      length: fc.nat(70_000),
      write: fc.nat(20_000),
    });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 80 }), (steps) => {
        const { host, out, log, say, events, incoming } = setUp();
        host.connect(1, events);
        for (let i = 0; i < 3000; i++) {
          say([Op.REQUEST, Op.RESET, Op.CREDIT_REQUEST][i % 3]!, { targetPort: 7 + (i & 1) });
        }
        assert.ok(out().length <= 1100, "bounded");
        for (const { length, write, ...fields } of steps) {
          say(fields.operation, { ...fields, data: new Uint8Array(length) });
          const connection = incoming();
          if (connection) assert.ok(connection.write(new Uint8Array(write)) <= write);
          if (write % 3 === 0) out();
        }
        host.reset();
        assert.equal(host.peek(), undefined);
        assert.equal(log.at(-1), "closed");
      }),
      { numRuns: 300 },
    );
  });
});
