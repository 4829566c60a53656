/** Machines in this thread for criteria: booted by hand, with their services where Node can put them. */
import { readFileSync } from "node:fs";
import { gunzipSync } from "node:zlib";
import type { MachineConfig } from "../../src/control/protocol.ts";
import { NodeServiceHost } from "../../src/machine/embedder-node-services.ts";
import { Machine, type MachinePorts } from "../../src/machine/machine.ts";
import type { BootFiles } from "../harness/guest-machine.ts";

export interface MachineRun {
  readonly machine: Machine;
  /** What came out of each serial port. */
  readonly output: Uint8Array[][];
  readonly logs: string[];
  /** Wall time inside runUntilBlocked, by our own clock. */
  runMs: number;
  readonly end: string;
}

const EPOCH_MS = 1_700_000_000_000;

export interface RunOptions {
  readonly config?: Partial<MachineConfig>;
  /** Called when at least so many instructions have been retired since the last call, between two steps of the guest. */
  readonly every?: { readonly instructions: number; act(machine: Machine): void };
}

/** A machine with the deterministic clock unless `config` says otherwise. Its ports: those given, besides time, decompression and services. */
export function machineOf(
  files: BootFiles,
  config: Partial<MachineConfig>,
  ports: Pick<MachinePorts, "entropy" | "doorbell" | "send">,
): Machine {
  return new Machine(
    {
      kernel: readFileSync(files.kernelPath),
      initrd: readFileSync(files.initrdPath),
      cmdline: files.append,
      memoryBytes: files.memoryMib * 2 ** 20,
      cpuModel: "x86-64-v2",
      clock: "deterministic",
      traceExits: false,
      rtcEpochMs: EPOCH_MS,
      ...config,
    },
    {
      nowMs: () => performance.now(),
      decompressors: { gzip: (stream) => gunzipSync(stream) },
      services: new NodeServiceHost(),
      ...ports,
    },
  );
}

/** Runs to the guest's end. */
export function runToEnd(files: BootFiles, { config = {}, every }: RunOptions = {}): MachineRun {
  const output: Uint8Array[][] = [[], [], [], []];
  const logs: string[] = [];
  let nextAct = every ? every.instructions : Number.POSITIVE_INFINITY;
  const machine: Machine = machineOf(files, config, {
    entropy: () => 0x1234_5678_9abc_def1n,
    doorbell: () => machine !== undefined && machine.processor.retired >= nextAct,
    send: (message) => {
      if (message.type === "output") output[message.port]!.push(message.data);
      else if (message.type === "log") logs.push(message.text);
    },
  });
  const run = { machine, output, logs, runMs: 0, end: "" };
  const sleep = new Int32Array(new SharedArrayBuffer(4));
  for (;;) {
    const started = performance.now();
    const state = machine.runUntilBlocked();
    run.runMs += performance.now() - started;
    if (state.kind === "ended") {
      run.end = `${state.reason.kind}: ${state.reason.message ?? ""}`;
      return run;
    }
    if (state.kind === "idle") Atomics.wait(sleep, 0, 0, Math.min(state.waitMs, 1000));
    else {
      nextAct = machine.processor.retired + (every?.instructions ?? 0);
      every?.act(machine);
    }
  }
}

export function textOf(chunks: readonly Uint8Array[]): string {
  return Buffer.concat(chunks).toString("latin1");
}
