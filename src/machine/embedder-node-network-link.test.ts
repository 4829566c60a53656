import assert from "node:assert/strict";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import type { FromMachine, NetworkConfig } from "../control/protocol.ts";
import { ArpOperation, buildArp, parseArp } from "../network/packet/arp.ts";
import { Subnet } from "../network/user/subnet.ts";
import { NodeNetworkLink } from "./embedder-node-network-link.ts";

const MAC = 0x5254_0012_3456;

function link(config: NetworkConfig) {
  const doorbell = new Int32Array(new SharedArrayBuffer(4));
  const sent: FromMachine[] = [];
  return {
    link: new NodeNetworkLink(config, { doorbell, send: (m) => sent.push(m) }),
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
  assert.equal(network.receive(), null);
  network.send(question);
  await until(() => Atomics.load(doorbell, 0) > 0);
  assert.ok(network.hasFrames);
  const frames = network.receive()!;
  const answer = parseArp(frames.subarray(2, 2 + frames[0]! + frames[1]! * 256));
  assert.equal(answer?.senderMac, Subnet.GATEWAY_MAC);
  assert.ok(!network.hasFrames);
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
  network.send(question);
  await until(() => {
    network.takeReports();
    return sent.length > 0;
  });
  const [first] = sent;
  assert.match(first?.type === "log" ? first.text : "", /the capture ends early: .*ENOSPC/);
  await until(() => network.receive() !== null);
  network.send(question);
  await until(() => network.hasFrames);
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
