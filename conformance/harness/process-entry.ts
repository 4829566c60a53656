/**
 * A machine alone in a process, without a worker: `process-entry.ts CONFIG.json`. Standard input goes to the second serial port; on
 * standard output come lines of JSON (ProcessMessage), the console on standard error.
 *
 * The guest runs in slices between which this thread's event loop has its turn.
 */
import { openSync, readFileSync, writeSync } from "node:fs";
import { gunzipSync } from "node:zlib";
import {
  type ClockMode,
  type EngineName,
  type FromMachine,
  SerialUse,
  type StopReason,
} from "../../src/control/protocol.ts";
import { NodeCompiler } from "../../src/machine/embedder-node-compiler.ts";
import { tuneEngine } from "../../src/machine/embedder-node-v8.ts";
import { Machine } from "../../src/machine/machine.ts";
import type { BootFiles } from "./guest-machine.ts";

export interface ProcessConfig extends BootFiles {
  readonly clock: ClockMode;
  readonly cpuModel: string;
  readonly engine: EngineName;
  /** Write the exit log here. */
  readonly tracePath?: string;
}

export interface EndReport {
  readonly retired: number;
  /** With the deterministic clock only: it reads all memory. */
  readonly stateHash: string | undefined;
  readonly exits: ReadonlyArray<readonly [reason: string, count: number]>;
}

export type ProcessMessage =
  | { readonly type: "text"; readonly text: string; readonly retired: number }
  | { readonly type: "stopped"; readonly reason: StopReason; readonly report: EndReport };

const SLICE_MS = 20;
const LONGEST_SLEEP_MS = 60_000;
const DETERMINISTIC_EPOCH_MS = 1_700_000_000_000;

const config = JSON.parse(process.argv[2]!) as ProcessConfig;
const trace = config.tracePath === undefined ? undefined : openSync(config.tracePath, "w");
const isDeterministic = config.clock === "deterministic";
let sliceEnd = 0;
let wake = (): void => {};

function send(message: ProcessMessage): void {
  process.stdout.write(`${JSON.stringify(message)}\n`);
}

function receive(message: FromMachine): void {
  if (message.type === "trace") writeSync(trace!, message.data);
  else if (message.type === "log") process.stderr.write(`[machine] ${message.text}\n`);
  else if (message.type === "output" && message.port === SerialUse.CONSOLE)
    process.stderr.write(message.data);
  else if (message.type === "output" && message.port === SerialUse.JOB)
    send({
      type: "text",
      text: Buffer.from(message.data).toString("latin1"),
      retired: machine.processor.retired,
    });
}

tuneEngine();
const machine = new Machine(
  {
    kernel: readFileSync(config.kernelPath),
    initrd: readFileSync(config.initrdPath),
    cmdline: config.append,
    memoryBytes: config.memoryMib * 2 ** 20,
    cpuModel: config.cpuModel,
    clock: config.clock,
    engine: config.engine,
    traceExits: trace !== undefined,
    rtcEpochMs: isDeterministic ? DETERMINISTIC_EPOCH_MS : Date.now(),
  },
  {
    nowMs: () => performance.now(),
    entropy: () => crypto.getRandomValues(new BigUint64Array(1))[0]!,
    // Slices would not disturb a deterministic machine, but it needs none: nobody talks to it.
    doorbell: () => !isDeterministic && performance.now() > sliceEnd,
    send: receive,
    decompressors: { gzip: (stream) => gunzipSync(stream) },
    compiler: (setup) => new NodeCompiler(setup),
  },
);

process.stdin.on("data", (data: Buffer) => {
  machine.input(SerialUse.JOB, new Uint8Array(data));
  wake();
});
// Whoever started us is gone.
process.stdin.on("end", () => machine.stop());

function rest(milliseconds: number): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, Math.min(milliseconds, LONGEST_SLEEP_MS));
    wake = () => {
      clearTimeout(timer);
      resolve();
    };
  });
}

for (;;) {
  sliceEnd = performance.now() + SLICE_MS;
  const state = machine.runUntilBlocked();
  if (state.kind === "ended") {
    const { reason } = state;
    const { retired } = machine.processor;
    const exits = machine.vm.log.counts();
    const stateHash = isDeterministic ? machine.stateHash() : undefined;
    send({ type: "stopped", reason, report: { retired, stateHash, exits } });
    break;
  }
  if (state.kind === "idle") await rest(state.waitMs);
  else await new Promise((resolve) => setImmediate(resolve));
}
process.stdin.destroy();
