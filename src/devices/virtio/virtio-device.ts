/**
 * What every virtio device is, whatever it is plugged into: a type, features, a configuration space, queues.
 * Spec: virtio 1.2, "Basic Facilities of a Virtio Device".
 *
 * A device model is driven by its transport (activate, notify, reset, configuration accesses) and by the world through methods of its
 * own. It answers by its queues and its wires. It does nothing before `activate` and after `reset`.
 */
import type { Snapshottable } from "../model.ts";
import type { Virtqueue } from "./virtqueue.ts";

/** Spec: "Device Types". */
export const DeviceType = {
  NET: 1,
  BLOCK: 2,
  CONSOLE: 3,
  ENTROPY: 4,
  BALLOON: 5,
  TRANSPORT_9P: 9,
  SOCKET: 19,
  FILE_SYSTEM: 26,
} as const;

/** Spec: "Device Status Field". */
export const DeviceStatus = {
  ACKNOWLEDGE: 1,
  DRIVER: 2,
  DRIVER_OK: 4,
  FEATURES_OK: 8,
  NEEDS_RESET: 64,
  FAILED: 128,
} as const;

/** Bit numbers. Spec: "Reserved Feature Bits". */
export const Feature = { INDIRECT_DESC: 28, EVENT_IDX: 29, VERSION_1: 32 } as const;

/** What a device has of its transport. */
export interface VirtioLink {
  readonly queues: readonly Virtqueue[];
  /** Between DRIVER_OK and reset, with nothing broken. */
  readonly isActive: boolean;
  /** Whether the driver took the feature. */
  hasFeature(bit: number): boolean;
  /** The device changed `config`. */
  configChanged(): void;
}

export interface VirtioDevice extends Snapshottable {
  readonly type: number;
  /** PCI class, subclass and interface: 0xBBSSPP */
  readonly classCode: number;
  /** Bit numbers of what the device offers, ring features apart. */
  readonly features: readonly number[];
  /** Largest size of each queue: powers of two. */
  readonly queueSizes: readonly number[];
  /** The device configuration space as the driver reads it. */
  readonly config: Uint8Array;
  /** Once, before anything else. */
  connect(link: VirtioLink): void;
  /** The driver wrote to the configuration space; without this it is read-only. */
  writeConfig?(offset: number, size: number, value: number): void;
  /** DRIVER_OK: the queues are set up. */
  activate(): void;
  /** The driver made buffers available in a queue. */
  notify(queue: number): void;
  /** Forgets the driver; what belongs to the world stays. */
  reset(): void;
}
