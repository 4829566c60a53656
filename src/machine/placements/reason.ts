/** What was thrown may be an object of the program's own making, whose properties are traps. */
export function reasonOf(error: unknown): string {
  try {
    if (typeof error === "string") return error.slice(0, 200);
    const { name, message } = error as Error;
    if (typeof name === "string" && typeof message === "string")
      return `${name}: ${message}`.slice(0, 200);
  } catch {
    // As good as no reason.
  }
  return "something was thrown";
}
