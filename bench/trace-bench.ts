/**
 * What tracing costs: `find /` in a Debian guest, with `hypo trace syscalls` and without, turn about, in CPU time of this process. One machine,
 * one boot; compilation is between the guest's instructions, so that all of it is counted.
 *
 *   node bench/trace-bench.ts [interpreter|auto]
 */
import { machineOf } from "../conformance/criteria/machine-run.ts";
import { bootFiles } from "../conformance/harness/boot.ts";
import { guestKernel } from "../conformance/harness/kernels.ts";
import type { EngineName } from "../src/control/protocol.ts";

const ROUNDS = 6;
const MARK = "turn-about";
/** Rounds at the beginning that fill caches, of the guest's and of ours. */
const WARM = 2;
const GOAL = 1.5;

interface Round {
  readonly isTraced: boolean;
  readonly cpuMs: number;
  readonly instructions: number;
  readonly calls: number;
}

async function measure(engine: EngineName): Promise<Round[]> {
  const kernel = await guestKernel("cloud");
  const round = `find / >/tmp/found 2>&1; echo ${MARK}`;
  const commands = [`echo ${MARK}`, ...Array.from({ length: WARM + 2 * ROUNDS }, () => round)];
  const files = bootFiles(kernel, { commands });
  const rounds: Round[] = [];
  let text = "";
  let marks = 0;
  let seen = 0;
  let calls = 0;
  let started = process.cpuUsage();
  let retired = 0;
  const machine = machineOf(
    files,
    { engine, rtcEpochMs: 0 },
    {
      entropy: () => 1n,
      doorbell: () => marks > seen,
      send: (message) => {
        if (message.type === "traced") calls += message.lines.split("\n").length - 1;
        if (message.type !== "output" || message.port !== 0) return;
        text += Buffer.from(message.data).toString("latin1");
        marks = text.split(MARK).length - 1;
      },
    },
  );
  for (;;) {
    const state = machine.runUntilBlocked();
    if (state.kind === "ended") return rounds;
    if (state.kind !== "doorbell") continue;
    seen = marks;
    const spent = process.cpuUsage(started);
    const isTraced = machine.isTraced;
    if (isTraced) machine.serve({ type: "untrace", id: 1 });
    if (seen > WARM + 1)
      rounds.push({
        isTraced,
        cpuMs: (spent.user + spent.system) / 1e3,
        instructions: machine.processor.retired - retired,
        calls,
      });
    if (!isTraced && seen > WARM)
      machine.serve({ type: "trace", id: 1, request: { kind: "syscalls" } });
    calls = 0;
    retired = machine.processor.retired;
    started = process.cpuUsage();
  }
}

const median = (list: number[]): number => list.sort((a, b) => a - b)[list.length >> 1]!;

const engine = (process.argv[2] ?? "interpreter") as EngineName;
const rounds = await measure(engine);
/** Each traced round and the plain one after it. */
const pairs = rounds.flatMap((round, i) =>
  round.isTraced && rounds[i + 1] ? [[rounds[i + 1]!.cpuMs, round.cpuMs] as const] : [],
);
const factor = median(pairs.map(([plain, traced]) => traced / plain));
const plain = median(pairs.map(([ms]) => ms));
const traced = median(pairs.map(([, ms]) => ms));
const calls = Math.max(...rounds.map((round) => round.calls));
console.log(
  `trace syscalls, find /, ${engine}: ${plain.toFixed(0)} ms without, ${traced.toFixed(0)} ms with, factor ${factor.toFixed(2)} (goal: below ${GOAL}); ${calls} calls, ${(((traced - plain) * 1e3) / calls).toFixed(1)} us each`,
);
for (const { isTraced, cpuMs, instructions } of rounds)
  console.log(
    `  ${isTraced ? "traced" : "plain "} ${cpuMs.toFixed(0)} ms, ${instructions} instructions`,
  );
process.exit(calls > 0 && factor < GOAL ? 0 : 1);
