/**
 * A service in a VM of its own: the kernel's side of VMCALL (abi/guest-call.ts), and of everything else that such a VM may try.
 * SDM Vol. 3C, "VMX Non-Root Operation"; ADR 0016.
 *
 * A call enters the VM with the message in its window and ends with REPLY. The VM has no device, no interrupt, no clock and no MSR of its
 * own: any exit that is not a VMCALL is the end of the service. Its processor counts instructions as time, so the VMX-preemption timer
 * ends a call at the same instruction in every run.
 *
 * Registers and memory of the VM are read here and nowhere else. What a reply may do is judged as in every placement, by the caller.
 */
import { invariant } from "../../base/invariant.ts";
import { ExitReason, exitReasonName } from "../../processor/isa/exit-reasons.ts";
import { Field, INTERRUPTION_ERROR_CODE } from "../../processor/isa/vmcs-fields.ts";
import { GPR, S } from "../../processor/state/layout.ts";
import type { Processor } from "../../processor/vmx/processor.ts";
import { STATE_END, STATE_START, type Vmcs } from "../../processor/vmx/vmcs.ts";
import { EffectWriter } from "../abi/effects.ts";
import { GuestCall } from "../abi/guest-call.ts";
import { HEADER_BYTES, Message } from "../abi/message.ts";
import { Status } from "../abi/status.ts";
import { skipInstruction } from "./commit.ts";
import { Outcome, type Placement, type PlacementKind, type PlacementPort } from "./placement.ts";
import { collectEffect } from "./service-effects.ts";
import type { ServiceMemory } from "./service-memory.ts";

/** What a millisecond of deadline is in instructions: an interpreter that is slower than 20 million a second is late in wall time. */
const INSTRUCTIONS_PER_MS = 20_000;
const MAX_TIMER = 0xffff_ffff;
/** Calls of one message: the deadline bounds instructions, this bounds what the kernel does for them. */
const MAX_CALLS = 10_000;
const MAX_REASON = 200;
const [RAX, RCX, RDX, RBX] = [GPR, GPR + 8, GPR + 16, GPR + 24];

/** A VM made by the composition root: active VMCS, memory with the program in it, nothing run yet. */
export interface ServiceVmParts {
  readonly name: string;
  readonly kind: PlacementKind;
  readonly processor: Processor;
  readonly vmcs: Vmcs;
  readonly memory: ServiceMemory;
  /** Where messages are, in the VM's memory. */
  readonly window: { readonly at: number; readonly bytes: number };
}

/** Between two messages the VM is what is in these. */
interface SavedVm {
  readonly memory: Uint8Array;
  readonly state: Uint8Array;
  readonly isWaiting: boolean;
}

export class ServiceVm implements Placement {
  readonly kind: PlacementKind;
  readonly message: Message;
  failure = "";
  readonly #parts: ServiceVmParts;
  readonly #port: PlacementPort;
  readonly #window: Uint8Array;
  readonly #header: Uint8Array;
  readonly #effects: EffectWriter;
  /** The VM stands behind a VMCALL that has been answered, not at its first instruction. */
  #isWaiting = false;
  #isDead = false;

  constructor(parts: ServiceVmParts, port: PlacementPort) {
    const { window, memory } = parts;
    const bytes = memory.window(window.at, window.bytes);
    invariant(bytes, "the message window lies in the service's memory");
    this.kind = parts.kind;
    this.#parts = parts;
    this.#port = port;
    this.#window = bytes;
    this.#header = bytes.subarray(0, HEADER_BYTES);
    this.message = new Message(new ArrayBuffer(window.bytes));
    this.#effects = new EffectWriter(this.message);
  }

  call(deadlineMs: number): Outcome {
    if (this.#isDead) return this.#fail("it has ended");
    const { message } = this;
    const { processor, vmcs } = this.#parts;
    this.#window.set(message.bytes.subarray(0, HEADER_BYTES + message.dataBytes));
    this.#effects.clear();
    if (this.#isWaiting) skipInstruction(vmcs);
    this.#isWaiting = false;
    const end = processor.retired + Math.min(deadlineMs * INSTRUCTIONS_PER_MS, MAX_TIMER);
    for (let calls = 0; calls < MAX_CALLS; calls++) {
      const left = end - processor.retired;
      if (left <= 0) return this.#late();
      const outcome = this.#enter(left);
      if (outcome !== null) return outcome;
      skipInstruction(vmcs);
    }
    return this.#fail(`${MAX_CALLS} calls within one message`);
  }

  /** One entry and exit. Answers null after a call that has been served, with RIP still at it. */
  #enter(left: number): Outcome | null {
    const { name, processor, vmcs } = this.#parts;
    const { transitions } = this.#port;
    vmcs.set(Field.PREEMPTION_TIMER, left);
    if (transitions.isWatched) transitions.entry(name, 0, vmcs);
    const before = processor.retired;
    const error = processor.enter(vmcs);
    if (error !== 0) return this.#fail(`VM-instruction error ${error}`);
    if (transitions.isWatched) transitions.exit(name, 0, vmcs, processor.retired - before);
    const reason = vmcs.number(Field.EXIT_REASON);
    if (reason === ExitReason.VMCALL) return this.#serve();
    if (reason === ExitReason.PREEMPTION_TIMER) return this.#late();
    return this.#fail(describeExit(vmcs, reason));
  }

  #serve(): Outcome | null {
    const { state } = this.#parts.vmcs;
    const which = state.getUint32(RAX, true);
    switch (which) {
      case GuestCall.REPLY:
        return this.#reply();
      case GuestCall.READ:
        this.#answer(this.#read());
        return null;
      case GuestCall.NOW:
        this.#answer(this.message.time);
        return null;
      case GuestCall.ROOM:
        this.#answer(this.message.capacity - this.#effects.used);
        return null;
      case GuestCall.FAIL:
        return this.#fail(this.#text());
      default:
        this.#answer(collectEffect(which, this.#parts.vmcs, this.#parts.memory, this.#effects));
        return null;
    }
  }

  /** Joins the window's header and records to the records that calls have made. */
  #reply(): Outcome {
    const { message } = this;
    const { state } = this.#parts.vmcs;
    const window = this.#window;
    const { used } = this.#effects;
    message.bytes.set(this.#header);
    message.seq = state.getUint32(RBX, true);
    message.groups = state.getUint32(RCX, true);
    const { dataBytes } = message;
    if (dataBytes > message.capacity - used) return this.#fail("a reply of an impossible length");
    if (dataBytes > 0) {
      const records = window.subarray(HEADER_BYTES, HEADER_BYTES + dataBytes);
      message.bytes.set(records, HEADER_BYTES + used);
    }
    message.dataBytes = used + dataBytes;
    this.#isWaiting = true;
    return Outcome.REPLIED;
  }

  #read(): Status {
    const { state } = this.#parts.vmcs;
    const length = state.getUint32(RDX, true);
    // It comes to the end of the kernel's message, whose front holds effects.
    if (state.getUint32(RDX + 4, true) !== 0 || length > this.message.capacity - this.#effects.used)
      return Status.LIMIT;
    const address = Number(state.getBigUint64(RBX, true));
    const status = this.#port.read(address, length);
    if (status !== Status.OK) return status;
    const { bytes } = this.message;
    this.#window.set(bytes.subarray(bytes.length - length), this.#window.length - length);
    return status;
  }

  #answer(value: number): void {
    this.#parts.vmcs.state.setBigUint64(RAX, BigInt(value), true);
  }

  /** What a program says of its end: printable ASCII. */
  #text(): string {
    const { vmcs, memory } = this.#parts;
    const at = Number(vmcs.state.getBigUint64(RCX, true));
    const length = Math.min(Number(vmcs.state.getBigUint64(RDX, true)), MAX_REASON);
    const bytes = memory.window(at, length) ?? [];
    const text = Array.from(bytes, (b) => (b >= 32 && b < 127 ? String.fromCharCode(b) : "?"));
    return `the program gave up: ${text.join("")}`;
  }

  #late(): Outcome {
    this.failure = "the VMX-preemption timer expired";
    return Outcome.LATE;
  }

  #fail(why: string): Outcome {
    this.failure = why;
    return Outcome.FAILED;
  }

  /** All that the VM is, as between two messages it always can be taken. The program has no part in it. */
  save(): SavedVm {
    const { memory, vmcs } = this.#parts;
    const { state } = vmcs;
    return {
      memory: memory.copy(),
      state: new Uint8Array(state.buffer, state.byteOffset, STATE_END).slice(STATE_START),
      isWaiting: this.#isWaiting,
    };
  }

  restore(saved: unknown): boolean {
    const { memory, state, isWaiting } = saved as SavedVm;
    const { processor, vmcs } = this.#parts;
    this.#parts.memory.set(memory);
    const block = vmcs.state;
    new Uint8Array(block.buffer, block.byteOffset, STATE_END).set(state, STATE_START);
    vmcs.isDirty = true;
    processor.invalidateEpt();
    this.#isWaiting = isWaiting;
    return true;
  }

  kill(): void {
    this.#isDead = true;
  }
}

/** Why a VM that left by anything but VMCALL has ended. */
function describeExit(vmcs: Vmcs, reason: number): string {
  const place = `at RIP ${vmcs.number(Field.GUEST_RIP).toString(16)}, CPL ${vmcs.state.getUint32(S.CPL.at, true)}`;
  if (reason === ExitReason.EXCEPTION_OR_NMI) {
    const info = vmcs.number(Field.EXIT_INTERRUPTION_INFO);
    const error = vmcs.number(Field.EXIT_INTERRUPTION_ERROR).toString(16);
    const code = info & INTERRUPTION_ERROR_CODE ? ` (error ${error})` : "";
    return `exception ${info & 0xff}${code} ${place}`;
  }
  const address = vmcs.number(Field.GUEST_PHYSICAL_ADDRESS).toString(16);
  const what = reason === ExitReason.EPT_VIOLATION ? ` of guest-physical ${address}` : "";
  return `VM exit ${exitReasonName(reason)}${what} ${place}`;
}
