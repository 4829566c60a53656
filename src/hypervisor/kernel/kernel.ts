/**
 * The micro-hypervisor: the only code in root mode. Runs the vCPUs of a VM, routes their exits, delivers their events, keeps their timers.
 *
 * One vCPU per pCPU for now. The loop never waits: step() says until when there is nothing to do, and the embedder waits.
 */

import { HypolithError } from "../../base/errors.ts";
import { exitReasonName } from "../../processor/isa/exit-reasons.ts";
import {
  Field,
  INTERRUPTION_VALID,
  InterruptionType,
  PrimaryControl,
} from "../../processor/isa/vmcs-fields.ts";
import { InterruptAnswer } from "../../processor/vmx/guest/guest-vmx.ts";
import type { Processor } from "../../processor/vmx/processor.ts";
import { EventKind, HEADER_BYTES, SignalNumber } from "../abi/message.ts";
import { type EffectPorts, MIN_TIMER_NS } from "./effects.ts";
import { ExitDispatcher } from "./exits.ts";
import { DEAD, ServiceCalls } from "./service-calls.ts";
import type { ServiceDomain } from "./service-domain.ts";
import { GUEST } from "./transition-log.ts";
import { VCPU_STATE_NAMES, type Vcpu, VcpuState } from "./vcpu.ts";
import type { Vm } from "./vm.ts";
import { restoreVm, saveVm, type VmState } from "./vm-state.ts";

const RFLAGS_IF = 0x200;
const BLOCKING_BY_NMI = 8;
const MAX_TIMER = 0xffff_ffff;

/** What the vCPU's step came to. */
export type StepResult =
  | { readonly kind: "ran" }
  | { readonly kind: "idle"; readonly until: number }
  | { readonly kind: "ended" };

const RAN: StepResult = { kind: "ran" };
const ENDED: StepResult = { kind: "ended" };

export class Kernel {
  readonly #processor: Processor;
  readonly #vm: Vm;
  readonly #dispatcher: ExitDispatcher;
  readonly #calls: ServiceCalls;

  /**
   * Starts the VM's services, or has the VM go on where `saved` was taken: its vCPUs' state blocks are there already. `ports.now` is virtual
   * time. Throws HypolithError "snapshot-service".
   */
  constructor(processor: Processor, vm: Vm, ports: EffectPorts, saved?: VmState) {
    this.#processor = processor;
    this.#vm = vm;
    this.#calls = new ServiceCalls(vm, processor.engine, ports);
    this.#dispatcher = new ExitDispatcher(vm, processor.engine, this.#calls, () => this.now());
    for (const service of vm.services) this.#calls.prepare(service);
    if (saved) this.#resume(saved);
    else for (const service of vm.services) this.#calls.start(service);
  }

  #resume(saved: VmState): void {
    restoreVm(this.#vm, saved);
    this.#calls.seq = saved.seq;
    for (const [i, service] of this.#vm.services.entries()) {
      const problem = this.#calls.resume(service, saved.services[i]!);
      if (problem !== null)
        throw new HypolithError(
          "snapshot-service",
          `the service ${service.name} cannot go on from the snapshot: ${problem}`,
        );
    }
  }

  /** Everything that is known here of the VM between two steps; null if it has ended, perhaps by this. */
  save(): VmState | null {
    const vm = this.#vm;
    const isWhole = !vm.end && vm.services.every((service) => this.#calls.checkpoint(service));
    const guestVmx = this.#processor.guestVmx?.save() ?? null;
    return isWhole ? saveVm(vm, this.#calls.seq, guestVmx) : null;
  }

  /** Virtual time in ns. */
  now(): number {
    return this.#processor.tsc();
  }

  /** One entry and exit of a vCPU, with everything around it. */
  step(vcpu: Vcpu): StepResult {
    const vm = this.#vm;
    if (vm.end) return ENDED;
    const deadline = this.#runTimers(vcpu);
    if (vm.end) return ENDED;
    const isHalted = vcpu.state === VcpuState.BLOCKED_HLT;
    if (isHalted) {
      if (!this.#hasWakeup(vcpu)) {
        const other = this.#processor.guestVmx?.deadline ?? Infinity;
        return { kind: "idle", until: Math.min(deadline, other) };
      }
      vcpu.state = VcpuState.RUNNABLE;
    }
    const isUrgent = this.#exitForEvents(vcpu, isHalted);
    this.#prepareEvents(vcpu);
    const { vmcs } = vcpu;
    const left = isUrgent ? 0 : Math.ceil(deadline - this.now());
    vmcs.set(Field.PREEMPTION_TIMER, Math.min(Math.max(left, 0), MAX_TIMER));
    vcpu.state = VcpuState.IN_GUEST;
    const { transitions } = vm.log;
    if (transitions.isWatched) transitions.entry(GUEST, vcpu.id, vmcs);
    const before = this.#processor.retired;
    vm.ledger.to(vm.ledger.guest);
    const error = this.#processor.enter(vmcs);
    vm.ledger.to(vm.ledger.kernel);
    vcpu.state = VcpuState.TRAPPED;
    if (transitions.isWatched)
      transitions.exit(GUEST, vcpu.id, vmcs, this.#processor.retired - before);
    if (error !== 0) {
      vm.end ??= { kind: "error", message: `VM entry refused: VM-instruction error ${error}` };
      return ENDED;
    }
    const reason = vmcs.number(Field.EXIT_REASON);
    vm.log.record({
      vcpu: vcpu.id,
      time: this.now(),
      retired: this.#processor.retired,
      reason,
      qualification: vmcs.number(Field.EXIT_QUALIFICATION),
      rip: vmcs.big(Field.GUEST_RIP),
    });
    this.#dispatcher.dispatch(vcpu);
    if (vm.end) {
      vcpu.state = VcpuState.DEAD;
      return ENDED;
    }
    if (vcpu.state !== VcpuState.BLOCKED_HLT) vcpu.state = VcpuState.RUNNABLE;
    return RAN;
  }

  /** Bytes from a stream of the embedder; answers how many the service took. */
  input(service: ServiceDomain, stream: number, bytes: Uint8Array): number {
    const message = this.#vm.end ? null : this.#calls.open(service);
    if (!message) return bytes.length;
    const offered = bytes.subarray(0, message.capacity);
    message.kind = EventKind.INPUT;
    message.stream = stream;
    message.dataBytes = offered.length;
    message.bytes.set(offered, HEADER_BYTES);
    if (this.#calls.call(service, null, null) === DEAD) return bytes.length;
    return Math.min(service.message.argument, offered.length);
  }

  /** A signal of the embedder to a service (SignalNumber), with what it has to say. */
  signal(service: ServiceDomain, signal: number, data?: Uint8Array): void {
    if (!this.#vm.end) this.#signal(service, signal, data);
  }

  /** The VM has ended: its services say what they have to say. To be called once. */
  finish(): void {
    for (const service of this.#vm.services)
      if (service.placement) this.#signal(service, SignalNumber.STOPPING);
    for (const service of this.#vm.services) {
      service.placement?.kill();
      service.placement = null;
    }
  }

  #signal(service: ServiceDomain, signal: number, data?: Uint8Array): void {
    const message = this.#calls.open(service);
    if (!message) return;
    message.kind = EventKind.SIGNAL;
    message.argument = signal;
    if (data) {
      message.dataBytes = data.length;
      message.bytes.set(data, HEADER_BYTES);
    }
    this.#calls.call(service, null, null);
  }

  /** Ends a service's program in order and starts it again. */
  restartService(service: ServiceDomain): void {
    if (!this.#vm.end) this.#calls.renew(service);
  }

  /** The VM has nothing to do for a while. */
  rest(): void {
    if (!this.#vm.end) this.#calls.checkpointIdle();
  }

  /** Fires what is due; answers when the next is. */
  #runTimers(vcpu: Vcpu): number {
    const now = this.now();
    const { apic } = vcpu;
    if (apic.deadline <= now) apic.advance(now);
    let next = apic.deadline;
    for (const service of this.#vm.services) {
      if (service.deadline <= now) {
        service.deadline = Infinity;
        service.timerFloor = now + MIN_TIMER_NS;
        const message = this.#calls.open(service);
        if (!message) return next;
        message.kind = EventKind.TIMER;
        if (this.#calls.call(service, null, null) === DEAD) return next;
      }
      next = Math.min(next, service.deadline);
    }
    return next;
  }

  #hasWakeup(vcpu: Vcpu): boolean {
    if (vcpu.event || vcpu.apic.nmiPending) return true;
    const guest = this.#processor.guestVmx;
    if (guest && guest.deadline <= this.now()) return true;
    if (guest && guest.interruptAnswer !== InterruptAnswer.DELIVER)
      return vcpu.apic.pending() >= 0 || this.#extintPending(vcpu);
    if ((vcpu.vmcs.number(Field.GUEST_RFLAGS) & RFLAGS_IF) === 0) return false;
    return vcpu.apic.pending() >= 0 || this.#extintPending(vcpu);
  }

  #extintPending(vcpu: Vcpu): boolean {
    return this.#vm.controllers.intr && vcpu.id === 0 && vcpu.apic.acceptsExtint();
  }

  /**
   * What waits for a guest hypervisor whose guest runs ends that guest's stay, if its controls say so. Answers true if it must wait for an event
   * that is to be delivered first.
   */
  #exitForEvents(vcpu: Vcpu, isHalted: boolean): boolean {
    const guest = this.#processor.guestVmx;
    if (!guest?.isInside) return false;
    const { apic } = vcpu;
    const isNmi = apic.nmiPending && guest.nmiExits;
    const vector = apic.pending();
    const answer = guest.interruptAnswer;
    const isInterrupt =
      answer !== InterruptAnswer.DELIVER && (vector >= 0 || this.#extintPending(vcpu));
    if (vcpu.event) return isNmi || isInterrupt;
    if (isNmi) {
      apic.nmiPending = false;
      guest.nmi(isHalted);
    } else if (isInterrupt) {
      const isAcknowledged = answer === InterruptAnswer.EXIT_ACKNOWLEDGED;
      const taken = isAcknowledged ? this.#acknowledge(vcpu, vector) : -1;
      if (guest.takePosted(taken)) apic.endOfInterrupt();
      else guest.interrupt(taken, isHalted);
    }
    return false;
  }

  /** Chooses the event to inject, or opens an interrupt window for one that must wait. */
  #prepareEvents(vcpu: Vcpu): void {
    const { vmcs, apic } = vcpu;
    // The last entry has reported a device write instead: what it was to inject is still to be.
    if (vmcs.number(Field.ENTRY_INTERRUPTION_INFO) >= INTERRUPTION_VALID) return;
    vmcs.set(Field.ENTRY_INTERRUPTION_INFO, 0);
    let wantsWindow = false;
    const blocking = vmcs.number(Field.GUEST_INTERRUPTIBILITY);
    if (vcpu.event) {
      inject(vcpu, vcpu.event.info, vcpu.event.error, vcpu.event.length);
      vcpu.event = null;
      wantsWindow = apic.pending() >= 0 || this.#extintPending(vcpu);
    } else if (
      apic.nmiPending &&
      (blocking & (BLOCKING_BY_NMI | 3)) === 0 &&
      vmcs.number(Field.GUEST_PENDING_DEBUG) === 0
    ) {
      apic.nmiPending = false;
      inject(vcpu, INTERRUPTION_VALID + (InterruptionType.NMI << 8) + 2, 0, 0);
    } else {
      const vector = apic.pending();
      const extint = vector < 0 && this.#extintPending(vcpu);
      if (vector >= 0 || extint) {
        // Debug traps come first, and would be lost by an injection.
        const open =
          (vmcs.number(Field.GUEST_RFLAGS) & RFLAGS_IF) !== 0 &&
          (blocking & 3) === 0 &&
          vmcs.number(Field.GUEST_PENDING_DEBUG) === 0;
        if (open) this.#acceptInterrupt(vcpu, vector);
        wantsWindow = !open || apic.pending() >= 0 || this.#extintPending(vcpu);
      }
    }
    const primary = vmcs.number(Field.PRIMARY_CONTROLS);
    const wanted = wantsWindow
      ? primary | PrimaryControl.INTERRUPT_WINDOW
      : primary & ~PrimaryControl.INTERRUPT_WINDOW;
    if (wanted >>> 0 !== primary) vmcs.set(Field.PRIMARY_CONTROLS, wanted >>> 0);
  }

  /** The vector: of the local APIC, or of the 8259 if `vector` is negative. */
  #acknowledge(vcpu: Vcpu, vector: number): number {
    if (vector < 0) return this.#vm.controllers.pic.acknowledge() & 0xff;
    vcpu.apic.acknowledge(vector);
    return vector;
  }

  #acceptInterrupt(vcpu: Vcpu, vector: number): void {
    const accepted = this.#acknowledge(vcpu, vector);
    inject(vcpu, INTERRUPTION_VALID + (InterruptionType.EXTERNAL << 8) + accepted, 0, 0);
  }

  /** Where a vCPU is, for a person: registers and the last exits. */
  describe(vcpu: Vcpu): string {
    const { vmcs } = vcpu;
    const hex = (v: bigint): string => v.toString(16).padStart(16, "0");
    const names = [
      "RAX",
      "RCX",
      "RDX",
      "RBX",
      "RSP",
      "RBP",
      "RSI",
      "RDI",
      "R8 ",
      "R9 ",
      "R10",
      "R11",
      "R12",
      "R13",
      "R14",
      "R15",
    ];
    const gpr = names.map(
      (name, n) => `${name}=${hex(vmcs.state.getBigUint64(0x100 + 8 * n, true))}`,
    );
    const rows = [0, 4, 8, 12].map((i) => gpr.slice(i, i + 4).join(" "));
    const last = this.#vm.log
      .last(10)
      .map(
        (r) =>
          `  #${r.seq} ${exitReasonName(r.reason)} qualification ${r.qualification.toString(16)} at RIP ${hex(r.rip)} (t=${r.time} ns)`,
      );
    const services = this.#vm.services.map(
      ({ name, messages, restarts, lastFailure }) =>
        `  ${name}: ${messages} messages, ${restarts} restarts${lastFailure ? `, last: ${lastFailure}` : ""}`,
    );
    return [
      `vCPU ${vcpu.id} ${VCPU_STATE_NAMES[vcpu.state]}`,
      `RIP=${hex(vmcs.big(Field.GUEST_RIP))} RFLAGS=${vmcs.number(Field.GUEST_RFLAGS).toString(16)} CS=${vmcs.number(Field.GUEST_CS_SELECTOR).toString(16)}`,
      `CR0=${hex(vmcs.big(Field.GUEST_CR0))} CR2=${hex(vmcs.state.getBigUint64(0x308, true))} CR3=${hex(vmcs.big(Field.GUEST_CR3))} CR4=${hex(vmcs.big(Field.GUEST_CR4))} EFER=${hex(vmcs.big(Field.GUEST_EFER))}`,
      ...rows,
      "last VM exits:",
      ...last,
      "services:",
      ...services,
    ].join("\n");
  }
}

function inject(vcpu: Vcpu, info: number, error: number, length: number): void {
  const { vmcs } = vcpu;
  vmcs.set(Field.ENTRY_INTERRUPTION_INFO, info);
  vmcs.set(Field.ENTRY_ERROR_CODE, error);
  vmcs.set(Field.ENTRY_INSTRUCTION_LENGTH, length);
}
