/**
 * Commands in a booted guest, one after the other, by way of agent.ts: output, status, and what they cost the machine's process.
 */
import { HypolithError } from "../../src/base/errors.ts";
import type { StopReason } from "../../src/control/protocol.ts";
import { cpuSeconds } from "./cpu-time.ts";
import type { GuestMachine } from "./guest-machine.ts";

export interface CommandResult {
  readonly output: string;
  readonly status: number;
  readonly wallSeconds: number;
  /** Of all threads of the machine's process; NaN if it cannot be measured. */
  readonly cpuSeconds: number;
  /** Guest instructions, where the machine counts them. */
  readonly retired: number | undefined;
}

interface Mark {
  readonly wall: number;
  readonly cpu: number;
  readonly retired: number | undefined;
}

const CONSOLE_LINES = 30;

export class GuestSession {
  readonly machine: GuestMachine;
  #received = "";
  #token = 0;
  #waiting: { pattern: RegExp; resolve: () => void } | undefined;
  #begin: Mark | undefined;
  #end: Mark | undefined;
  #stop: StopReason | undefined;
  #timer: NodeJS.Timeout | undefined;

  constructor(machine: GuestMachine) {
    this.machine = machine;
    machine.onText((text, retired) => this.#receive(text, retired));
    machine.stopped.then((reason) => {
      this.#stop = reason;
      this.#waiting?.resolve();
    });
  }

  /** The guest's first words. */
  async ready(timeoutSeconds: number): Promise<void> {
    await this.#until(/@ready\n/, timeoutSeconds, "its shell");
  }

  async run(command: string, timeoutSeconds = 120): Promise<CommandResult> {
    const token = `t${++this.#token}`;
    this.#received = "";
    this.#begin = undefined;
    this.#end = undefined;
    this.machine.write(`${token} ${command}\n`);
    await this.#until(new RegExp(`@end ${token} \\d+\\r?\\n`), timeoutSeconds, `'${command}'`);
    const answer = new RegExp(`@begin ${token}\\r?\\n([^]*)@end ${token} (\\d+)`);
    const [, output = "", status = "255"] = answer.exec(this.#received) ?? [];
    const begin = this.#begin as Mark | undefined;
    const end = this.#end as Mark | undefined;
    if (!begin || !end) throw new HypolithError("guest-silent", `no answer to '${command}'`);
    const counts = begin.retired !== undefined && end.retired !== undefined;
    return {
      output: output.replaceAll("\r\n", "\n"),
      status: Number(status),
      wallSeconds: end.wall - begin.wall,
      cpuSeconds: end.cpu - begin.cpu,
      retired: counts ? end.retired! - begin.retired! : undefined,
    };
  }

  async powerOff(timeoutSeconds = 60): Promise<StopReason> {
    this.machine.write("@off\n");
    const timer = setTimeout(() => this.machine.kill(), timeoutSeconds * 1000);
    const reason = await this.machine.stopped;
    clearTimeout(timer);
    return reason;
  }

  #receive(text: string, retired: number | undefined): void {
    this.#received += text;
    // Measured when the words arrive; all that came with them belongs to the same moment.
    this.#begin ??= /@begin t/.test(this.#received) ? this.#mark(retired) : undefined;
    this.#end ??= /@end t\d+ \d+\r?\n/.test(this.#received) ? this.#mark(retired) : undefined;
    if (this.#waiting?.pattern.test(this.#received)) this.#waiting.resolve();
  }

  #mark(retired: number | undefined): Mark {
    const { pid } = this.machine;
    const cpu = pid === undefined ? Number.NaN : cpuSeconds(pid);
    return { wall: performance.now() / 1000, cpu, retired };
  }

  async #until(pattern: RegExp, timeoutSeconds: number, what: string): Promise<void> {
    if (pattern.test(this.#received)) return;
    let late = false;
    await new Promise<void>((resolve) => {
      if (this.#stop) return resolve();
      this.#waiting = { pattern, resolve };
      this.#timer = setTimeout(() => {
        late = true;
        resolve();
      }, timeoutSeconds * 1000);
    });
    clearTimeout(this.#timer);
    this.#waiting = undefined;
    if (pattern.test(this.#received)) return;
    const why = late ? `no answer in ${timeoutSeconds} s` : `it ended: ${this.#stop?.kind}`;
    throw new HypolithError(
      "guest-failed",
      `the guest did not get to the end of ${what}: ${why}\n${this.#account()}`,
    );
  }

  /** For a person: what was heard last. */
  #account(): string {
    const lines = this.machine.consoleText().trimEnd().split("\n").slice(-CONSOLE_LINES);
    const { message = "", dump = "" } = this.#stop ?? {};
    const said = this.#received.slice(-1000);
    return [message, dump, "last output:", said, "end of the console:", ...lines].join("\n");
  }
}
