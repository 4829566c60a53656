/**
 * Exit dispatch: the kernel's own duties here, everything else as a message to a portal.
 * SDM Vol. 3C, "VM Exits"; mechanisms: route, message, validate, commit.
 */

import { ExitReason, exitReasonName } from "../../processor/isa/exit-reasons.ts";
import { VendorExit, VendorField } from "../../processor/isa/vendor.ts";
import {
  Field,
  INTERRUPTION_ERROR_CODE,
  INTERRUPTION_VALID,
} from "../../processor/isa/vmcs-fields.ts";
import { GPR, S } from "../../processor/state/layout.ts";
import type { Engine } from "../../processor/vmx/engine-port.ts";
import { DeviceAccess, EventKind } from "../abi/message.ts";
import { Status } from "../abi/status.ts";
import { commitReply, fillMessage, skipInstruction } from "./commit.ts";
import { readMsr, writeMsr } from "./msr.ts";
import type { Portal } from "./portal.ts";
import { DEAD, type ServiceCalls } from "./service-calls.ts";
import type { ServiceDomain } from "./service-domain.ts";
import { beginStringIo, endStringIo, type StringElement } from "./string-io.ts";
import { raise, type Vcpu, VcpuState } from "./vcpu.ts";
import type { Vm } from "./vm.ts";

const GP = 13;
const UD = 6;
const CR4_OSXSAVE = 0x4_0000;
/** I/O qualification. SDM Vol. 3C, "Exit Qualification for I/O Instructions". */
const IoBits = { SIZE: 7, IN: 1 << 3, STRING: 1 << 4 } as const;
/** An event visits at most so many services. */
const MAX_HOPS = 4;

export class ExitDispatcher {
  readonly #vm: Vm;
  readonly #engine: Engine;
  readonly #now: () => number;
  readonly #calls: ServiceCalls;

  constructor(vm: Vm, engine: Engine, calls: ServiceCalls, now: () => number) {
    this.#vm = vm;
    this.#engine = engine;
    this.#calls = calls;
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
      case VendorExit.CPL_TRANSITION:
        this.#vm.levels?.(vcpu);
        return;
      case ExitReason.HLT:
        skipInstruction(vmcs);
        // The trap of a single step ends the halt at once.
        if (vmcs.number(Field.GUEST_PENDING_DEBUG) === 0) vcpu.state = VcpuState.BLOCKED_HLT;
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
    const q = vcpu.vmcs.number(Field.EXIT_QUALIFICATION);
    if (q & IoBits.STRING) {
      this.#stringIo(vcpu);
      return;
    }
    const port = Math.floor(q / 0x1_0000) & 0xffff;
    const portal = this.#vm.routes.port(port);
    if (portal) {
      const replied = this.#ask(vcpu, portal, null);
      if (replied) {
        commitReply(replied.message, vcpu);
        return;
      }
      if (this.#vm.end) return;
    }
    this.#ownPort(vcpu, q);
  }

  /** IN or OUT that no service answers: the interrupt controllers', or nobody's. */
  #ownPort(vcpu: Vcpu, q: number): void {
    const state = vcpu.vmcs.state;
    const bytes = ((q & IoBits.SIZE) + 1) as 1 | 2 | 4;
    const port = Math.floor(q / 0x1_0000) & 0xffff;
    if (q & IoBits.IN) {
      const value = this.#readOwnPort(port, bytes);
      if (bytes === 1) state.setUint8(GPR, value);
      else if (bytes === 2) state.setUint16(GPR, value, true);
      else setRegister(state, 0, value);
    } else this.#writeOwnPort(port, bytes, state.getUint32(GPR, true));
    skipInstruction(vcpu.vmcs);
  }

  #readOwnPort(port: number, bytes: 1 | 2 | 4): number {
    const { controllers } = this.#vm;
    return controllers.ownsPort(port) ? controllers.readPort(port, bytes) : 2 ** (8 * bytes) - 1;
  }

  #writeOwnPort(port: number, bytes: 1 | 2 | 4, value: number): void {
    const { controllers } = this.#vm;
    if (controllers.ownsPort(port)) controllers.writePort(port, bytes, value);
  }

  /** One element of INS or OUTS: the kernel does its memory side, the portal sees a plain IN or OUT of RAX. */
  #stringIo(vcpu: Vcpu): void {
    const element = beginStringIo(vcpu, this.#engine);
    if (!element) return;
    const port = Math.floor(element.qualification / 0x1_0000) & 0xffff;
    const portal = this.#vm.routes.port(port);
    const replied = portal && this.#ask(vcpu, portal, element);
    if (this.#vm.end && !replied) return;
    let value = 0;
    if (replied) value = replied.message.registerLow(0);
    else if (element.isInput) value = this.#readOwnPort(port, element.bytes);
    else this.#writeOwnPort(port, element.bytes, element.data);
    endStringIo(vcpu, this.#engine, element, value);
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
    if (portal) {
      const replied = this.#ask(vcpu, portal, null);
      if (replied) {
        commitReply(replied.message, vcpu);
        return;
      }
      if (this.#vm.end) return;
    }
    this.#ownMemory(vcpu, address);
  }

  /** A device page that no service answers: the IOAPIC's, or nobody's. */
  #ownMemory(vcpu: Vcpu, address: number): void {
    const { vmcs } = vcpu;
    const { controllers } = this.#vm;
    const size = vmcs.number(VendorField.DEVICE_SIZE) as 1 | 2 | 4 | 8;
    const isOurs = controllers.ownsMemory(address);
    if (vmcs.number(VendorField.DEVICE_ACCESS) === DeviceAccess.WRITE) {
      const data = vmcs.big(VendorField.DEVICE_WRITE_DATA);
      if (isOurs) controllers.writeMemory(address, size, size === 8 ? data : Number(data));
      return;
    }
    const value = isOurs ? BigInt(controllers.readMemory(address, size)) : ALL_ONES;
    vmcs.setBig(VendorField.DEVICE_READ_REPLY, BigInt.asUintN(8 * size, value));
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

  /**
   * Sends the exit to a portal, and on to where its service passes it. Answers the portal's service with the reply to be committed in its
   * message, or null: nobody handles it, or the VM has ended.
   */
  #ask(vcpu: Vcpu, first: Portal, element: StringElement | null): ServiceDomain | null {
    let portal = first;
    let argument = 0;
    for (let hop = 0; hop < MAX_HOPS; hop++) {
      const { service } = portal;
      const message = this.#calls.open(service);
      if (!message) return this.#dead(vcpu);
      message.kind = EventKind.EXIT;
      message.portal = portal.index;
      if (argument !== 0) message.argument = argument;
      fillMessage(message, vcpu.vmcs, portal);
      if (element) {
        message.qualification = element.qualification;
        message.setRegister(0, element.data, 0);
      }
      vcpu.state = VcpuState.WAIT_SERVICE;
      const status = this.#calls.call(service, vcpu, portal);
      if (status === DEAD) return this.#dead(vcpu);
      vcpu.state = VcpuState.COMMIT;
      if (status === Status.OK) return service;
      if (status !== Status.FORWARD) return null;
      portal = portal.forwards[service.message.stream]!;
      argument = service.message.argument;
    }
    this.#stop("error", `an event went from service to service ${MAX_HOPS} times`);
    return this.#dead(vcpu);
  }

  #dead(vcpu: Vcpu): null {
    vcpu.state = VcpuState.DEAD;
    return null;
  }
}

const ALL_ONES = 0xffff_ffff_ffff_ffffn;

function setRegister(state: DataView, n: number, value: number): void {
  state.setUint32(GPR + 8 * n, value, true);
  state.setUint32(GPR + 8 * n + 4, 0, true);
}
