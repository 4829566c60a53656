/** hypo trace: what happens in a running machine, seen from outside, until Ctrl-C or its end. */

import { once } from "node:events";
import { closeSync, openSync, writeSync } from "node:fs";
import { HypolithError } from "../../../src/base/errors.ts";
import type { TraceEvent, TraceKind, TraceRequest } from "../../../src/control/protocol.ts";
import { syscallNames } from "../../../src/control/syscall-table.ts";
import { closest } from "../closest.ts";
import { ExitCode } from "../exit-code.ts";
import { UsageError } from "../usage-error.ts";
import type { TraceOptions } from "./commands.ts";
import { chooseMachine, openStream } from "./door-client.ts";
import {
  jsonWriter,
  perfettoWriter,
  summaryWriter,
  type TraceWriter,
  textWriter,
} from "./trace-format.ts";

const STANDARD_OUTPUT = 1;

export async function traceMachine(
  kind: TraceKind,
  vm: string | undefined,
  options: TraceOptions,
  signal: AbortSignal,
): Promise<number> {
  const request = requestOf(kind, options);
  const limit = countOf(options.count);
  const name = await chooseMachine(vm);
  const writer = writerOf(kind, name, options);
  const socket = await openStream(name, { verb: "trace", request });
  const out = new Output(options.output);
  const stop = (): void => {
    socket.end();
  };
  signal.addEventListener("abort", stop);
  let events = 0;
  out.write(writer.begin());
  let rest = "";
  socket.setEncoding("utf8");
  socket.on("data", (text: string) => {
    const lines = (rest + text).split("\n");
    rest = lines.pop()!;
    let written = "";
    for (const line of lines) {
      if (events >= limit) break;
      written += tell(line, writer);
      events++;
    }
    out.write(written);
    if (events >= limit) stop();
  });
  socket.on("error", () => {});
  // The other end closes when it has said all; so do we then.
  socket.on("end", stop);
  socket.resume();
  await once(socket, "close");
  signal.removeEventListener("abort", stop);
  out.write(writer.end());
  out.close();
  return ExitCode.OK;
}

function tell(line: string, writer: TraceWriter): string {
  const event = JSON.parse(line) as TraceEvent & { dropped?: number };
  if (event.dropped === undefined) return writer.event(event);
  process.stderr.write(`hypo: ${event.dropped} lines of the trace were lost: we read too slowly\n`);
  return "";
}

function requestOf(kind: TraceKind, { only, process: processes }: TraceOptions): TraceRequest {
  const names = only?.flatMap((list) => list.split(",")).filter((word) => word !== "");
  if (kind === "syscalls" && names) {
    const known = syscallNames();
    for (const word of names)
      if (!known.includes(word) && !/^i386_\d+$/.test(word)) {
        const near = closest(word, known);
        throw new UsageError(
          `there is no system call ${word}`,
          near === undefined ? "man 2 syscalls lists them" : `did you mean ${near}?`,
        );
      }
  }
  return { kind, ...(names ? { names } : {}), ...(processes ? { processes } : {}) };
}

function countOf(text: string | undefined): number {
  if (text === undefined) return Infinity;
  if (/^[1-9]\d{0,8}$/.test(text)) return Number(text);
  throw new UsageError(`'${text}' is no number of events`, "write --count 100");
}

function writerOf(kind: TraceKind, machine: string, options: TraceOptions): TraceWriter {
  if (options.summary) return summaryWriter();
  if (options.json) return jsonWriter();
  const isForPerfetto = options.output?.endsWith(".json") === true;
  return isForPerfetto ? perfettoWriter(kind, machine) : textWriter(kind);
}

/** A file, or standard output. Written at once: what has been traced is there even if we are killed. */
class Output {
  readonly #descriptor: number;

  constructor(path: string | undefined) {
    try {
      this.#descriptor = path === undefined || path === "-" ? STANDARD_OUTPUT : openSync(path, "w");
    } catch (cause) {
      throw new HypolithError("trace-unwritable", `the trace file ${path} cannot be written`, {
        cause,
        hint: "give another file to --output",
      });
    }
  }

  write(text: string): void {
    if (text === "") return;
    if (this.#descriptor === STANDARD_OUTPUT) {
      process.stdout.write(text);
      return;
    }
    const bytes = Buffer.from(text);
    for (let at = 0; at < bytes.length; ) at += writeSync(this.#descriptor, bytes, at);
  }

  close(): void {
    if (this.#descriptor !== STANDARD_OUTPUT) closeSync(this.#descriptor);
  }
}
