import assert from "node:assert/strict";
import { test } from "node:test";
import { type FromMachine, SOCKET_WINDOW } from "../control/protocol.ts";
import {
  decodeSocketPacket,
  encodeSocketPacket,
  HOST_CID,
  SocketOperation,
  type SocketPacket,
  STREAM,
} from "../devices/virtio/socket-packet.ts";
import { SocketBridge } from "./socket-bridge.ts";

const CID = 3;
const PORT = 1024;
const CREDIT = 1000;

/** A bridge whose guest is the test. */
function open() {
  const said: FromMachine[] = [];
  const bridge = new SocketBridge(CID, (message) => said.push(message));
  const received = (): SocketPacket[] => {
    const packets: SocketPacket[] = [];
    for (let bytes = bridge.host.peek(); bytes; bytes = bridge.host.peek()) {
      packets.push(decodeSocketPacket(bytes)!);
      bridge.host.taken(1);
    }
    return packets;
  };
  bridge.serve({ type: "connect", id: 7, port: PORT });
  const [request] = received();
  const send = (operation: number, more: Partial<SocketPacket> = {}): void =>
    bridge.host.receive(
      encodeSocketPacket({
        ...{ sourceCid: CID, targetCid: HOST_CID, sourcePort: PORT },
        ...{ targetPort: request!.sourcePort, type: STREAM, operation, flags: 0 },
        ...{ bufferBytes: CREDIT, forwarded: 0, data: new Uint8Array(0), ...more },
      }),
    );
  return { bridge, said, received, send };
}

const sizes = (packets: readonly SocketPacket[]): number =>
  packets.reduce((sum, { data }) => sum + data.length, 0);

test("bytes wait for the guest's credit, and are acknowledged as they go", () => {
  const { bridge, said, received, send } = open();
  bridge.serve({ type: "socketData", id: 7, data: new Uint8Array(1500) });
  assert.deepEqual(said, []);
  send(SocketOperation.RESPONSE);
  assert.deepEqual(said, [
    { type: "socketOpen", id: 7 },
    { type: "socketTaken", id: 7, bytes: CREDIT },
  ]);
  assert.equal(sizes(received()), CREDIT);
  send(SocketOperation.CREDIT_UPDATE, { forwarded: CREDIT });
  assert.deepEqual(said.at(-1), { type: "socketTaken", id: 7, bytes: 500 });
  assert.equal(sizes(received()), 500);
});

test("an end waits for the bytes before it", () => {
  const { bridge, received, send } = open();
  send(SocketOperation.RESPONSE);
  bridge.serve({ type: "socketData", id: 7, data: new Uint8Array(1500) });
  bridge.serve({ type: "socketEnded", id: 7 });
  const operations = received().map(({ operation }) => operation);
  assert.ok(!operations.includes(SocketOperation.SHUTDOWN));
  send(SocketOperation.CREDIT_UPDATE, { forwarded: CREDIT });
  assert.equal(received().at(-1)?.operation, SocketOperation.SHUTDOWN);
});

test("the guest's bytes take up its credit until the application has taken them", () => {
  const { bridge, said, received, send } = open();
  send(SocketOperation.RESPONSE);
  received();
  const data = new Uint8Array(20 << 10);
  send(SocketOperation.DATA, { data });
  assert.equal(said.at(-1)?.type, "socketData");
  assert.deepEqual(received(), []);
  // More than came is no more than came.
  bridge.serve({ type: "socketTaken", id: 7, bytes: 1 << 30 });
  const [update] = received();
  assert.deepEqual(
    [update?.operation, update?.forwarded],
    [SocketOperation.CREDIT_UPDATE, data.length],
  );
  // A guest that sends more than its credit has its connection reset.
  send(SocketOperation.DATA, { data: new Uint8Array(33 << 10) });
  assert.deepEqual(said.at(-1), { type: "socketClosed", id: 7 });
});

test("a refusal closes; an application that sends more than the window is cut off; unknown ids are nobody's", () => {
  const refused = open();
  refused.send(SocketOperation.RESET);
  assert.deepEqual(refused.said, [{ type: "socketClosed", id: 7 }]);
  refused.bridge.serve({ type: "socketData", id: 7, data: new Uint8Array(1) });
  refused.bridge.serve({ type: "socketClosed", id: 99 });
  const { bridge, said } = open();
  bridge.serve({ type: "socketData", id: 7, data: new Uint8Array(SOCKET_WINDOW + 1) });
  assert.deepEqual(said, [{ type: "socketClosed", id: 7 }]);
});
