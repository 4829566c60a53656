/**
 * A virtual machine as the kernel knows it: memory, vCPUs, routes, services.
 */
import type { CpuidModel } from "../../processor/isa/cpuid.ts";
import type { EptTables } from "../../processor/memory/ept.ts";
import type { ExitLog } from "./exit-log.ts";
import type { InterruptControllers } from "./interrupt-controllers.ts";
import type { Ledger } from "./ledger.ts";
import type { RouteTable } from "./routes.ts";
import type { ServiceDomain } from "./service-domain.ts";
import type { Vcpu } from "./vcpu.ts";

/** Why a VM ended. */
export interface VmEnd {
  readonly kind: "poweroff" | "reset" | "triple-fault" | "killed" | "error";
  readonly message: string;
}

/** Brings guest memory to where it belongs before anybody looks at it. */
export interface Pager {
  /** [address, address + length) of RAM is about to be read or written. */
  ensure(address: number, length: number): void;
}

export interface Vm {
  readonly ept: EptTables;
  /** Bytes of RAM, from guest-physical 0. */
  readonly memoryBytes: number;
  readonly routes: RouteTable;
  readonly services: ServiceDomain[];
  readonly vcpus: Vcpu[];
  readonly controllers: InterruptControllers;
  readonly cpuid: CpuidModel;
  readonly log: ExitLog;
  readonly ledger: Ledger;
  /** If its memory is still somewhere else, in part. */
  readonly pager?: Pager | undefined;
  /** Who wants to know of exits on privilege level, which only it asks for. */
  levels: ((vcpu: Vcpu) => void) | null;
  end: VmEnd | null;
}
