/** The peer in JavaScript: v86 in a process of its own (v86-entry.ts), with the same kernel, initramfs and memory as ours. */
import { type ChildProcess, spawn } from "node:child_process";
import { fileURLToPath } from "node:url";
import type {
  BootFiles,
  GuestMachine,
  TextListener,
} from "../conformance/harness/guest-machine.ts";
import type { StopReason } from "../src/control/protocol.ts";
import type { V86Config, V86Message } from "./v86-entry.ts";
import type { V86Package } from "./v86-package.ts";

const ENTRY = fileURLToPath(new URL("v86-entry.ts", import.meta.url));

export class V86Machine implements GuestMachine {
  readonly stopped: Promise<StopReason>;
  readonly #child: ChildProcess;
  readonly #listeners: TextListener[] = [];
  #console = "";
  #partial = "";

  constructor(files: BootFiles, v86: V86Package) {
    const config: V86Config = { ...files, v86 };
    this.#child = spawn(process.execPath, [ENTRY, JSON.stringify(config)], {
      stdio: ["pipe", "pipe", "pipe"],
    });
    this.#child.stdin?.on("error", () => {});
    this.#child.stdout?.setEncoding("utf8").on("data", (text: string) => this.#lines(text));
    this.#child.stderr?.setEncoding("latin1").on("data", (text: string) => {
      this.#console += text;
    });
    this.stopped = new Promise((resolve) => {
      this.#child.once("error", ({ message }) => resolve({ kind: "error", message }));
      this.#child.once("close", () => resolve({ kind: "error", message: "v86's process ended" }));
    });
  }

  get pid(): number | undefined {
    return this.#child.pid;
  }

  #lines(text: string): void {
    const lines = (this.#partial + text).split("\n");
    this.#partial = lines.pop()!;
    for (const line of lines) {
      const message = JSON.parse(line) as V86Message;
      for (const hear of this.#listeners) hear(message.text, message.retired);
    }
  }

  write(text: string): void {
    this.#child.stdin?.write(text, "latin1");
  }

  onText(listener: TextListener): void {
    this.#listeners.push(listener);
  }

  consoleText(): string {
    return this.#console;
  }

  kill(): void {
    this.#child.kill("SIGKILL");
  }
}
