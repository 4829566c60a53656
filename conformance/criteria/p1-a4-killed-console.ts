/**
 * P1-A4: the console service is killed by command during Debian's boot and started again. The boot completes, and the byte stream equals
 * that of a run in which nothing was killed: no byte is lost or doubled. With the deterministic clock the whole state is equal, too.
 */

import type { DrillName, PlacementName } from "../../src/control/protocol.ts";
import { bootFiles } from "../harness/boot.ts";
import { digest } from "../harness/cache.ts";
import { guestKernel } from "../harness/kernels.ts";
import type { Criterion, CriterionContext, CriterionResult } from "./criterion.ts";
import { type MachineRun, runToEnd, textOf } from "./machine-run.ts";

const EVERY = 30_000_000;
const COMMANDS = ["uname -a", "seq 3000", "cat /proc/interrupts", "dmesg | tail -n 200"];
const DRILLS: readonly DrillName[] = ["kill", "lose-reply", "restart"];

async function run({ progress }: CriterionContext): Promise<CriterionResult> {
  const files = bootFiles(await guestKernel("cloud"), { commands: COMMANDS });
  const attempt = (placement: PlacementName, kills: boolean): MachineRun & { kills: number } => {
    progress(`P1-A4: ${placement}, ${kills ? "with" : "without"} kills`);
    let count = 0;
    const config = {
      services: { console: placement },
      servicePolicy: { maxRestarts: 10_000 },
    };
    const act = (machine: MachineRun["machine"]): void => {
      machine.drill("console", DRILLS[count++ % DRILLS.length]!);
    };
    const every = kills ? { every: { instructions: EVERY, act } } : {};
    return Object.assign(runToEnd(files, { config, ...every }), { kills: count });
  };
  const whole = attempt("inline", false);
  const bytes = textOf(whole.output[0]!);
  const details = [`without: ${bytes.length} bytes, ${digest(bytes).slice(0, 16)}, ${whole.end}`];
  let passed = /poweroff|triple/.test(whole.end) && bytes.includes("\n3000\r\n");
  const words: string[] = [];
  for (const placement of ["inline", "worker", "guest", "guest:ring3"] as const) {
    const broken = attempt(placement, true);
    const service = broken.machine.vm.services.find(({ name }) => name === "console")!;
    const other = textOf(broken.output[0]!);
    const isEqual = other === bytes;
    const isSameState = broken.machine.stateHash() === whole.machine.stateHash();
    passed &&= isEqual && isSameState && broken.end === whole.end && service.restarts > 10;
    words.push(
      `${placement}: ${service.restarts} restarts, bytes ${isEqual ? "equal" : "DIFFER"}, state ${isSameState ? "equal" : "DIFFERS"}`,
    );
    details.push(
      `${placement}: ${other.length} bytes, ${digest(other).slice(0, 16)}, longest stall ${service.longestStallMs.toFixed(1)} ms, ${broken.end}`,
    );
  }
  return { passed, measured: words.join("; "), details };
}

export const killedConsole: Criterion = {
  id: "P1-A4",
  title: "the console service is killed during Debian's boot, and nobody can tell from the console",
  bar: "boot completes, byte stream and final state equal to those of a run without",
  timeBase: "virtual",
  runMode: "mh",
  isSeeded: false,
  run,
};
