/** Booting what conformance runs talk to: a stock kernel with the agent, on our machine behind the control protocol. */
import { rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { AGENT_INIT, type AgentOptions, agentInitramfs } from "./agent.ts";
import { outputFolder } from "./cache.ts";
import type { BootFiles } from "./guest-machine.ts";
import { GuestSession } from "./guest-session.ts";
import { type GuestKernel, guestKernel } from "./kernels.ts";
import { WorkerMachine } from "./worker-machine.ts";

export interface BootOptions extends Omit<AgentOptions, "busybox"> {
  readonly memoryMib?: number;
  /** More words for the kernel command line. */
  readonly append?: string;
}

const DEFAULT_MEMORY_MIB = 512;

/** Writes the initramfs for `kernel` where every kind of machine can read it. */
export function bootFiles(kernel: GuestKernel, options: BootOptions): BootFiles {
  const { memoryMib = DEFAULT_MEMORY_MIB, append = "", ...agent } = options;
  const folder = outputFolder("initramfs");
  const initrdPath = join(folder, `${process.pid}-${serial++}.cpio`);
  writeFileSync(initrdPath, agentInitramfs({ ...agent, busybox: kernel.busybox }));
  leftovers.push(initrdPath);
  const words = ["console=ttyS0", "panic=-1", AGENT_INIT, append];
  return { kernelPath: kernel.kernelPath, initrdPath, append: words.join(" ").trim(), memoryMib };
}

let serial = 0;
const leftovers: string[] = [];
process.on("exit", () => {
  for (const path of leftovers) rmSync(path, { force: true });
});

export interface Booted {
  readonly kernel: GuestKernel;
  readonly session: GuestSession;
}

/** Boots `flavor` up to the agent's shell. */
export async function boot(
  flavor: string,
  options: BootOptions,
  timeoutSeconds = 300,
): Promise<Booted> {
  const kernel = await guestKernel(flavor);
  const session = new GuestSession(new WorkerMachine(bootFiles(kernel, options)));
  try {
    await session.ready(timeoutSeconds);
    return { kernel, session };
  } catch (error) {
    session.machine.kill();
    throw error;
  }
}
