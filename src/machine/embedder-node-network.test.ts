import assert from "node:assert/strict";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";
import { afterEach, test } from "node:test";
import { DnsStatus, DnsType } from "../network/packet/dns.ts";
import type { HostEvents } from "../network/user/host-network.ts";
import { NodeNetwork } from "./embedder-node-network.ts";
import { resolveOnHost } from "./embedder-node-resolver.ts";

type Event = { [K in keyof HostEvents]: [K, ...Parameters<HostEvents[K]>] }[keyof HostEvents];

const cleanups: (() => void)[] = [];
afterEach(() => {
  for (const clean of cleanups.splice(0)) clean();
});

/** A network whose events are noted, and can be waited for. */
class Subject {
  readonly network = new NodeNetwork();
  readonly events: Event[] = [];
  readonly #waiting = new Set<() => void>();
  settled = 0;

  constructor() {
    const names = [
      ...["onConnected", "onFailed", "onData", "onSent", "onEnd", "onReset", "onListening"],
      ...["onAccepted", "onDatagram", "onDatagramFailed", "onResolved", "onEcho"],
    ];
    const note = names.map((name) => [
      name,
      (...words: unknown[]) => {
        this.events.push([name, ...words] as unknown as Event);
        for (const look of this.#waiting) look();
      },
    ]);
    this.network.attach(Object.fromEntries(note), () => this.settled++);
    cleanups.push(() => this.network.end());
  }

  of<K extends Event[0]>(name: K): Extract<Event, readonly [K, ...unknown[]]>[] {
    return this.events.filter(([n]) => n === name) as never;
  }

  async until(what: () => boolean): Promise<void> {
    if (what()) return;
    await new Promise<void>((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(JSON.stringify(this.events))), 5000);
      const look = (): void => {
        if (!what()) return;
        clearTimeout(timer);
        this.#waiting.delete(look);
        resolve();
      };
      this.#waiting.add(look);
    });
  }

  received(stream: number): Buffer {
    return Buffer.concat(
      this.of("onData")
        .filter(([, s]) => s === stream)
        .map(([, , b]) => b),
    );
  }
}

async function serve(accept: (socket: Socket) => void): Promise<number> {
  const server: Server = createServer({ allowHalfOpen: true }, (socket) => {
    socket.on("error", () => {});
    cleanups.push(() => socket.destroy());
    accept(socket);
  });
  cleanups.push(() => server.close());
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return (server.address() as AddressInfo).port;
}

test("a stream: connected, sent, half closed, and no more read than was granted", async () => {
  const subject = new Subject();
  const { network } = subject;
  const port = await serve((socket) => {
    const parts: Buffer[] = [];
    socket.on("data", (data) => parts.push(data));
    socket.on("end", () => socket.end(Buffer.concat([Buffer.alloc(100_000, 7), ...parts])));
  });
  network.connect(2, "127.0.0.1", port);
  await subject.until(() => subject.of("onConnected").length === 1);
  network.send(2, Buffer.from("question"));
  await subject.until(() => subject.of("onSent").length === 1);
  assert.deepEqual(subject.of("onSent"), [["onSent", 2, 8]]);
  network.shutdown(2);
  network.grant(2, 1000);
  await subject.until(() => subject.received(2).length === 1000);
  await new Promise((resolve) => setTimeout(resolve, 50));
  assert.equal(subject.received(2).length, 1000);
  assert.deepEqual(subject.of("onEnd"), []);
  network.grant(2, 99_008);
  await subject.until(() => subject.of("onEnd").length === 1);
  assert.equal(subject.received(2).subarray(-8).toString(), "question");
  assert.deepEqual([subject.of("onReset"), subject.of("onFailed")], [[], []]);
  assert.ok(subject.settled >= subject.events.length);
});

test("the end of a stream is heard without a grant when there is nothing before it", async () => {
  const subject = new Subject();
  const port = await serve((socket) => socket.end());
  subject.network.connect(2, "127.0.0.1", port);
  await subject.until(() => subject.of("onEnd").length === 1);
});

test("a peer that does not read stops onSent: the bytes stay with us", async () => {
  const subject = new Subject();
  const port = await serve((socket) => socket.pause());
  subject.network.connect(2, "127.0.0.1", port);
  await subject.until(() => subject.of("onConnected").length === 1);
  for (let i = 0; i < 200; i++) subject.network.send(2, Buffer.alloc(100_000));
  await new Promise((resolve) => setTimeout(resolve, 200));
  const sent = subject.of("onSent").reduce((sum, [, , bytes]) => sum + bytes, 0);
  assert.ok(sent < 20_000_000, `${sent}`);
});

test("a refusal, a reset of the peer's and one of ours", async () => {
  const subject = new Subject();
  const { network } = subject;
  let closed: Promise<unknown> | undefined;
  let count = 0;
  const port = await serve((socket) => {
    if (count++ === 0) setTimeout(() => socket.resetAndDestroy(), 50);
    else closed = new Promise((resolve) => socket.once("close", resolve));
  });
  network.connect(2, "127.0.0.1", port);
  await subject.until(() => subject.of("onReset").length === 1);
  network.connect(4, "127.0.0.1", port);
  await subject.until(() => subject.of("onConnected").some(([, stream]) => stream === 4));
  while (!closed) await new Promise((resolve) => setTimeout(resolve, 5));
  network.reset(4);
  await closed;
  network.connect(6, "127.0.0.1", 1);
  await subject.until(() => subject.of("onFailed").some(([, stream]) => stream === 6));
  assert.deepEqual(subject.of("onFailed").at(-1), ["onFailed", 6, "refused"]);
});

test("a listener: accepted streams are odd, and read when granted", async () => {
  const subject = new Subject();
  const { network } = subject;
  network.listen(2, "tcp", "127.0.0.1", 0);
  await subject.until(() => subject.of("onListening").length === 1);
  const [[, , port]] = subject.of("onListening") as [["onListening", number, number]];
  const client = connect({ port, host: "127.0.0.1" });
  cleanups.push(() => client.destroy());
  client.write("hello");
  await subject.until(() => subject.of("onAccepted").length === 1);
  const [[, listener, stream]] = subject.of("onAccepted") as [["onAccepted", number, number]];
  assert.deepEqual([listener, stream % 2], [2, 1]);
  network.grant(stream, 100);
  await subject.until(() => subject.received(stream).length === 5);
  network.send(stream, Buffer.from("world"));
  const [data] = (await once(client, "data")) as [Buffer];
  assert.equal(data.toString(), "world");
  network.listen(4, "tcp", "127.0.0.1", port);
  await subject.until(() => subject.of("onFailed").length === 1);
  assert.deepEqual(subject.of("onFailed"), [["onFailed", 4, "unavailable"]]);
});

test("datagrams: there and back, and to who sent to a listener", async () => {
  const subject = new Subject();
  const { network } = subject;
  const peer = createSocket("udp4");
  cleanups.push(() => peer.close());
  peer.bind(0, "127.0.0.1");
  await once(peer, "listening");
  const { port } = peer.address();
  network.openUdp(2);
  network.sendUdp(2, "127.0.0.1", port, Buffer.from("ping"));
  const [question, from] = (await once(peer, "message")) as [Buffer, { port: number }];
  assert.equal(question.toString(), "ping");
  peer.send("pong", from.port, "127.0.0.1");
  await subject.until(() => subject.of("onDatagram").length === 1);
  const [, socket, address, source, bytes] = subject.of("onDatagram")[0]!;
  assert.deepEqual(
    [socket, address, source, Buffer.from(bytes).toString()],
    [2, "127.0.0.1", port, "pong"],
  );
  network.listen(4, "udp", "127.0.0.1", 0);
  await subject.until(() => subject.of("onListening").length === 1);
  peer.send("visit", subject.of("onListening")[0]![2], "127.0.0.1");
  await subject.until(() => subject.of("onDatagram").length === 2);
  network.sendUdp(4, "127.0.0.1", port, Buffer.from("answer"));
  assert.equal(String((await once(peer, "message"))[0]), "answer");
});

test("a datagram that cannot be sent is told", async () => {
  const subject = new Subject();
  subject.network.openUdp(2);
  subject.network.sendUdp(2, "255.255.255.255", 9, Buffer.from("x"));
  await subject.until(() => subject.of("onDatagramFailed").length === 1);
  assert.deepEqual(subject.of("onDatagramFailed")[0]?.slice(0, 4), [
    "onDatagramFailed",
    2,
    "255.255.255.255",
    9,
  ]);
});

test("names of the machine's own resolver, as records", async () => {
  const local = await resolveOnHost("localhost", DnsType.A);
  assert.deepEqual([local.status, [...local.records[0]!.data]], [DnsStatus.OK, [127, 0, 0, 1]]);
  const none = await resolveOnHost("nowhere.invalid", DnsType.A);
  assert.ok(none.status === DnsStatus.NO_NAME || none.status === DnsStatus.SERVER_FAILURE);
  assert.deepEqual(none.records, []);
  assert.equal((await resolveOnHost("localhost", 65)).status, DnsStatus.NOT_IMPLEMENTED);
});

test("after the end nothing is heard any more, and calls do nothing", async () => {
  const subject = new Subject();
  const { network } = subject;
  network.listen(2, "tcp", "127.0.0.1", 0);
  network.resolve(4, "localhost", DnsType.A);
  network.end();
  network.grant(2, 5);
  network.send(2, Buffer.from("x"));
  network.shutdown(2);
  await new Promise((resolve) => setTimeout(resolve, 100));
  assert.deepEqual(subject.events, []);
});
