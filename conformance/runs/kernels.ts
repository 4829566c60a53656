/** Every stock Debian kernel that `hypo run` knows reaches a shell, works, and turns itself off. */
import { FLAVORS } from "../../apps/cli/image/flavors.ts";
import { boot } from "../harness/boot.ts";
import type { Report } from "../harness/report.ts";

interface Probe {
  readonly command: string;
  readonly expected: string;
}

/** Processes, pipes, files, arithmetic: same on every kernel. */
const PROBES: readonly Probe[] = [
  { command: "echo $((6 * 7))", expected: "42\n" },
  { command: "id -u", expected: "0\n" },
  { command: "seq 1 1000 | sort -rn | head -n 2 | tr '\\n' ' '", expected: "1000 999 " },
  {
    command: "dd if=/dev/zero bs=64k count=64 2>/dev/null | sha256sum",
    expected: "bb9f8df61474d25e71fa00722318cd387396ca1736605e1248821cc0de3d3af8  -\n",
  },
  {
    command:
      "mkdir -p /mnt && mount -t tmpfs t /mnt && echo kept >/mnt/file && cat /mnt/file && umount /mnt",
    expected: "kept\n",
  },
  {
    command: "n=0; for i in $(seq 50); do $(true) && n=$((n + 1)); done; echo $n",
    expected: "50\n",
  },
  { command: "grep -c ^processor /proc/cpuinfo", expected: "1\n" },
  { command: "dmesg | grep -c -e 'Call Trace' -e 'BUG:' -e 'Oops'", expected: "0\n" },
  { command: "sleep 0.2 && echo woke", expected: "woke\n" },
];

export async function kernels(report: Report): Promise<void> {
  for (const { short } of FLAVORS) {
    const started = performance.now();
    try {
      await probeKernel(short, report, started);
    } catch (error) {
      report.check(false, `${short}: ${(error as Error).message}`);
    }
  }
}

async function probeKernel(flavor: string, report: Report, started: number): Promise<void> {
  const { kernel, session } = await boot(flavor, {});
  const seconds = ((performance.now() - started) / 1000).toFixed(1);
  const { output } = await session.run("uname -srm");
  report.fact(`${flavor}: a shell after ${seconds} s: ${output.trim()}`);
  const machine = flavor.startsWith("686") ? "i686" : "x86_64";
  report.equal(output, `Linux ${kernel.release} ${machine}\n`, `${flavor}: uname`);
  for (const { command, expected } of PROBES) {
    const result = await session.run(command);
    report.equal(result.output, expected, `${flavor}: ${command}`);
  }
  const { kind } = await session.powerOff();
  report.equal(kind, "poweroff", `${flavor}: poweroff ends the machine`);
}
