/** Our machine alone in a process (process-entry.ts): measurable, counts instructions, can be deterministic and traced. */
import { type ChildProcess, spawn } from "node:child_process";
import { fileURLToPath } from "node:url";
import type { StopReason } from "../../src/control/protocol.ts";
import type { GuestMachine, TextListener } from "./guest-machine.ts";
import type { EndReport, ProcessConfig, ProcessMessage } from "./process-entry.ts";

const ENTRY = fileURLToPath(new URL("process-entry.ts", import.meta.url));

export interface ProcessOptions extends ProcessConfig {
  /** For node: profiling, V8 flags. */
  readonly nodeOptions?: readonly string[];
}

export class ProcessMachine implements GuestMachine {
  readonly stopped: Promise<StopReason>;
  /** Undefined if the process ended without one. */
  readonly report: Promise<EndReport | undefined>;
  readonly #child: ChildProcess;
  readonly #listeners: TextListener[] = [];
  #console = "";
  #partial = "";
  #last: (ProcessMessage & { type: "stopped" }) | undefined;

  constructor({ nodeOptions = [], ...config }: ProcessOptions) {
    this.#child = spawn(process.execPath, [...nodeOptions, ENTRY, JSON.stringify(config)], {
      stdio: ["pipe", "pipe", "pipe"],
    });
    this.#child.stdin?.on("error", () => {});
    this.#child.stdout?.setEncoding("utf8").on("data", (text: string) => this.#lines(text));
    this.#child.stderr?.setEncoding("latin1").on("data", (text: string) => {
      this.#console += text;
    });
    const closed = new Promise<void>((resolve) => this.#child.once("close", () => resolve()));
    const lost: StopReason = { kind: "error", message: "the machine's process ended" };
    this.stopped = closed.then(() => this.#last?.reason ?? lost);
    this.report = closed.then(() => this.#last?.report);
  }

  get pid(): number | undefined {
    return this.#child.pid;
  }

  #lines(text: string): void {
    const lines = (this.#partial + text).split("\n");
    this.#partial = lines.pop()!;
    for (const line of lines) {
      const message = JSON.parse(line) as ProcessMessage;
      if (message.type === "stopped") this.#last = message;
      else for (const hear of this.#listeners) hear(message.text, message.retired);
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
