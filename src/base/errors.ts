/**
 * Embedder-side failures: a stable code, what went wrong in words, and what the user can do.
 * Architectural events of a guest are values, never errors; our own bugs go through invariant.ts.
 */
export class HypolithError extends Error {
  readonly code: string;
  readonly hint: string | undefined;

  constructor(code: string, message: string, options: { cause?: unknown; hint?: string } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = "HypolithError";
    this.code = code;
    this.hint = options.hint;
  }
}
