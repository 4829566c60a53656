/** How a machine ended, in words for its user. */
import { HypolithError } from "../../src/base/errors.ts";
import type { StopReason } from "../../src/control/protocol.ts";

export interface Verdict {
  /** "end": as somebody wanted. "failure": something is wrong. */
  readonly tone: "end" | "failure";
  readonly message: string;
  readonly hint: string | undefined;
  /** Many lines for who looks for the cause. */
  readonly dump: string | undefined;
}

/** The machine's own hints speak of the command line. */
const HINTS: Readonly<Record<string, string>> = {
  "memory-size": "choose between 64m and 3g",
  "memory-unavailable": "choose less memory, or close other tabs: the browser gives no more",
};

/** `panic`: the last words of a Linux kernel, if it had any. */
export function verdictOf(reason: StopReason, panic: string | undefined): Verdict {
  const { kind, message, code, dump } = reason;
  const hint = (code && HINTS[code]) ?? reason.hint;
  const end = (text: string): Verdict => ({ tone: "end", message: text, hint, dump });
  const failure = (text: string): Verdict => ({ tone: "failure", message: text, hint, dump });
  const gaveUp = kind === "reset" || kind === "triple-fault";
  if (gaveUp && panic !== undefined) return failure(`The guest's kernel panicked: ${panic}`);
  switch (kind) {
    case "poweroff":
      return end("The guest has turned itself off.");
    case "reset":
      return end("The guest wants to restart.");
    case "killed":
      return end("The machine was turned off.");
    case "triple-fault":
      return failure(sentence(message ?? "the guest ended in a triple fault"));
    case "error":
      return failure(sentence(message ?? "the machine failed"));
  }
}

export function verdictOfError(error: unknown): Verdict {
  if (error instanceof HypolithError) {
    return {
      tone: "failure",
      message: sentence(error.message),
      hint: error.hint,
      dump: undefined,
    };
  }
  const { message, stack } = error instanceof Error ? error : new Error(String(error));
  return { tone: "failure", message: sentence(message), hint: undefined, dump: stack };
}

/** Messages begin in lower case: on the command line they follow "hypo: ". */
function sentence(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
