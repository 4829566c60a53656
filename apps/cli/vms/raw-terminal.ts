/** Our terminal, raw while a program elsewhere has it. */
import { spawnSync } from "node:child_process";
import type { WindowSize } from "../../common/control-line.ts";
import { windowSize } from "../terminal/console-terminal.ts";

/** Nothing, where standard input is none. Answers what gives it back; on every way out of the process that happens by itself. */
export function openRawTerminal(resized: (size: WindowSize) => void): () => void {
  const { stdin, stdout } = process;
  const sizeChanged = (): void => resized(windowSize());
  if (stdout.isTTY) stdout.on("resize", sizeChanged);
  const raw = (): void => {
    if (!stdin.isTTY) return;
    stdin.setRawMode(false);
    stdin.setRawMode(true);
    // The other terminal has made its line feeds into what they shall be.
    spawnSync("stty", ["-opost"], { stdio: ["inherit", "ignore", "ignore"] });
  };
  const close = (): void => {
    process.off("exit", close);
    process.off("SIGCONT", raw);
    stdout.off("resize", sizeChanged);
    try {
      if (stdin.isTTY) stdin.setRawMode(false);
    } catch {
      // The terminal has gone.
    }
  };
  raw();
  process.once("exit", close);
  process.on("SIGCONT", raw);
  return close;
}
