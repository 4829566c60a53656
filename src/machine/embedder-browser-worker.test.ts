import assert from "node:assert/strict";
import { test } from "node:test";
import { gzipSync } from "node:zlib";
import { hostedKernel, powerOff } from "../../guests/hosted.ts";
import { type Assembler, addr, asm32, dword, far, imm, mem } from "../processor/isa/assemble.ts";
import { al, dx, eax, ebx, esp } from "../processor/isa/registers.ts";
import { makeBzImage, makeElf } from "./boot/testing/synthetic-kernels.ts";
import { type Deferrer, serve } from "./embedder-browser-worker.ts";
import { FakeScope, smallConfig } from "./testing/fake-scope.ts";

const COM1 = 0x3f8;
const MODEM_CONTROL = COM1 + 4;
/** Until it is raised the other end of the line holds its bytes back. */
const REQUEST_TO_SEND = 2;
const LINE_STATUS = COM1 + 5;

function open(): FakeScope {
  const scope = new FakeScope();
  // Node takes a thousand messages of a port at a time, so a message to oneself does not let timers go first.
  const deferrer: Deferrer = (task) => () => {
    scope.slices++;
    setImmediate(task);
  };
  serve(scope, { deferrer });
  return scope;
}

function start(build: (a: Assembler) => void): FakeScope {
  const scope = open();
  scope.say({ type: "start", config: smallConfig(hostedKernel(build)) });
  return scope;
}

function put(a: Assembler, text: string): void {
  a.emit("mov", dx, imm(COM1));
  for (const c of text) {
    a.emit("mov", al, imm(c.charCodeAt(0)));
    a.emit("out", dx, al);
  }
}

function spin(a: Assembler): void {
  a.label("spin");
  a.emit("jmp", "spin");
}

test("a machine says started, what the guest says, and stopped, in this order", async () => {
  const scope = start((a) => {
    put(a, "hello\n");
    powerOff(a);
  });
  assert.deepEqual(await scope.stopped(), {
    kind: "poweroff",
    message: "the guest turned the power off",
  });
  assert.equal(scope.output, "hello\n");
  assert.equal(scope.types[0], "started");
  assert.equal(scope.types.at(-1), "stopped");
});

/** Sends back what it receives, without ever resting; ends at an exclamation mark. */
function echo(a: Assembler): void {
  a.emit("mov", dx, imm(MODEM_CONTROL));
  a.emit("mov", al, imm(REQUEST_TO_SEND));
  a.emit("out", dx, al);
  a.label("wait");
  a.emit("mov", dx, imm(LINE_STATUS));
  a.emit("in", al, dx);
  a.emit("test", al, imm(1));
  a.emit("jz", "wait");
  a.emit("mov", dx, imm(COM1));
  a.emit("in", al, dx);
  a.emit("out", dx, al);
  a.emit("cmp", al, imm(0x21));
  a.emit("jnz", "wait");
  powerOff(a);
}

test("a guest that never rests hears its input, in order", async () => {
  const scope = start(echo);
  await scope.until(() => scope.types.includes("started"));
  const data = (text: string) => Uint8Array.from(text, (c) => c.charCodeAt(0));
  scope.say({ type: "input", port: 0, data: data("one ") });
  await scope.until(() => scope.output.includes("one"));
  scope.say({ type: "input", port: 0, data: data("two") });
  scope.say({ type: "input", port: 0, data: data("!") });
  assert.equal((await scope.stopped()).kind, "poweroff");
  assert.equal(scope.output, "one two!");
});

test("what is said while the machine is being built is not lost", async () => {
  const scope = open();
  scope.say({ type: "start", config: smallConfig(hostedKernel(echo)) });
  scope.say({ type: "input", port: 0, data: Uint8Array.from([0x21]) });
  assert.equal((await scope.stopped()).kind, "poweroff");
});

test("a guest that never rests can be stopped, and is silent then", async () => {
  const scope = start(spin);
  await scope.until(() => scope.types.includes("started"));
  const before = performance.now();
  scope.say({ type: "stop" });
  assert.equal((await scope.stopped()).kind, "killed");
  assert.ok(performance.now() - before < 2000);
  scope.say({ type: "stop" });
  await new Promise((resolve) => setTimeout(resolve, 50));
  assert.equal(scope.types.at(-1), "stopped");
  assert.equal(scope.types.filter((type) => type === "stopped").length, 1);
});

test("a machine that was never started can be stopped", async () => {
  const scope = open();
  scope.say({ type: "stop" });
  assert.deepEqual(await scope.stopped(), { kind: "killed" });
});

const APIC = 0xfee0_0000;
const SPURIOUS_VECTOR = 0xf0;
const TIMER_VECTOR = 0x320;
const TIMER_COUNT = 0x380;
const TIMER_DIVIDE = 0x3e0;
const DIVIDE_BY_1 = 0xb;
const VECTOR = 0x40;
const CODE = 8;
const STACK = 0x20_0000;
/** The local APIC's timer counts nanoseconds of virtual time. */
const SLEEP_NS = 300_000_000;

/** Halts until the local APIC's timer interrupts, does `then`, and turns the power off. SDM Vol. 3A, "Local APIC Timer". */
function sleepUntilInterrupt(a: Assembler, then: () => void): void {
  const apic = (register: number, value: number): void => {
    a.emit("mov", eax, imm(value));
    a.emit("mov", dword(APIC + register), eax);
  };
  a.emit("lgdt", mem(0, addr("gdtr")));
  a.emit("jmp", far(CODE, "flat"));
  a.label("flat");
  a.emit("mov", esp, imm(STACK));
  a.emit("mov", eax, addr("handler"));
  a.emit("mov", ebx, eax);
  a.emit("and", eax, imm(0xffff));
  a.emit("or", eax, imm(CODE << 16));
  a.emit("and", ebx, imm(0xffff_0000));
  a.emit("or", ebx, imm(0x8e00));
  a.emit("mov", dword(addr("idt", 8 * VECTOR)), eax);
  a.emit("mov", dword(addr("idt", 8 * VECTOR + 4)), ebx);
  a.emit("lidt", mem(0, addr("idtr")));
  put(a, "z");
  a.emit("rdtsc");
  a.emit("mov", dword(addr("since")), eax);
  apic(SPURIOUS_VECTOR, 0x1ff);
  apic(TIMER_DIVIDE, DIVIDE_BY_1);
  apic(TIMER_VECTOR, VECTOR);
  apic(TIMER_COUNT, SLEEP_NS);
  a.emit("sti");
  a.label("halt");
  a.emit("hlt");
  a.emit("jmp", "halt");
  a.label("handler");
  then();
  powerOff(a);
  a.align(16);
  a.label("since").dd(0);
  a.label("gdtr").dw(15).dd("gdt");
  a.label("idtr")
    .dw(8 * VECTOR + 7)
    .dd("idt");
  a.align(16);
  a.label("gdt").dq(0n, 0x00cf_9b00_0000_ffffn);
  a.label("idt").space(8 * (VECTOR + 1));
}

test("an idle guest is not run, and is woken by its timer, not before", async () => {
  const scope = start((a) => sleepUntilInterrupt(a, () => put(a, "!")));
  await scope.until(() => scope.output !== "");
  const since = performance.now();
  const { slices } = scope;
  assert.equal((await scope.stopped()).kind, "poweroff");
  const ms = performance.now() - since;
  assert.equal(scope.output, "z!");
  assert.ok(ms > SLEEP_NS / 1e6 - 50, `slept ${ms} ms`);
  assert.ok(scope.slices - slices <= 4, `was run ${scope.slices - slices} times`);
});

test("a request to stop wakes an idle machine", async () => {
  const scope = start((a) => {
    put(a, "z");
    // Interrupts stay off: nothing in the guest will ever wake it.
    a.emit("hlt");
  });
  await scope.until(() => scope.output !== "");
  scope.say({ type: "stop" });
  assert.equal((await scope.stopped()).kind, "killed");
});

/** Halts for SLEEP_NS and says "late" if it was more than twice that by its TSC, which counts nanoseconds. */
function oversleeper(a: Assembler): void {
  sleepUntilInterrupt(a, () => {
    a.emit("rdtsc");
    a.emit("sub", eax, dword(addr("since")));
    a.emit("cmp", eax, imm(2 * SLEEP_NS));
    a.emit("jb", "off");
    put(a, "late");
    a.label("off");
  });
}

test("a guest that a page in the background wakes too late sees the time that it is", async (t) => {
  const { setTimeout: timer } = globalThis;
  const late = (task: () => void, ms: number) => timer(task, ms + 3 * (SLEEP_NS / 1e6));
  t.mock.method(globalThis, "setTimeout", late as typeof setTimeout);
  const scope = start(oversleeper);
  assert.equal((await scope.stopped()).kind, "poweroff");
  assert.equal(scope.output, "zlate");
});

test("a kernel that is none is refused with its code and a hint, and never started", async () => {
  const scope = open();
  const kernel = new TextEncoder().encode("#!/bin/sh\necho no kernel\n");
  scope.say({ type: "start", config: smallConfig(kernel) });
  const reason = await scope.stopped();
  assert.equal(reason.kind, "error");
  assert.equal(reason.code, "kernel-unrecognized");
  assert.match(reason.message ?? "", /a script/);
  assert.ok(reason.hint);
  assert.ok(!scope.types.includes("started"));
});

test("a size of memory that no machine can have is refused with its code", async () => {
  const scope = open();
  const config = smallConfig(hostedKernel(spin), { memoryBytes: 5 * 2 ** 30 });
  scope.say({ type: "start", config });
  assert.equal((await scope.stopped()).code, "memory-size");
});

/** A bzImage with a gzip payload: an ELF kernel whose PVH entry, in 32-bit mode, turns the power off. */
function gzipKernel(): Uint8Array {
  const entry = 0x100_0000;
  const contents = asm32(entry, (a) => powerOff(a));
  const payload = new Uint8Array(gzipSync(makeElf({ contents, pvhEntry: entry })));
  return makeBzImage({ payload });
}

test("a gzip payload is unpacked outside the guest", async () => {
  const scope = open();
  scope.say({ type: "start", config: smallConfig(gzipKernel()) });
  assert.equal((await scope.stopped()).kind, "poweroff");
});

test("a damaged gzip payload is refused as a damaged kernel", async () => {
  const scope = open();
  const kernel = gzipKernel();
  const at = kernel.findIndex((byte, i) => byte === 0x1f && kernel[i + 1] === 0x8b);
  kernel[at + 12]! ^= 0xff;
  scope.say({ type: "start", config: smallConfig(kernel) });
  assert.equal((await scope.stopped()).code, "kernel-damaged");
});
