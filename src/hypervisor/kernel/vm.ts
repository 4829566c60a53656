/**
 * A virtual machine as the kernel knows it: memory, vCPUs, routes, services.
 */
import type { CpuidModel } from "../../processor/isa/cpuid.ts";
import type { EptTables } from "../../processor/memory/ept.ts";
import type { ExitLog } from "./exit-log.ts";
import type { RouteTable } from "./routes.ts";
import type { ServiceDomain } from "./service-domain.ts";
import type { Vcpu } from "./vcpu.ts";

/** Why a VM ended. */
export interface VmEnd {
  readonly kind: "poweroff" | "reset" | "triple-fault" | "killed" | "error";
  readonly message: string;
}

export interface Vm {
  readonly ept: EptTables;
  readonly routes: RouteTable;
  readonly services: ServiceDomain[];
  readonly vcpus: Vcpu[];
  readonly cpuid: CpuidModel;
  readonly log: ExitLog;
  /** Level of the 8259's INTR, and the service that answers its acknowledge cycle. */
  extint: boolean;
  extintService: ServiceDomain | null;
  end: VmEnd | null;
}
