/**
 * The two directions of a message: guest state out to a portal, and a reply back, validated before anything is committed.
 * A reply can name only the groups of its portal; control fields, host addresses and bitmaps are in no group.
 */

import { VendorField } from "../../processor/isa/vendor.ts";
import { Field, INTERRUPTION_VALID, InterruptionType } from "../../processor/isa/vmcs-fields.ts";
import { GPR, PendingDebug, S } from "../../processor/state/layout.ts";
import { checkInjection } from "../../processor/vmx/entry-checks.ts";
import type { Vmcs } from "../../processor/vmx/vmcs.ts";
import { IN_ONLY_GROUPS, type Message, StateGroup } from "../abi/message.ts";
import type { Portal } from "./portal.ts";
import { type Vcpu, VcpuState } from "./vcpu.ts";

const LOW = [0, 1, 2, 3];
const HIGH = [4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
const RFLAGS_RESERVED_ONE = 2;
const RFLAGS_IF = 0x200;
const RFLAGS_VM = 0x2_0000;
const ACTIVITY_HLT = 1;
const BLOCKING_BY_STI = 1;
const BLOCKING_BY_NMI = 8;
/** By STI and by MOV SS. */
const BLOCKING_ONE = 3;
const RFLAGS_TF = 0x100;

function copyRegisters(message: Message, vmcs: Vmcs, which: readonly number[]): void {
  const state = vmcs.state;
  for (const n of which)
    message.setRegister(
      n,
      state.getUint32(GPR + 8 * n, true),
      state.getUint32(GPR + 8 * n + 4, true),
    );
}

/** Fills a message with what the portal asked for. */
export function fillMessage(message: Message, vmcs: Vmcs, portal: Portal): void {
  const groups = portal.stateIn;
  message.groups = groups;
  if (groups & StateGroup.EXIT) {
    message.reason = vmcs.number(Field.EXIT_REASON);
    message.qualification = vmcs.number(Field.EXIT_QUALIFICATION);
    message.physical = vmcs.number(Field.GUEST_PHYSICAL_ADDRESS);
  }
  if (groups & StateGroup.RIP) {
    message.ripWide = vmcs.big(Field.GUEST_RIP);
    message.instructionLength = vmcs.number(Field.EXIT_INSTRUCTION_LENGTH);
  }
  if (groups & StateGroup.LOW_REGISTERS) copyRegisters(message, vmcs, LOW);
  if (groups & StateGroup.HIGH_REGISTERS) copyRegisters(message, vmcs, HIGH);
  if (groups & StateGroup.RFLAGS) message.rflags = vmcs.number(Field.GUEST_RFLAGS);
  if (groups & StateGroup.ACTIVITY) {
    message.activity = vmcs.number(Field.GUEST_ACTIVITY);
    message.interruptibility = vmcs.number(Field.GUEST_INTERRUPTIBILITY);
  }
  if (groups & StateGroup.DEVICE) {
    message.deviceAccess = vmcs.number(VendorField.DEVICE_ACCESS);
    message.deviceSize = vmcs.number(VendorField.DEVICE_SIZE);
    message.deviceData = vmcs.big(VendorField.DEVICE_WRITE_DATA);
  }
}

/** Why a reply cannot be committed, or null. */
export function checkReply(message: Message, vmcs: Vmcs, portal: Portal): string | null {
  const groups = message.groups;
  const foreign = groups & ~(portal.stateOut & ~IN_ONLY_GROUPS);
  if (foreign !== 0) return `state groups ${foreign.toString(16)} outside the capability`;
  if (groups & StateGroup.RIP) {
    const rip = message.ripWide;
    const isLong = (vmcs.number(Field.GUEST_CS_RIGHTS) & 0x2000) !== 0;
    if (isLong ? BigInt.asUintN(64, BigInt.asIntN(48, rip)) !== rip : rip >> 32n !== 0n)
      return "RIP cannot be loaded";
  }
  if ((groups & (StateGroup.RFLAGS | StateGroup.ACTIVITY | StateGroup.INJECTION)) === 0)
    return null;
  return checkEventState(message, vmcs);
}

const isLoadable = (flags: number): boolean =>
  (flags & RFLAGS_RESERVED_ONE) !== 0 && (flags & ~0x3f_7fd7) === 0;

/** RFLAGS, interruptibility and an injection depend on each other: what VM entry checks of them together is checked together. */
function checkEventState(message: Message, vmcs: Vmcs): string | null {
  const { groups } = message;
  const before = vmcs.number(Field.GUEST_RFLAGS);
  const flags = groups & StateGroup.RFLAGS ? message.rflags : before;
  if (groups & StateGroup.RFLAGS && !isLoadable(flags)) return "RFLAGS cannot be loaded";
  if ((flags ^ before) & RFLAGS_VM) return "RFLAGS.VM is not a service's to change";
  let blocking = vmcs.number(Field.GUEST_INTERRUPTIBILITY);
  if (groups & StateGroup.RIP) blocking &= ~BLOCKING_ONE;
  if (groups & StateGroup.ACTIVITY) {
    blocking = message.interruptibility;
    const isHalt = message.activity === ACTIVITY_HLT;
    if (
      message.activity > ACTIVITY_HLT ||
      blocking > 15 ||
      (blocking & BLOCKING_ONE) === BLOCKING_ONE
    )
      return "activity or interruptibility cannot be loaded";
    if (isHalt && (blocking & BLOCKING_ONE) !== 0) return "a halt under STI or MOV SS";
  }
  if ((blocking & BLOCKING_BY_STI) !== 0 && (flags & RFLAGS_IF) === 0)
    return "blocking by STI with IF clear";
  const isInjecting = groups & StateGroup.INJECTION && message.injection !== 0;
  return isInjecting ? checkInjected(message, vmcs, flags, blocking) : null;
}

function checkInjected(
  message: Message,
  vmcs: Vmcs,
  flags: number,
  blocking: number,
): string | null {
  const info = message.injection;
  if (info < INTERRUPTION_VALID) return "an injection that is not valid";
  vmcs.set(Field.ENTRY_INTERRUPTION_INFO, info);
  vmcs.set(Field.ENTRY_ERROR_CODE, message.injectionError);
  vmcs.set(Field.ENTRY_INSTRUCTION_LENGTH, message.instructionLength);
  const refusal = checkInjection(vmcs);
  vmcs.set(Field.ENTRY_INTERRUPTION_INFO, 0);
  if (refusal !== null) return `injection: ${refusal}`;
  const type = (info >>> 8) & 7;
  if (
    type === InterruptionType.EXTERNAL &&
    ((flags & RFLAGS_IF) === 0 || (blocking & BLOCKING_ONE) !== 0)
  )
    return "injection of an external interrupt while blocked";
  if (type === InterruptionType.NMI && (blocking & (BLOCKING_BY_NMI | BLOCKING_ONE)) !== 0)
    return "injection of an NMI while blocked";
  return null;
}

/** Writes a checked reply into the guest. */
export function commitReply(message: Message, vcpu: Vcpu): void {
  const { vmcs } = vcpu;
  const groups = message.groups;
  const state = vmcs.state;
  const registers = (which: readonly number[]): void => {
    for (const n of which) {
      state.setUint32(GPR + 8 * n, message.registerLow(n), true);
      state.setUint32(GPR + 8 * n + 4, message.registerHigh(n), true);
    }
  };
  if (groups & StateGroup.LOW_REGISTERS) registers(LOW);
  if (groups & StateGroup.HIGH_REGISTERS) registers(HIGH);
  if (groups & StateGroup.RIP) {
    vmcs.setBig(Field.GUEST_RIP, message.ripWide);
    endInstruction(vmcs);
  }
  if (groups & StateGroup.RFLAGS) vmcs.set(Field.GUEST_RFLAGS, message.rflags);
  if (groups & StateGroup.ACTIVITY) {
    // A halted vCPU does not enter at all.
    if (message.activity === ACTIVITY_HLT) vcpu.state = VcpuState.BLOCKED_HLT;
    vmcs.set(Field.GUEST_INTERRUPTIBILITY, message.interruptibility);
  }
  if (groups & StateGroup.DEVICE) vmcs.setBig(VendorField.DEVICE_READ_REPLY, message.deviceData);
  if (groups & StateGroup.INJECTION && message.injection !== 0) {
    vcpu.event = {
      info: message.injection,
      error: message.injectionError,
      length: message.instructionLength,
    };
  }
}

/** What the completion of an instruction ends: blocking by STI and MOV SS. And what it brings: the debug exceptions that are traps. */
export function endInstruction(vmcs: Vmcs): void {
  const blocking = vmcs.number(Field.GUEST_INTERRUPTIBILITY);
  if (blocking & 3) vmcs.set(Field.GUEST_INTERRUPTIBILITY, blocking & ~3);
  oweDebugTraps(vmcs);
}

/** After an instruction, or an iteration of one, that the hypervisor has carried out: the trap of TF, and of I/O breakpoints. */
export function oweDebugTraps(vmcs: Vmcs): void {
  const { state } = vmcs;
  const hits = state.getUint32(S.IO_HITS.at, true);
  state.setUint32(S.IO_HITS.at, 0, true);
  const steps = (state.getUint32(S.RFLAGS_REST.at, true) & RFLAGS_TF) !== 0;
  if (hits === 0 && !steps) return;
  const traps = (hits ? hits | PendingDebug.ENABLED : 0) | (steps ? PendingDebug.BS : 0);
  vmcs.set(Field.GUEST_PENDING_DEBUG, vmcs.number(Field.GUEST_PENDING_DEBUG) | traps);
}

/** RIP past the instruction that exited. */
export function skipInstruction(vmcs: Vmcs): void {
  const length = BigInt(vmcs.number(Field.EXIT_INSTRUCTION_LENGTH));
  vmcs.setBig(Field.GUEST_RIP, BigInt.asUintN(64, vmcs.big(Field.GUEST_RIP) + length));
  endInstruction(vmcs);
}
