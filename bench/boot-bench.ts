/**
 * From process start to shell: the command line (`hypo run --kernel --initrd`, its worker and all) against QEMU's TCG, with the same
 * kernel, initramfs, kernel command line and memory, in turns. Measured is the process's CPU time at the moment the guest's init has
 * said its first words on the console; then the process is ended.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { join } from "node:path";
import { bootFiles } from "../conformance/harness/boot.ts";
import { CHECKOUT } from "../conformance/harness/cache.ts";
import { cpuSeconds } from "../conformance/harness/cpu-time.ts";
import type { BootFiles } from "../conformance/harness/guest-machine.ts";
import { guestKernel } from "../conformance/harness/kernels.ts";
import { QEMU, qemuArguments } from "../conformance/harness/qemu-machine.ts";
import { HypolithError } from "../src/base/errors.ts";
import type { EngineName } from "../src/control/protocol.ts";
import { V2_TERMS } from "./even-terms.ts";
import { QEMU_NAME } from "./guests.ts";
import type { BenchOptions } from "./options.ts";
import type { ProcessSample } from "./process-sample.ts";
import { add } from "./statistics.ts";

/** By contestant: QEMU and the names of our engines. */
export type BootResult = Record<string, ProcessSample[]>;

const MARK = "the shell is there";
const BOOT_SECONDS = 300;

export async function benchBoot(options: BenchOptions): Promise<BootResult> {
  const kernel = await guestKernel("cloud");
  const { memoryMib, withQemu, rounds } = options;
  const files = bootFiles(kernel, { memoryMib, commands: [`echo ${MARK}`, "sleep 1000"] });
  const contestants: Record<string, () => ChildProcess> = {};
  if (withQemu)
    contestants[QEMU_NAME] = () => startQemu(files, options.qemuCpu ?? V2_TERMS.qemuCpu);
  for (const engine of options.engines)
    contestants[engine] = () => startOurs(files, engine, options);
  const result: BootResult = {};
  for (let round = 1; round <= rounds; round++) {
    options.progress(`boot, round ${round} of ${rounds}`);
    for (const [name, start] of Object.entries(contestants)) {
      add(result, name, await toShell(start()));
    }
  }
  return result;
}

/** The command line makes the kernel's parameters itself; what it does not say has to be equal. */
function startOurs(
  files: BootFiles,
  engine: EngineName,
  { nodeOptions }: BenchOptions,
): ChildProcess {
  const hypo = [...nodeOptions, join(CHECKOUT, "apps/cli/main.ts")];
  const machine = ["--kernel", files.kernelPath, "--initrd", files.initrdPath];
  const words = [
    "--engine",
    engine,
    ...machine,
    "--append",
    files.append,
    "--memory",
    `${files.memoryMib}m`,
  ];
  return spawn(process.execPath, [...hypo, "run", ...words], { stdio: ["pipe", "pipe", "pipe"] });
}

function startQemu(files: BootFiles, cpuModel: string): ChildProcess {
  const words = [...qemuArguments(files, cpuModel), "-serial", "stdio"];
  return spawn(QEMU, words, { stdio: ["pipe", "pipe", "pipe"] });
}

function toShell(child: ChildProcess): Promise<ProcessSample> {
  const started = performance.now();
  return new Promise((resolve, reject) => {
    let text = "";
    const fail = (why: string): void => {
      child.kill("SIGKILL");
      const end = text.slice(-2000);
      reject(new HypolithError("boot-failed", `no shell: ${why}\n${end}`));
    };
    const timer = setTimeout(() => fail(`waited for ${BOOT_SECONDS} s`), BOOT_SECONDS * 1000);
    child.once("error", (error) => fail(error.message));
    const ended = (): void => fail("the machine ended");
    child.once("exit", ended);
    child.stderr?.on("data", (data: Buffer) => {
      text += data.toString("latin1");
    });
    child.stdout?.on("data", (data: Buffer) => {
      text += data.toString("latin1");
      if (!text.includes(MARK)) return;
      const sample = { cpu: cpuSeconds(child.pid!), wall: (performance.now() - started) / 1000 };
      clearTimeout(timer);
      child.stdout?.removeAllListeners("data");
      child.off("exit", ended);
      child.once("exit", () => resolve(sample));
      child.kill("SIGKILL");
    });
  });
}
