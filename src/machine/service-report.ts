/** What the services of a VM are and have done, in the words of the control protocol. */
import type { ServiceReport, ServicesReport } from "../control/protocol.ts";
import type { Placement } from "../hypervisor/kernel/placement.ts";
import type { Capabilities, ServiceDomain } from "../hypervisor/kernel/service-domain.ts";
import type { Vm } from "../hypervisor/kernel/vm.ts";

export function reportServices({ ledger, services }: Vm): ServicesReport {
  const servicesMs = services.reduce((sum, { account }) => sum + account.ms, 0);
  return {
    activeMs: ledger.guest.ms + ledger.kernel.ms + servicesMs,
    guestMs: ledger.guest.ms,
    kernelMs: ledger.kernel.ms,
    services: services.map(reportService),
  };
}

function reportService(service: ServiceDomain): ServiceReport {
  const { name, messages, vcpuMs, restarts, lastFailure, longestStallMs, checkpoints } = service;
  return {
    ...{ name, messages, vcpuMs, restarts, lastFailure, longestStallMs, checkpoints },
    placement: service.placement?.kind ?? "gone",
    rights: rightsOf(service.capabilities),
    ms: service.account.ms,
    journal: service.journal.entries,
  };
}

function rightsOf(capabilities: Capabilities): string[] {
  const { lines, messages, streams, stops, windows, decodeRights } = capabilities;
  const list = (name: string, items: readonly unknown[]): string[] =>
    items.length > 0 ? [`${name} ${items.join(",")}`] : [];
  const hex = (n: number): string => n.toString(16);
  return [
    ...list("lines", lines),
    ...(messages ? ["msi"] : []),
    ...list("streams", streams),
    ...list("may", stops),
    ...windows.map(
      ({ from, to, write }) => `memory ${hex(from)}-${hex(to)}${write ? "" : " read"}`,
    ),
    ...decodeRights.map(({ space, from, to }) => `decode ${space} ${hex(from)}-${hex(to)}`),
  ];
}

/** Whether a program that does not answer can be ended. */
export function canBeInterrupted({ kind }: Placement): boolean {
  return kind !== "linked" && kind !== "inline";
}
