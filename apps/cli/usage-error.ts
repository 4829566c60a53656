import { HypolithError } from "../../src/base/errors.ts";

/** The command line cannot be understood; exit code 2. */
export class UsageError extends HypolithError {
  constructor(message: string, hint?: string) {
    super("usage", message, hint === undefined ? {} : { hint });
    this.name = "UsageError";
  }
}
