/**
 * A guest that is a hypervisor: the stock cloud kernel with KVM's modules, the QEMU of this machine's Debian package with its libraries, and
 * another stock kernel with an initramfs of its own for QEMU to boot.
 */
import { execFileSync } from "node:child_process";
import { existsSync, readFileSync, realpathSync } from "node:fs";
import { join } from "node:path";
import { CpioArchive } from "../../apps/cli/image/cpio.ts";
import { compile } from "../../bench/build-programs.ts";
import { HypolithError } from "../../src/base/errors.ts";
import type { ClockMode, EngineName } from "../../src/control/protocol.ts";
import { type AgentFile, agentInitramfs } from "./agent.ts";
import { bootFiles } from "./boot.ts";
import { CHECKOUT } from "./cache.ts";
import { chosenEngine } from "./engine.ts";
import type { BootFiles } from "./guest-machine.ts";
import { type CommandResult, GuestSession } from "./guest-session.ts";
import { modularKernel } from "./kernel-modules.ts";
import { ProcessMachine } from "./process-machine.ts";

const QEMU = "/usr/bin/qemu-system-x86_64";
/** Firmware and option ROMs of the machine that QEMU makes, on Debian. */
const QEMU_DATA = [
  "/usr/share/seabios/bios-256k.bin",
  "/usr/share/qemu/linuxboot_dma.bin",
  "/usr/share/qemu/kvmvapic.bin",
] as const;
const BUSY_MACHINE = /hrtimer: interrupt took|Long readout interval/;
const LIBRARIES = "LD_LIBRARY_PATH=/lib/x86_64-linux-gnu:/usr/lib/x86_64-linux-gnu";
export const NESTED_CPU = "x86-64-v2,+vmx";
const MEMORY_MIB = 768;
const L2_MEMORY_MIB = 192;
/** The inner guest's disk, a file of the outer guest's. */
const DISK = "/tmp/disk";
const DISK_MIB = 8;
/** What the inner guest does and says. */
const L2_COMMANDS = [
  "if [ -e /dev/vda ]; then echo L2 reads $(sha256sum </dev/vda | cut -c1-64); fi",
  "if [ -e /dev/vda ]; then dd if=/dev/urandom of=/tmp/more bs=64k count=64 2>/dev/null; dd if=/tmp/more of=/dev/vda bs=64k seek=32 conv=fsync 2>/dev/null; echo L2 wrote $(sha256sum </tmp/more | cut -c1-64); fi",
  "echo L2 runs $(uname -r) on $(dmesg | grep -c 'Hypervisor detected: KVM') KVM",
  "dd if=/dev/urandom of=/tmp/data bs=4k count=512 2>/dev/null",
  "cp /tmp/data /tmp/copy; cmp /tmp/data /tmp/copy && echo L2 data are the same",
  "dmesg -r | grep -E '^<[0-4]>' | head -20",
  "dmesg | grep -c -i -E 'call trace|oops|unchecked msr' | sed 's/^/L2 sick lines: /'",
] as const;

function libraries(): string[] {
  const text = execFileSync("ldd", [QEMU], { encoding: "latin1" });
  return [...new Set(text.match(/\/[^ ]+/g) ?? [])];
}

function fromHost(path: string): AgentFile {
  return { path: path.slice(1), content: readFileSync(realpathSync(path)), executable: true };
}

/** An archive with the folders that its files need. */
function archiveOf(files: readonly AgentFile[]): Uint8Array {
  const folders = new Set(["dev", "proc", "sys", "tmp", "root", "bin"]);
  for (const { path } of files)
    for (let at = path.indexOf("/"); at >= 0; at = path.indexOf("/", at + 1))
      folders.add(path.slice(0, at));
  const archive = new CpioArchive();
  for (const folder of folders) archive.directory(folder);
  archive.characterDevice("dev/console", 5, 1, 0o600);
  for (const { path, content, executable } of files)
    archive.file(path, content, executable ? 0o755 : 0o644);
  return archive.toBytes();
}

export interface NestedOptions {
  readonly engine?: EngineName;
  readonly clock?: ClockMode;
}

/** Boots the outer guest up to its shell, KVM not loaded yet. Throws HypolithError qemu-missing. */
export async function bootNested(options: NestedOptions = {}): Promise<NestedGuest> {
  if (!existsSync(QEMU))
    throw new HypolithError("qemu-missing", `there is no ${QEMU}`, {
      hint: "install Debian's qemu-system-x86",
    });
  const kernel = await modularKernel("cloud", ["kvm-intel"]);
  const disk = await modularKernel("cloud", ["virtio_pci", "virtio_blk"]);
  const inner = agentInitramfs({
    busybox: kernel.busybox,
    files: disk.modules,
    commands: [...disk.modules.map(({ path }) => `insmod /${path}`), ...L2_COMMANDS],
  });
  const files: AgentFile[] = [
    ...kernel.modules,
    await helloFile(),
    { path: "lab/l2-kernel", content: readFileSync(kernel.kernelPath) },
    { path: "lab/l2-initrd", content: inner },
    ...[QEMU, ...libraries(), ...QEMU_DATA].map(fromHost),
  ];
  const boot = bootFiles(kernel, { userland: archiveOf(files), memoryMib: MEMORY_MIB });
  const { engine = chosenEngine(), clock = "wall" } = options;
  const machine = new ProcessMachine({ ...boot, clock, cpuModel: NESTED_CPU, engine });
  const guest = new NestedGuest(
    machine,
    kernel.modules.map(({ path }) => path),
  );
  await guest.session.ready(300);
  return guest;
}

/** A guest without QEMU that loads KVM, runs `commands` (/lab/kvm-hello is a VM), and powers off. */
export async function nestedFiles(commands: readonly string[]): Promise<BootFiles> {
  const kernel = await modularKernel("cloud", ["kvm-intel"]);
  const files = [...kernel.modules, await helloFile()];
  const load = kernel.modules.map(({ path }) => `insmod /${path}`);
  return bootFiles(kernel, { files, commands: [...load, ...commands] });
}

/** The least KVM program. */
async function helloFile(): Promise<AgentFile> {
  const source = join(CHECKOUT, "conformance/harness/kvm-hello.c");
  const program = await compile(source, ["-O2", "-static", "-march=x86-64"]);
  return { path: "lab/kvm-hello", content: readFileSync(program), executable: true };
}

export class NestedGuest {
  readonly machine: ProcessMachine;
  readonly session: GuestSession;
  readonly #modules: readonly string[];

  constructor(machine: ProcessMachine, modules: readonly string[]) {
    this.machine = machine;
    this.session = new GuestSession(machine);
    this.#modules = modules;
  }

  /** Loads KVM with parameters of kvm_intel. Answers what went wrong, "" for nothing. */
  async load(parameters = ""): Promise<string> {
    let problems = "";
    for (const path of this.#modules) {
      const words = path.includes("kvm_intel") ? parameters : "";
      const { status, output } = await this.session.run(`/lab/busybox insmod /${path} ${words}`);
      if (status !== 0) problems += `${path}: ${output}`;
    }
    return problems;
  }

  unload(): Promise<CommandResult> {
    return this.session.run(
      "/lab/busybox rmmod kvm_intel; /lab/busybox rmmod kvm; /lab/busybox rmmod irqbypass",
    );
  }

  hello(): Promise<CommandResult> {
    return this.session.run("/lab/kvm-hello");
  }

  /** Boots the inner guest to its end by QEMU and answers what it said. */
  qemu(options = "", timeoutSeconds = 540): Promise<CommandResult> {
    const words = [
      ...[LIBRARIES, "timeout", `${timeoutSeconds - 10}`, QEMU, "-accel kvm -cpu host"],
      ...[`-m ${L2_MEMORY_MIB}`, "-display none -nodefaults -no-reboot -serial stdio"],
      "-kernel /lab/l2-kernel -initrd /lab/l2-initrd",
      `-append "console=ttyS0 quiet loglevel=5 panic=-1 rdinit=/lab/init" ${options} 2>&1`,
    ];
    return this.session.run(words.join(" "), timeoutSeconds);
  }

  /** The same with a virtio disk. Answers whether both sides saw the same data, too. */
  async qemuWithDisk(options = ""): Promise<{ run: CommandResult; isSame: boolean }> {
    const make = `dd if=/dev/urandom of=${DISK} bs=1M count=${DISK_MIB} 2>/dev/null; sha256sum <${DISK}`;
    const before = (await this.session.run(make)).output.slice(0, 64);
    const run = await this.qemu(`-drive file=${DISK},format=raw,if=virtio ${options}`);
    const piece = `dd if=${DISK} bs=64k skip=32 count=64 2>/dev/null | sha256sum`;
    const after = (await this.session.run(piece)).output.slice(0, 64);
    const isSame =
      run.output.includes(`L2 reads ${before}`) && run.output.includes(`L2 wrote ${after}`);
    return { run, isSame };
  }

  /** Lines of the outer kernel's log at warning or worse, but for those that tell of a busy machine: guest time follows the clock. */
  async warnings(): Promise<string[]> {
    const { output } = await this.session.run(
      "/lab/busybox dmesg -r | /lab/busybox grep -E '^<[0-4]>'; true",
    );
    return output.split("\n").filter((line) => line !== "" && !BUSY_MACHINE.test(line));
  }
}

/** Whether the inner guest came to its shell, its data were the same, and its log is clean. */
export function isHealthy({ output, status }: CommandResult): boolean {
  return (
    status === 0 &&
    /L2 runs \S+ on 1 KVM/.test(output) &&
    output.includes("L2 data are the same") &&
    output.includes("L2 sick lines: 0")
  );
}
