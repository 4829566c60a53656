/** The template does what it says, in every TypeScript placement, and goes on after restarts. A pattern for tests of services. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { EventKind } from "../../hypervisor/abi/message.ts";
import { type Drill, NO_CAPABILITIES } from "../../hypervisor/kernel/service-domain.ts";
import { ServiceBench } from "../../hypervisor/kernel/testing/service-bench.ts";
import { serviceImage } from "../../machine/embedder-node-images.ts";
import { inlineImage, workerImage } from "../../machine/embedder-node-services.ts";

const PORT = 0x2a0;
const IN = 8;

for (const [placement, place] of [
  ["inline", inlineImage],
  ["worker", workerImage],
] as const) {
  test(`${placement}: counts bytes, says so once, and forgets nothing when it is killed`, () => {
    const bench = new ServiceBench();
    const setup = JSON.stringify({ options: { port: PORT }, grants: NO_CAPABILITIES });
    const image = place({ image: serviceImage("template/template"), setup, name: "template" });
    const service = bench.placed(image);
    const portal = bench.portal(service);
    const access = (bits: number): number => {
      const message = bench.calls.open(service);
      assert.ok(message);
      message.kind = EventKind.EXIT;
      message.reason = 30;
      message.qualification = PORT * 0x1_0000 + bits;
      bench.calls.call(service, bench.vcpu, portal);
      return service.message.registerLow(0);
    };
    const drills: (Drill | null)[] = ["kill", null, "lose-reply", null];
    for (let i = 0; i < 12; i++) {
      service.drill = drills[i % drills.length]!;
      access(0);
    }
    assert.equal(access(IN) & 0xff, 12);
    const told = bench.logs.filter((line) => !line.includes("restarted"));
    assert.deepEqual([told, service.restarts], [["test: 10 bytes"], 6]);
    service.placement?.kill();
  });
}
