/** The kernel's service calls without a processor: a VM of RAM and one vCPU's VMCS, and services of the test's own making. */
import { openLinked, SameThread } from "../../../machine/placements/same-thread.ts";
import { RAM_BASE } from "../../../processor/state/layout.ts";
import type { Engine } from "../../../processor/vmx/engine-port.ts";
import { Vmcs } from "../../../processor/vmx/vmcs.ts";
import { EventKind, StateGroup } from "../../abi/message.ts";
import type { ServiceFactory } from "../../abi/service.ts";
import type { Status } from "../../abi/status.ts";
import { fillMessage } from "../commit.ts";
import { ExitLog } from "../exit-log.ts";
import { InterruptControllers } from "../interrupt-controllers.ts";
import { Ledger } from "../ledger.ts";
import { LocalApic } from "../local-apic.ts";
import type { Placement, PlacementPort } from "../placement.ts";
import type { Portal } from "../portal.ts";
import { RouteTable } from "../routes.ts";
import { DEAD, ServiceCalls } from "../service-calls.ts";
import {
  type Capabilities,
  DEFAULT_POLICY,
  NO_CAPABILITIES,
  ServiceDomain,
  type ServicePolicy,
} from "../service-domain.ts";
import { Vcpu } from "../vcpu.ts";
import type { Vm } from "../vm.ts";

const RAM_BYTES = 0x1_0000;

export class ServiceBench {
  time = 0;
  readonly puts: [stream: number, text: string][] = [];
  readonly moves: { stream: number; toMemory: boolean; header: number[]; bytes: number[] }[] = [];
  readonly logs: string[] = [];
  /** Guest-physical address and length. */
  readonly noticed: [address: number, length: number][] = [];
  readonly ram: Uint8Array;
  readonly vm: Vm;
  readonly vcpu: Vcpu;
  readonly calls: ServiceCalls;

  /** `vmcs`: of a guest that could be entered, where that matters. */
  constructor(vmcs = new Vmcs()) {
    const view = new DataView(new ArrayBuffer(RAM_BASE + RAM_BYTES));
    this.ram = new Uint8Array(view.buffer, RAM_BASE, RAM_BYTES);
    const noticeWrite = (host: number, length: number): void => {
      this.noticed.push([host - RAM_BASE, length]);
    };
    const engine = { view, noticeWrite } as unknown as Engine;
    const vcpus: Vcpu[] = [];
    this.vm = {
      ept: null as never,
      memoryBytes: RAM_BYTES,
      routes: new RouteTable(),
      services: [],
      vcpus,
      controllers: new InterruptControllers(() => {}),
      cpuid: null as never,
      log: new ExitLog(),
      ledger: new Ledger(() => performance.now()),
      levels: null,
      end: null,
    };
    const apic = new LocalApic(0, { eoi() {}, ipi() {} }, true);
    this.vcpu = new Vcpu(0, vmcs, apic);
    vcpus.push(this.vcpu);
    this.calls = new ServiceCalls(this.vm, engine, {
      now: () => this.time,
      move: (stream, toMemory, header, segments) => {
        if (toMemory) for (const [i, segment] of segments.entries()) segment.fill(i + 1);
        const bytes = segments.flatMap((segment) => [...segment]);
        this.moves.push({ stream, toMemory, header: [...header], bytes });
      },
      put: (stream, bytes) => this.puts.push([stream, new TextDecoder().decode(bytes)]),
      log: (text) => this.logs.push(text),
    });
  }

  /** Starts a program that is linked with us. */
  service(
    factory: ServiceFactory,
    capabilities: Partial<Capabilities> = {},
    policy: Partial<ServicePolicy> = {},
  ): ServiceDomain {
    const all = { ...NO_CAPABILITIES, ...capabilities };
    const image = (port: PlacementPort): Placement =>
      new SameThread("linked", openLinked(factory, { options: {}, grants: all }, port));
    return this.placed(image, all, policy);
  }

  /** Starts a service from any image. */
  placed(
    image: (port: PlacementPort) => Placement,
    capabilities: Capabilities = NO_CAPABILITIES,
    policy: Partial<ServicePolicy> = {},
  ): ServiceDomain {
    const domain = new ServiceDomain({
      name: "test",
      number: this.vm.services.length,
      capabilities,
      policy: { ...DEFAULT_POLICY, ...policy },
      image,
    });
    this.vm.services.push(domain);
    this.calls.prepare(domain);
    this.calls.start(domain);
    return domain;
  }

  portal(service: ServiceDomain, fields: Partial<Portal> = {}): Portal {
    return {
      ...{ name: "io", service, index: 0, forwards: [] },
      stateIn: StateGroup.EXIT | StateGroup.RIP | StateGroup.LOW_REGISTERS,
      stateOut: StateGroup.RIP | StateGroup.LOW_REGISTERS,
      ...fields,
    };
  }

  /** One exit to a portal, without its commit to the guest. */
  exit(portal: Portal, qualification = 0): Status | typeof DEAD {
    const message = this.calls.open(portal.service);
    if (!message) return DEAD;
    message.kind = EventKind.EXIT;
    message.portal = portal.index;
    fillMessage(message, this.vcpu.vmcs, portal);
    message.qualification = qualification;
    return this.calls.call(portal.service, this.vcpu, portal);
  }

  /** An input of one byte. */
  input(service: ServiceDomain, byte: number): Status | typeof DEAD {
    const message = this.calls.open(service);
    if (!message) return DEAD;
    message.kind = EventKind.INPUT;
    message.dataBytes = 1;
    message.bytes[256] = byte;
    return this.calls.call(service, null, null);
  }
}
