/**
 * A machine alone in a Node process: JSON lines on its standard output are messages, its standard error is the guest's console, what is written to it
 * goes to its standard input.
 */
import { type ChildProcess, spawn } from "node:child_process";
import type { StopReason } from "../../src/control/protocol.ts";
import type { GuestMachine, TextListener } from "./guest-machine.ts";

/** What the agent in the guest says. */
export interface TextMessage {
  readonly text: string;
  readonly retired: number | undefined;
}

export abstract class ChildMachine<Message> implements GuestMachine {
  abstract readonly stopped: Promise<StopReason>;
  protected readonly child: ChildProcess;
  readonly #listeners: TextListener[] = [];
  #console = "";
  #partial = "";

  /** `words`: options of node, the program's path, its configuration. */
  constructor(words: readonly string[]) {
    this.child = spawn(process.execPath, words, { stdio: ["pipe", "pipe", "pipe"] });
    this.child.stdin?.on("error", () => {});
    this.child.stdout?.setEncoding("utf8").on("data", (text: string) => this.#lines(text));
    this.child.stderr?.setEncoding("latin1").on("data", (text: string) => {
      this.#console += text;
    });
  }

  /** The text in a message, undefined if it is about something else. */
  protected abstract textOf(message: Message): TextMessage | undefined;

  get pid(): number | undefined {
    return this.child.pid;
  }

  #lines(text: string): void {
    const lines = (this.#partial + text).split("\n");
    this.#partial = lines.pop()!;
    for (const line of lines) {
      const said = this.textOf(JSON.parse(line) as Message);
      if (said) for (const hear of this.#listeners) hear(said.text, said.retired);
    }
  }

  write(text: string): void {
    this.child.stdin?.write(text, "latin1");
  }

  onText(listener: TextListener): void {
    this.#listeners.push(listener);
  }

  consoleText(): string {
    return this.#console;
  }

  kill(): void {
    this.child.kill("SIGKILL");
  }
}
