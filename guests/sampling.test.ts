/**
 * Sampling by retired instructions: samples fall where the instructions are, and the guest cannot tell.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { EngineName, FromMachine, MachineConfig } from "../src/control/protocol.ts";
import { Machine } from "../src/machine/machine.ts";
import { type Assembler, asm64, imm } from "../src/processor/isa/assemble.ts";
import { al, eax, ebx, ecx, rax } from "../src/processor/isa/registers.ts";
import { gprAt, S } from "../src/processor/state/layout.ts";
import { EXIT_PORT, runBareMetal } from "./bare-metal.ts";
import { hostedKernel } from "./hosted.ts";
import { chatter } from "./programs.ts";

const ORIGIN = 0x10_0000;
const LOOP = 0x10_2000;
const ENGINES = ["interpreter", "jit"] as const;
const ROUNDS = 30_000;
const BEFORE = 4;
const LOOP_INSTRUCTIONS = 4;

/** Four instructions at ORIGIN, ROUNDS times four at LOOP, and the end. */
function loopImage(): { image: Uint8Array; offsets: number[] } {
  const entry = asm64(ORIGIN, (a) => {
    a.emit("mov", ecx, imm(ROUNDS));
    a.emit("xor", ebx, ebx);
    a.emit("mov", eax, imm(LOOP));
    a.emit("jmp", rax);
  });
  const body: ((a: Assembler) => void)[] = [
    (a) => a.emit("add", ebx, ecx),
    (a) => a.emit("rol", ebx, imm(3)),
    (a) => a.emit("dec", ecx),
  ];
  const loop = asm64(LOOP, (a) => {
    a.label("again");
    for (const emit of body) emit(a);
    a.emit("jne", "again");
    a.emit("out", imm(EXIT_PORT), al);
  });
  const image = new Uint8Array(LOOP - ORIGIN + loop.length);
  image.set(entry);
  image.set(loop, LOOP - ORIGIN);
  // Where the instructions of the loop begin: behind the first none, one, two, three.
  const offsets = Array.from(
    { length: LOOP_INSTRUCTIONS },
    (_, n) =>
      asm64(LOOP, (a) => {
        for (const emit of body.slice(0, n)) emit(a);
      }).length,
  );
  return { image, offsets };
}

function runLoop(engine: EngineName, every?: number) {
  const samples: { rip: number; cpl: number }[] = [];
  const take = (rip: bigint, cpl: number): void => {
    samples.push({ rip: Number(rip), cpl });
  };
  const { image, offsets } = loopImage();
  const sampler = every === undefined ? {} : { sampler: { every, take } };
  const { code, reason, instructions, vmcs } = runBareMetal({
    ...{ image, mode: "long64", engine },
    ...sampler,
  });
  const rbx = vmcs.state.getBigUint64(gprAt(3), true);
  return { end: { code, reason, instructions, rbx }, samples, offsets };
}

test("sample n shows the instruction that follows the first n intervals, exactly", () => {
  for (const engine of ENGINES) {
    for (const every of [1009, 1000, 29_989]) {
      const { end, samples, offsets } = runLoop(engine, every);
      assert.equal(samples.length, Math.floor(end.instructions / every), `${engine} ${every}`);
      samples.forEach(({ rip, cpl }, n) => {
        const inLoop = (n + 1) * every - BEFORE;
        const expected = LOOP + offsets[inLoop % LOOP_INSTRUCTIONS]!;
        assert.deepEqual([rip, cpl], [expected, 0], `${engine} ${every} sample ${n}`);
      });
    }
  }
});

test("with an interval of one there is a sample for every instruction", () => {
  for (const engine of ENGINES) {
    const { end, samples } = runLoop(engine, 1);
    assert.equal(samples.length, end.instructions, engine);
    assert.ok(samples.slice(0, BEFORE - 1).every(({ rip }) => rip < LOOP));
    assert.ok(samples.slice(BEFORE - 1).every(({ rip }) => rip >= LOOP));
  }
});

test("the count of instructions and the results are the same with and without samples", () => {
  const { end } = runLoop("interpreter");
  assert.deepEqual(
    [end.reason, end.instructions],
    ["exit port", BEFORE + ROUNDS * LOOP_INSTRUCTIONS],
  );
  for (const engine of ENGINES)
    for (const every of [undefined, 7, 1000, 1_000_000])
      assert.deepEqual(runLoop(engine, every).end, end, `${engine} ${every}`);
});

function runMachine(engine: EngineName, reports: Partial<MachineConfig>) {
  const sent: FromMachine[] = [];
  const machine = new Machine(
    {
      kernel: hostedKernel(chatter),
      ...{ cmdline: "", memoryBytes: 32 << 20, cpuModel: "x86-64", clock: "deterministic", engine },
      ...{ traceExits: true, rtcEpochMs: 0 },
      ...reports,
    },
    { nowMs: () => 0, entropy: () => 1n, doorbell: () => false, send: (m) => sent.push(m) },
  );
  const { kind } = machine.runUntilBlocked();
  const trace = sent.map((m) => (m.type === "trace" ? m.data : "")).join("");
  const { retired, view } = machine.processor;
  // How the run was split is no state of the guest's.
  for (const { at } of [S.BUDGET, S.BUDGET_START]) view.setUint32(at, 0, true);
  return { sent, run: { kind, trace, retired, hash: machine.stateHash() } };
}

test("a machine's exit log and state are the same with a profile, which covers the whole run", () => {
  const plain = runMachine("interpreter", {});
  assert.deepEqual([plain.run.kind, plain.sent.at(-1)?.type], ["ended", "trace"]);
  assert.ok(plain.run.trace.split("\n").length > 50);
  for (const every of [1, 10_000]) {
    const { sent, run } = runMachine("interpreter", { profile: { every } });
    assert.deepEqual(run, plain.run, String(every));
    const last = sent.at(-1)!;
    assert.ok(last.type === "profile");
    const { samples, endValue } = JSON.parse(last.data).profiles[0];
    assert.equal(samples.length, Math.floor(run.retired / every));
    assert.equal(endValue, samples.length * every);
  }
});

test("a machine says what its region tier has done, or that it has none", () => {
  const without = runMachine("interpreter", { reportJit: true });
  const { retired } = without.run;
  assert.deepEqual(without.sent.at(-1), { type: "jitStats", report: null, retired });
  const last = runMachine("jit", { reportJit: true }).sent.at(-1)!;
  assert.ok(last.type === "jitStats" && last.report);
  assert.equal(last.retired, retired);
  assert.ok(last.report.regions > 0 && last.report.entries > 0);
  assert.ok(last.report.retired > retired / 2 && last.report.retired <= retired);
});
