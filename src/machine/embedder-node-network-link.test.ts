import assert from "node:assert/strict";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import type { FromMachine, NetworkConfig } from "../control/protocol.ts";
import { FrameFlag, getTag } from "../devices/virtio/frame-tag.ts";
import { ArpOperation, buildArp, parseArp } from "../network/packet/arp.ts";
import { Subnet } from "../network/user/subnet.ts";
import { NodeNetworkLink } from "./embedder-node-network-link.ts";

const MAC = 0x5254_0012_3456;

function link(config: NetworkConfig, nowMs?: () => number) {
  const doorbell = new Int32Array(new SharedArrayBuffer(4));
  const sent: FromMachine[] = [];
  return {
    link: new NodeNetworkLink(config, {
      ...{ doorbell, send: (m: FromMachine) => sent.push(m) },
      ...(nowMs ? { nowMs } : {}),
    }),
    doorbell,
    sent,
  };
}

const question = buildArp(
  {
    operation: ArpOperation.REQUEST,
    ...{ senderMac: MAC, sender: Subnet.GUEST, targetMac: 0, target: Subnet.GATEWAY },
  },
  0xffff_ffff_ffff,
);

/** In two pieces, as a guest may have it. */
const send = (network: NodeNetworkLink, frame: Uint8Array): void =>
  network.send({ length: frame.length, flags: 0, segment: 0 }, [
    frame.subarray(0, 13),
    frame.subarray(13),
  ]);

async function until(what: () => boolean): Promise<void> {
  for (let i = 0; i < 500; i++) {
    if (what()) return;
    await sleep(20);
  }
  assert.fail("it did not come");
}

test("frames reach the network in its thread, answers ring the doorbell, a capture has both", async (t) => {
  const folder = mkdtempSync(join(tmpdir(), "hypolith-link-"));
  const capture = join(folder, "frames.pcapng");
  const { link: network, doorbell } = link({ capture });
  t.after(() => {
    network.end();
    rmSync(folder, { recursive: true });
  });
  assert.equal(network.announce(), null);
  send(network, question);
  await until(() => network.hasNews);
  assert.ok(Atomics.load(doorbell, 0) > 0);
  const { length } = getTag(network.announce()!, 0);
  const frame = new Uint8Array(length);
  network.take([frame]);
  assert.equal(parseArp(frame)?.senderMac, Subnet.GATEWAY_MAC);
  assert.ok(!network.hasNews);
  await until(() => readFileSync(capture).length > 88 + 2 * (42 + 32));
});

test("what the network reports comes as log lines of the machine", async (t) => {
  const { link: network, sent } = link({ forwards: [":80"] });
  t.after(() => network.end());
  await until(() => {
    network.takeReports();
    return sent.length > 0;
  });
  const [first] = sent;
  assert.match(
    first?.type === "log" ? first.text : "",
    /^network: forwarding 127\.0\.0\.1:\d+:80\/tcp$/,
  );
});

test("a capture that cannot be written ends, the network does not", {
  skip: existsSync("/dev/full") ? false : "there is no /dev/full",
}, async (t) => {
  const { link: network, sent } = link({ capture: "/dev/full" });
  t.after(() => network.end());
  send(network, question);
  await until(() => {
    network.takeReports();
    return sent.length > 0;
  });
  const [first] = sent;
  assert.match(first?.type === "log" ? first.text : "", /the capture ends early: .*ENOSPC/);
  await until(() => network.announce() !== null);
  send(network, question);
  await until(() => network.hasNews);
});

test("a network that fails is followed by another, the guest's link goes down and up, the user reads why", async (t) => {
  const folder = mkdtempSync(join(tmpdir(), "hypolith-link-"));
  const capture = join(folder, "frames.pcapng");
  const { link: network, sent } = link({ capture });
  t.after(() => {
    network.end();
    rmSync(folder, { recursive: true });
  });
  const answered = async (): Promise<void> => {
    send(network, question);
    await until(() => {
      network.takeReports();
      return network.hasNews;
    });
    const { length } = getTag(network.announce()!, 0);
    assert.equal(length, question.length);
    network.take([new Uint8Array(length)]);
  };
  const sees = async (flag: number): Promise<void> => {
    await until(() => {
      network.takeReports();
      return network.hasNews;
    });
    const tag = getTag(network.announce()!, 0);
    assert.deepEqual(tag, { length: 0, flags: flag, segment: 0 });
  };
  assert.match(network.drill("kill") ?? "", /has not started/);
  await answered();
  for (let round = 0; round < 2; round++) {
    assert.equal(network.drill("kill"), null);
    await sees(FrameFlag.LINK_DOWN);
    await sees(FrameFlag.LINK_UP);
    await answered();
  }
  const logs = sent.map((m) => (m.type === "log" ? `${m.level}: ${m.text.split("\n")[0]}` : ""));
  const why = "warn: network: it has failed and starts again, its connections are reset: ";
  assert.deepEqual(logs, new Array(2).fill(`${why}Error: ended by a drill`));
  // A section for each thread.
  const bytes = readFileSync(capture);
  const sections = bytes.toString("latin1").split("\x0a\x0d\x0d\x0a").length - 1;
  assert.equal(sections, 3);
});

test("a network that takes no frames is followed by another; one that has none to take is not", async (t) => {
  let now = 0;
  const { link: network, sent } = link({}, () => now);
  t.after(() => network.end());
  const answered = async (): Promise<void> => {
    send(network, question);
    await until(() => network.hasNews);
    network.take([new Uint8Array(getTag(network.announce()!, 0).length)]);
  };
  await answered();
  now += 100_000;
  await answered();
  network.takeReports();
  assert.deepEqual(sent, [], "silence is no failure");
  network.drill("hang");
  await until(() => {
    // The first of them may be taken before it hangs.
    send(network, question);
    now += 1000;
    network.takeReports();
    return sent.length > 0;
  });
  const [first] = sent as FromMachine[];
  assert.match(first?.type === "log" ? first.text : "", /starts again.*no frames for 30 s/);
});

test("a network that fails again and again is given up", async (t) => {
  const { link: network, sent } = link({ forwards: [":80"] });
  t.after(() => network.end());
  const failures = (level: string): number =>
    sent.filter((m) => m.type === "log" && m.level === level && /fail/.test(m.text)).length;
  for (let round = 1; round <= 6; round++) {
    network.drill("kill");
    await until(() => {
      network.takeReports();
      return failures("warn") + failures("error") === round;
    });
  }
  assert.deepEqual([failures("warn"), failures("error")], [5, 1]);
  send(network, question);
  assert.match(network.drill("kill") ?? "", /has not started/, "no thread any more");
});

test("a wrong configuration is refused before anything is started", () => {
  for (const [config, code] of [
    [{ mtu: 40_000 }, "mtu"],
    [{ egress: ["1.2.3.4/99"] }, "egress-rule"],
    [{ forwards: ["x"] }, "port-forward"],
    [{ capture: "/nowhere/at/all" }, "capture-file"],
  ] as const)
    assert.throws(() => link(config), { code });
});
