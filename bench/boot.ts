/**
 * Boots a kernel in this thread and copies its console to stdout: `node bench/boot.ts KERNEL INITRD [--det] [--memory MIB] [--append TEXT] [--max INSTRUCTIONS] [--service PLACEMENT]`.
 * Prints time, instructions and exits at the end. For profiling and for looking at early failures.
 */
import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { gunzipSync } from "node:zlib";
import type { PlacementName } from "../src/control/protocol.ts";
import { NodeCompiler } from "../src/machine/embedder-node-compiler.ts";
import { NodeServiceHost } from "../src/machine/embedder-node-services.ts";
import { tuneEngine } from "../src/machine/embedder-node-v8.ts";
import { Machine } from "../src/machine/machine.ts";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    det: { type: "boolean", default: false },
    memory: { type: "string", default: "512" },
    append: { type: "string", default: "console=ttyS0 reboot=t panic=-1" },
    max: { type: "string", default: "20000000000" },
    trace: { type: "boolean", default: false },
    cpu: { type: "string", default: "x86-64-v2" },
    engine: { type: "string", default: "interpreter" },
    service: { type: "string" },
  },
});
const [kernel, initrd] = positionals;
if (!kernel) throw new Error("usage: boot.ts KERNEL [INITRD]");

const started = performance.now();
const limit = Number(values.max);
tuneEngine();
const machine = new Machine(
  {
    kernel: readFileSync(kernel),
    ...(initrd ? { initrd: readFileSync(initrd) } : {}),
    cmdline: values.append,
    memoryBytes: Number(values.memory) * 2 ** 20,
    cpuModel: values.cpu,
    engine: values.engine as "auto" | "interpreter" | "jit",
    clock: values.det ? "deterministic" : "wall",
    traceExits: values.trace,
    ...(values.service && {
      services: { all: values.service as PlacementName },
    }),
    rtcEpochMs: values.det ? 1_700_000_000_000 : Date.now(),
  },
  {
    nowMs: () => performance.now(),
    entropy: () => 0x1234_5678_9abc_def1n,
    doorbell: () => machine !== undefined && machine.processor.retired > limit,
    decompressors: { gzip: (stream) => gunzipSync(stream) },
    compiler: (setup) => new NodeCompiler(setup),
    ...(values.service && { services: new NodeServiceHost() }),
    send: (m) => {
      if (m.type === "output" && m.port === 0) process.stdout.write(m.data);
      else if (m.type === "output")
        process.stderr.write(`[port ${m.port}] ${new TextDecoder().decode(m.data)}`);
      else if (m.type === "log") process.stderr.write(`[log] ${m.text}\n`);
      else if (m.type === "trace") process.stderr.write(m.data);
    },
  },
);
const sleep = new Int32Array(new SharedArrayBuffer(4));
const booted = performance.now();
for (;;) {
  const state = machine.runUntilBlocked();
  if (state.kind === "idle") {
    Atomics.wait(sleep, 0, 0, Math.min(state.waitMs, 1000));
    continue;
  }
  if (state.kind === "ended")
    process.stderr.write(
      `\nended: ${state.reason.kind}: ${state.reason.message}\n${state.reason.dump ?? ""}\n`,
    );
  else process.stderr.write(`\ninstruction limit reached\n${machine.describe()}\n`);
  break;
}
const seconds = (performance.now() - booted) / 1000;
const { retired } = machine.processor;
process.stderr.write(
  `setup ${((booted - started) / 1000).toFixed(2)} s, run ${seconds.toFixed(2)} s, ${(retired / 1e6).toFixed(0)} M instructions, ${(retired / 1e6 / seconds).toFixed(0)} MIPS, ` +
    `cpu ${(process.cpuUsage().user / 1e6).toFixed(2)}+${(process.cpuUsage().system / 1e6).toFixed(2)} s, rss ${(process.memoryUsage().rss / 1e6).toFixed(0)} MB\n` +
    `exits ${machine.vm.log
      .counts()
      .slice(0, 8)
      .map(([n, c]) => `${n}=${c}`)
      .join(" ")}\n` +
    `code ${JSON.stringify(machine.engine.code.stats)} used ${(machine.engine.code.used / 1e6).toFixed(1)} MB, cold handlers ${machine.engine.handlers.coldCount}, hash ${machine.stateHash()}\n` +
    (machine.jitStats ? `jit ${JSON.stringify(machine.jitStats)}\n` : ""),
);
