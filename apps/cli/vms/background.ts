/**
 * A machine in the background: the same command line once more, as a process of its own session without our terminal. It says on descriptor 3
 * that the machine runs; before that its errors are ours.
 */
import { spawn } from "node:child_process";
import { closeSync, writeSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { ExitCode } from "../exit-code.ts";

const ANNOUNCE = 3;
/** What tells the second process that it is the one. */
export const BACKGROUND_OPTION = "--in-background";

/**
 * Starts `hypo` with `words` in the background, BACKGROUND_OPTION among them; answers its exit code if it fails, or 0 once the machine runs.
 */
export function startInBackground(words: readonly string[], signal: AbortSignal): Promise<number> {
  const main = fileURLToPath(new URL(`../main${import.meta.url.slice(-3)}`, import.meta.url));
  const argv = [...process.execArgv, main, ...words];
  const child = spawn(process.execPath, argv, {
    detached: true,
    stdio: ["ignore", "ignore", "pipe", "pipe"],
  });
  child.stderr!.on("data", (bytes: Buffer) => process.stderr.write(bytes));
  signal.addEventListener("abort", () => child.kill("SIGTERM"));
  return new Promise((resolve) => {
    let said = "";
    child.stdio[ANNOUNCE]!.on("data", (bytes: Buffer) => {
      said += bytes;
      if (said.includes("\n")) resolve(ExitCode.OK);
    });
    child.once("error", (error) => {
      process.stderr.write(`hypo: ${error.message}\n`);
      resolve(ExitCode.FAILED);
    });
    child.once("close", (code) =>
      resolve(code === 0 ? ExitCode.FAILED : (code ?? ExitCode.FAILED)),
    );
  });
}

/** In the background: tells who started us, who then goes away. */
export function announceStart(name: string): void {
  try {
    writeSync(ANNOUNCE, `${name}\n`);
    closeSync(ANNOUNCE);
  } catch {
    // Nobody waits for it any more.
  }
}
