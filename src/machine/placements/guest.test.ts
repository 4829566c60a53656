/** Services in VMs of their own under the kernel's transactions: calls by VMCALL, restarts, deadlines. The console: console.test.ts. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { EffectKind } from "../../hypervisor/abi/effects.ts";
import { GuestCall } from "../../hypervisor/abi/guest-call.ts";
import { MessageOffset } from "../../hypervisor/abi/message.ts";
import { Status } from "../../hypervisor/abi/status.ts";
import { RouteTable } from "../../hypervisor/kernel/routes.ts";
import { DEAD } from "../../hypervisor/kernel/service-calls.ts";
import {
  type Capabilities,
  type Drill,
  NO_CAPABILITIES,
} from "../../hypervisor/kernel/service-domain.ts";
import { ServiceMemory } from "../../hypervisor/kernel/service-memory.ts";
import { ServiceBench } from "../../hypervisor/kernel/testing/service-bench.ts";
import { type Transition, TransitionLog } from "../../hypervisor/kernel/transition-log.ts";
import { type Assembler, byte, dword, imm, qword } from "../../processor/isa/assemble.ts";
import {
  al,
  eax,
  ebx,
  ecx,
  edx,
  r13,
  r15,
  rax,
  rbx,
  rcx,
  rdx,
  rsi,
} from "../../processor/isa/registers.ts";
import { GPR, RAM_BASE } from "../../processor/state/layout.ts";
import type { Engine } from "../../processor/vmx/engine-port.ts";
import { consoleProgram } from "../../services/guest/console-program.ts";
import { memoryImage } from "../../services/guest/memory-image.ts";
import { Layout } from "../../services/guest/memory-layout.ts";
import { type GuestProgram, serviceLoop } from "../../services/guest/service-program.ts";
import { templateProgram } from "../../services/guest/template-program.ts";
import { SERVICES } from "../service-table.ts";
import { createServices } from "../services.ts";
import { imageOf, ServiceBlock } from "./guest.ts";
import type { Ring } from "./guest-vmcs.ts";

const RINGS: readonly Ring[] = [0, 3];
const TEXT = Layout.DATA + 0x100;
const ASCII_ZERO = 0x30;

const CAPABILITIES: Capabilities = {
  ...NO_CAPABILITIES,
  lines: [4],
  streams: [0],
  stops: ["poweroff"],
  windows: [{ from: 0x1000, to: 0x1010, write: true }],
};

/** A program whose exit handler is `act`, answered with OK and nothing to commit. */
function program(act: (a: Assembler) => void, data = new Uint8Array(0)): GuestProgram {
  const code = (a: Assembler): void => {
    serviceLoop(a, { exit: "on_exit" });
    a.label("on_exit");
    act(a);
    a.emit("jmp", "reply_done");
  };
  return { code, data };
}

function call(a: Assembler, which: number): void {
  a.emit("mov", eax, imm(which));
  a.emit("vmcall");
}

/** The byte in AL to stream 0. */
function putByte(a: Assembler): void {
  a.emit("mov", byte(TEXT), al);
  a.emit("xor", ebx, ebx);
  a.emit("mov", ecx, imm(TEXT));
  a.emit("mov", edx, imm(1));
  call(a, EffectKind.PUT);
}

/** Ends the program unless RAX is `status`. */
function expectStatus(a: Assembler, status: number, label: string): void {
  a.emit("cmp", rax, imm(status));
  a.emit("je", label);
  a.emit("ud2");
  a.label(label);
}

function started(act: (a: Assembler) => void, ring: Ring = 3) {
  const bench = new ServiceBench();
  const policy = { maxRestarts: 1000 };
  const service = bench.placed(imageOf("test", program(act), ring), CAPABILITIES, policy);
  return { bench, service, portal: bench.portal(service) };
}

/** Numbers below n, the same in every run (Numerical Recipes' generator). */
function seeded(seed: number): (n: number) => number {
  let state = seed;
  return (n) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * n);
  };
}

const said = (bench: ServiceBench): string => bench.puts.map(([, text]) => text).join("");

/** Counts its exits in memory and says the last digit each time. */
function counter(a: Assembler): void {
  a.emit("inc", dword(Layout.DATA));
  a.emit("mov", eax, dword(Layout.DATA));
  a.emit("xor", edx, edx);
  a.emit("mov", ecx, imm(10));
  a.emit("div", ecx);
  a.emit("mov", eax, edx);
  a.emit("add", eax, imm(ASCII_ZERO));
  putByte(a);
}

for (const ring of RINGS) {
  describe(`a service in ring ${ring} of a VM of its own`, () => {
    test("restarts between and within messages: effects happen once and in order", () => {
      const image = imageOf("test", program(counter), ring);
      const drills = fc.array(
        fc.constantFrom<Drill | "checkpoint" | null>(
          ...(["kill", "lose-reply", "hang", "checkpoint", null, null] as const),
        ),
        { minLength: 1, maxLength: 60 },
      );
      fc.assert(
        fc.property(drills, (plan) => {
          const bench = new ServiceBench();
          const policy = { maxRestarts: 1000, deadlineMs: 5 };
          const service = bench.placed(image, CAPABILITIES, policy);
          const portal = bench.portal(service);
          for (const drill of plan) {
            if (drill === "checkpoint") bench.calls.checkpoint(service);
            else service.drill = drill;
            assert.equal(bench.exit(portal), Status.OK);
          }
          assert.equal(said(bench), plan.map((_, i) => (i + 1) % 10).join(""));
        }),
        { numRuns: 15 },
      );
    });

    test("a hang ends at the same instruction in every run, and the service is started again", () => {
      const runs = [0, 1].map(() => {
        const { bench, service, portal } = started(counter, ring);
        const log: Transition[] = [];
        bench.vm.log.transitions.watch((t) => log.push(t));
        service.drill = "hang";
        assert.equal(bench.exit(portal), Status.OK);
        assert.match(service.lastFailure ?? "", /no reply within/);
        assert.deepEqual([service.restarts, said(bench)], [1, "1"]);
        return log;
      });
      assert.deepEqual(runs[1], runs[0]);
      const PREEMPTION_TIMER = 52;
      assert.ok(runs[0]!.some(({ reason }) => reason === PREEMPTION_TIMER));
    });
  });
}

test("a service that has no x86 program runs inline instead, and the log says so", () => {
  const logs: string[] = [];
  const config = { rtcEpochMs: 0, services: { all: "guest" } } as const;
  const log = (text: string): void => void logs.push(text);
  const port = { read: () => Status.DENIED, transitions: new TransitionLog() };
  const kinds = createServices(config, SERVICES, new RouteTable(), { host: undefined, log }).map(
    ({ name, image }) => [name, image(port).kind],
  );
  for (const [name, kind] of kinds) assert.equal(kind, name === "console" ? "guest" : "linked");
  assert.ok(kinds.some(([name]) => name === "console"));
  assert.equal(logs.length, kinds.length - 1);
  assert.match(logs[0]!, /there is no placement guest here, it runs inline/);
});

test("the template keeps a byte, says it, and has it after a restart", () => {
  const bench = new ServiceBench();
  const service = bench.placed(imageOf("test", templateProgram, 3), CAPABILITIES);
  const portal = bench.portal(service);
  const { state } = bench.vcpu.vmcs;
  state.setUint8(GPR, 0x5a);
  assert.equal(bench.exit(portal), Status.OK);
  assert.equal(said(bench), "Z");
  state.setUint8(GPR, 0);
  service.drill = "kill";
  const IN = 8;
  assert.equal(bench.exit(portal, IN), Status.OK);
  assert.equal(service.restarts, 1);
  assert.equal(service.message.registerLow(0) & 0xff, 0x5a);
});

test("a console whose code is damaged anywhere ends or errs, and nothing else happens", () => {
  const random = seeded(7);
  for (let n = 0; n < 16; n++) {
    const image = memoryImage(consoleProgram);
    const { content } = image.sections.find(({ isExecutable }) => isExecutable)!;
    for (let flips = 1 + random(12); flips > 0; flips--)
      content[random(content.length)]! ^= 1 << random(8);
    const block = new ServiceBlock("test", image, n % 2 ? 3 : 0);
    const bench = new ServiceBench();
    bench.ram.fill(0xa5);
    const policy = { maxRestarts: 20, deadlineMs: 5 };
    const service = bench.placed((port) => block.start(port), CAPABILITIES, policy);
    const portal = bench.portal(service);
    for (let i = 0; i < 300 && bench.vm.end === null; i++) {
      bench.vcpu.vmcs.state.setUint32(GPR, random(256), true);
      bench.time += random(100_000);
      const port = 0x3f8 + random(8);
      if (random(10) === 0) bench.input(service, random(256));
      else bench.exit(portal, port * 0x1_0000 + random(2) * 8);
    }
    const where = `image ${n}: ${bench.vm.end?.message}`;
    assert.ok(
      bench.ram.every((b, at) => b === 0xa5 || (at >= 0x1000 && at < 0x1010)),
      where,
    );
    if (bench.vm.end) assert.match(bench.vm.end.message, /^service test given up: /);
  }
});

test("every effect can be asked for by VMCALL, and comes in the order of the calls", () => {
  const { bench, service, portal } = started((a) => {
    a.emit("mov", rbx, imm(123_456_789n));
    call(a, EffectKind.TIMER);
    a.emit("mov", ebx, imm(4));
    a.emit("mov", ecx, imm(1));
    call(a, EffectKind.LINE);
    a.emit("mov", eax, imm(0x41));
    putByte(a);
    call(a, EffectKind.LOG);
    a.emit("mov", ebx, imm(0x1008));
    call(a, EffectKind.WRITE);
    a.emit("mov", ebx, imm(1));
    call(a, EffectKind.STOP);
    expectStatus(a, Status.OK, "good");
  });
  assert.equal(bench.exit(portal), Status.OK);
  assert.equal(service.deadline, 123_456_789);
  assert.equal(said(bench), "A");
  assert.deepEqual(bench.logs, ["test: A"]);
  assert.equal(bench.ram[0x1008], 0x41);
  assert.equal(bench.vm.end?.kind, "poweroff");
});

test("records that the program writes itself follow those of its calls", () => {
  const { bench, portal } = started((a) => {
    // In the window first, by a call afterwards: the order is that of the ABI all the same.
    a.emit("mov", dword(r13), imm(EffectKind.PUT));
    a.emit("mov", dword(r13, 4), imm(9));
    a.emit("mov", qword(r13, 8), imm(0));
    a.emit("mov", byte(r13, 16), imm(0x42));
    a.emit("add", r13, imm(24));
    a.emit("mov", eax, imm(0x41));
    putByte(a);
  });
  assert.equal(bench.exit(portal), Status.OK);
  assert.equal(said(bench), "AB");
});

/** Copies [0x1000 + offset, 16 bytes on) and says the last byte. */
const reader = (a: Assembler): void => {
  a.emit("mov", ebx, imm(0x1000));
  a.emit("mov", edx, imm(16));
  call(a, GuestCall.READ);
  expectStatus(a, Status.OK, "read");
  a.emit("mov", al, byte(Layout.WINDOW + Layout.WINDOW_BYTES - 1));
  putByte(a);
};

test("READ gives guest memory of a window, and a replay gets what was read the first time", () => {
  const { bench, service, portal } = started((a) => {
    reader(a);
    // Kept in its state: a replay that read something else would say so.
    a.emit("mov", al, byte(TEXT));
    a.emit("add", byte(Layout.DATA), al);
    a.emit("mov", al, byte(Layout.DATA));
    putByte(a);
  });
  for (const c of "12") {
    bench.ram[0x100f] = c.charCodeAt(0);
    assert.equal(bench.exit(portal), Status.OK);
  }
  bench.ram[0x100f] = 0;
  service.drill = "kill";
  assert.equal(bench.exit(portal), Status.OK);
  const sum = String.fromCharCode(0x31 + 0x32);
  assert.equal(said(bench), `112${sum}\0${sum}`);
  assert.equal(service.restarts, 1);
});

test("READ answers DENIED across a window's end, INVALID for nothing and LIMIT for too much", () => {
  const { bench, portal } = started((a) => {
    const attempt = (address: bigint, bytes: number, status: number, label: string): void => {
      a.emit("mov", rbx, imm(address));
      a.emit("mov", edx, imm(bytes));
      call(a, GuestCall.READ);
      expectStatus(a, status, label);
    };
    attempt(0x1001n, 16, Status.DENIED, "across");
    attempt(0xffffn, 1, Status.DENIED, "elsewhere");
    attempt(-1n, 1, Status.INVALID, "below");
    attempt(0x1000n, 0, Status.INVALID, "nothing");
    attempt(0x1000n, 0x1_0000, Status.LIMIT, "much");
    a.emit("mov", eax, imm(0x41));
    putByte(a);
  });
  assert.equal(bench.exit(portal), Status.OK);
  assert.equal(said(bench), "A");
});

test("NOW is the message's time, ROOM what the reply still takes, an unknown call INVALID", () => {
  const { bench, portal } = started((a) => {
    call(a, GuestCall.NOW);
    a.emit("cmp", rax, qword(r15, MessageOffset.TIME));
    a.emit("je", "same_time");
    a.emit("ud2");
    a.label("same_time");
    call(a, GuestCall.ROOM);
    a.emit("mov", rsi, rax);
    a.emit("mov", eax, imm(0x41));
    putByte(a);
    call(a, GuestCall.ROOM);
    a.emit("sub", rsi, rax);
    // Head, stream and a zero, one byte padded to eight.
    a.emit("cmp", rsi, imm(24));
    a.emit("je", "same_room");
    a.emit("ud2");
    a.label("same_room");
    call(a, 0x77);
    expectStatus(a, Status.INVALID, "unknown");
  });
  bench.time = 5_000_000_000;
  assert.equal(bench.exit(portal), Status.OK);
  assert.equal(said(bench), "A");
});

test("effects stop with LIMIT when the reply is full, and what is in it is good", () => {
  const { bench, portal } = started((a) => {
    a.emit("mov", ecx, imm(Layout.DATA));
    a.emit("mov", edx, imm(0x4000));
    a.emit("xor", ebx, ebx);
    for (let i = 0; i < 3; i++) call(a, EffectKind.PUT);
    expectStatus(a, Status.OK, "three");
    call(a, EffectKind.PUT);
    expectStatus(a, Status.LIMIT, "full");
  });
  assert.equal(bench.exit(portal), Status.OK);
  assert.equal(said(bench).length, 3 * 0x4000);
});

test("a program that gives up says why, and its VM ends when it does so again and again", () => {
  const reason = "no such\u0007register";
  const data = Uint8Array.from(reason, (c) => c.charCodeAt(0));
  const bench = new ServiceBench();
  const image = imageOf(
    "test",
    program((a) => {
      a.emit("mov", rcx, imm(Layout.DATA));
      a.emit("mov", rdx, imm(data.length));
      call(a, GuestCall.FAIL);
    }, data),
    3,
  );
  const service = bench.placed(image);
  assert.equal(bench.exit(bench.portal(service)), DEAD);
  assert.match(bench.vm.end?.message ?? "", /the program gave up: no such\?register$/);
});

test("memory that is set to an image is written where it differs, and nowhere else", () => {
  const view = new DataView(new ArrayBuffer(RAM_BASE + 0x4000));
  const noticed: number[] = [];
  const noticeWrite = (host: number): void => void noticed.push(host - RAM_BASE);
  const memory = new ServiceMemory({ view, noticeWrite } as unknown as Engine, 0x4000);
  const image = new Uint8Array(0x4000);
  image[0x1fff] = 1;
  image[0x3000] = 2;
  memory.set(image);
  assert.deepEqual(noticed, [0x1000, 0x3000]);
  assert.deepEqual(memory.copy(), image);
  memory.set(image);
  assert.equal(noticed.length, 2);
  assert.equal(memory.window(0x3fff, 2), null);
  assert.equal(memory.window(0x4000, 0)?.length, 0);
});
