/** Criteria that cannot be tried yet. They have failed, and say what is missing. */
import type { Criterion } from "./criterion.ts";

function untried(
  id: string,
  title: string,
  bar: string,
  missing: string,
  rest: Pick<Criterion, "timeBase" | "runMode">,
): Criterion {
  const result = { passed: false, measured: `not tried: ${missing}` };
  return { id, title, bar, ...rest, isSeeded: false, run: () => Promise.resolve(result) };
}

const VIRTUAL = { timeBase: "virtual", runMode: "mh" } as const;

export const twoVcpus = untried(
  "P6-A5",
  "preempting only at CPL 3 while two vCPUs share a pCPU",
  "PAUSE-loop exits cut 10 times, throughput up",
  "a VM has one vCPU",
  VIRTUAL,
);

export const slices = untried(
  "P7-A7",
  "slices of entities under load",
  "jitter 0 in virtual time",
  "one vCPU has the pCPU to itself, there is nothing to slice",
  VIRTUAL,
);
