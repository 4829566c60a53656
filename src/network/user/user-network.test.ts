import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { ArpOperation, buildArp } from "../packet/arp.ts";
import { get16, get32, put16, put32 } from "../packet/bytes.ts";
import { buildDhcp, DhcpOption, DhcpType, parseDhcp } from "../packet/dhcp.ts";
import { DnsStatus, DnsType, encodeName } from "../packet/dns.ts";
import { buildIcmp, IcmpType, Unreachable } from "../packet/icmp.ts";
import { IpProtocol } from "../packet/ipv4.ts";
import { TcpFlag, type TcpSegment } from "../packet/tcp-segment.ts";
import { pattern } from "../tcp/test-wire.ts";
import { addressRecord } from "./dns-forwarder.ts";
import { parseEgress } from "./egress.ts";
import { parsePortForward } from "./port-forward.ts";
import { Subnet } from "./subnet.ts";
import { GUEST_MAC, OUTSIDE, TestGuest } from "./test-guest.ts";

const WEB = [40_000, 80] as const;
const { SYN, ACK, FIN, RST } = TcpFlag;

// ---- ARP, ICMP, DHCP ----

test("ARP is answered for the gateway and the DNS, and for nobody else", () => {
  const guest = new TestGuest();
  for (const target of [Subnet.GATEWAY, Subnet.DNS]) {
    guest.arp({ target });
    const [reply] = guest.arps();
    assert.deepEqual(
      [reply?.operation, reply?.sender, reply?.senderMac],
      [2, target, Subnet.GATEWAY_MAC],
    );
  }
  guest.arp({ target: Subnet.GUEST + 5 });
  assert.deepEqual(guest.arps(), []);
});

test("echo requests to the gateway are answered, large ones in fragments", () => {
  const guest = new TestGuest();
  for (const size of [0, 56, 5000]) {
    const data = pattern(size, 1);
    const request = buildIcmp({ type: IcmpType.ECHO_REQUEST, code: 0, id: 7, sequence: 3, data });
    guest.sendIp(IpProtocol.ICMP, Subnet.GATEWAY, request);
    assert.deepEqual(guest.icmps(), [{ type: 0, code: 0, id: 7, sequence: 3, data }]);
  }
});

test("echo to the outside: by the embedder if it can, else the network is unreachable", () => {
  const request = buildIcmp({ type: 8, code: 0, id: 7, sequence: 3, data: pattern(8, 1) });
  const without = new TestGuest();
  without.sendIp(IpProtocol.ICMP, OUTSIDE, request);
  const [error] = without.icmps();
  assert.deepEqual([error?.type, error?.code], [IcmpType.UNREACHABLE, Unreachable.NET]);
  without.sendIp(IpProtocol.ICMP, OUTSIDE, request);
  assert.equal(without.reports.length, 1, "the user is told once");
  const guest = new TestGuest({ canEcho: true });
  guest.sendIp(IpProtocol.ICMP, OUTSIDE, request);
  const [, query, address] = guest.host.one("echo");
  assert.equal(address, "198.51.100.7");
  assert.deepEqual(guest.icmps(), []);
  guest.events.onEcho(query);
  assert.equal(guest.icmps()[0]?.type, IcmpType.ECHO_REPLY);
});

test("a packet whose time is over gets an answer, unless it is for us", () => {
  const guest = new TestGuest();
  const datagram = new Uint8Array(8);
  datagram.set([1, 2, 3, 4, 0, 8]);
  guest.sendIp(IpProtocol.UDP, OUTSIDE, datagram, { ttl: 1 });
  assert.equal(guest.icmps()[0]?.type, IcmpType.TIME_EXCEEDED);
  const request = buildIcmp({ type: 8, code: 0, id: 1, sequence: 1, data: new Uint8Array() });
  guest.sendIp(IpProtocol.ICMP, Subnet.GATEWAY, request, { ttl: 1 });
  assert.equal(guest.icmps()[0]?.type, IcmpType.ECHO_REPLY);
});

function dhcp(guest: TestGuest, type: number, options: [number, number][], mac = GUEST_MAC) {
  const hardware = new Uint8Array(16);
  put16(hardware, 0, Math.floor(mac / 2 ** 32));
  put32(hardware, 2, mac >>> 0);
  const payload = buildDhcp({
    ...{
      op: 1,
      transaction: 99,
      seconds: 0,
      broadcast: false,
      client: 0,
      yours: 0,
      server: 0,
      relay: 0,
    },
    ...{ hardware, type },
    options: new Map(
      options.map(([code, value]) => {
        const bytes = new Uint8Array(4);
        put32(bytes, 0, value);
        return [code, bytes];
      }),
    ),
  });
  guest.sendUdp(0xffff_ffff, { sourcePort: 68, destinationPort: 67, payload }, 0);
  const [reply] = guest.udps();
  return reply ? parseDhcp(reply.payload) : null;
}

test("DHCP: discover, offer, request, acknowledgement, with what guests ask for", () => {
  const guest = new TestGuest({ mtu: 1400, hostName: "box" });
  const offer = dhcp(guest, DhcpType.DISCOVER, []);
  assert.deepEqual([offer?.type, offer?.yours], [DhcpType.OFFER, Subnet.GUEST]);
  const ack = dhcp(guest, DhcpType.REQUEST, [
    [DhcpOption.REQUESTED_ADDRESS, Subnet.GUEST],
    [DhcpOption.SERVER, Subnet.GATEWAY],
  ]);
  assert.deepEqual([ack?.type, ack?.yours, ack?.transaction], [DhcpType.ACK, Subnet.GUEST, 99]);
  const number = (code: number): number => get32(ack!.options.get(code)!, 0);
  assert.equal(number(DhcpOption.SUBNET_MASK), 0xffff_ff00);
  assert.equal(number(DhcpOption.ROUTER), Subnet.GATEWAY);
  assert.equal(number(DhcpOption.DNS), Subnet.DNS);
  assert.equal(get16(ack!.options.get(DhcpOption.MTU)!, 0), 1400);
  assert.equal(Buffer.from(ack!.options.get(DhcpOption.HOST_NAME)!).toString(), "box");
});

test("DHCP: a wrong address is refused, another server is not answered for, others get other leases", () => {
  const guest = new TestGuest();
  assert.equal(
    dhcp(guest, DhcpType.REQUEST, [[DhcpOption.REQUESTED_ADDRESS, 0xc0a8_0105]])?.type,
    DhcpType.NAK,
  );
  assert.equal(dhcp(guest, DhcpType.REQUEST, [[DhcpOption.SERVER, 0xc0a8_0101]]), null);
  const leases = Array.from(
    { length: 40 },
    (_, i) => dhcp(guest, DhcpType.DISCOVER, [], GUEST_MAC + i)!.yours,
  );
  assert.equal(leases[0], Subnet.GUEST);
  assert.ok(leases.every((lease) => lease >= Subnet.GUEST && lease < Subnet.GUEST + Subnet.LEASES));
  assert.equal(new Set(leases.slice(0, 16)).size, 16);
  assert.equal(
    dhcp(guest, DhcpType.DISCOVER, [])?.yours,
    Subnet.GUEST,
    "the first keeps its lease",
  );
});

// ---- TCP ----

/** SYN, the embedder's answer, and the guest's acknowledgement. */
function open(guest: TestGuest, ports: readonly [number, number] = WEB, destination = OUTSIDE) {
  guest.arp();
  guest.frames = [];
  guest.sendTcp(destination, ports, { seq: 1000, flags: SYN, mss: 1460, windowScale: 7 });
  const [[, stream, address, port]] = guest.host.take("connect") as [
    ["connect", number, string, number],
  ];
  assert.deepEqual(guest.tcps(), [], "no answer before the embedder's");
  guest.events.onConnected(stream);
  const [reply] = guest.tcps();
  assert.equal(reply?.flags, SYN | ACK);
  assert.equal(reply?.ack, 1001);
  const seq = (reply!.seq + 1) >>> 0;
  guest.sendTcp(destination, ports, { seq: 1001, ack: seq, flags: ACK, window: 1000 });
  const [update] = guest.tcps();
  assert.ok(update!.window > 20_000, "the whole window, which a SYN has no room for");
  return { stream, address, port, seq, synAck: reply! };
}

test("TCP: a connection is made outside first, then bytes go both ways and both ends", () => {
  const guest = new TestGuest();
  const { stream, address, port, seq, synAck } = open(guest);
  assert.deepEqual([address, port], ["198.51.100.7", 80]);
  assert.deepEqual([synAck.mss, synAck.windowScale >= 0], [1460, true]);
  const [, , granted] = guest.host.one("grant");
  assert.ok(granted > 65_535);
  guest.sendTcp(OUTSIDE, WEB, { seq: 1001, ack: seq, flags: ACK, window: 1000 }, pattern(5, 1));
  assert.deepEqual(guest.host.take("send"), [["send", stream, pattern(5, 1)]]);
  guest.events.onData(stream, pattern(7, 2));
  const [data] = guest.tcps();
  assert.deepEqual([data?.payload, data?.ack], [pattern(7, 2), 1006]);
  guest.sendTcp(OUTSIDE, WEB, { seq: 1006, ack: seq + 7, flags: ACK | FIN, window: 1000 });
  assert.deepEqual(guest.host.take("shutdown"), [["shutdown", stream]]);
  guest.events.onEnd(stream);
  const fin = guest.tcps().at(-1)!;
  assert.equal(fin.flags & FIN, FIN);
  guest.sendTcp(OUTSIDE, WEB, { seq: 1007, ack: seq + 8, flags: ACK, window: 1000 });
  assert.equal(guest.network.statistics.connections, 0);
  assert.deepEqual(guest.host.take("reset"), [], "it ended in order");
});

test("a guest that takes them gets frames that stand for many segments, with checksums to be finished; another one never", () => {
  const takesAll = { checksums: true, segments: true };
  for (const takes of [takesAll, { checksums: true, segments: false }, undefined]) {
    const guest = new TestGuest();
    guest.offload = takes && { isVerified: false, takes };
    const { stream, seq } = open(guest);
    guest.sendTcp(OUTSIDE, WEB, { seq: 1001, ack: seq, flags: ACK, window: 1000 });
    guest.offloads.splice(0);
    const bytes = pattern(100_000, 4);
    guest.events.onData(stream, bytes);
    const received = guest.tcps();
    assert.deepEqual(Uint8Array.from(received.flatMap(({ payload }) => [...payload])), bytes);
    assert.ok(guest.offloads.every(({ isUnfinished }) => isUnfinished === (takes !== undefined)));
    const large = guest.offloads.filter(({ segment }) => segment > 0);
    if (takes !== takesAll) {
      assert.deepEqual(large, []);
      assert.ok(guest.offloads.every(({ length }) => length <= 1514));
      continue;
    }
    assert.ok(received.length <= 3, `${received.length} frames`);
    assert.ok(large.every(({ segment }) => segment === 1460));
    // All but the last are whole segments: a guest that cuts them must not find crumbs.
    assert.equal(received[0]!.payload.length % 1460, 0);
  }
});

test("a checksum that nobody has finished is not looked at, and one that should be right is", () => {
  const guest = new TestGuest();
  const { stream, seq } = open(guest);
  const header = { ack: seq, flags: ACK, window: 1000 };
  const spoiled = (isVerified: boolean): void => {
    guest.offload = { isVerified, takes: { checksums: false, segments: false } };
    const send = guest.network.receive.bind(guest.network);
    guest.network.receive = (frame, ...rest) => {
      frame[14 + 20 + 16]! ^= 0x55;
      send(frame, ...rest);
    };
    guest.sendTcp(OUTSIDE, WEB, { ...header, seq: 1001 }, pattern(60_000, 1));
    guest.network.receive = send;
  };
  spoiled(false);
  assert.deepEqual(guest.host.take("send"), []);
  spoiled(true);
  assert.deepEqual(guest.host.take("send"), [["send", stream, pattern(60_000, 1)]]);
});

test("TCP: refused outside is refused inside; unreachable is told by ICMP about that SYN", () => {
  const guest = new TestGuest();
  guest.arp();
  guest.frames = [];
  guest.sendTcp(OUTSIDE, WEB, { seq: 5, flags: SYN });
  let [, stream] = guest.host.one("connect");
  guest.events.onFailed(stream, "refused");
  const [reset] = guest.tcps();
  assert.deepEqual([reset?.flags, reset?.ack, reset?.seq], [RST | ACK, 6, 0]);
  guest.sendTcp(OUTSIDE, WEB, { seq: 5, flags: SYN });
  [, stream] = guest.host.one("connect");
  guest.events.onFailed(stream, "host-unreachable");
  const [error] = guest.icmps();
  assert.deepEqual([error?.type, error?.code], [IcmpType.UNREACHABLE, Unreachable.HOST]);
  assert.deepEqual(
    [get16(error!.data, 20), get16(error!.data, 22), get32(error!.data, 24)],
    [...WEB, 5],
  );
  assert.equal(guest.network.statistics.connections, 0);
});

test("TCP: a guest that repeats its SYN or gives up while the embedder connects", () => {
  const guest = new TestGuest();
  for (let i = 0; i < 3; i++) guest.sendTcp(OUTSIDE, WEB, { seq: 5, flags: SYN });
  const connects = guest.host.take("connect");
  assert.equal(connects.length, 1);
  guest.sendTcp(OUTSIDE, WEB, { seq: 6, flags: RST });
  assert.equal(guest.host.take("reset").length, 1);
  guest.events.onConnected(connects[0]![1]);
  assert.equal(guest.host.take("reset").length, 1, "too late");
  assert.equal(guest.network.statistics.connections, 0);
});

test("TCP: resets go both ways", () => {
  const guest = new TestGuest();
  const { stream, seq } = open(guest);
  guest.events.onReset(stream);
  assert.equal(guest.tcps()[0]?.flags, RST);
  assert.deepEqual(guest.host.take("reset"), [], "it is gone already");
  const again = open(guest, [40_001, 80]);
  guest.sendTcp(OUTSIDE, [40_001, 80], { seq: 1001, ack: again.seq, flags: RST | ACK });
  assert.deepEqual(guest.host.take("reset"), [["reset", again.stream]]);
  assert.equal(guest.network.statistics.connections, 0);
  assert.notEqual(seq, again.seq, "initial sequence numbers differ");
});

test("TCP: a segment of no connection gets a reset, at the place that it asks for", () => {
  const guest = new TestGuest();
  guest.arp();
  guest.frames = [];
  guest.sendTcp(OUTSIDE, WEB, { seq: 10, ack: 77, flags: ACK });
  assert.deepEqual(
    guest.tcps().map(({ flags, seq }) => [flags, seq]),
    [[RST, 77]],
  );
  guest.sendTcp(OUTSIDE, WEB, { seq: 10, ack: 77, flags: RST });
  assert.deepEqual(guest.tcps(), []);
});

test("TCP: what the embedder has not sent closes the guest's window; what it has sent opens it", () => {
  const guest = new TestGuest();
  const { stream, seq, synAck } = open(guest);
  let at = 1001;
  let window = Number.POSITIVE_INFINITY;
  for (let i = 0; i < 1000 && window >= 1400; i++) {
    guest.sendTcp(
      OUTSIDE,
      WEB,
      { seq: at, ack: seq, flags: ACK, window: 1000 },
      new Uint8Array(1400),
    );
    at += 1400;
    const ack = guest.tcps().at(-1);
    if (ack) {
      window = ack.window * 2 ** synAck.windowScale - ((at - ack.ack) >>> 0);
    }
  }
  const sent = guest.host.take("send").reduce((sum, [, , bytes]) => sum + bytes.length, 0);
  assert.ok(sent <= 512 * 1024, `${sent} bytes without one that has left`);
  guest.events.onSent(stream, sent);
  assert.ok(guest.tcps().at(-1)!.window * 2 ** synAck.windowScale > 400_000, "a window update");
});

test("TCP: the embedder may deliver what the guest has acknowledged, and no more", () => {
  const guest = new TestGuest();
  const { stream, seq } = open(guest);
  const [, , granted] = guest.host.one("grant");
  guest.events.onData(stream, new Uint8Array(granted));
  let acked = 0;
  for (let i = 0; i < 2000 && acked < granted; i++) {
    for (const { payload } of guest.tcps()) acked += payload.length;
    const ack = (seq + acked) >>> 0;
    guest.sendTcp(OUTSIDE, WEB, { seq: 1001, ack, flags: ACK, window: 1000 });
  }
  const more = guest.host.take("grant").reduce((sum, [, , bytes]) => sum + bytes, 0);
  assert.deepEqual([acked, more], [granted, granted]);
});

test("TCP: a flood of SYNs holds a bounded number of connections, and the embedder is asked no more often", () => {
  const guest = new TestGuest();
  for (let port = 1; port < 3000; port++)
    guest.sendTcp(OUTSIDE, [port, 80], { seq: 1, flags: SYN });
  assert.equal(guest.network.statistics.connections, 256);
  assert.equal(guest.host.take("connect").length, 256);
});

test("TCP: the gateway's ports are the embedder's loopback, unless it is forbidden", () => {
  const guest = new TestGuest();
  assert.equal(open(guest, WEB, Subnet.GATEWAY).address, "127.0.0.1");
  const closed = new TestGuest({ hostAccess: false });
  closed.arp();
  closed.frames = [];
  closed.sendTcp(Subnet.GATEWAY, WEB, { seq: 1, flags: SYN });
  assert.equal(closed.icmps()[0]?.code, Unreachable.ADMINISTRATIVELY_PROHIBITED);
  assert.deepEqual(closed.host.calls, []);
});

test("nothing is forwarded to loopback, link-local, multicast, reserved or unused addresses of the subnet", () => {
  const guest = new TestGuest();
  for (const destination of [
    0x7f00_0001,
    0xa9fe_a9fe,
    0xe000_0001,
    0xf000_0001,
    5,
    Subnet.GUEST + 100,
  ]) {
    guest.sendTcp(destination, WEB, { seq: 1, flags: SYN });
    guest.sendUdp(destination, { sourcePort: 5, destinationPort: 5, payload: new Uint8Array(1) });
  }
  assert.deepEqual(guest.host.calls, []);
});

test("frames wait for room on the link, and the guest's next buffer gets them", () => {
  const guest = new TestGuest();
  const { stream } = open(guest);
  guest.room = 0;
  guest.frames = [];
  guest.events.onData(stream, pattern(4000, 1));
  guest.sendIp(
    IpProtocol.ICMP,
    Subnet.GATEWAY,
    buildIcmp({ type: 8, code: 0, id: 1, sequence: 1, data: new Uint8Array() }),
  );
  assert.equal(guest.frames.length, 0);
  for (let i = 0; i < 10; i++) {
    guest.room = 1;
    guest.network.flush();
  }
  const packets = guest.packets();
  assert.equal(packets[0]?.protocol, IpProtocol.ICMP);
  assert.equal(packets.length, 4);
});

test("what the embedder did not expect does no harm: events for streams that are not there", () => {
  const guest = new TestGuest();
  const { events } = guest;
  for (const number of [-1, 0, 1, 2, 4, 1e9]) {
    events.onConnected(number);
    events.onData(number, new Uint8Array(5));
    events.onSent(number, 5);
    events.onEnd(number);
    events.onReset(number);
    events.onFailed(number, "failed");
    events.onAccepted(number, 7);
    events.onListening(number, 7);
    events.onDatagram(number, "1.2.3.4", 5, new Uint8Array(5));
    events.onDatagramFailed(number, "1.2.3.4", 5, "failed");
    events.onResolved(number, 0, []);
    events.onEcho(number);
  }
  assert.deepEqual(guest.frames, []);
});

// ---- forwarded ports ----

test("a forwarded TCP port: the guest is connected to from the gateway", () => {
  const guest = new TestGuest({ forwards: [parsePortForward("127.0.0.1:8080:80")] });
  guest.network.start();
  const [listen] = guest.host.take("listen");
  assert.deepEqual(listen?.slice(2), ["tcp", "127.0.0.1", 8080]);
  guest.events.onListening(listen![1], 8080);
  assert.deepEqual(guest.reports, ["forwarding 127.0.0.1:8080:80/tcp"]);
  guest.events.onAccepted(listen![1], 1);
  const [question] = guest.arps();
  assert.deepEqual([question?.operation, question?.target], [ArpOperation.REQUEST, Subnet.GUEST]);
  guest.send(
    buildArp(
      {
        operation: 2,
        senderMac: GUEST_MAC,
        sender: Subnet.GUEST,
        targetMac: Subnet.GATEWAY_MAC,
        target: Subnet.GATEWAY,
      },
      Subnet.GATEWAY_MAC,
    ),
  );
  const [syn] = guest.tcps();
  assert.deepEqual([syn?.flags, syn?.destinationPort, syn!.sourcePort >= 49_152], [SYN, 80, true]);
  assert.deepEqual(guest.host.take("grant"), [], "nothing is read before the guest has answered");
  const ports = [80, syn!.sourcePort] as const;
  guest.sendTcp(Subnet.GATEWAY, ports, {
    seq: 500,
    ack: syn!.seq + 1,
    flags: SYN | ACK,
    window: 5000,
    mss: 1460,
  });
  assert.equal(guest.host.take("grant")[0]?.[1], 1);
  guest.sendTcp(
    Subnet.GATEWAY,
    ports,
    { seq: 501, ack: syn!.seq + 1, flags: ACK, window: 5000 },
    pattern(3, 1),
  );
  assert.deepEqual(guest.host.take("send"), [["send", 1, pattern(3, 1)]]);
});

test("a forwarded TCP port where the guest refuses, or is not there", () => {
  const guest = new TestGuest({ forwards: [parsePortForward(":80")] });
  guest.network.start();
  const [, listener] = guest.host.one("listen");
  guest.arp();
  guest.frames = [];
  guest.events.onAccepted(listener, 1);
  const [syn] = guest.tcps();
  guest.sendTcp(Subnet.GATEWAY, [80, syn!.sourcePort], { ack: syn!.seq + 1, flags: RST | ACK });
  assert.deepEqual(guest.host.take("reset"), [["reset", 1]]);
  guest.events.onAccepted(listener, 3);
  guest.sleep(200e9);
  assert.deepEqual(guest.host.take("reset"), [["reset", 3]]);
  assert.equal(guest.network.statistics.connections, 0);
});

test("a forwarded port that cannot be had is reported", () => {
  const guest = new TestGuest({
    forwards: [parsePortForward("22:22"), parsePortForward("53:53/udp")],
  });
  guest.network.start();
  for (const [, listener] of guest.host.take("listen")) guest.events.onFailed(listener, "denied");
  assert.deepEqual(guest.reports, [
    "port 127.0.0.1:22:22/tcp is not forwarded: denied",
    "port 127.0.0.1:53:53/udp is not forwarded: denied",
  ]);
});

test("a forwarded UDP port: senders are told apart, and their answers find back", () => {
  const guest = new TestGuest({ forwards: [parsePortForward("5353:53/udp")] });
  guest.network.start();
  const [, listener] = guest.host.one("listen");
  guest.arp();
  guest.frames = [];
  guest.events.onDatagram(listener, "127.0.0.1", 1111, pattern(5, 1));
  guest.events.onDatagram(listener, "127.0.0.1", 2222, pattern(5, 2));
  guest.events.onDatagram(listener, "127.0.0.1", 1111, pattern(5, 3));
  const [first, second, third] = guest.udps();
  assert.equal(first!.sourcePort, third!.sourcePort);
  assert.notEqual(first!.sourcePort, second!.sourcePort);
  assert.deepEqual([second!.destinationPort, second!.payload], [53, pattern(5, 2)]);
  guest.sendUdp(Subnet.GATEWAY, {
    sourcePort: 53,
    destinationPort: second!.sourcePort,
    payload: pattern(9, 4),
  });
  assert.deepEqual(guest.host.take("sendUdp"), [
    ["sendUdp", listener, "127.0.0.1", 2222, pattern(9, 4)],
  ]);
});

// ---- UDP ----

test("UDP: one socket for each endpoint of the guest, answers from addresses it has spoken to", () => {
  const guest = new TestGuest();
  guest.arp();
  guest.frames = [];
  const ports = { sourcePort: 5000, destinationPort: 123 };
  guest.sendUdp(OUTSIDE, { ...ports, payload: pattern(5, 1) });
  guest.sendUdp(Subnet.GATEWAY, { ...ports, payload: pattern(6, 1) });
  const [, socket] = guest.host.one("openUdp");
  assert.deepEqual(guest.host.take("sendUdp"), [
    ["sendUdp", socket, "198.51.100.7", 123, pattern(5, 1)],
    ["sendUdp", socket, "127.0.0.1", 123, pattern(6, 1)],
  ]);
  guest.events.onDatagram(socket, "198.51.100.7", 999, pattern(3000, 2));
  guest.events.onDatagram(socket, "127.0.0.1", 123, pattern(4, 2));
  guest.events.onDatagram(socket, "203.0.113.9", 123, pattern(4, 2));
  assert.deepEqual(
    guest
      .udps()
      .map(({ source, sourcePort, destinationPort, payload }) => [
        source,
        sourcePort,
        destinationPort,
        payload.length,
      ]),
    [
      [OUTSIDE, 999, 5000, 3000],
      [Subnet.GATEWAY, 123, 5000, 4],
    ],
  );
});

test("UDP: mappings end after five idle minutes and are bounded in number", () => {
  const guest = new TestGuest();
  guest.sendUdp(OUTSIDE, { sourcePort: 1, destinationPort: 9, payload: new Uint8Array(1) });
  guest.sleep(200e9);
  guest.sendUdp(OUTSIDE, { sourcePort: 1, destinationPort: 9, payload: new Uint8Array(1) });
  guest.sleep(200e9);
  assert.equal(guest.network.statistics.mappings, 1);
  guest.sleep(101e9);
  assert.equal(guest.network.statistics.mappings, 0);
  assert.equal(guest.host.take("close").length, 1);
  for (let port = 1; port < 1000; port++)
    guest.sendUdp(OUTSIDE, { sourcePort: port, destinationPort: 9, payload: new Uint8Array(1) });
  assert.equal(guest.network.statistics.mappings, 256);
  assert.equal(guest.host.take("close").length, 999 - 256);
});

test("UDP: a datagram that could not be sent is told by ICMP with its ports", () => {
  const guest = new TestGuest();
  guest.arp();
  guest.frames = [];
  guest.sendUdp(OUTSIDE, { sourcePort: 5000, destinationPort: 123, payload: new Uint8Array(1) });
  const [, socket] = guest.host.one("openUdp");
  guest.events.onDatagramFailed(socket, "198.51.100.7", 123, "net-unreachable");
  const [error] = guest.icmps();
  assert.deepEqual(
    [error?.code, get16(error!.data, 20), get16(error!.data, 22)],
    [Unreachable.NET, 5000, 123],
  );
});

// ---- DNS and egress ----

function dnsQuery(name: string, type: number = DnsType.A): Uint8Array {
  const encoded = encodeName(name)!;
  const query = new Uint8Array(12 + encoded.length + 4);
  query.set([0x12, 0x34, 1, 0, 0, 1]);
  query.set(encoded, 12);
  put16(query, 12 + encoded.length, type);
  query[query.length - 1] = 1;
  return query;
}

function ask(guest: TestGuest, name: string, type?: number): number | null {
  guest.arp();
  guest.frames = [];
  guest.sendUdp(Subnet.DNS, {
    sourcePort: 4444,
    destinationPort: 53,
    payload: dnsQuery(name, type),
  });
  const [resolve] = guest.host.take("resolve");
  return resolve ? resolve[1] : null;
}

const statusOf = (answer: Uint8Array): number => answer[3]! & 15;

test("DNS: questions go to the embedder's resolver, answers come back with its records", () => {
  const guest = new TestGuest();
  const query = ask(guest, "Deb.Debian.org");
  guest.events.onResolved(query!, DnsStatus.OK, [addressRecord(OUTSIDE, 77)]);
  const [answer] = guest.udps();
  assert.deepEqual(
    [answer?.source, answer?.sourcePort, answer?.destinationPort],
    [Subnet.DNS, 53, 4444],
  );
  const { payload } = answer!;
  assert.deepEqual([get16(payload, 0), statusOf(payload), payload[7]], [0x1234, 0, 1]);
  assert.equal(get32(payload, payload.length - 4), OUTSIDE);
  assert.equal(get32(payload, payload.length - 10), 77);
  guest.events.onResolved(query!, DnsStatus.OK, []);
  assert.deepEqual(guest.frames, [], "once");
});

test("DNS: the host has a name, its loopback is the gateway, the subnet has no reverse names", () => {
  const guest = new TestGuest();
  assert.equal(ask(guest, "host.hypolith.internal"), null);
  const own = guest.udps()[0]!.payload;
  assert.equal(get32(own, own.length - 4), Subnet.GATEWAY);
  guest.events.onResolved(ask(guest, "my-machine")!, DnsStatus.OK, [addressRecord(0x7f00_0101, 5)]);
  const machine = guest.udps()[0]!.payload;
  assert.equal(get32(machine, machine.length - 4), Subnet.GATEWAY);
  assert.equal(ask(guest, "2.2.0.10.in-addr.arpa", DnsType.PTR), null);
  assert.equal(statusOf(guest.udps()[0]!.payload), DnsStatus.NO_NAME);
});

test("DNS: a guest that asks and asks holds a bounded number of questions", () => {
  const guest = new TestGuest();
  for (let i = 0; i < 2000; i++) ask(guest, `n${i}.example`);
  assert.ok((guest.network.save() as { dns: unknown[] }).dns.length <= 256);
});

test("DNS over TCP: questions in one stream, in any pieces, answered in it", () => {
  const guest = new TestGuest();
  guest.arp();
  guest.frames = [];
  const ports = [41_000, 53] as const;
  guest.sendTcp(Subnet.DNS, ports, { seq: 1000, flags: SYN, mss: 1460 });
  const [synAck] = guest.tcps();
  assert.equal(synAck?.flags, SYN | ACK);
  const ack = synAck!.seq + 1;
  const query = dnsQuery("a.example", DnsType.TXT);
  const framed = Uint8Array.from([0, query.length, ...query, 0, query.length, ...query]);
  guest.sendTcp(
    Subnet.DNS,
    ports,
    { seq: 1001, ack, flags: ACK, window: 9000 },
    framed.subarray(0, 1),
  );
  guest.sendTcp(
    Subnet.DNS,
    ports,
    { seq: 1002, ack, flags: ACK, window: 9000 },
    framed.subarray(1, 20),
  );
  guest.sendTcp(
    Subnet.DNS,
    ports,
    { seq: 1021, ack, flags: ACK, window: 9000 },
    framed.subarray(20),
  );
  const questions = guest.host.take("resolve");
  assert.equal(questions.length, 2);
  guest.frames = [];
  const records = Array.from({ length: 20 }, () => ({
    type: DnsType.TXT,
    ttl: 1,
    data: pattern(100, 1),
  }));
  guest.events.onResolved(questions[0]![1], DnsStatus.OK, records);
  const bytes = Buffer.concat(guest.tcps().map(({ payload }) => payload));
  assert.ok(bytes.length > 2000, "more than UDP takes");
  assert.equal(bytes.readUInt16BE(0), bytes.length - 2);
  assert.equal(bytes[4]! & 2, 0, "not truncated");
});

test("egress deny: no connection, no datagram, no name, no echo, and the guest hears of it", () => {
  const guest = new TestGuest({ egress: parseEgress(["deny"]), canEcho: true });
  guest.arp();
  guest.frames = [];
  guest.sendTcp(OUTSIDE, WEB, { seq: 1, flags: SYN });
  guest.sendTcp(Subnet.GATEWAY, WEB, { seq: 1, flags: SYN });
  guest.sendUdp(OUTSIDE, { sourcePort: 5, destinationPort: 53, payload: new Uint8Array(1) });
  guest.sendIp(
    IpProtocol.ICMP,
    OUTSIDE,
    buildIcmp({ type: 8, code: 0, id: 1, sequence: 1, data: new Uint8Array() }),
  );
  assert.deepEqual(guest.reports, [
    "the guest may not reach 198.51.100.7:80 (--egress)",
    "the guest may not reach 10.0.2.2:80 (--egress)",
  ]);
  const codes = guest.icmps().map(({ code }) => code);
  assert.deepEqual(codes, [13, 13, 13, 13]);
  assert.equal(ask(guest, "secrets.attacker.example"), null, "a question is a way out, too");
  assert.equal(statusOf(guest.udps()[0]!.payload), DnsStatus.REFUSED);
  assert.deepEqual(guest.host.calls, []);
});

test("egress by name: an address is open while its record lives, for the ports of the rule, and not before", () => {
  const guest = new TestGuest({ egress: parseEgress(["*.debian.org:80"]) });
  const tryTo = (port: number, address = OUTSIDE): boolean => {
    guest.sendTcp(address, [guest.now % 60_000, port], { seq: 1, flags: SYN });
    return guest.host.take("connect").length === 1;
  };
  assert.ok(!tryTo(80), "before the question");
  guest.events.onResolved(ask(guest, "deb.debian.org")!, DnsStatus.OK, [
    addressRecord(OUTSIDE, 100),
  ]);
  assert.ok(tryTo(80));
  guest.now += 1;
  assert.ok(!tryTo(443), "another port");
  assert.ok(!tryTo(80, OUTSIDE + 1), "another address");
  guest.now += 99e9;
  assert.ok(tryTo(80));
  guest.now += 2e9;
  assert.ok(!tryTo(80), "the record is old");
  for (const name of ["debian.org", "debian.org.evil.example", "xdebian.org"])
    assert.equal(ask(guest, name), null, name);
});

test("egress by name: its owner cannot open this machine's loopback by answering with it", () => {
  const guest = new TestGuest({ egress: parseEgress(["evil.example"]) });
  guest.events.onResolved(ask(guest, "evil.example")!, DnsStatus.OK, [
    addressRecord(0x7f00_0001, 100),
  ]);
  guest.sendTcp(Subnet.GATEWAY, WEB, { seq: 1, flags: SYN });
  assert.deepEqual(guest.host.take("connect"), []);
});

test("egress rules are read strictly", () => {
  assert.deepEqual(parseEgress([]), { open: true, names: [], addresses: [] });
  assert.deepEqual(parseEgress(["deny"]), { open: false, names: [], addresses: [] });
  assert.deepEqual(parseEgress(["Deb.Debian.ORG:443", "*.x", "10.0.0.0/8", "1.2.3.4:5"]), {
    open: false,
    names: [
      { name: "deb.debian.org", below: false, port: 443 },
      { name: "x", below: true, port: 0 },
    ],
    addresses: [
      { cidr: { base: 0x0a00_0000, bits: 8 }, port: 0 },
      { cidr: { base: 0x0102_0304, bits: 32 }, port: 5 },
    ],
  });
  for (const bad of [
    "",
    "*",
    "*.",
    "a b",
    "10.0.0.1/8",
    "1.2.3",
    "1.2.3.4.5",
    "x:0",
    "x:65536",
    "x:1:2",
    "-x",
    "a..b",
    "http://x",
  ])
    assert.throws(() => parseEgress([bad]), { code: "egress-rule" }, bad);
  assert.throws(() => parseEgress(["open", "deny"]), { code: "egress-rule" });
});

test("port forwards are read strictly", () => {
  assert.deepEqual(parsePortForward("8080:80"), {
    kind: "tcp",
    hostAddress: "127.0.0.1",
    hostPort: 8080,
    guestPort: 80,
  });
  assert.deepEqual(parsePortForward("0.0.0.0:53:5353/udp"), {
    kind: "udp",
    hostAddress: "0.0.0.0",
    hostPort: 53,
    guestPort: 5353,
  });
  assert.equal(parsePortForward("[::1]:1:2").hostAddress, "::1");
  assert.equal(parsePortForward(":22").hostPort, 0);
  for (const bad of [
    "",
    "80",
    "80:",
    "x:80",
    "80:0",
    "80:65536",
    "70000:80",
    "1.2.3.4:80",
    "1.2.3.256:80:80",
    "80:80/sctp",
    "::1:80:80",
  ])
    assert.throws(() => parsePortForward(bad), { code: "port-forward" }, bad);
});

// ---- hostile guests, snapshots ----

test("property: any frames, whole or damaged, are survived, and memory stays bounded", () => {
  const sample = new TestGuest();
  const kinds = fc.constantFrom(1, 6, 17, 2, 255);
  const packet = fc.record({
    protocol: kinds,
    destination: fc.constantFrom<number>(
      Subnet.GATEWAY,
      Subnet.DNS,
      OUTSIDE,
      0xffff_ffff,
      Subnet.GUEST,
      0,
    ),
    source: fc.constantFrom<number>(Subnet.GUEST, 0, OUTSIDE, Subnet.GATEWAY, Subnet.BROADCAST),
    ttl: fc.nat(255),
    payload: fc.uint8Array({ maxLength: 80 }),
  });
  const frame = fc.oneof(fc.uint8Array({ maxLength: 100 }), packet);
  fc.assert(
    fc.property(fc.array(frame, { maxLength: 40 }), (frames) => {
      for (const one of frames) {
        if (one instanceof Uint8Array) sample.send(one);
        else
          sample.sendIp(one.protocol, one.destination, one.payload, {
            source: one.source,
            ttl: one.ttl,
          });
      }
      sample.sleep(1e9);
      sample.frames = [];
      sample.host.calls = [];
    }),
    { numRuns: 500 },
  );
  const { connections, mappings } = sample.network.statistics;
  assert.ok(connections <= 1024 && mappings <= 256);
});

test("save, restore, continue equals continue: connections, questions, mappings, leases, forwards", () => {
  const options = {
    forwards: [parsePortForward("8080:80"), parsePortForward("53:53/udp")],
    egress: parseEgress(["*.example", "198.51.100.0/24"]),
  };
  const play = (isRestored: boolean): unknown => {
    const guest = new TestGuest(options);
    guest.network.start();
    dhcp(guest, DhcpType.DISCOVER, []);
    const { stream, seq } = open(guest);
    guest.sendTcp(OUTSIDE, [7, 81], { seq: 1, flags: SYN });
    const query = ask(guest, "a.example")!;
    guest.sendUdp(OUTSIDE, { sourcePort: 5000, destinationPort: 123, payload: new Uint8Array(1) });
    guest.events.onData(stream, pattern(5000, 1));
    guest.frames = [];
    guest.host.calls = [];
    if (isRestored) {
      const saved = structuredClone(guest.network.save());
      guest.network = guest.create();
      guest.network.restore(saved);
      assert.deepEqual(guest.network.save(), saved);
    }
    guest.events.onResolved(query, 0, [addressRecord(OUTSIDE, 5)]);
    guest.sendTcp(
      OUTSIDE,
      WEB,
      { seq: 1001, ack: seq + 1460, flags: ACK, window: 1000 },
      pattern(10, 5),
    );
    guest.events.onDatagram(8, "198.51.100.7", 123, pattern(4, 2));
    guest.events.onAccepted(2, 1);
    guest.sleep(20e9);
    guest.events.onEnd(stream);
    guest.sleep(1e9);
    return [guest.frames, guest.host.calls, guest.network.save()];
  };
  assert.deepEqual(play(true), play(false));
});

test("a snapshot restored without the embedder's sockets: connections are reset, forwards opened anew", () => {
  const guest = new TestGuest({ forwards: [parsePortForward("8080:80")] });
  guest.network.start();
  open(guest);
  const saved = guest.network.save();
  guest.network = guest.create();
  guest.network.restore(saved);
  guest.host.calls = [];
  guest.frames = [];
  guest.network.abandon();
  assert.deepEqual(
    guest.tcps().map(({ flags }: TcpSegment) => flags),
    [RST],
  );
  assert.deepEqual(
    guest.host.calls.map(([name]) => name),
    ["listen"],
  );
  assert.equal(guest.network.statistics.connections, 0);
});

test("what is no snapshot of a network is refused and changes nothing", () => {
  const guest = new TestGuest();
  open(guest);
  const before = guest.network.save();
  const bad: unknown[] = [
    null,
    5,
    {},
    { ...before, version: 2 },
    { ...before, tcp: {} },
    { ...before, nextId: "x" },
  ];
  const [flow] = before.tcp.flows;
  for (const flows of [[5], [{}], [{ ...flow, connection: [{}] }], [{ ...flow, address: null }]])
    bad.push({ ...before, tcp: { ...before.tcp, flows } });
  for (const state of bad)
    assert.throws(() => guest.network.restore(state), { code: "snapshot-shape" });
  assert.deepEqual(guest.network.save(), before);
});

test("an MTU outside of what IPv4 and Ethernet can have is refused", () => {
  for (const mtu of [0, 575, 65_536, 1500.5])
    assert.throws(() => new TestGuest({ mtu }), { code: "mtu" });
});
