/**
 * Hypercalls of a service domain: each checked against its capabilities, refused with a Status.
 */
import type { ApicMessage, Hypercalls, StopKind } from "../abi/service.ts";
import { Status } from "../abi/status.ts";
import type { ServiceDomain } from "./service-domain.ts";
import type { Vm } from "./vm.ts";

export interface KernelPorts {
  /** Virtual time in ns. */
  now(): number;
  /** Bytes for a stream of the embedder. */
  put(stream: number, bytes: Uint8Array): void;
  log(text: string): void;
}

const MAX_PUT = 1 << 16;

export function createHypercalls(vm: Vm, service: ServiceDomain, ports: KernelPorts): Hypercalls {
  const { capabilities } = service;
  return {
    now: () => ports.now(),
    setTimer(deadlineNs) {
      if (Number.isNaN(deadlineNs)) return Status.INVALID;
      service.deadline = deadlineNs;
      return Status.OK;
    },
    sendInterrupt(message) {
      if (!capabilities.interrupts) return Status.DENIED;
      return deliverInterrupt(vm, message) ? Status.OK : Status.GONE;
    },
    setExtint(level) {
      if (!capabilities.interrupts) return Status.DENIED;
      vm.extint = level;
      vm.extintService = service;
      return Status.OK;
    },
    put(stream, bytes) {
      if (!capabilities.streams.includes(stream)) return Status.DENIED;
      if (bytes.length > MAX_PUT) return Status.LIMIT;
      ports.put(stream, bytes);
      return Status.OK;
    },
    stop(kind: StopKind) {
      if (!capabilities.power) return Status.DENIED;
      vm.end ??= {
        kind,
        message:
          kind === "poweroff" ? "the guest turned the power off" : "the guest asked for a reset",
      };
      return Status.OK;
    },
    log(text) {
      ports.log(`${service.name}: ${text}`);
      return Status.OK;
    },
  };
}

const LOWEST_PRIORITY = 1;

/** Routes an interrupt message to the local APICs it names. */
export function deliverInterrupt(vm: Vm, message: ApicMessage): boolean {
  const { vector, deliveryMode, destMode, dest, trigger } = message;
  let delivered = false;
  for (const vcpu of vm.vcpus) {
    if (!vcpu.apic.matches(destMode, dest)) continue;
    delivered = vcpu.apic.deliver(deliveryMode, vector, trigger) || delivered;
    if (delivered && deliveryMode === LOWEST_PRIORITY) break;
  }
  return delivered;
}
