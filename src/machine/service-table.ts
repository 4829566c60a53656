/**
 * The services of a VM: what each may do, and which accesses reach it. The one place that gives rights.
 */

import { HPET_FIRST_PIN, HPET_PINS } from "../devices/platform/hpet.ts";
import { Gsi, Irq, MemoryMap, Port, SERIAL_PORTS } from "../devices/platform/platform-map.ts";
import type { ServiceFactory } from "../hypervisor/abi/service.ts";
import { type Capabilities, NO_CAPABILITIES } from "../hypervisor/kernel/service-domain.ts";
import { createService as createConsole } from "../services/console/console.ts";
import { createService as createPci, type PciOptions } from "../services/pci/pci.ts";
import { createService as createTimers } from "../services/timers/timers.ts";
import type { VirtioDeviceOptions, VirtioServiceOptions } from "../services/virtio/options.ts";
import { createService as createVirtio } from "../services/virtio/virtio.ts";

/** A range of ports or addresses, `to` inclusive. */
export type Range = readonly [from: number, to: number];

export interface ServiceSpec {
  readonly name: string;
  /** The program's module below src/services, for placements that load it as an image. */
  readonly module: string;
  /** The same program, linked with us. */
  readonly factory: ServiceFactory;
  readonly capabilities: Capabilities;
  readonly ports: readonly Range[];
  readonly memory: readonly Range[];
  /** Streams of the embedder whose bytes it gets. */
  readonly input: readonly number[];
  /** Gets the power button. */
  readonly powerButton?: boolean;
  /** Is told when the VM goes on from a snapshot. */
  readonly hearsOfResuming?: boolean;
  /** Which plain data of the configuration it is told. */
  readonly options?: (config: { readonly rtcEpochMs: number }) => unknown;
  /** Services by name whose portals of the same kind it may pass events on to. */
  readonly forwardsTo?: readonly string[];
}

const span = (base: number, length: number): Range => [base, base + length - 1];
const INTX_LINES = 4;

export const SERVICES: readonly ServiceSpec[] = [
  {
    name: "console",
    module: "console/console",
    factory: createConsole,
    capabilities: {
      ...NO_CAPABILITIES,
      lines: SERIAL_PORTS.map(({ irq }) => irq),
      streams: SERIAL_PORTS.map((_, i) => i),
    },
    ports: SERIAL_PORTS.map(({ base }) => span(base, 8)),
    memory: [],
    input: SERIAL_PORTS.map((_, i) => i),
  },
  {
    name: "timers",
    module: "timers/timers",
    factory: createTimers,
    capabilities: {
      ...NO_CAPABILITIES,
      lines: [
        ...[Irq.PIT, Irq.RTC, Irq.SCI],
        ...Array.from({ length: HPET_PINS }, (_, i) => HPET_FIRST_PIN + i),
      ],
      stops: ["poweroff"],
    },
    ports: [
      span(Port.PIT, 4),
      span(Port.SYSTEM_CONTROL_B, 1),
      span(Port.RTC_INDEX, 2),
      [Port.PM1_EVENT, Port.PM_END - 1],
    ],
    memory: [span(MemoryMap.HPET_BASE, MemoryMap.HPET_SIZE)],
    input: [],
    powerButton: true,
    hearsOfResuming: true,
    options: ({ rtcEpochMs }) => ({ rtcEpochMs }),
  },
  {
    name: "pci",
    module: "pci/pci",
    factory: createPci,
    capabilities: {
      ...NO_CAPABILITIES,
      lines: Array.from({ length: INTX_LINES }, (_, i) => Gsi.PCI_INTX + i),
      stops: ["reset"],
    },
    ports: [
      span(Port.KEYBOARD_DATA, 1),
      span(Port.KEYBOARD_COMMAND, 1),
      span(Port.POST, 1),
      span(Port.DEBUG, 1),
      span(Port.SYSTEM_CONTROL_A, 1),
      span(Port.PCI_ADDRESS, 8),
      [Port.PCI_IO_BASE, 0xffff],
    ],
    memory: [span(MemoryMap.ECAM_BASE, MemoryMap.ECAM_SIZE)],
    input: [],
    options: () => ({ slots: [] }) satisfies PciOptions,
  },
];

/** The services of one VM: those that all have, and one for each virtio device, behind the pci service. */
export function servicesOf(devices: readonly VirtioDevicePlan[]): readonly ServiceSpec[] {
  if (devices.length === 0) return SERVICES;
  const slots = devices.map((_, i) => FIRST_VIRTIO_SLOT + i);
  const names = devices.map(({ name }) => name);
  const platform = SERVICES.map((spec) =>
    spec.module !== PCI_MODULE
      ? spec
      : {
          ...spec,
          capabilities: { ...spec.capabilities, forwards: devices.length },
          options: () => ({ slots }) satisfies PciOptions,
          forwardsTo: names,
        },
  );
  return [...platform, ...devices.map((plan, i) => virtioService(plan, slots[i]!))];
}

/** A virtio device that a VM shall have. */
export interface VirtioDevicePlan {
  /** The name of its service: "disk0". */
  readonly name: string;
  readonly device: VirtioDeviceOptions;
  /** Ends of guest RAM below and above the hole at 640 KiB. */
  readonly memoryBytes: number;
}

const FIRST_VIRTIO_SLOT = 1;
const PCI_MODULE = "pci/pci";

function virtioService({ name, device, memoryBytes }: VirtioDevicePlan, slot: number): ServiceSpec {
  const gsi = Gsi.PCI_INTX + (slot % INTX_LINES);
  return {
    name,
    module: "virtio/virtio",
    factory: createVirtio,
    capabilities: {
      ...NO_CAPABILITIES,
      lines: [gsi],
      messages: true,
      streams: [device.stream],
      windows: [
        { from: 0, to: MemoryMap.LOW_RAM_END, write: true },
        { from: MemoryMap.HIGH_RAM_BASE, to: memoryBytes, write: true },
      ],
      decodes: { slots: 1 },
      decodeRights: [
        { space: "memory", from: MemoryMap.PCI_MMIO_BASE, to: MemoryMap.PCI_MMIO_END },
      ],
    },
    ports: [],
    memory: [],
    input: [device.stream],
    hearsOfResuming: device.kind === "socket",
    options: () => ({ device, gsi }) satisfies VirtioServiceOptions,
  };
}
