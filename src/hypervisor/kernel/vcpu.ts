/**
 * A virtual processor of a VM: its VMCS, its local APIC, and the events that wait for it.
 */
import { INTERRUPTION_ERROR_CODE, INTERRUPTION_VALID } from "../../processor/isa/vmcs-fields.ts";
import { S } from "../../processor/state/layout.ts";
import type { Vmcs } from "../../processor/vmx/vmcs.ts";
import type { LocalApic } from "./local-apic.ts";

/** An event that VM entry is to deliver: interruption information, error code, instruction length. */
export interface QueuedEvent {
  readonly info: number;
  readonly error: number;
  readonly length: number;
}

/** Where a vCPU is between two entries. A call of a service returns before anything else runs, so most states are seen in dumps only. */
export const VcpuState = {
  RUNNABLE: 0,
  IN_GUEST: 1,
  /** An exit waits to be handled. */
  TRAPPED: 2,
  /** A portal has been called and not replied yet; nothing of the exit has been committed. */
  WAIT_SERVICE: 3,
  /** The reply has been found good. */
  COMMIT: 4,
  BLOCKED_HLT: 5,
  DEAD: 6,
} as const;

export const VCPU_STATE_NAMES = [
  "RUNNABLE",
  "IN_GUEST",
  "TRAPPED",
  "WAIT_SERVICE",
  "COMMIT",
  "BLOCKED_HLT",
  "DEAD",
];

export class Vcpu {
  readonly id: number;
  readonly vmcs: Vmcs;
  readonly apic: LocalApic;
  state: number = VcpuState.RUNNABLE;
  /** An event whose delivery an exit interrupted, or an exception to inject. */
  event: QueuedEvent | null = null;
  /** MSRs that the kernel keeps for the guest and that have no other effect here. */
  readonly msrs = new Map<number, bigint>();

  constructor(id: number, vmcs: Vmcs, apic: LocalApic) {
    this.id = id;
    this.vmcs = vmcs;
    this.apic = apic;
  }
}

const HARDWARE_EXCEPTION = 3 << 8;

const RFLAGS_RF = 0x1_0000;

/** Sets RFLAGS.RF, which VM entry does not do: the image that a fault pushes, and an instruction that goes on, have it. */
export function setResumeFlag(vcpu: Vcpu): void {
  const { state } = vcpu.vmcs;
  state.setUint32(S.RFLAGS_REST.at, state.getUint32(S.RFLAGS_REST.at, true) | RFLAGS_RF, true);
}

/** Injects a fault at the next entry. */
export function raise(vcpu: Vcpu, vector: number, error?: number): void {
  setResumeFlag(vcpu);
  const info = INTERRUPTION_VALID + HARDWARE_EXCEPTION + vector;
  vcpu.event = {
    info: error === undefined ? info : info + INTERRUPTION_ERROR_CODE,
    error: error ?? 0,
    length: 0,
  };
}
