import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import {
  formatIpv4Address,
  formatMac,
  isInCidr,
  isUnicastMac,
  netmask,
  parseCidr,
  parseIpv4Address,
  parseMac,
} from "./address.ts";
import { ArpOperation, buildArp, parseArp } from "./arp.ts";
import { put16 } from "./bytes.ts";
import { addWords, checksum, fold } from "./checksum.ts";
import { buildDhcp, DhcpOption, DhcpType, parseDhcp } from "./dhcp.ts";
import {
  buildAnswer,
  type DnsQuestion,
  DnsStatus,
  DnsType,
  encodeName,
  MIN_UDP_ANSWER,
  parseQuery,
} from "./dns.ts";
import { parseEthernet } from "./ethernet.ts";
import { buildIcmp, mayProvokeError, parseIcmp } from "./icmp.ts";
import { IPV4_HEADER, type Ipv4Packet, parseIpv4, writeIpv4 } from "./ipv4.ts";
import { Ipv4Reassembly } from "./reassembly.ts";
import { parseTcp, TcpFlag, tcpHeaderLength, writeTcp } from "./tcp-segment.ts";
import { buildUdp, parseUdp } from "./udp.ts";

const bytes = (length = 200) => fc.uint8Array({ maxLength: length });
const u16 = fc.nat(0xffff);
const u32 = fc.nat(0xffff_ffff);
const hex = (text: string): Uint8Array =>
  Uint8Array.from(Buffer.from(text.replaceAll(" ", ""), "hex"));

test("the checksum of RFC 1071's example", () => {
  const words = hex("0001 f203 f4f5 f6f7");
  assert.equal(fold(addWords(0, words, 0, 8)), 0xddf2);
  assert.equal(checksum(words, 0, 8), 0x220d);
});

test("property: the checksum is that of adding words one by one, at any place and length", () => {
  fc.assert(
    fc.property(bytes(600), fc.nat(9), fc.nat(5), (whole, from, shift) => {
      const b = whole.subarray(Math.min(shift, whole.length));
      let sum = 0;
      for (let i = from; i < b.length; i += 2) {
        sum += (b[i]! << 8) | (b[i + 1] ?? 0);
        if (sum > 0xffff) sum -= 0xffff;
      }
      const actual = fold(addWords(0, b, Math.min(from, b.length), b.length));
      assert.equal(actual % 0xffff, sum % 0xffff);
    }),
  );
});

test("addresses are read strictly and written back", () => {
  assert.equal(parseIpv4Address("10.0.2.15"), 0x0a00020f);
  for (const bad of [
    "",
    "1.2.3",
    "1.2.3.4.5",
    "256.1.1.1",
    "01.2.3.4",
    "1.2.3.4 ",
    "a.b.c.d",
    "1.2.3.-4",
  ])
    assert.equal(parseIpv4Address(bad), null, bad);
  fc.assert(fc.property(u32, (a) => parseIpv4Address(formatIpv4Address(a)) === a));
  assert.deepEqual(parseCidr("10.0.0.0/8"), { base: 0x0a000000, bits: 8 });
  assert.deepEqual(parseCidr("0.0.0.0/0"), { base: 0, bits: 0 });
  for (const bad of ["10.0.0.1/8", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/8/8", "/8", "10.0.0.0/x"])
    assert.equal(parseCidr(bad), null, bad);
  assert.ok(isInCidr(0xffff_ffff, { base: 0, bits: 0 }));
  assert.ok(isInCidr(0xc0a8_01ff, parseCidr("192.168.1.0/24")!));
  assert.ok(!isInCidr(0xc0a8_02ff, parseCidr("192.168.1.0/24")!));
  assert.equal(netmask(24), 0xffff_ff00);
  assert.equal(netmask(0), 0);
  assert.equal(formatMac(parseMac("52:55:0a:00:02:02")!), "52:55:0a:00:02:02");
  assert.equal(parseMac("52:55:0a:00:02"), null);
  assert.ok(!isUnicastMac(0x0100_5e00_0001) && !isUnicastMac(0) && isUnicastMac(0x5255_0a00_0202));
});

test("property: random bytes are refused or parsed, never thrown at", () => {
  fc.assert(
    fc.property(bytes(), u32, u32, (b, from, to) => {
      parseEthernet(b);
      parseArp(b);
      parseIpv4(b);
      parseIcmp(b);
      parseUdp(b, from, to);
      parseTcp(b, from, to);
      parseDhcp(b);
      parseQuery(b);
    }),
    { numRuns: 2000 },
  );
});

test("property: a damaged byte is noticed by every checksum", () => {
  fc.assert(
    fc.property(
      bytes(60),
      u32,
      u32,
      fc.nat(1000),
      fc.integer({ min: 1, max: 255 }),
      (payload, from, to, place, change) => {
        const damage = (b: Uint8Array): Uint8Array => {
          const copy = b.slice();
          copy[place % b.length]! ^= change;
          return copy;
        };
        const ports = { sourcePort: 1, destinationPort: 2 };
        const udp = buildUdp({ ...ports, payload }, from, to);
        assert.deepEqual(parseUdp(udp, from, to), { ...ports, payload });
        // A checksum damaged to 0 says that there is none.
        const damagedUdp = damage(udp);
        if (damagedUdp[6] !== 0 || damagedUdp[7] !== 0)
          assert.equal(parseUdp(damagedUdp, from, to), null);
        const icmp = { type: 8, code: 0, id: 7, sequence: 9, data: payload };
        assert.deepEqual(parseIcmp(buildIcmp(icmp)), icmp);
        assert.equal(parseIcmp(damage(buildIcmp(icmp))), null);
        const ip = new Uint8Array(IPV4_HEADER);
        writeIpv4(
          ip,
          0,
          { source: from, destination: to, protocol: 6, id: 5, dontFragment: true },
          0,
        );
        assert.equal(parseIpv4(ip)?.source, from);
        assert.equal(parseIpv4(damage(ip)), null);
      },
    ),
  );
});

test("property: a TCP segment survives writing and reading", () => {
  const header = fc.record({
    seq: u32,
    ack: u32,
    flags: fc.nat(63),
    window: u16,
    mss: fc.oneof(fc.constant(0), fc.integer({ min: 1, max: 0xffff })),
    windowScale: fc.integer({ min: -1, max: 14 }),
    sackPermitted: fc.boolean(),
    sack: fc.array(fc.tuple(u32, u32), { maxLength: 3 }).map((pairs) => pairs.flat()),
  });
  fc.assert(
    fc.property(
      header,
      u16,
      u16,
      u32,
      bytes(100),
      (fields, sourcePort, destinationPort, source, payload) => {
        const length = tcpHeaderLength(fields);
        const b = new Uint8Array(length + payload.length);
        b.set(payload, length);
        const ports = { source, destination: 77, sourcePort, destinationPort };
        writeTcp(b, 0, { ...fields, ...ports }, payload.length);
        assert.deepEqual(parseTcp(b, source, 77), {
          ...fields,
          sourcePort,
          destinationPort,
          payload,
        });
        assert.equal(parseTcp(b, source, 78), null, "another address");
      },
    ),
  );
});

test("TCP options: unknown ones are skipped, an impossible length refuses the segment", () => {
  const withOptions = (options: string): ReturnType<typeof parseTcp> => {
    const list = hex(options);
    const b = new Uint8Array(20 + list.length);
    const fields = { seq: 1, ack: 2, flags: TcpFlag.SYN, window: 3 };
    const none = { mss: 0, windowScale: -1, sackPermitted: false, sack: [] };
    const ports = { source: 1, destination: 2, sourcePort: 3, destinationPort: 4 };
    writeTcp(b, 0, { ...fields, ...none, ...ports }, 0);
    b.set(list, 20);
    b[12] = (b.length / 4) << 4;
    put16(b, 16, 0);
    put16(b, 16, checksum(b, 0, b.length, 3 + 6 + b.length));
    return parseTcp(b, 1, 2);
  };
  // As Linux sends it: MSS 1460, SACK permitted, timestamps, NOP, window scale 7.
  const linux = withOptions("020405b4 0402080a 0001e240 00000000 01030307");
  assert.deepEqual([linux?.mss, linux?.sackPermitted, linux?.windowScale], [1460, true, 7]);
  assert.equal(withOptions("0303ff00")?.windowScale, 14, "RFC 7323: more counts as 14");
  for (const bad of [
    "02000000",
    "02010000",
    "02050000",
    "0204 05b4 0304 0100",
    "050a 0000",
    "fe280000",
  ])
    assert.equal(withOptions(bad), null, bad);
});

test("IPv4: lengths that do not fit are refused, padding of the frame is left off, options are skipped", () => {
  const b = new Uint8Array(46);
  writeIpv4(b, 0, { source: 1, destination: 2, protocol: 17, id: 3, dontFragment: false }, 10);
  assert.equal(parseIpv4(b)?.bytes.length, 30);
  assert.equal(parseIpv4(b.subarray(0, 29)), null);
  const tooShort = b.slice();
  put16(tooShort, 2, 19);
  assert.equal(parseIpv4(tooShort), null);
  const withOptions = b.slice();
  withOptions[0] = 0x47;
  put16(withOptions, 10, 0);
  put16(withOptions, 10, checksum(withOptions, 0, 28));
  assert.equal(parseIpv4(withOptions)?.headerLength, 28);
});

test("IPv4: a fragment beyond 64 KiB is refused (the ping of death)", () => {
  const b = new Uint8Array(IPV4_HEADER + 64);
  const header = { source: 1, destination: 2, protocol: 1, id: 3, dontFragment: false };
  writeIpv4(b, 0, { ...header, fragmentOffset: 65_528 }, 64);
  assert.equal(parseIpv4(b), null);
});

test("ARP survives writing and reading; other hardware is refused", () => {
  const packet = {
    operation: ArpOperation.REQUEST,
    ...{ senderMac: 0x5254_0012_3456, sender: 0x0a00020f, targetMac: 0, target: 0x0a000202 },
  };
  const frame = buildArp(packet, 0xffff_ffff_ffff);
  assert.deepEqual(parseArp(frame), packet);
  for (const [at, value] of [
    [14, 1],
    [18, 8],
    [19, 16],
    [21, 3],
  ] as const) {
    const bad = frame.slice();
    bad[at] = value;
    assert.equal(parseArp(bad), null, `byte ${at}`);
  }
});

const packetOf = (id: number, offset: number, more: boolean, payload: Uint8Array): Ipv4Packet => {
  const b = new Uint8Array(IPV4_HEADER + payload.length);
  const header = { source: 1, destination: 2, protocol: 17, id, dontFragment: false };
  writeIpv4(b, 0, { ...header, moreFragments: more, fragmentOffset: offset }, payload.length);
  b.set(payload, IPV4_HEADER);
  return parseIpv4(b)!;
};

test("property: fragments in any order make the datagram, repeated ones do no harm", () => {
  fc.assert(
    fc.property(
      fc.uint8Array({ minLength: 9, maxLength: 4000 }),
      fc.integer({ min: 1, max: 60 }),
      fc.nat(),
      (whole, eights, seed) => {
        const step = eights * 8;
        const parts: Ipv4Packet[] = [];
        for (let at = 0; at < whole.length; at += step)
          parts.push(packetOf(9, at, at + step < whole.length, whole.subarray(at, at + step)));
        if (parts.length === 1) return;
        const shuffled = parts.map((part, i) => ({ part, key: Math.imul(i + 1, seed | 1) % 1009 }));
        shuffled.sort((a, b) => a.key - b.key);
        const reassembly = new Ipv4Reassembly();
        const results = shuffled.flatMap(({ part }, i) => {
          const first = reassembly.take(part, 0);
          const isLast = i === parts.length - 1;
          return [first, isLast ? null : reassembly.take(part, 0)];
        });
        const done = results.filter((result) => result !== null);
        assert.equal(done.length, 1);
        assert.deepEqual(done[0]!.bytes.subarray(done[0]!.headerLength), whole);
        assert.equal(reassembly.pending, 0);
      },
    ),
  );
});

test("overlapping fragments refuse their datagram; what never completes is forgotten", () => {
  const reassembly = new Ipv4Reassembly();
  assert.equal(reassembly.take(packetOf(1, 0, true, new Uint8Array(16)), 0), null);
  assert.equal(reassembly.take(packetOf(1, 8, false, new Uint8Array(16)), 0), null);
  assert.equal(reassembly.pending, 0);
  for (let id = 0; id < 100; id++) reassembly.take(packetOf(id, 0, true, new Uint8Array(8)), 0);
  assert.equal(reassembly.pending, 16);
  reassembly.take(packetOf(500, 0, true, new Uint8Array(8)), 31e9);
  assert.equal(reassembly.pending, 1);
});

test("no ICMP error about errors, broadcasts and later fragments (RFC 1122)", () => {
  const about = (protocol: number, destination: number, type = 0): boolean => {
    const b = new Uint8Array(IPV4_HEADER + 8);
    writeIpv4(b, 0, { source: 5, destination, protocol, id: 3, dontFragment: false }, 8);
    b[IPV4_HEADER] = type;
    return mayProvokeError(parseIpv4(b)!);
  };
  assert.ok(about(17, 9));
  assert.ok(about(1, 9, 8), "an echo request");
  assert.ok(!about(1, 9, 3), "an error");
  assert.ok(!about(17, 0xffff_ffff));
  assert.ok(!about(17, 0xe000_0001));
  assert.ok(!mayProvokeError(packetOf(1, 8, false, new Uint8Array(8))));
});

test("DHCP survives writing and reading, options in overloaded fields and in parts included", () => {
  const message = {
    ...{ op: 1, transaction: 0x1234_5678, seconds: 3, broadcast: true, client: 0, yours: 0 },
    ...{ server: 0, relay: 0, hardware: new Uint8Array(16).fill(7), type: DhcpType.REQUEST },
    options: new Map([
      [DhcpOption.MESSAGE_TYPE as number, Uint8Array.of(DhcpType.REQUEST)],
      [DhcpOption.REQUESTED_ADDRESS, hex("0a00020f")],
    ]),
  };
  const b = buildDhcp(message);
  assert.deepEqual(parseDhcp(b), message);
  const overloaded = b.slice();
  overloaded.set(hex("340103 3501 03 0c02 6869 ff"), 240);
  overloaded.set(hex("0c03 206f6e ff"), 108);
  overloaded.set(hex("0c01 21 ff"), 44);
  const name = parseDhcp(overloaded)?.options.get(DhcpOption.HOST_NAME);
  assert.equal(Buffer.from(name!).toString(), "hi on!");
  const cut = b.slice(0, 243);
  cut[241] = 200;
  assert.equal(parseDhcp(cut), null);
});

const query = (name: string, type: number, flags = 0x0100, more = ""): Uint8Array => {
  const head = hex("abcd 0000 0001 0000 0000 0000");
  put16(head, 2, flags);
  if (more) head[11] = 1;
  const tail = new Uint8Array(4);
  put16(tail, 0, type);
  tail[3] = 1;
  return Uint8Array.from([...head, ...encodeName(name)!, ...tail, ...hex(more)]);
};

test("DNS: a question is read, case and EDNS included", () => {
  const parsed = parseQuery(
    query("Deb.Debian.ORG", DnsType.A, 0x0100, "00 0029 04d0 00000000 0000"),
  );
  const question: DnsQuestion = {
    ...{ id: 0xabcd, name: "deb.debian.org", type: 1 },
    ...{ recursionWanted: true, udpBytes: 1232, hasEdns: true },
  };
  assert.deepEqual(parsed, { question });
});

test("DNS: what is no plain question gets its status, answers get nothing", () => {
  assert.equal(parseQuery(query("a", 1, 0x8100)), null);
  const id = 0xabcd;
  assert.deepEqual(parseQuery(query("a", 1, 0x2800)), { id, status: DnsStatus.NOT_IMPLEMENTED });
  const two = query("a", 1);
  two[5] = 2;
  assert.deepEqual(parseQuery(two), { id, status: DnsStatus.FORMAT_ERROR });
  const pointer = query("a", 1);
  pointer[12] = 0xc0;
  assert.deepEqual(parseQuery(pointer), { id, status: DnsStatus.FORMAT_ERROR });
  assert.deepEqual(parseQuery(query("a", 1).slice(0, 15)), { id, status: DnsStatus.FORMAT_ERROR });
});

test("DNS: an answer that does not fit says that it was cut", () => {
  const parsed = parseQuery(query("a.example", DnsType.TXT));
  assert.ok(parsed && "question" in parsed);
  const record = { type: DnsType.TXT, ttl: 5, data: new Uint8Array(100) };
  const records = Array.from({ length: 10 }, () => record);
  const answer = buildAnswer(parsed.question, DnsStatus.OK, records, MIN_UDP_ANSWER);
  assert.ok(answer.length <= MIN_UDP_ANSWER);
  assert.equal(answer[2]! & 2, 2);
  assert.equal(answer[7], 4);
  const whole = buildAnswer(parsed.question, DnsStatus.OK, records, 65_535);
  assert.equal(whole[2]! & 2, 0);
  assert.equal(whole[7], 10);
});

test("DNS: names that are none are not encoded", () => {
  assert.deepEqual(encodeName("a.bc."), hex("0161 026263 00"));
  for (const bad of ["a..b", ".a", "x".repeat(64), "ä.example", `${"abcdefg.".repeat(40)}a`])
    assert.equal(encodeName(bad), null, bad);
});
