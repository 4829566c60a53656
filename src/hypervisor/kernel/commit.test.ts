import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { Field } from "../../processor/isa/vmcs-fields.ts";
import { gprAt } from "../../processor/state/layout.ts";
import { Vmcs } from "../../processor/vmx/vmcs.ts";
import { Message, StateGroup } from "../abi/message.ts";
import { checkReply, commitReply, fillMessage, skipInstruction } from "./commit.ts";
import type { Portal } from "./portal.ts";
import { Vcpu, VcpuState } from "./vcpu.ts";

const portal = (stateIn: number, stateOut: number): Portal => ({
  name: "p",
  service: null as never,
  index: 0,
  forwards: [],
  stateIn,
  stateOut,
});

test("a message carries the groups that the portal asked for, and no others", () => {
  const vmcs = new Vmcs();
  vmcs.state.setBigUint64(gprAt(0), 0x1122_3344_5566_7788n, true);
  vmcs.state.setBigUint64(gprAt(8), 0x99n, true);
  vmcs.set(Field.GUEST_RIP, 0x1234);
  const m = new Message();
  fillMessage(m, vmcs, portal(StateGroup.LOW_REGISTERS, 0));
  assert.deepEqual([m.registerLow(0), m.registerHigh(0)], [0x5566_7788, 0x1122_3344]);
  assert.deepEqual([m.registerLow(8), m.ripWide], [0, 0n]);
});

test("a reply outside the portal's groups, or that cannot be loaded, is refused", () => {
  const vmcs = new Vmcs();
  const m = new Message();
  m.groups = StateGroup.HIGH_REGISTERS;
  assert.match(
    checkReply(m, vmcs, portal(0, StateGroup.LOW_REGISTERS)) ?? "",
    /outside the capability/,
  );
  m.groups = StateGroup.EXIT;
  assert.match(
    checkReply(m, vmcs, portal(0, StateGroup.EXIT)) ?? "",
    /outside the capability/,
    "exit information is in-only",
  );
  m.groups = StateGroup.RIP;
  m.ripWide = 1n << 40n;
  assert.match(checkReply(m, vmcs, portal(0, StateGroup.RIP)) ?? "", /RIP/);
  m.groups = StateGroup.RFLAGS;
  m.rflags = 0;
  assert.match(checkReply(m, vmcs, portal(0, StateGroup.RFLAGS)) ?? "", /RFLAGS/);
});

test("whatever a service writes into a message, controls and host fields stay as they were", () => {
  const controls = [
    Field.PIN_CONTROLS,
    Field.PRIMARY_CONTROLS,
    Field.EPTP,
    Field.IO_BITMAP_A,
    Field.MSR_BITMAP,
    Field.GUEST_CR3,
    Field.GUEST_CS_BASE,
  ];
  fc.assert(
    fc.property(
      fc.uint8Array({ minLength: 256, maxLength: 256 }),
      fc.nat(0xff),
      (bytes, groups) => {
        const vmcs = new Vmcs();
        controls.forEach((f, i) => {
          vmcs.set(f, 0x1000 * (i + 1));
        });
        const m = new Message(bytes.slice().buffer);
        m.groups = groups;
        const p = portal(0xff, 0xff);
        if (checkReply(m, vmcs, p) === null) commitReply(m, new Vcpu(0, vmcs, null as never));
        assert.deepEqual(
          controls.map((f) => vmcs.number(f)),
          controls.map((_, i) => 0x1000 * (i + 1)),
        );
      },
    ),
  );
});

test("skipping an instruction ends blocking by STI and MOV SS, not by NMI", () => {
  const vmcs = new Vmcs();
  vmcs.set(Field.GUEST_INTERRUPTIBILITY, 1 | 8);
  vmcs.set(Field.EXIT_INSTRUCTION_LENGTH, 3);
  vmcs.setBig(Field.GUEST_RIP, 0xffff_ffff_ffff_fffen);
  skipInstruction(vmcs);
  assert.equal(vmcs.number(Field.GUEST_INTERRUPTIBILITY), 8);
  assert.equal(vmcs.big(Field.GUEST_RIP), 1n);
});

test("an event that a service injects waits for the next entry", () => {
  const vcpu = new Vcpu(0, new Vmcs(), null as never);
  vcpu.vmcs.set(Field.GUEST_CR0, 1);
  const m = new Message();
  m.groups = StateGroup.INJECTION;
  m.injection = 0x8000_0b0d;
  m.injectionError = 8;
  assert.equal(checkReply(m, vcpu.vmcs, portal(0, StateGroup.INJECTION)), null);
  commitReply(m, vcpu);
  assert.deepEqual(vcpu.event, { info: 0x8000_0b0d, error: 8, length: 0 });
});

test("a reply that VM entry would refuse is refused as a reply", () => {
  const vmcs = new Vmcs();
  vmcs.set(Field.GUEST_CR0, 1);
  vmcs.set(Field.GUEST_RFLAGS, 2);
  const all = StateGroup.RFLAGS | StateGroup.ACTIVITY | StateGroup.INJECTION;
  const cases: [what: Partial<Message>, refusal: RegExp | null][] = [
    [{}, null],
    [{ rflags: 2 | 0x2_0000 }, /RFLAGS.VM/],
    [{ rflags: 0 }, /RFLAGS cannot/],
    [{ interruptibility: 1 }, /STI with IF clear/],
    [{ rflags: 0x202, interruptibility: 1 }, null],
    [{ rflags: 0x202, interruptibility: 1, activity: 1 }, /a halt under STI/],
    [{ interruptibility: 3 }, /cannot be loaded/],
    [{ activity: 2 }, /cannot be loaded/],
    [{ injection: 0x8000_0020 }, /external interrupt while blocked/],
    [{ injection: 0x8000_0020, rflags: 0x202 }, null],
    [{ injection: 0x8000_0202, interruptibility: 8 }, /NMI while blocked/],
    [{ injection: 0x8000_0203 }, /NMI has vector 2/],
    [{ injection: 0x8000_030d }, /error-code/],
    [{ injection: 0x8000_0b0d, injectionError: 0x1_0000 }, /error code/],
    [{ injection: 0x8000_0480, instructionLength: 0 }, /instruction length/],
    [{ injection: 0x20 }, /not valid/],
  ];
  for (const [what, refusal] of cases) {
    const m = Object.assign(new Message(), { rflags: 2, groups: all, ...what });
    const said = checkReply(m, vmcs, portal(0, all));
    if (refusal === null) assert.equal(said, null, JSON.stringify(what));
    else assert.match(said ?? "", refusal, JSON.stringify(what));
  }
  assert.equal(vmcs.number(Field.ENTRY_INTERRUPTION_INFO), 0);
});

test("a service may halt a vCPU: it does not enter until it is woken", () => {
  const vcpu = new Vcpu(0, new Vmcs(), null as never);
  const m = new Message();
  m.groups = StateGroup.ACTIVITY;
  m.activity = 1;
  assert.equal(checkReply(m, vcpu.vmcs, portal(0, StateGroup.ACTIVITY)), null);
  commitReply(m, vcpu);
  assert.equal(vcpu.state, VcpuState.BLOCKED_HLT);
});
