/** `hypo logs`. */
import { setTimeout as sleep } from "node:timers/promises";
import { HypolithError } from "../../../src/base/errors.ts";
import { ExitCode } from "../exit-code.ts";
import { UsageError } from "../usage-error.ts";
import type { LogsOptions } from "./commands.ts";
import { machineFolder } from "./machine-records.ts";
import { machineState } from "./machine-states.ts";
import { type LogChunk, LogReader, lastLines } from "./output-log.ts";

const POLL_MS = 100;

export async function printLogs(
  vm: string,
  { follow, tail, timestamps }: LogsOptions,
  signal: AbortSignal,
): Promise<number> {
  if (tail !== "all" && !/^\d{1,9}$/.test(tail))
    throw new UsageError(`'${tail}' is no number of lines`, "write --tail 20 or --tail all");
  const { record } = await machineState(vm);
  if (!record?.isKept && !record?.isBackground) {
    throw new HypolithError("no-log", `${vm} keeps no log`, {
      hint: "its output is where it was started; machines with --name or -d keep one",
    });
  }
  const reader = new LogReader(machineFolder(vm));
  const printer = new Printer(timestamps === true);
  const all = reader.next();
  await printer.print(tail === "all" ? all : lastLines(all, Number(tail)));
  while (follow && !signal.aborted) {
    // Asked before the last read: what is written before the end is read after it.
    const isOver = await hasEnded(vm);
    await printer.print(reader.next());
    if (isOver) break;
    await sleep(POLL_MS);
  }
  reader.close();
  return ExitCode.OK;
}

async function hasEnded(vm: string): Promise<boolean> {
  const state = await machineState(vm).catch(() => undefined);
  return !state || state.status === "ended" || state.status === "died";
}

class Printer {
  readonly #withTimes: boolean;
  /** By stream: the next byte begins a line. */
  readonly #atStart = [true, true, true];

  constructor(withTimes: boolean) {
    this.#withTimes = withTimes;
  }

  async print(chunks: readonly LogChunk[]): Promise<void> {
    for (const chunk of chunks) {
      const out = chunk.stream === 2 ? process.stderr : process.stdout;
      const bytes = this.#withTimes ? this.#timed(chunk) : chunk.bytes;
      if (!out.write(bytes)) await new Promise((resolve) => out.once("drain", resolve));
    }
  }

  #timed({ stream, time, bytes }: LogChunk): Buffer {
    const text = bytes.toString("latin1");
    const stamp = `${new Date(time).toISOString()} `;
    const first = this.#atStart[stream] ? stamp : "";
    this.#atStart[stream] = text.endsWith("\n");
    return Buffer.from(first + text.replaceAll(/\n(?!$)/g, `\n${stamp}`), "latin1");
  }
}
