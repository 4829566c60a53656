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

export const virtualApicUnit = untried(
  "P8-A1",
  "posting and APIC virtualization: all vectors at all TPR classes, running and halted",
  "state equals a reference model after each step",
  "random operations equal the model (P8-A5), guests run and halt at all TPR classes, level lines come again after EOI exits (P8-A6, posted-halted.test.ts); each vector at each class and pass-through are missing",
  { timeBase: "none", runMode: "nested" },
);

export const directDelivery = untried(
  "P8-A2",
  "direct delivery by attribute",
  "edge and enabled: 0 exits and the right vector; all else exits",
  "the vendor control has encodings (isa/vendor.ts) and nothing that reads them",
  { timeBase: "none", runMode: "mh" },
);

export const assignedDevice = untried(
  "P8-A3",
  "an assigned NVMe or virtio device with MSI",
  "0 interrupt exits per I/O",
  "no device can be assigned to a guest",
  VIRTUAL,
);

export const exactlyOnce = untried(
  "P8-A4",
  "10^7 edge posts from three pCPUs",
  "exactly once, no lost wake-up",
  "there is one pCPU",
  VIRTUAL,
);

export const realTimeGuest = untried(
  "P8-A7",
  "a PREEMPT_RT guest with an assigned timer device",
  "histograms of both ways; the improvement printed",
  "no device can be assigned to a guest",
  VIRTUAL,
);

export const executeFallback = untried(
  "P6-A8",
  "mode-based execute control in place of exits on level",
  "the same log of transitions",
  "the processor has no mode-based execute control",
  VIRTUAL,
);

export const kvmTimer = untried(
  "P7-A6",
  "KVM with preemption_timer=1",
  "expiry is never early",
  "KVM runs (P9-A6), its timer is not measured",
  { timeBase: "virtual", runMode: "kvm" },
);

const ACTIVE_TABLES = "a VM has EPT always, active page tables work on the bench alone";
const EPT_OFF = { timeBase: "none", runMode: "mh-noept" } as const;

export const pagingBoots = untried(
  "P5-A2",
  "Debian amd64 and i386-PAE boot and compile a kernel with EPT off",
  "the same result as without a hypervisor",
  ACTIVE_TABLES,
  EPT_OFF,
);

export const spuriousFaults = untried(
  "P5-A4",
  "every page fault that the guest gets is one by its tables, no access succeeds that they never allowed",
  "0 violations in the runs of P5-A1, A2 and A8",
  ACTIVE_TABLES,
  EPT_OFF,
);

export const pagingExits = untried(
  "P5-A5",
  "exits of a load that forks: write-protecting everything, virtual TLB, metadata and working set",
  "strictly decreasing",
  ACTIVE_TABLES,
  EPT_OFF,
);

export const pagingCorners = untried(
  "P5-A7",
  "self-mapped tables, large pages over small ones, device pages, tables outside of memory",
  "as the reference, or a machine check to the guest; no fault of the hypervisor",
  ACTIVE_TABLES,
  EPT_OFF,
);
