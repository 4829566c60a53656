/** Snapshots of whole machines with a small guest: save, restore, continue equals continue; and what is refused. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { hostedKernel, powerOff } from "../../../guests/hosted.ts";
import { HypolithError } from "../../base/errors.ts";
import type { EngineName, MachineConfig } from "../../control/protocol.ts";
import { type Assembler, dword, imm } from "../../processor/isa/assemble.ts";
import { DEFAULT_CPU_MODEL } from "../../processor/isa/cpuid.ts";
import { al, dx, eax, ebx, ecx, edi, esi } from "../../processor/isa/registers.ts";
import { RAM_BASE } from "../../processor/state/layout.ts";
import { MemoryPort } from "../../storage/memory-port.ts";
import { Machine } from "../machine.ts";
import { crc32 } from "./crc32.ts";
import { SECTIONS, SnapshotFile } from "./snapshot-file.ts";
import { StoredMemory } from "./stored-memory.ts";

const COM1 = 0x3f8;
const HPET_COUNTER = 0xfed0_00f0;
const DATA = 0x20_0000;
const ROUNDS = 400;
const MEMORY = 32 << 20;
const ABOUT = Uint8Array.of(1, 2, 3);

/** Works on memory, devices and the clock, and says what it has found in the end. */
function guest(a: Assembler): void {
  a.emit("mov", esi, imm(0));
  a.emit("mov", edi, imm(DATA));
  a.emit("mov", ecx, imm(ROUNDS));
  a.label("round");
  a.emit("mov", eax, dword(HPET_COUNTER));
  a.emit("add", esi, eax);
  a.emit("rdtsc");
  a.emit("xor", esi, eax);
  a.emit("mov", dword(edi), esi);
  a.emit("add", edi, imm(0x1800));
  a.emit("mov", ebx, imm(2000));
  a.label("work");
  a.emit("imul", esi, esi, imm(0x19660d));
  a.emit("add", esi, ebx);
  a.emit("dec", ebx);
  a.emit("jnz", "work");
  a.emit("mov", eax, esi);
  a.emit("and", eax, imm(0x3f));
  a.emit("add", eax, imm(0x21));
  a.emit("mov", dx, imm(COM1));
  a.emit("out", dx, al);
  a.emit("dec", ecx);
  a.emit("jnz", "round");
  powerOff(a);
}

interface Run {
  readonly machine: Machine;
  readonly trace: string[];
  output: string;
}

interface RunOptions {
  readonly engine?: EngineName;
  readonly clock?: MachineConfig["clock"];
  readonly snapshot?: SnapshotFile;
  /** The embedder's attention after so many instructions. */
  readonly stopAt?: number;
  readonly config?: Partial<MachineConfig>;
  readonly now?: { ms: number };
}

function start(options: RunOptions): Run {
  const { engine = "interpreter", clock = "deterministic", stopAt = Infinity, now } = options;
  let rung = false;
  const run: { machine?: Machine; trace: string[]; output: string } = { trace: [], output: "" };
  run.machine = new Machine(
    {
      kernel: options.snapshot ? new Uint8Array(0) : hostedKernel(guest),
      cmdline: "",
      memoryBytes: MEMORY,
      cpuModel: DEFAULT_CPU_MODEL,
      ...{ clock, engine, traceExits: true, rtcEpochMs: 1_700_000_000_000 },
      ...options.config,
    },
    {
      nowMs: () => {
        if (now) now.ms += 0.01;
        return now?.ms ?? 0;
      },
      entropy: () => 1n,
      realTimeMs: () => 1_700_000_000_000 + (now?.ms ?? 0),
      doorbell: () => {
        if (rung || !run.machine || run.machine.processor.retired < stopAt) return false;
        rung = true;
        return true;
      },
      send: (m) => {
        if (m.type === "output") run.output += String.fromCharCode(...m.data);
        if (m.type === "trace") run.trace.push(...m.data.trimEnd().split("\n"));
      },
      ...(options.snapshot && { snapshot: options.snapshot }),
    },
  );
  return run as Run;
}

/** Runs to the end. Rings of the doorbell are passed over. */
function finish({ machine }: Run): string {
  for (;;) {
    const state = machine.runUntilBlocked();
    if (state.kind === "ended") return state.reason.kind;
    if (state.kind === "idle") return "idle";
  }
}

function snapshotOf(run: Run): MemoryPort {
  assert.equal(run.machine.runUntilBlocked().kind, "doorbell");
  const port = new MemoryPort();
  run.machine.snapshot(port, ABOUT);
  return port;
}

const open = (port: MemoryPort): SnapshotFile => SnapshotFile.open(port, crc32);
const STOP = 350_123;

for (const [from, to] of [
  ["interpreter", "interpreter"],
  ["interpreter", "jit"],
  ["jit", "interpreter"],
] as const) {
  test(`a run after restore is the run without, exit by exit: ${from} to ${to}`, () => {
    const plain = start({ engine: from, stopAt: STOP });
    assert.equal(finish(plain), "poweroff");
    const saved = start({ engine: from, stopAt: STOP });
    const port = snapshotOf(saved);
    const exits = saved.machine.vm.log.total;
    assert.equal(finish(saved), "poweroff");
    assert.deepEqual(saved.trace, plain.trace, "taking a snapshot changes nothing");
    const restored = start({ engine: to, snapshot: open(port) });
    assert.equal(finish(restored), "poweroff");
    assert.ok(restored.trace.length > ROUNDS / 2);
    assert.deepEqual(restored.trace, plain.trace.slice(plain.trace.length - restored.trace.length));
    assert.equal(restored.trace[0]!.split(" ")[0], String(exits));
    assert.equal(restored.machine.stateHash(), plain.machine.stateHash());
    assert.ok(plain.output.endsWith(restored.output) && restored.output.length > 100);
  });
}

test("zero pages are left out, and what is left is read when it is touched", () => {
  const saved = start({ clock: "wall", now: { ms: 5 }, stopAt: STOP });
  const port = snapshotOf(saved);
  assert.ok(port.size < 4 << 20, `${port.size} bytes of a guest with little memory`);
  let pagesRead = 0;
  const reading = new Proxy(port, {
    get: (target, name) =>
      name === "read"
        ? (offset: number, into: Uint8Array) => {
            if (into.length >= 4096) pagesRead += into.length / 4096;
            target.read(offset, into);
          }
        : Reflect.get(target, name, target),
  });
  const now = { ms: 1000 };
  const restored = start({ clock: "wall", now, snapshot: SnapshotFile.open(reading, crc32) });
  const first = pagesRead;
  assert.equal(finish(restored), "poweroff");
  assert.ok(pagesRead > first, "memory comes while the guest runs");
  assert.equal(restored.machine.describe().includes("DEAD"), true);
});

test("every page that is not zero is in a snapshot, though untouched memory is not looked at", () => {
  for (const engine of ["interpreter", "jit"] as const) {
    const run = start({ engine, stopAt: 3 * STOP });
    const file = open(snapshotOf(run));
    const ram = new Uint32Array(run.machine.engine.view.buffer, RAM_BASE);
    let pages = 0;
    for (let at = 0; at < ram.length; at += 1024)
      if (ram.subarray(at, at + 1024).some((word) => word !== 0)) pages++;
    assert.ok(pages > 100, `${pages} pages`);
    assert.equal(file.pages.length / 4096, pages);
  }
});

test("guest time goes on where it was, and the clock of the machine's chip is right", () => {
  const now = { ms: 100 };
  const saved = start({ clock: "wall", now, stopAt: STOP });
  const port = snapshotOf(saved);
  const clock = { ms: 7_200_000 };
  const restored = start({ clock: "wall", now: clock, snapshot: open(port) });
  const lines = restored.trace;
  assert.equal(finish(restored), "poweroff");
  const [first] = lines;
  const time = Number(/ t=(\d+)/.exec(first!)![1]);
  assert.ok(time < 60e9, `virtual time does not jump: ${time}`);
});

const refusal = (make: () => unknown): string => {
  try {
    make();
  } catch (error) {
    assert.ok(error instanceof HypolithError, String(error));
    assert.ok(error.message.length > 20);
    return error.code;
  }
  return "none";
};

function cut(port: MemoryPort, length: number): MemoryPort {
  return new MemoryPort(port.bytes().subarray(0, length));
}

function changed(port: MemoryPort, at: number, bits: number): MemoryPort {
  const bytes = port.bytes();
  bytes[at] = bytes[at]! ^ bits;
  return new MemoryPort(bytes);
}

test("what is no whole snapshot is refused, wherever it was cut or changed", () => {
  const port = snapshotOf(start({ stopAt: STOP }));
  const size = port.size;
  const tryIt = (file: MemoryPort): string =>
    refusal(() => finish(start({ snapshot: open(file) })));
  assert.equal(tryIt(port), "none");
  assert.equal(tryIt(new MemoryPort(new Uint8Array(0))), "snapshot-foreign");
  assert.equal(tryIt(new MemoryPort(new Uint8Array(1 << 16).fill(0x5a))), "snapshot-foreign");
  for (const length of [size - 1, size - 4096, 4096, 200, 70])
    assert.match(tryIt(cut(port, length)), /^snapshot-(truncated|corrupt)$/, `cut at ${length}`);
  assert.equal(tryIt(changed(port, 8, 3)), "snapshot-version");
  for (let at = 16; at < size; at += at < 4096 ? 37 : 4099) {
    const flipped = changed(port, at, 0x10);
    const answer = refusal(() => readAll(flipped));
    // Between sections there is nothing.
    if (answer === "none") assert.ok(isPadding(port, at), `a change at ${at} was not seen`);
    else assert.match(answer, /^snapshot-(corrupt|truncated)$/);
  }
});

/** All that a machine that goes on would read. */
function readAll(port: MemoryPort): void {
  const file = open(port);
  for (const name of SECTIONS) if (file.has(name)) file.read(name);
  new StoredMemory(new Uint8Array(MEMORY), file).loadAll();
}

function isPadding(port: MemoryPort, at: number): boolean {
  const bytes = port.bytes();
  const view = new DataView(bytes.buffer);
  const sections = view.getUint32(24, true);
  if (at < 64 + 32 * sections) return false;
  for (let i = 0; i < sections; i++) {
    const offset = Number(view.getBigUint64(64 + 32 * i + 8, true));
    const length = Number(view.getBigUint64(64 + 32 * i + 16, true));
    if (at >= offset && at < offset + length) return false;
  }
  return true;
}

test("a machine of another make is refused", () => {
  const port = snapshotOf(start({ stopAt: STOP }));
  const other = (config: Partial<MachineConfig>): string =>
    refusal(() => start({ snapshot: open(port), config }));
  assert.equal(other({}), "none");
  assert.equal(other({ memoryBytes: 64 << 20 }), "snapshot-memory");
  assert.equal(other({ cpuModel: `${DEFAULT_CPU_MODEL},-ssse3` }), "snapshot-cpu");
  assert.equal(other({ clock: "wall" }), "snapshot-clock");
  assert.equal(other({ entropyDevice: true }), "snapshot-devices");
  assert.equal(other({ sockets: true }), "snapshot-devices");
  assert.equal(other({ services: { console: "guest" } }), "snapshot-placement");
});

test("services in VMs of their own go on, too", () => {
  const config = { services: { console: "guest" } } as const;
  const plain = start({ stopAt: STOP, config });
  assert.equal(finish(plain), "poweroff");
  const port = snapshotOf(start({ stopAt: STOP, config }));
  const restored = start({ snapshot: open(port), config });
  assert.equal(finish(restored), "poweroff");
  assert.ok(plain.output.endsWith(restored.output) && restored.output.length > 100);
});
