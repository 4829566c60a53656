/**
 * `npm run conformance -- [--engine interpreter|jit] [NAME...]`: operating systems on the machine, as named runs. Without names, all of them.
 * `--steps N --seed N` are for page-tables.
 *
 * Each prints what it measured and its verdict; the exit status is 0 when all passed. HYPO_MACHINE_WORKER=apps/cli/testing/qemu-worker.ts
 * (as an absolute path) puts QEMU in the machine's place where a run needs no more than the control protocol: to judge the runs by.
 */
import { parseArgs } from "node:util";
import { HypolithError } from "../src/base/errors.ts";
import { chooseEngine } from "./harness/engine.ts";
import { Report } from "./harness/report.ts";
import { browser } from "./runs/browser.ts";
import { deterministic, deterministicNested, engines } from "./runs/deterministic.ts";
import { diskDrill } from "./runs/disk-drill.ts";
import { disks } from "./runs/disks.ts";
import { dmesg } from "./runs/dmesg.ts";
import { idle } from "./runs/idle.ts";
import { images } from "./runs/images.ts";
import { kernels } from "./runs/kernels.ts";
import { nested } from "./runs/nested.ts";
import { network, virtioNetwork } from "./runs/network.ts";
import { pageTables } from "./runs/page-tables.ts";
import { serviceDrill } from "./runs/service-drill.ts";
import { session } from "./runs/session.ts";
import { shares } from "./runs/shares.ts";
import { snapshots } from "./runs/snapshots.ts";
import { stress } from "./runs/stress.ts";
import { userland } from "./runs/userland.ts";

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: {
    engine: { type: "string", default: "interpreter" },
    steps: { type: "string", default: "10000000" },
    seed: { type: "string", default: "1" },
  },
});

const RUNS: Readonly<Record<string, (report: Report) => Promise<void>>> = {
  kernels,
  dmesg,
  deterministic,
  engines,
  userland,
  stress,
  idle,
  disks,
  "disk-drill": diskDrill,
  images,
  shares,
  session,
  "service-drill": serviceDrill,
  snapshots,
  "page-tables": pageTables(Number(values.steps), Number(values.seed)),
  nested,
  "nested-deterministic": deterministicNested,
  network,
  "virtio-network": virtioNetwork,
  browser,
};
chooseEngine(values.engine);
const unknown = positionals.filter((name) => !(name in RUNS));
if (unknown.length > 0) {
  console.error(`unknown: ${unknown.join(", ")}; there are: ${Object.keys(RUNS).join(", ")}`);
  process.exit(2);
}
const failed: string[] = [];
for (const name of positionals.length > 0 ? positionals : Object.keys(RUNS)) {
  const report = new Report(name);
  try {
    await RUNS[name]!(report);
  } catch (error) {
    report.check(false, error instanceof HypolithError ? error.message : String(error));
    if (!(error instanceof HypolithError)) console.error(error);
    else if (error.hint) console.error(`  try: ${error.hint}`);
  }
  if (!report.finish()) failed.push(name);
}
if (failed.length > 0) console.log(`failed: ${failed.join(", ")}`);
process.exit(failed.length > 0 ? 1 : 0);
