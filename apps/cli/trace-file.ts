/**
 * Where the exit log goes. Written synchronously: what has been logged is in the file even if the process dies in the next line.
 */
import { closeSync, openSync, writeSync } from "node:fs";
import { HypolithError } from "../../src/base/errors.ts";
import type { Messages } from "./messages.ts";

const STANDARD_ERROR = 2;

export class TraceFile {
  readonly #path: string;
  readonly #messages: Messages;
  #descriptor: number | undefined;

  /** "-" is standard error: standard output belongs to the guest. Throws HypolithError if the file cannot be made. */
  constructor(path: string, messages: Messages) {
    this.#path = path;
    this.#messages = messages;
    try {
      this.#descriptor = path === "-" ? STANDARD_ERROR : openSync(path, "w");
    } catch (cause) {
      throw new HypolithError("trace-unwritable", `the trace file ${path} cannot be written`, {
        cause,
        hint: "give another file to --trace exits=FILE",
      });
    }
  }

  write(lines: string): void {
    if (this.#descriptor === undefined) return;
    try {
      const bytes = Buffer.from(lines);
      for (let at = 0; at < bytes.length; ) at += writeSync(this.#descriptor, bytes, at);
    } catch (error) {
      this.#messages.warn(`the trace ${this.#path} ends here: ${(error as Error).message}`);
      this.close();
    }
  }

  close(): void {
    if (this.#descriptor !== undefined && this.#descriptor !== STANDARD_ERROR) {
      closeSync(this.#descriptor);
    }
    this.#descriptor = undefined;
  }
}
