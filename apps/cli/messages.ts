/**
 * What the command line says to its user: on standard error, always. Standard output belongs to the guest.
 *
 * notice   what a person at a terminal wants to know (escape key, downloads); silenced by --quiet
 * status   a line that disappears again, on a terminal only
 * log      by --log-level
 * failure  what went wrong, where, what to do; never silenced
 */
import { styleText } from "node:util";
import { HypolithError } from "../../src/base/errors.ts";
import type { LogLevel } from "../../src/control/protocol.ts";

export const LOG_LEVELS: readonly LogLevel[] = ["error", "warn", "info", "debug"];

export interface MessageOptions {
  readonly quiet: boolean;
  readonly level: LogLevel;
}

type ErrorStream = Pick<NodeJS.WriteStream, "write"> & { readonly isTTY?: boolean };

export class Messages {
  readonly quiet: boolean;
  readonly #level: LogLevel;
  readonly #out: ErrorStream;
  /** A terminal in raw mode needs the carriage return said. */
  rawTerminal = false;
  #status = false;

  constructor(options: MessageOptions, out: ErrorStream = process.stderr) {
    this.quiet = options.quiet;
    this.#level = options.level;
    this.#out = out;
  }

  /** Can lines be redrawn? */
  get isInteractive(): boolean {
    const { TERM, CI } = process.env;
    return this.#out.isTTY === true && TERM !== "dumb" && !CI && !this.quiet;
  }

  notice(text: string): void {
    if (!this.quiet) this.#line(text);
  }

  status(text: string): void {
    if (!this.isInteractive) return;
    this.clearStatus();
    this.#out.write(text);
    this.#status = true;
  }

  clearStatus(): void {
    if (this.#status) this.#out.write("\r\x1b[K");
    this.#status = false;
  }

  isLogging(level: LogLevel): boolean {
    return LOG_LEVELS.indexOf(level) <= LOG_LEVELS.indexOf(this.#level);
  }

  log(level: LogLevel, text: string): void {
    if (this.isLogging(level)) this.#line(`hypo: ${level}: ${text}`);
  }

  warn(text: string): void {
    this.log("warn", text);
  }

  failure(error: unknown): void {
    for (const line of describeFailure(error)) this.#line(line);
  }

  /** Many lines as they are: a state dump, the end of a console. */
  block(text: string): void {
    for (const line of text.trimEnd().split("\n")) this.#line(`  ${line.trimEnd()}`);
  }

  #line(text: string): void {
    this.clearStatus();
    this.#out.write(`${text}${this.rawTerminal ? "\r\n" : "\n"}`);
  }
}

/** Failures that lie in the machine we run on, not in the words that we were given. */
const ENVIRONMENT_CODES: ReadonlySet<string> = new Set([
  "apt-failed",
  "cache-full",
  "cache-unwritable",
  "checksum-mismatch",
  "error",
  "image-absent",
  "mirror-refused",
  "network-unreachable",
  "package-absent",
]);

/** What, why, what to do; and where to look when that does not help. */
export function describeFailure(error: unknown): string[] {
  const prefix = styleText("red", "hypo:", { stream: process.stderr });
  if (!(error instanceof HypolithError)) {
    const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
    return [
      `${prefix} this is a defect of hypo: ${text}`,
      "  please report it with the command that you gave",
    ];
  }
  const lines = [`${prefix} ${error.message}`];
  const cause = causeOf(error);
  if (cause && !error.message.includes(cause)) lines.push(`  because: ${cause}`);
  for (const hint of error.hint?.split("\n") ?? []) {
    lines.push(hint.startsWith("did you mean") ? `  ${hint}` : `  try: ${hint}`);
  }
  if (ENVIRONMENT_CODES.has(error.code)) {
    lines.push("  'hypo doctor' checks what works on this machine");
  }
  return lines;
}

function causeOf(error: Error): string {
  const { cause } = error;
  if (!(cause instanceof Error)) return "";
  return causeOf(cause) || cause.message;
}
