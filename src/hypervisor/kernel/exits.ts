/**
 * Exit dispatch: the kernel's own duties here, everything else as a message to a portal.
 * SDM Vol. 3C, "VM Exits"; mechanisms: route, message, validate, commit.
 */

import { ExitReason, exitReasonName } from "../../processor/isa/exit-reasons.ts";
import {
  Field,
  INTERRUPTION_ERROR_CODE,
  INTERRUPTION_VALID,
  VendorField,
} from "../../processor/isa/vmcs-fields.ts";
import { GPR, S } from "../../processor/state/layout.ts";
import type { Engine } from "../../processor/vmx/engine-port.ts";
import { DeviceAccess, Message } from "../abi/message.ts";
import type { ServiceProgram } from "../abi/service.ts";
import { Status } from "../abi/status.ts";
import { checkReply, commitReply, fillMessage, skipInstruction } from "./commit.ts";
import { readMsr, writeMsr } from "./msr.ts";
import type { Portal } from "./portal.ts";
import { beginStringIo, endStringIo } from "./string-io.ts";
import { raise, type Vcpu, VcpuState } from "./vcpu.ts";
import type { Vm } from "./vm.ts";

const GP = 13;
const UD = 6;
const CR4_OSXSAVE = 0x4_0000;
const IO_STRING = 1 << 4;

export class ExitDispatcher {
  readonly #vm: Vm;
  readonly #engine: Engine;
  readonly #now: () => number;
  readonly #message = new Message();
  #seq = 0;

  constructor(vm: Vm, engine: Engine, now: () => number) {
    this.#vm = vm;
    this.#engine = engine;
    this.#now = now;
  }

  /** Handles the exit that the VMCS of `vcpu` reports. */
  dispatch(vcpu: Vcpu): void {
    const { vmcs } = vcpu;
    this.#requeueInterruptedEvent(vcpu);
    const reason = vmcs.number(Field.EXIT_REASON);
    switch (reason) {
      case ExitReason.EXTERNAL_INTERRUPT:
      case ExitReason.PREEMPTION_TIMER:
      case ExitReason.INTERRUPT_WINDOW:
      case ExitReason.NMI_WINDOW:
        return;
      case ExitReason.HLT:
        skipInstruction(vmcs);
        // The trap of a single step ends the halt at once.
        if (vmcs.number(Field.GUEST_PENDING_DEBUG) === 0) vcpu.state = VcpuState.HALTED;
        return;
      case ExitReason.CPUID:
        this.#cpuid(vcpu);
        return;
      case ExitReason.RDMSR:
        this.#rdmsr(vcpu);
        return;
      case ExitReason.WRMSR:
        this.#wrmsr(vcpu);
        return;
      case ExitReason.XSETBV:
        this.#xsetbv(vcpu);
        return;
      case ExitReason.IO:
        this.#io(vcpu);
        return;
      case ExitReason.EPT_VIOLATION:
        this.#memory(vcpu);
        return;
      case ExitReason.INVD:
      case ExitReason.WBINVD:
        // Caches are coherent with everything: nothing to write back, nothing to lose.
        skipInstruction(vmcs);
        return;
      case ExitReason.TRIPLE_FAULT:
        this.#stop(
          "triple-fault",
          "the guest had a triple fault: an exception could not be delivered, nor the double fault that followed",
        );
        return;
      case ExitReason.VMCALL:
      case ExitReason.GETSEC:
      case ExitReason.VMCLEAR:
      case ExitReason.VMLAUNCH:
      case ExitReason.VMPTRLD:
      case ExitReason.VMPTRST:
      case ExitReason.VMREAD:
      case ExitReason.VMRESUME:
      case ExitReason.VMWRITE:
      case ExitReason.VMXOFF:
      case ExitReason.VMXON:
      case ExitReason.INVEPT:
      case ExitReason.INVVPID:
      case ExitReason.VMFUNC:
        // A VM without VMX of its own: what a processor without the extension does.
        raise(vcpu, UD);
        return;
      default:
        this.#stop(
          "error",
          `no route for VM exit ${exitReasonName(reason)}${reason >= 0x8000_0000 ? " (VM entry failed)" : ""}`,
        );
    }
  }

  #stop(kind: "triple-fault" | "error" | "killed", message: string): void {
    this.#vm.end ??= { kind, message };
  }

  /** An event whose delivery the exit interrupted is delivered again at the next entry. */
  #requeueInterruptedEvent(vcpu: Vcpu): void {
    const { vmcs } = vcpu;
    const info = vmcs.number(Field.IDT_VECTORING_INFO);
    if (info < INTERRUPTION_VALID) return;
    vcpu.event = {
      info: info - (info & (1 << 12)),
      error: info & INTERRUPTION_ERROR_CODE ? vmcs.number(Field.IDT_VECTORING_ERROR) : 0,
      length: vmcs.number(Field.EXIT_INSTRUCTION_LENGTH),
    };
  }

  #cpuid(vcpu: Vcpu): void {
    const state = vcpu.vmcs.state;
    const leaf = state.getUint32(GPR, true);
    const subleaf = state.getUint32(GPR + 8, true);
    const r = this.#vm.cpuid.query(leaf, subleaf, {
      apicId: vcpu.apic.id,
      cpuCount: this.#vm.vcpus.length,
      osxsave: (vcpu.vmcs.number(Field.GUEST_CR4) & CR4_OSXSAVE) !== 0,
    });
    [r.eax, r.ecx, r.edx, r.ebx].forEach((value, n) => {
      setRegister(state, n, value);
    });
    skipInstruction(vcpu.vmcs);
  }

  #rdmsr(vcpu: Vcpu): void {
    const state = vcpu.vmcs.state;
    const value = readMsr(vcpu, state.getUint32(GPR + 8, true), { now: this.#now() });
    if (value === null) {
      raise(vcpu, GP, 0);
      return;
    }
    setRegister(state, 0, Number(value & 0xffff_ffffn));
    setRegister(state, 2, Number((value >> 32n) & 0xffff_ffffn));
    skipInstruction(vcpu.vmcs);
  }

  #wrmsr(vcpu: Vcpu): void {
    const state = vcpu.vmcs.state;
    const value =
      (BigInt(state.getUint32(GPR + 16, true)) << 32n) | BigInt(state.getUint32(GPR, true));
    if (writeMsr(vcpu, state.getUint32(GPR + 8, true), value, { now: this.#now() }))
      skipInstruction(vcpu.vmcs);
    else raise(vcpu, GP, 0);
  }

  #xsetbv(vcpu: Vcpu): void {
    const state = vcpu.vmcs.state;
    const index = state.getUint32(GPR + 8, true);
    const low = state.getUint32(GPR, true);
    const high = state.getUint32(GPR + 16, true);
    if (index !== 0 || high !== 0 || (low !== 1 && low !== 3)) {
      raise(vcpu, GP, 0);
      return;
    }
    state.setBigUint64(S.XCR0.at, BigInt(low), true);
    skipInstruction(vcpu.vmcs);
  }

  #io(vcpu: Vcpu): void {
    const port = vcpu.vmcs.number(Field.EXIT_QUALIFICATION) / 0x1_0000;
    const portal = this.#vm.routes.port(port & 0xffff);
    if (!portal) this.#stop("error", `no route for I/O port 0x${(port & 0xffff).toString(16)}`);
    else if (vcpu.vmcs.number(Field.EXIT_QUALIFICATION) & IO_STRING) this.#stringIo(vcpu, portal);
    else this.#call(vcpu, portal);
  }

  /** One element of INS or OUTS: the kernel does its memory side, the portal sees a plain IN or OUT of RAX. */
  #stringIo(vcpu: Vcpu, portal: Portal): void {
    const element = beginStringIo(vcpu, this.#engine);
    if (!element) return;
    const message = this.#message;
    fillMessage(message, vcpu.vmcs, portal);
    message.qualification = element.qualification;
    message.setRegister(0, element.data, 0);
    if (!this.#ask(vcpu, portal)) return;
    endStringIo(vcpu, this.#engine, element, message.registerLow(0));
  }

  #memory(vcpu: Vcpu): void {
    const { vmcs, apic } = vcpu;
    const address = vmcs.number(Field.GUEST_PHYSICAL_ADDRESS);
    if (vmcs.number(VendorField.DEVICE_ACCESS) === DeviceAccess.NONE) {
      this.#stop(
        "error",
        `access to guest-physical address 0x${address.toString(16)} that cannot be carried out (page table or code in device space)`,
      );
      return;
    }
    if (
      address >= apic.pageAddress &&
      address < apic.pageAddress + 0x1000 &&
      apic.pageAddress >= 0
    ) {
      this.#apicPage(vcpu, address - apic.pageAddress);
      return;
    }
    const portal = this.#vm.routes.memory(address);
    if (portal) this.#call(vcpu, portal);
    else this.#stop("error", `no route for guest-physical address 0x${address.toString(16)}`);
  }

  #apicPage(vcpu: Vcpu, offset: number): void {
    const { vmcs, apic } = vcpu;
    const isRegister = (offset & 15) === 0;
    const register = offset >>> 4;
    const now = this.#now();
    if (vmcs.number(VendorField.DEVICE_ACCESS) === DeviceAccess.WRITE) {
      if (isRegister)
        apic.write(register, Number(vmcs.big(VendorField.DEVICE_WRITE_DATA) & 0xffff_ffffn), now);
      return;
    }
    const value = apic.read(register, now) >>> 0;
    vmcs.setBig(VendorField.DEVICE_READ_REPLY, BigInt(value) >> BigInt((offset & 3) * 8));
  }

  #call(vcpu: Vcpu, portal: Portal): void {
    fillMessage(this.#message, vcpu.vmcs, portal);
    if (this.#ask(vcpu, portal)) commitReply(this.#message, vcpu);
  }

  /** A program that throws has failed, whatever it threw; the kernel goes on. */
  #handle(program: ServiceProgram, message: Message): Status {
    try {
      return program.onEvent(message);
    } catch (error) {
      this.#stop("error", `service failed: ${String(error)}`);
      return Status.GONE;
    }
  }

  /** Sends the message and checks the reply. Answers false, with the VM ended, if it cannot be committed. */
  #ask(vcpu: Vcpu, portal: Portal): boolean {
    const { service } = portal;
    const message = this.#message;
    message.seq = ++this.#seq;
    service.messages++;
    const program = service.program;
    if (!program) {
      this.#stop("error", `service ${service.name} is not running`);
      return false;
    }
    const status = this.#handle(program, message);
    if (status !== Status.OK || message.seq !== this.#seq) {
      this.#stop(
        "error",
        `service ${service.name} did not answer ${portal.name} (status ${status})`,
      );
      return false;
    }
    const refusal = checkReply(message, vcpu.vmcs, portal);
    if (refusal)
      this.#stop("error", `reply of service ${service.name} to ${portal.name} refused: ${refusal}`);
    return refusal === null;
  }
}

function setRegister(state: DataView, n: number, value: number): void {
  state.setUint32(GPR + 8 * n, value, true);
  state.setUint32(GPR + 8 * n + 4, 0, true);
}
