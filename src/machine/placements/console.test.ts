/** The console service in every placement there is: the same behaviour, and message by message the same replies. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import type { PlacementName } from "../../control/protocol.ts";
import type { ServiceImage } from "../../hypervisor/kernel/placement.ts";
import { CONSOLE_BEHAVIOUR } from "../../services/testing/console-behaviour.ts";
import { ConsoleRig, type PortSize } from "../../services/testing/console-rig.ts";
import { NodeServiceHost } from "../embedder-node-services.ts";
import { SERVICES } from "../service-table.ts";
import { linkedImage } from "../services.ts";
import { guestImage } from "./guest.ts";

const spec = SERVICES.find(({ name }) => name === "console")!;
const order = { spec, grants: spec.capabilities, options: undefined };
const inNode = (placement: PlacementName): ServiceImage =>
  new NodeServiceHost().image(placement, order)!;

const IMAGES: readonly (readonly [string, ServiceImage])[] = [
  ["linked", linkedImage(order)],
  ["inline", inNode("inline")],
  ["worker", inNode("worker")],
  ["guest", guestImage("console", "guest")!],
  ["guest:ring3", guestImage("console", "guest:ring3")!],
];

for (const [placement, image] of IMAGES) {
  describe(`console service, ${placement}`, () => {
    for (const { title, run } of CONSOLE_BEHAVIOUR) {
      test(title, () => {
        const rig = new ConsoleRig(image);
        try {
          run(rig);
        } finally {
          rig.end();
        }
      });
    }
  });
}

// ---- the same replies ----

const BASES = [0x3f8, 0x2f8, 0x3e8, 0x2e8];

interface Action {
  readonly base: number;
  readonly register: number;
  readonly size: PortSize;
  readonly value: number;
  readonly write: boolean;
  readonly wait: number;
  readonly kind: number;
  readonly length: number;
}

/** Mostly one port, so that something comes of it. */
const actions = fc.array(
  fc.record({
    base: fc.oneof({ weight: 5, arbitrary: fc.constant(0x3f8) }, fc.constantFrom(...BASES)),
    register: fc.nat(7),
    size: fc.constantFrom<PortSize>(1, 1, 1, 1, 2, 4),
    value: fc.oneof(fc.nat(0xff), fc.constantFrom(10, 1, 3, 0x81, 0xc7, 0x0b), fc.nat(0xffff_ffff)),
    write: fc.boolean(),
    wait: fc.oneof(fc.constant(0), fc.nat(2000), fc.nat(1e7), fc.nat(1e10)),
    kind: fc.nat(19),
    length: fc.oneof({ weight: 3, arbitrary: fc.nat(16) }, fc.nat(40), fc.nat(5000)),
  }),
  { maxLength: 300, size: "max" },
);

/** A port as some driver has opened it. */
const opened = fc.record({
  lcr: fc.nat(0x7f),
  fcr: fc.constantFrom(0, 0x01, 0x41, 0x81, 0xc1),
  mcr: fc.constantFrom(0x0b, 0x0b, 0x1b, 0x08, 0x03),
  ier: fc.constantFrom(0, 1, 5, 3, 15, 7),
});

/** What a message came to, all of it. */
function act(rig: ConsoleRig, action: Action, restarts: boolean): unknown {
  const { base, register, size, value, write, wait, kind, length } = action;
  rig.jump(rig.time + wait);
  const timer = rig.effects;
  let answer = 0;
  if (kind === 0 && restarts) rig.restart();
  if (kind >= 16)
    answer = rig.input(
      base === 0x3f8 ? 0 : value % 5,
      Uint8Array.from({ length }, (_, i) => value + i),
    );
  else if (kind === 2) rig.signal(value % 3);
  else if (kind === 3) rig.unhandled(value % 60 === 30 ? 48 : value % 60, value);
  else if (write) rig.write(base + register, value, size);
  else answer = rig.read(base + register, size);
  return { answer, timer, effects: rig.effects, deadline: rig.deadline };
}

for (const [placement, image] of IMAGES.slice(3)) {
  test(`${placement}: any accesses, input and time have the replies and effects of the TypeScript service`, () => {
    fc.assert(
      fc.property(opened, actions, ({ lcr, fcr, mcr, ier }, list) => {
        const [ours, theirs] = [new ConsoleRig(linkedImage(order)), new ConsoleRig(image)];
        for (const rig of [ours, theirs])
          for (const [register, value] of [lcr, mcr, fcr, ier].entries())
            rig.write(0x3f8 + [3, 4, 2, 1][register]!, value);
        for (const [i, action] of list.entries()) {
          const expected = act(ours, action, false);
          assert.deepEqual(act(theirs, action, true), expected, `action ${i}`);
        }
        assert.deepEqual(theirs.output, ours.output);
        theirs.end();
      }),
      { numRuns: 200 },
    );
  });
}
