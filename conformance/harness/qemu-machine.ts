/**
 * The peer: QEMU's TCG with the same kernel, initramfs and memory. The second serial port is its standard input and output, the console
 * a file.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { StopReason } from "../../src/control/protocol.ts";
import type { BootFiles, GuestMachine, TextListener } from "./guest-machine.ts";

export const QEMU = "qemu-system-x86_64";

/** All but the serial ports. One thread for the one processor, as QEMU does by default. */
export function qemuArguments(files: BootFiles, cpuModel: string): string[] {
  return [
    ...["-accel", "tcg", "-cpu", cpuModel, "-m", `${files.memoryMib}M`],
    ...["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"],
    ...["-kernel", files.kernelPath, "-initrd", files.initrdPath, "-append", files.append],
  ];
}

export class QemuMachine implements GuestMachine {
  readonly stopped: Promise<StopReason>;
  readonly #child: ChildProcess;
  readonly #folder = mkdtempSync(join(tmpdir(), "hypolith-qemu-"));
  readonly #listeners: TextListener[] = [];
  #errors = "";
  #lastConsole = "";

  constructor(files: BootFiles, cpuModel: string, devices: readonly string[] = []) {
    const serial = ["-serial", `file:${join(this.#folder, "console")}`, "-serial", "stdio"];
    this.#child = spawn(QEMU, [...qemuArguments(files, cpuModel), ...devices, ...serial], {
      stdio: ["pipe", "pipe", "pipe"],
    });
    this.#child.stdin?.on("error", () => {});
    this.#child.stdout?.setEncoding("latin1").on("data", (text: string) => {
      for (const hear of this.#listeners) hear(text, undefined);
    });
    this.#child.stderr?.on("data", (text) => {
      this.#errors += text;
    });
    this.stopped = new Promise((resolve) => {
      this.#child.once("error", (error) => this.#end(error.message, resolve));
      this.#child.once("close", (code) =>
        this.#end(code === 0 ? undefined : `QEMU ended with ${code}: ${this.#errors}`, resolve),
      );
    });
  }

  get pid(): number | undefined {
    return this.#child.pid;
  }

  #end(failure: string | undefined, resolve: (reason: StopReason) => void): void {
    this.#lastConsole = this.#readConsole();
    rmSync(this.#folder, { recursive: true, force: true });
    resolve(failure === undefined ? { kind: "poweroff" } : { kind: "error", message: failure });
  }

  #readConsole(): string {
    try {
      return readFileSync(join(this.#folder, "console"), "latin1");
    } catch {
      return "";
    }
  }

  write(text: string): void {
    this.#child.stdin?.write(text, "latin1");
  }

  onText(listener: TextListener): void {
    this.#listeners.push(listener);
  }

  consoleText(): string {
    return this.#lastConsole || this.#readConsole();
  }

  kill(): void {
    this.#child.kill("SIGKILL");
  }
}
