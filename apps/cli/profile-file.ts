/**
 * Where the guest's profile goes. Opened before the machine starts, written when it has ended.
 */
import { closeSync, openSync, writeFileSync } from "node:fs";
import type { Messages } from "./messages.ts";
import { UsageError } from "./usage-error.ts";

export class ProfileFile {
  readonly #path: string;
  readonly #messages: Messages;
  #descriptor: number | undefined;

  /** Throws UsageError if the file cannot be made. */
  constructor(path: string, messages: Messages) {
    this.#path = path;
    this.#messages = messages;
    try {
      this.#descriptor = openSync(path, "w");
    } catch (cause) {
      throw new UsageError(
        `the profile ${path} cannot be written: ${(cause as Error).message}`,
        "give another file to --profile",
      );
    }
  }

  write(json: string): void {
    if (this.#descriptor === undefined) return;
    try {
      writeFileSync(this.#descriptor, json);
    } catch (error) {
      this.#messages.warn(`the profile ${this.#path} is not complete: ${(error as Error).message}`);
    }
    this.#close();
  }

  /** The machine has ended; a profile that has not come by now never will. */
  end(): void {
    if (this.#descriptor === undefined) return;
    this.#messages.warn(`the profile ${this.#path} is empty: the machine ended without one`);
    this.#close();
  }

  #close(): void {
    if (this.#descriptor !== undefined) closeSync(this.#descriptor);
    this.#descriptor = undefined;
  }
}
