/** Attempts to get out of a service, in both TypeScript placements: each is refused, and the kernel and its VM go on or end in order. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { stripTypeScriptTypes } from "node:module";
import { test } from "node:test";
import { Status } from "../../hypervisor/abi/status.ts";
import { MIN_TIMER_NS } from "../../hypervisor/kernel/effects.ts";
import type { ServiceImage } from "../../hypervisor/kernel/placement.ts";
import { DEAD } from "../../hypervisor/kernel/service-calls.ts";
import {
  NO_CAPABILITIES,
  type ServiceDomain,
  type ServicePolicy,
} from "../../hypervisor/kernel/service-domain.ts";
import { ServiceBench } from "../../hypervisor/kernel/testing/service-bench.ts";
import { inlineImage, type NodeProgram, workerImage } from "../embedder-node-services.ts";
import { linkImage } from "./image-linker.ts";

const SOURCES = new URL("../../", import.meta.url);
const WINDOW = { from: 0x1000, to: 0x2000, write: false };
const CAPABILITIES = { ...NO_CAPABILITIES, streams: [0], windows: [WINDOW] };

const PLACEMENTS: readonly [string, (program: NodeProgram) => ServiceImage][] = [
  ["inline", inlineImage],
  ["worker", workerImage],
];

/** A program whose every exit does `body` and says its value on stream 0. */
function program(body: string): string {
  const source = `
export const createService = (calls, options) => ({
      onEvent(message) {
        let answer;
        try { answer = String(((message, calls) => { ${body} })(message, calls)); }
        catch (error) { answer = "threw " + error.name; }
        calls.put(0, Uint8Array.from(answer.slice(0, 500), (c) => c.charCodeAt(0) & 127));
        message.groups = 0;
        return 0;
      },
      save: () => 0,
      restore() {},
    });`;
  return linkImage("evil/evil", (path) => {
    if (path === "services/evil/evil.ts") return source;
    return stripTypeScriptTypes(readFileSync(new URL(path, SOURCES), "utf8"));
  });
}

function start(
  place: (program: NodeProgram) => ServiceImage,
  image: string,
  policy: Partial<ServicePolicy> = {},
): { bench: ServiceBench; service: ServiceDomain } {
  const bench = new ServiceBench();
  const setup = JSON.stringify({ options: {}, grants: CAPABILITIES });
  const made = place({ image, setup, name: "evil" });
  return { bench, service: bench.placed(made, CAPABILITIES, policy) };
}

function answerTo(place: (program: NodeProgram) => ServiceImage, body: string): string {
  const { bench, service } = start(place, program(body));
  const status = bench.exit(bench.portal(service));
  service.placement?.kill();
  if (status !== Status.OK) return `${status} ${bench.vm.end?.message}`;
  return bench.puts.map(([, text]) => text).join("");
}

const AMBIENT = [
  ...["process", "require", "fetch", "setTimeout", "setInterval", "queueMicrotask", "WebAssembly"],
  ...["SharedArrayBuffer", "Atomics", "console", "performance", "Worker", "postMessage", "crypto"],
  ...["MessageChannel", "XMLHttpRequest", "self", "window", "global", "Deno", "module", "exports"],
];

const ATTEMPTS: readonly [what: string, body: string, expected: RegExp][] = [
  [
    "globals",
    `return ${JSON.stringify(AMBIENT)}.filter((name) => name in globalThis).join() + "|" +
      [${AMBIENT.map((name) => `typeof ${name}`).join()}].filter((t) => t !== "undefined").join();`,
    /^\|$/,
  ],
  ["the time of day", "return Date.now();", /threw|NaN/],
  ["the time of day, otherwise", "return new Date().getTime();", /threw|NaN/],
  ["chance", "return Math.random();", /threw/],
  [
    "pollution of Object.prototype",
    "Object.prototype.evil = 1; return {}.evil;",
    /threw TypeError/,
  ],
  ["another push", "Array.prototype.push = () => 7; return [].push(1);", /threw TypeError/],
  ["another DataView", "DataView.prototype.getUint32 = () => 7;", /threw TypeError/],
  ["assigning to what it was given", "calls.grants.lines.push(3);", /threw TypeError/],
  ["a prototype of what it was given", "calls.grants.__proto__.x = 1;", /threw TypeError/],
  [
    "Function",
    "return (function () {}).constructor('return typeof process')();",
    /threw TypeError/,
  ],
  ["AsyncFunction", "return (async () => {}).constructor('return 1');", /threw TypeError/],
  ["GeneratorFunction", "return (function* () {}).constructor('yield 1');", /threw TypeError/],
  [
    "code from text, which is evaluated, in the same compartment",
    "return (0, eval)('typeof process + typeof globalThis.constructor.constructor');",
    /^undefined(function|undefined)$|threw/,
  ],
  ["the constructor of a call", "return calls.put.constructor('return 1')();", /threw TypeError/],
  [
    "the constructor of the buffer",
    "return message.view.buffer.constructor.constructor('return typeof process')();",
    /threw TypeError/,
  ],
  ["more behind its buffer", "return message.view.buffer.byteLength;", /^65536$/],
  ["detaching its buffer", "return message.view.buffer.transfer().byteLength;", /threw TypeError/],
  ["resizing its buffer", "message.view.buffer.resize(1 << 30);", /threw TypeError/],
  ["callers", "return (function () { return arguments.callee.caller; })();", /threw TypeError/],
  [
    "stack frames",
    "Error.prepareStackTrace = (e, frames) => frames.map((f) => typeof f.getThis()).join(); return new Error('x').stack;",
    /^(|undefined|threw TypeError|.*Error: x.*)$/s,
  ],
  [
    "a deep stack, to catch an error of another realm in its guarded call",
    `let found = "nothing";
     const bytes = new Uint8Array(8);
     const dive = () => {
       try { dive(); calls.readMemory(0x1000, bytes); }
       catch (error) {
         try { found = error.constructor.constructor("return typeof process")(); } catch (e) { found = e.name; }
         throw error;
       }
     };
     try { dive(); } catch {}
     return found;`,
    /^(nothing|TypeError|RangeError)$/,
  ],
  [
    "memory outside its window",
    "return [calls.readMemory(0x0ff0, new Uint8Array(64)), calls.readMemory(-8, new Uint8Array(8)), calls.writeMemory(0x1000, new Uint8Array(1))].join();",
    /^1,1,1$/,
  ],
  [
    "a length that is a trap",
    "return calls.readMemory({ valueOf() { return 0x1000; } }, new Uint8Array(8));",
    /^1$/,
  ],
];

for (const [name, place] of PLACEMENTS) {
  test(`${name}: attempts to reach something beyond the grants are refused`, async (t) => {
    for (const [what, body, expected] of ATTEMPTS)
      await t.test(what, () => assert.match(answerTo(place, body), expected));
  });

  test(`${name}: an image with a dynamic import is not started`, () => {
    const image = program('return import("node:fs");');
    if (name === "inline") assert.throws(() => start(place, image), /import/);
    else {
      const { bench, service } = start(place, image);
      assert.match(bench.vm.end?.message ?? "", /failed .*import/);
      assert.equal(service.placement, null);
    }
  });

  test(`${name}: what is thrown at the kernel, traps and all, is a failure and nothing more`, () => {
    for (const thrown of [
      "new Proxy({}, { get() { throw 1; }, getPrototypeOf() { throw 2; } })",
      "{ get name() { throw 1; }, message: '\\u001b[2J' }",
      "null",
      "Symbol('x')",
      "{ name: 'a'.repeat(1e6), message: 'b' }",
    ]) {
      const image = `(setup) => { let n = 0; return () => {
        const view = new DataView(setup.buffer);
        if (view.getUint16(4, true) === 0) throw ${thrown};
        view.setUint32(12, 0, true); view.setUint32(224, 0, true); view.setUint32(8, 0, true);
      }; }`;
      const { bench, service } = start(place, image, { maxForOneMessage: 1 });
      assert.equal(bench.exit(bench.portal(service)), DEAD);
      assert.match(bench.vm.end?.message ?? "", /given up: failed/);
      assert.ok((bench.vm.end?.message.length ?? 0) < 400);
    }
  });

  test(`${name}: without the runtime's own checks, memory outside the windows is refused as fast or slow as it likes: there is no clock`, () => {
    const image = `(setup) => () => {
      const view = new DataView(setup.buffer);
      const bytes = new Uint8Array(setup.buffer);
      const kind = view.getUint16(4, true);
      view.setUint32(12, 0, true); view.setUint32(8, 0, true); view.setUint32(224, 0, true);
      if (kind !== 0) return;
      bytes.fill(0, 65000);
      const statuses = [
        setup.read(0x3000, 0, 16), setup.read(0, 1, 16), setup.read(0x1000, 0, 1 << 20), setup.read(0x1000, 0, -1),
        setup.read(NaN, NaN, NaN), setup.read("0x1000", null, {}), setup.read(), setup.read(0x1ff8, 0, 16),
        setup.read(0x1000, 0, 16),
      ];
      const clean = bytes.subarray(65000, 65520).every((b) => b === 0);
      const text = statuses.join("") + clean;
      view.setUint32(256, 4, true); view.setUint32(260, 8 + text.length, true);
      view.setUint32(264, 0, true); view.setUint32(268, 0, true);
      for (let i = 0; i < text.length; i++) bytes[272 + i] = text.charCodeAt(i);
      view.setUint32(224, (16 + text.length + 7) & ~7, true);
    }`;
    const { bench, service } = start(place, image);
    bench.ram.fill(7);
    assert.equal(bench.exit(bench.portal(service)), Status.OK, service.lastFailure ?? "");
    assert.match(bench.puts[0]?.[1] ?? "", /^[12]{8}0true$/);
    service.placement?.kill();
  });

  test(`${name}: a flood of messages to itself leaves the guest its time`, () => {
    const { bench, service } = start(place, program("calls.setTimer(0); return 1;"));
    bench.time = 5e6;
    service.timerFloor = bench.time + MIN_TIMER_NS;
    assert.equal(bench.exit(bench.portal(service)), Status.OK);
    assert.equal(service.deadline, bench.time + MIN_TIMER_NS);
    service.placement?.kill();
  });
}

test("without a compartment the first attempt gets out: it is one", () => {
  const open = new Function(`return ${program(ATTEMPTS[0]![1])}`)() as (s: unknown) => () => void;
  const { buffer } = new WebAssembly.Memory({ initial: 1 });
  open({ buffer, options: {}, grants: CAPABILITIES, read: () => 1 })();
  assert.match(new TextDecoder().decode(new Uint8Array(buffer, 272, 60)), /^process,.*fetch/);
});

test("worker: a program that never answers, and one that takes all memory, are ended and started again", () => {
  for (const body of ["for (;;);", "const all = []; for (;;) all.push(new Array(1e5).fill(1));"]) {
    const once = `if (message.qualification === 1) { ${body} } return "here";`;
    const policy = { deadlineMs: 700, maxForOneMessage: 1 };
    const { bench, service } = start(workerImage, program(once), policy);
    const portal = bench.portal(service);
    assert.equal(bench.exit(portal, 0), Status.OK);
    assert.equal(bench.exit(portal, 1), DEAD);
    assert.match(bench.vm.end?.message ?? "", /no reply within 700 ms/);
    assert.deepEqual([service.restarts, bench.puts], [1, [[0, "here"]]]);
  }
});
