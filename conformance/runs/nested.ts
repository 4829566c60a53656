/**
 * Virtualization inside: Debian's KVM as a guest of ours, and Debian again as the guest of its QEMU, with every way of KVM's to use VMX that it
 * has a parameter for.
 */
import { bootNested, isHealthy, type NestedGuest } from "../harness/nested-guest.ts";
import type { Report } from "../harness/report.ts";

/** Parameters of kvm_intel, and options of QEMU. */
const WAYS: readonly (readonly [parameters: string, options: string])[] = [
  ["", ""],
  ["ept=0", ""],
  ["enable_apicv=0", ""],
  ["flexpriority=0 enable_apicv=0", ""],
  ["eptad=0 pml=0", ""],
  ["unrestricted_guest=0", ""],
  ["vpid=0", ""],
  ["preemption_timer=0", ""],
  ["vnmi=0", ""],
  ["", "-machine q35,kernel-irqchip=split"],
];

export async function nested(report: Report): Promise<void> {
  const guest = await bootNested();
  try {
    const before = await guest.warnings();
    for (const [parameters, options] of WAYS) await tryWay(report, guest, parameters, options);
    const after = await guest.warnings();
    const news = after.filter((line) => !before.includes(line));
    report.check(news.length === 0, "the outer kernel has no warning");
    for (const line of news) report.fact(line);
    await guest.session.powerOff();
  } catch (error) {
    guest.machine.kill();
    throw error;
  }
}

async function tryWay(
  report: Report,
  guest: NestedGuest,
  parameters: string,
  options: string,
): Promise<void> {
  const name = [parameters, options].join(" ").trim() || "defaults";
  const problems = await guest.load(parameters);
  report.check(problems === "", `${name}: KVM loads ${problems}`);
  if (problems !== "") return;
  const hello = await guest.hello();
  report.equal(hello.output, "real mode\nhalted\n", `${name}: a VM of 15 bytes`);
  const run = await guest.qemu(options);
  report.check(isHealthy(run), `${name}: Debian inside, ${run.wallSeconds.toFixed(1)} s`);
  if (!isHealthy(run)) report.fact(run.output.slice(-3000));
  const { status, output } = await guest.unload();
  report.check(status === 0, `${name}: KVM goes ${output}`);
}
