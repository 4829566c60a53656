/**
 * The user-mode network with Debian's kernel as its judge: the kernel's TCP, UDP and ICMP against ours, over a network card of QEMU's.
 *
 * The guest is busybox; servers and clients outside are Node's. Every transfer is compared by digest.
 */
import { hostname } from "node:os";
import { parseEgress } from "../../src/network/user/egress.ts";
import { modularKernel } from "../harness/kernel-modules.ts";
import {
  CARD_MODULES,
  type NetworkGuest,
  OwnNetworkGuest,
  QemuNetworkGuest,
} from "../harness/network-guest.ts";
import {
  datagramExchange,
  exchange,
  httpServer,
  payload,
  sha256,
  sinkServer,
  tftpServer,
} from "../harness/network-peers.ts";
import type { Report } from "../harness/report.ts";

const MIB = 2 ** 20;
const LARGE = 64 * MIB;
const PARALLEL = 40;
/** Ports of the guest. */
const PORT = { HTTP: 80, SINK: 7001, CLOSED: 7002, ECHO: 7003 } as const;

const CARDS = [
  { flavor: "cloud", card: "virtio-net-pci,host_mtu=65535", mtu: 1500, isThorough: true },
  { flavor: "cloud", card: "virtio-net-pci,host_mtu=65535", mtu: 65_000, isThorough: false },
  // Without offloads: every segment as the guest's TCP makes it.
  { flavor: "generic", card: "e1000", mtu: 1500, isThorough: false },
];

export async function network(report: Report): Promise<void> {
  for (const { flavor, card, mtu, isThorough } of CARDS) {
    const kernel = await modularKernel(flavor, CARD_MODULES);
    const ports = [`${PORT.HTTP}`, `${PORT.SINK}`, `${PORT.CLOSED}`, `${PORT.ECHO}/udp`];
    const guest = await QemuNetworkGuest.boot(kernel, { card, mtu, ports });
    report.fact(`${card.split(",")[0]}, MTU ${mtu}`);
    try {
      await configuration(report, guest, mtu);
      await echo(report, guest);
      await transfers(report, guest);
      await forwardedPorts(report, guest);
      await datagrams(report, guest);
      if (!isThorough) continue;
      await names(report, guest);
      await refusals(report, guest);
      await backPressure(report, guest);
      await lossy(report, guest);
      await policy(report, guest);
    } finally {
      await guest.end();
    }
  }
}

/** The same on our own machine: its virtio card, the network in a thread of its own. */
export async function virtioNetwork(report: Report): Promise<void> {
  const kernel = await modularKernel("cloud", CARD_MODULES);
  for (const mtu of [1500, 9000]) {
    const ports = [PORT.HTTP, PORT.SINK, PORT.CLOSED, `${PORT.ECHO}/udp`];
    const forwards = ports.map((port) => `:${port}`);
    const guest = await OwnNetworkGuest.boot(kernel, { mtu, forwards });
    report.fact(`MTU ${mtu}`);
    try {
      await configuration(report, guest, mtu);
      await echo(report, guest);
      await transfers(report, guest);
      await forwardedPorts(report, guest);
      await datagrams(report, guest);
      await names(report, guest);
      await refusals(report, guest);
      await version6(report, guest);
      await failure(report, guest);
    } finally {
      await guest.end();
    }
  }
}

async function configuration(report: Report, guest: NetworkGuest, mtu: number): Promise<void> {
  // On a loaded machine the network's thread takes seconds to start, which it does with the first frame: more patience than three tries.
  const lease = await guest.run("udhcpc -i eth0 -n -q -f -t 12 -s /lab/udhcpc.sh 2>/dev/null");
  report.equal(lease, `10.0.2.15/24 10.0.2.2 10.0.2.3 ${mtu} 86400 10.0.2.2`, "DHCP lease");
}

async function echo(report: Report, guest: NetworkGuest): Promise<void> {
  const near = await guest.run("ping -c 3 -i 0.2 -s 4000 10.0.2.2");
  report.check(
    /3 packets received, 0% packet loss/.test(near),
    "the gateway answers echoes of 4000 bytes",
  );
  const far = await guest.session.run("ping -c 1 -W 2 192.0.2.1");
  report.check(far.status !== 0, "nobody answers for the outside");
}

async function transfers(report: Report, guest: NetworkGuest): Promise<void> {
  const http = await httpServer();
  const sink = await sinkServer();
  try {
    const started = performance.now();
    const digest = await guest.run(
      `wget -q -O - http://10.0.2.2:${http.port}/${LARGE}/1 | sha256sum`,
    );
    report.equal(digest.slice(0, 64), sha256(payload(LARGE)), `${LARGE / MIB} MiB into the guest`);
    speed(report, "into the guest", LARGE, started);
    const again = performance.now();
    const command = `dd if=/dev/zero bs=1M count=${LARGE / MIB} 2>/dev/null | nc 10.0.2.2 ${sink.port}`;
    const sent = await guest.run(command);
    report.equal(
      sent,
      sha256(Buffer.alloc(LARGE)),
      `${LARGE / MIB} MiB out of the guest, answered after the half close`,
    );
    speed(report, "out of the guest", LARGE, again);
    await parallel(report, guest, http.port);
  } finally {
    http.close();
    sink.close();
  }
}

function speed(report: Report, what: string, bytes: number, started: number): void {
  const seconds = (performance.now() - started) / 1000;
  report.fact(`${what}: ${(bytes / MIB / seconds).toFixed(1)} MiB/s, ${seconds.toFixed(1)} s`);
}

async function parallel(report: Report, guest: NetworkGuest, port: number): Promise<void> {
  const size = 300_000;
  const get = `wget -q -O - http://10.0.2.2:${port}/${size}/$i | sha256sum`;
  const command = `for i in $(seq ${PARALLEL}); do ${get} >/tmp/p$i & done; wait; for i in $(seq ${PARALLEL}); do cut -c1-64 /tmp/p$i; done`;
  const digests = await guest.run(command);
  const expected = Array.from({ length: PARALLEL }, (_, i) => sha256(payload(size, i + 1)));
  report.equal(digests, expected.join("\n"), `${PARALLEL} downloads at once`);
}

async function forwardedPorts(report: Report, guest: NetworkGuest): Promise<void> {
  const size = 3 * MIB;
  await guest.run("mkdir -p /www; httpd -p 80 -h /www");
  await guest.run(`dd if=/dev/zero of=/www/zero bs=1M count=3 2>/dev/null`);
  const request = Buffer.from("GET /zero HTTP/1.0\r\n\r\n");
  const answers = await Promise.all(
    Array.from({ length: 10 }, () => exchange(guest.hostPort(PORT.HTTP), request)),
  );
  const areRight = answers.every((answer) => {
    const body = answer.subarray(answer.indexOf("\r\n\r\n") + 4);
    return body.length === size && sha256(body) === sha256(Buffer.alloc(size));
  });
  report.check(areRight, "10 downloads at once from the guest's HTTP server by a forwarded port");
  await guest.run(
    `nc -ll -p ${PORT.SINK} -e sh -c "sha256sum | cut -c1-64" >/dev/null 2>&1 & sleep 0.3`,
  );
  const bytes = payload(5 * MIB, 9);
  const digest = await exchange(guest.hostPort(PORT.SINK), bytes);
  report.equal(
    digest.toString().trim(),
    sha256(bytes),
    "an upload by a forwarded port, answered after the half close",
  );
  const refused = await exchange(guest.hostPort(PORT.CLOSED), Buffer.from("x")).then(
    (answer) => `${answer.length} bytes`,
    (error: NodeJS.ErrnoException) => error.code,
  );
  report.equal(String(refused), "ECONNRESET", "a forwarded port where nobody listens");
}

async function datagrams(report: Report, guest: NetworkGuest): Promise<void> {
  const tftp = await tftpServer();
  try {
    for (const block of [512, 8000, 30_000]) {
      const size = 100_000;
      const file = `/tmp/tftp${block}`;
      await guest.run(`tftp -g -b ${block} -r ${size} -l ${file} 10.0.2.2 ${tftp.port}`);
      const digest = await guest.run(`sha256sum ${file} | cut -c1-64`);
      report.equal(digest, sha256(payload(size)), `UDP: TFTP in datagrams of ${block} bytes`);
    }
  } finally {
    tftp.close();
  }
  await guest.run(`/lab/udp-echo ${PORT.ECHO} >/dev/null 2>&1 & sleep 0.3`);
  const port = guest.hostPort(PORT.ECHO);
  for (const size of [1, 1400, 20_000, 60_000]) {
    const answer = await datagramExchange(port, payload(size, size));
    const what = `UDP: ${size} bytes through a forwarded port and back`;
    report.equal(sha256(answer), sha256(payload(size, size)), what);
  }
}

async function names(report: Report, guest: NetworkGuest): Promise<void> {
  const own = await guest.run("nslookup -type=a host.hypolith.internal");
  report.check(own.includes("10.0.2.2"), "DNS: the name of the host");
  const machine = await guest.run(`nslookup -type=a ${hostname()}`);
  report.check(
    /Address: \d+\.\d+/.test(machine),
    `DNS: a name of the host's resolver (${hostname()})`,
  );
  const none = await guest.run("nslookup -type=a nowhere.invalid 2>&1");
  report.check(/NXDOMAIN|SERVFAIL/.test(none), `DNS: a name that is none`);
}

async function refusals(report: Report, guest: NetworkGuest): Promise<void> {
  const refused = await guest.run("nc -w 5 10.0.2.2 9 </dev/null 2>&1");
  report.check(refused.includes("refused"), `a closed port of the host: ${refused}`);
  const local = await guest.run("nc -w 5 169.254.169.254 80 </dev/null 2>&1");
  report.check(
    /No route|unreachable/.test(local),
    `link-local addresses are not forwarded: ${local}`,
  );
  const trace = await guest.run("traceroute -n -m 2 -q 1 -w 1 192.0.2.1 2>&1");
  report.check(/ 1 {2}10\.0\.2\.2/.test(trace), "traceroute sees the gateway");
}

/** There is none, and nobody waits for it. */
async function version6(report: Report, guest: NetworkGuest): Promise<void> {
  const refused = await guest.run("nc -w 60 2001:db8::1 80 </dev/null 2>&1");
  report.check(/unreachable/i.test(refused), `IPv6 is unreachable at once: ${refused}`);
  const answer = await guest.run("nslookup -type=aaaa nowhere.invalid 2>&1");
  report.check(/NXDOMAIN|SERVFAIL/.test(answer), "DNS: a question for an IPv6 address is answered");
}

async function failure(report: Report, guest: OwnNetworkGuest): Promise<void> {
  const http = await httpServer();
  const sink = await sinkServer();
  try {
    const before = Number(await guest.run("cat /sys/class/net/eth0/carrier_changes"));
    const open = `mkfifo /tmp/to; nc 10.0.2.2 ${sink.port} <>/tmp/to >/dev/null 2>&1 & echo $!; sleep 1`;
    const old = await guest.run(open);
    const problem = await guest.machine.client.drill("network", "kill");
    report.equal(String(problem), "null", "the network's thread is made to fail");
    const changes = `for i in $(seq 100); do n=$(cat /sys/class/net/eth0/carrier_changes); [ $n -ge ${before + 2} ] && break; sleep 0.2; done; echo $n`;
    const after = Number(await guest.run(changes));
    report.check(after >= before + 2, `the guest's link goes down and up (${before}, ${after})`);
    report.check(
      guest.machine.consoleText().includes("it has failed and starts again"),
      "the log says so",
    );
    const digest = await guest.run(
      `wget -q -O - http://10.0.2.2:${http.port}/100000/1 | sha256sum`,
    );
    report.equal(digest.slice(0, 64), sha256(payload(100_000)), "new connections work");
    const ended = `for i in 1 2 3; do timeout 2 sh -c 'echo x >/tmp/to'; sleep 1; done; kill -0 ${old} 2>/dev/null || echo ended`;
    report.check((await guest.run(ended)).endsWith("ended"), "the old one is reset");
    const request = Buffer.from("GET /zero HTTP/1.0\r\n\r\n");
    const answer = await exchange(guest.hostPort(PORT.HTTP), request);
    report.check(answer.length > 3 * MIB, "forwarded ports lead into the guest again");
    await configuration(report, guest, Number(await guest.run("cat /sys/class/net/eth0/mtu")));
  } finally {
    http.close();
    sink.close();
  }
}

async function backPressure(report: Report, guest: NetworkGuest): Promise<void> {
  const size = 4 * MIB;
  const slow = await sinkServer(2 * MIB);
  const http = await httpServer();
  try {
    const sent = await guest.run(
      `dd if=/dev/zero bs=1M count=4 2>/dev/null | nc 10.0.2.2 ${slow.port}`,
    );
    report.equal(sent, sha256(Buffer.alloc(size)), "a slow reader outside");
    const late = `wget -q -O - http://10.0.2.2:${http.port}/${size}/1 | (sleep 8; sha256sum)`;
    const digest = await guest.run(late);
    report.equal(digest.slice(0, 64), sha256(payload(size)), "a reader inside that sleeps for 8 s");
  } finally {
    slow.close();
    http.close();
  }
}

async function lossy(report: Report, guest: QemuNetworkGuest): Promise<void> {
  const size = 3 * MIB;
  const http = await httpServer();
  const sink = await sinkServer();
  guest.link.faults = { loss: 0.02, delay: 0.05 };
  try {
    const digest = await guest.run(
      `wget -q -O - http://10.0.2.2:${http.port}/${size}/1 | sha256sum`,
      600,
    );
    report.equal(
      digest.slice(0, 64),
      sha256(payload(size)),
      "into the guest with 2 % lost, 5 % reordered",
    );
    const sent = await guest.run(
      `dd if=/dev/zero bs=1M count=3 2>/dev/null | nc 10.0.2.2 ${sink.port}`,
      600,
    );
    report.equal(sent, sha256(Buffer.alloc(size)), "out of the guest with 2 % lost, 5 % reordered");
    report.fact(`${guest.link.lost} frames lost`);
  } finally {
    guest.link.faults = { loss: 0, delay: 0 };
    http.close();
    sink.close();
  }
}

async function policy(report: Report, guest: QemuNetworkGuest): Promise<void> {
  const http = await httpServer();
  const get = (address: string): string =>
    `wget -q -O - http://${address}:${http.port}/10/1 2>&1 >/dev/null || echo failed`;
  const ask = (name: string): Promise<string> => guest.run(`nslookup -type=a ${name} 2>&1`);
  const rule = (...words: string[]): void =>
    guest.link.replace({ ...guest.networkOptions(), egress: parseEgress(words) });
  try {
    rule("deny");
    const denied = await guest.run(get("10.0.2.2"));
    report.check(/unreach|No route/.test(denied), `--egress deny: ${denied.split("\n")[0]}`);
    report.check(/REFUSED/.test(await ask(hostname())), "--egress deny: names are refused");
    rule(`10.0.2.2:${http.port}`);
    report.equal(await guest.run(get("10.0.2.2")), "", "--egress ADDRESS:PORT lets through");
    const other = await guest.run("nc -w 5 10.0.2.2 9 </dev/null 2>&1");
    report.check(/No route|unreach/.test(other), `--egress ADDRESS:PORT, another port: ${other}`);
    rule(`host.hypolith.internal:${http.port}`);
    report.check(
      (await ask("host.hypolith.internal")).includes("10.0.2.2"),
      "--egress NAME: its name",
    );
    report.equal(await guest.run(get("10.0.2.2")), "", "--egress NAME: its address");
    report.check(/REFUSED/.test(await ask("debian.org")), "--egress NAME: other names are refused");
  } finally {
    http.close();
  }
}
