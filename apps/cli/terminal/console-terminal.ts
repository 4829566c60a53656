/**
 * The user's terminal as the guest's console: raw, so that every key goes to the guest, and itself again on every way out.
 *
 * Where standard input is no terminal, its bytes go to the console as they come.
 */
import { spawnSync } from "node:child_process";
import type { WindowSize } from "../../common/control-line.ts";
import { type EscapeCommand, EscapeKeys } from "./escape-keys.ts";

export interface TerminalEvents {
  input(bytes: Uint8Array): void;
  command(command: EscapeCommand): void;
  resized(size: WindowSize): void;
}

const DEFAULT_SIZE: WindowSize = { rows: 24, columns: 80 };

export function windowSize(out: NodeJS.WriteStream = process.stdout): WindowSize {
  return out.isTTY && out.rows > 0 && out.columns > 0
    ? { rows: out.rows, columns: out.columns }
    : DEFAULT_SIZE;
}

export class ConsoleTerminal {
  readonly #events: TerminalEvents;
  readonly #keys = new EscapeKeys();
  readonly #stdin = process.stdin;
  readonly #stdout = process.stdout;
  #open = false;

  constructor(events: TerminalEvents) {
    this.#events = events;
  }

  get isRaw(): boolean {
    return this.#open && this.#stdin.isTTY;
  }

  open(): void {
    this.#open = true;
    process.once("exit", this.close);
    process.on("SIGCONT", this.#makeRaw);
    this.#makeRaw();
    this.#stdin.on("data", this.#typed);
    this.#stdin.on("error", () => {});
    if (this.#stdout.isTTY) this.#stdout.on("resize", this.#resized);
  }

  /** Idempotent; also the exit hook. */
  readonly close = (): void => {
    if (!this.#open) return;
    this.#open = false;
    process.off("exit", this.close);
    process.off("SIGCONT", this.#makeRaw);
    this.#stdin.off("data", this.#typed);
    this.#stdout.off("resize", this.#resized);
    try {
      if (this.#stdin.isTTY) this.#stdin.setRawMode(false);
    } catch {
      // The terminal has gone; there is nothing to restore.
    }
    this.#stdin.pause();
  };

  readonly #makeRaw = (): void => {
    if (!this.#stdin.isTTY) return;
    // After a stop and a continue the shell has set the terminal to its own liking, and Node still believes it raw.
    this.#stdin.setRawMode(false);
    this.#stdin.setRawMode(true);
    // Node's raw mode still turns line feeds into new lines, and full-screen programs of the guest mean line feeds. Without stty
    // they look odd; all else works.
    spawnSync("stty", ["-opost"], { stdio: ["inherit", "ignore", "ignore"] });
  };

  readonly #resized = (): void => {
    this.#events.resized(windowSize(this.#stdout));
  };

  readonly #typed = (data: Buffer): void => {
    if (!this.#stdin.isTTY) {
      this.#events.input(new Uint8Array(data));
      return;
    }
    const { bytes, commands } = this.#keys.decode(data);
    if (bytes.length > 0) this.#events.input(bytes);
    for (const command of commands) this.#events.command(command);
  };
}
