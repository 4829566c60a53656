/**
 * All that the kernel knows of a VM between two of its steps, as plain data (abi/state-codec.ts): what a snapshot keeps beside memory and the
 * processor's state block. Services' states are what they save for their own restarts.
 */
import type { GuestVmxState } from "../../processor/vmx/guest/guest-vmx.ts";
import type { SavedApic } from "./local-apic.ts";
import type { ServiceDomain } from "./service-domain.ts";
import type { QueuedEvent, Vcpu } from "./vcpu.ts";
import type { Vm } from "./vm.ts";

export interface VmState {
  readonly vcpus: readonly SavedVcpu[];
  readonly controllers: unknown;
  readonly decoded: readonly SavedDecoding[];
  readonly services: readonly SavedService[];
  /** Numbers of the next exit and of the last message. */
  readonly exits: number;
  readonly seq: number;
  /** Of the guest's own VMX; null without. */
  readonly guestVmx: GuestVmxState | null;
}

interface SavedVcpu {
  readonly state: number;
  readonly event: QueuedEvent | null;
  readonly msrs: readonly (readonly [number, bigint])[];
  readonly apic: SavedApic;
  readonly fields: readonly (readonly [number, bigint])[];
}

interface SavedDecoding {
  readonly owner: number;
  readonly slot: number;
  readonly space: "memory" | "ports";
  readonly base: number;
  readonly size: number;
}

export interface SavedService {
  readonly name: string;
  /** What its placement saved. */
  readonly state: unknown;
  readonly deadline: number;
  readonly timerFloor: number;
  readonly messages: number;
}

/** Of services that have just been checkpointed. */
export function saveVm(vm: Vm, seq: number, guestVmx: GuestVmxState | null): VmState {
  return {
    vcpus: vm.vcpus.map(({ state, event, msrs, apic, vmcs }) => ({
      ...{ state, event, msrs: [...msrs] },
      apic: apic.save(),
      fields: vmcs.saveFields(),
    })),
    controllers: vm.controllers.save(),
    decoded: vm.routes.decoded.map(({ portal: _, ...range }) => range),
    services: vm.services.map(({ name, checkpoint, deadline, timerFloor, messages }) => ({
      ...{ name, deadline, timerFloor, messages },
      state: checkpoint!.state,
    })),
    exits: vm.log.total,
    ...{ seq, guestVmx },
  };
}

/** Everything but the services' programs, which restoreService gets ready. The VM has the services that the state is of, in their order. */
export function restoreVm(vm: Vm, state: VmState): void {
  for (const [i, saved] of state.vcpus.entries()) restoreVcpu(vm.vcpus[i]!, saved);
  vm.controllers.restore(state.controllers);
  for (const range of state.decoded) {
    const { decodePortals } = vm.services[range.owner]!;
    vm.routes.decode({ ...range, portal: decodePortals[range.space] });
  }
  vm.log.continueAt(state.exits);
}

function restoreVcpu(vcpu: Vcpu, { state, event, msrs, apic, fields }: SavedVcpu): void {
  vcpu.state = state;
  vcpu.event = event;
  for (const [index, value] of msrs) vcpu.msrs.set(index, value);
  vcpu.apic.restore(apic);
  vcpu.vmcs.restoreFields(fields);
}

export function restoreService(service: ServiceDomain, saved: SavedService): void {
  service.checkpoint = { state: saved.state };
  service.deadline = saved.deadline;
  service.timerFloor = saved.timerFloor;
  service.messages = saved.messages;
}
