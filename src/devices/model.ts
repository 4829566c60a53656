/**
 * The one shape of every device: wires passed in, one plain state object, nothing else.
 *
 * A device is driven by three callers: the guest (port or MMIO accesses), time (TimedDevice), and the world (methods of the
 * concrete device, such as received bytes). It answers through its wires. It never reads a clock of the embedder, never throws
 * on anything a guest does, and does a bounded amount of work for each call.
 *
 * Time is in nanoseconds of the VM since machine start, an exact integer below 2^53.
 * Not here: who maps ranges (port-bus.ts, mmio-bus.ts) and who owns the devices (the monitor service).
 */
export type PortSize = 1 | 2 | 4;
export type MmioSize = 1 | 2 | 4 | 8;

export interface Clock {
  /** Nanoseconds since machine start; never goes back. */
  now(): number;
}

/** A wire. true = asserted, whatever the electrical polarity. Setting the level it already has is harmless. */
export interface IrqLine {
  set(level: boolean): void;
}

export interface TimedDevice {
  /** ns of the next internal event, Infinity if none; after advance(now) it is later than now. */
  deadline(): number;
  /** Runs all events due at or before now, with work independent of how many they are. */
  advance(now: number): void;
}

export interface PortDevice {
  /** `port` is the absolute port number; the result is unsigned and below 2^(8*size). */
  readPort(port: number, size: PortSize): number;
  writePort(port: number, size: PortSize, value: number): void;
}

export interface MmioDevice {
  /** `offset` is relative to the device's window; a bigint may be answered for size 8 only. */
  readMmio(offset: number, size: MmioSize): number | bigint;
  writeMmio(offset: number, size: MmioSize, value: number | bigint): void;
}

export interface Snapshottable {
  /** JSON-able values and Uint8Array, sharing nothing with the device. */
  save(): unknown;
  /** Throws HypolithError "snapshot-shape" and changes nothing if the state is not one of this device. Drives no wire. */
  restore(state: unknown): void;
}

/** An interrupt message on the APIC bus: IOAPIC redirection entries and MSIs (SDM Vol. 3A, "Message Signalled Interrupts"). */
export interface InterruptMessage {
  readonly vector: number;
  /** DeliveryMode */
  readonly deliveryMode: number;
  /** 0 physical, 1 logical */
  readonly destMode: 0 | 1;
  readonly dest: number;
  readonly level: boolean;
  /** 0 edge, 1 level */
  readonly trigger: 0 | 1;
}

export const DeliveryMode = {
  FIXED: 0,
  LOWEST_PRIORITY: 1,
  SMI: 2,
  NMI: 4,
  INIT: 5,
  EXTINT: 7,
} as const;

/** What a read of nothing answers: a bus that nobody drives floats high. */
export function allOnes(size: MmioSize): number | bigint {
  return size === 8 ? 0xffff_ffff_ffff_ffffn : 2 ** (8 * size) - 1;
}
