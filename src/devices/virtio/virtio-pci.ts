/**
 * The PCI transport: one virtio device as a PCI function of the modern interface, with MSI-X, or INTx without it.
 * Spec: virtio 1.2, "Virtio Over PCI Bus"; PCI Local Bus Specification 3.0.
 *
 * One 32-bit memory BAR holds everything, a page each: common configuration, ISR status, device configuration, notifications (four bytes
 * a queue), MSI-X table, pending bits. Whatever a driver does ends at worst in DEVICE_NEEDS_RESET.
 * While the guest has bus mastering switched off, the device takes no notification and sends no message.
 *
 * Not here: the queues' rules (virtqueue.ts), feature negotiation (common-config.ts). Not offered: the legacy interface, packed
 * queues, queue reset, notification data.
 */
import { toDword } from "../mmio-access.ts";
import type { MmioDevice, PortSize, Snapshottable } from "../model.ts";
import { PciCommand, PciFunction, PciRegister } from "../platform/pci-function.ts";
import { restoreState, saveState } from "../state.ts";
import { COMMON_BYTES, CommonConfig, NO_VECTOR } from "./common-config.ts";
import type { GuestMemory } from "./guest-memory.ts";
import { Msix, type SendMessage } from "./msix.ts";
import { readRegister } from "./register-file.ts";
import { DeviceStatus, Feature, type VirtioDevice, type VirtioLink } from "./virtio-device.ts";
import { Virtqueue } from "./virtqueue.ts";

const VENDOR = 0x1af4;
const FIRST_DEVICE_ID = 0x1040;
/** "Revision ID 1 or higher", "PCI Subsystem Device ID 0x40 or higher" */
const REVISION = 1;
const SUBSYSTEM = 0x40;

const BAR = 0;
const BAR_SIZE = 0x8000;
const PAGE = 0x1000;
/** Pages of the BAR. */
export const Window = { COMMON: 0, ISR: 1, DEVICE: 2, NOTIFY: 3, MSIX: 4, PENDING: 5 } as const;
export const NOTIFY_MULTIPLIER = 4;

const VENDOR_CAPABILITY = 0x09;
/** cfg_type. Spec: "Virtio Structure PCI Capabilities". */
export const CapabilityType = { COMMON: 1, NOTIFY: 2, ISR: 3, DEVICE: 4, PCI: 5 } as const;
/** Offsets in a capability, from its start. */
const CapabilityAt = { BAR: 4, OFFSET: 8, LENGTH: 12, DATA: 16 } as const;

const Isr = { QUEUE: 1, CONFIG: 2 } as const;

export interface VirtioPciWires {
  readonly memory: GuestMemory;
  readonly send: SendMessage;
  /** Why a driver was refused: for the log. */
  readonly refused?: (reason: string) => void;
}

export class VirtioPci implements Snapshottable {
  /** To be plugged into a PCI host, which saves and restores it, or to be served by whoever has the device. */
  readonly pci: PciFunction;
  readonly device: VirtioDevice;
  readonly #queues: readonly Virtqueue[];
  readonly #common: CommonConfig;
  readonly #msix: Msix;
  readonly #windows: readonly MmioDevice[];
  readonly #wires: VirtioPciWires;
  readonly #configAccess: number;
  readonly #state = { isr: 0 };

  constructor(device: VirtioDevice, wires: VirtioPciWires) {
    this.device = device;
    this.#wires = wires;
    this.pci = new PciFunction({
      vendor: VENDOR,
      device: FIRST_DEVICE_ID + device.type,
      subsystemVendor: VENDOR,
      subsystem: SUBSYSTEM,
      revision: REVISION,
      classCode: device.classCode,
      interruptPin: 1,
      regions: [{ bar: BAR, kind: "memory32", size: BAR_SIZE, device: this.#bar }],
    });
    this.#queues = device.queueSizes.map(
      (size, queue) =>
        new Virtqueue(size, wires.memory, {
          interrupt: () => this.#interrupt(Isr.QUEUE, this.#common.queueVector(queue)),
          broken: (reason) => this.#breakDown(`queue ${queue}: ${reason}`),
        }),
    );
    const vectors = device.queueSizes.length + 1;
    const place = {
      bar: BAR,
      tableOffset: Window.MSIX * PAGE,
      pendingOffset: Window.PENDING * PAGE,
    };
    this.#msix = new Msix(this.pci, vectors, place, wires.send);
    const features = [
      ...device.features,
      Feature.INDIRECT_DESC,
      Feature.EVENT_IDX,
      Feature.VERSION_1,
    ];
    this.#common = new CommonConfig(this.#queues, features, {
      vectors,
      activate: () => this.device.activate(),
      reset: () => this.#reset(),
    });
    this.#windows = this.#createWindows();
    this.#configAccess = this.#addCapabilities();
    this.pci.onConfigWrite((offset, size) => this.#followConfig(offset, size));
    this.pci.onConfigRead((offset, size) => this.#prepareConfig(offset, size));
    device.connect(this.#link());
  }

  save(): unknown {
    return {
      ...(saveState(this.#state) as object),
      common: this.#common.save(),
      msix: this.#msix.save(),
      queues: this.#queues.map((queue) => saveState(queue.state)),
      device: this.device.save(),
    };
  }

  /** Reads no guest memory. */
  restore(state: unknown): void {
    const saved = state as {
      common?: unknown;
      msix?: unknown;
      queues?: unknown[];
      device?: unknown;
    } | null;
    restoreState(this.#state, state);
    this.#common.restore(saved?.common);
    this.#msix.restore(saved?.msix);
    for (const [i, queue] of this.#queues.entries()) restoreState(queue.state, saved?.queues?.[i]);
    for (const queue of this.#queues) queue.resume(this.#common.ringFeatures);
    this.device.restore(saved?.device);
  }

  #link(): VirtioLink {
    const transport = this;
    return {
      queues: this.#queues,
      get isActive() {
        return transport.#isActive();
      },
      hasFeature: (bit) => this.#common.hasFeature(bit),
      configChanged: () => {
        this.#common.nextGeneration();
        if (this.#isActive()) this.#interrupt(Isr.CONFIG, this.#common.configVector);
      },
    };
  }

  #isActive(): boolean {
    const wanted = DeviceStatus.DRIVER_OK;
    const { status } = this.#common;
    return (status & (wanted | DeviceStatus.NEEDS_RESET)) === wanted;
  }

  #breakDown(reason: string): void {
    const hadDriver = (this.#common.status & DeviceStatus.DRIVER_OK) !== 0;
    this.#common.needReset();
    this.#wires.refused?.(reason);
    if (hadDriver) this.#interrupt(Isr.CONFIG, this.#common.configVector);
  }

  #interrupt(cause: number, vector: number): void {
    if (this.#msix.isEnabled) {
      if (vector !== NO_VECTOR) this.#msix.trigger(vector);
      return;
    }
    this.#state.isr |= cause;
    this.pci.setInterrupt(true);
  }

  /** Status 0. The MSI-X table is PCI's and stays. */
  #reset(): void {
    for (const queue of this.#queues) queue.reset();
    this.#state.isr = 0;
    this.pci.setInterrupt(false);
    this.device.reset();
  }

  #notify(queue: number): void {
    const isReachable = this.#isActive() && this.pci.isEnabled(PciCommand.BUS_MASTER);
    if (isReachable && this.#queues[queue]?.isLive) this.device.notify(queue);
  }

  // ---- the BAR ----

  readonly #bar: MmioDevice = {
    readMmio: (offset, size) =>
      this.#windows[Math.floor(offset / PAGE)]?.readMmio(offset % PAGE, size) ??
      (size === 8 ? 0n : 0),
    writeMmio: (offset, size, value) =>
      this.#windows[Math.floor(offset / PAGE)]?.writeMmio(offset % PAGE, size, value),
  };

  #createWindows(): MmioDevice[] {
    const { device } = this;
    const windows: MmioDevice[] = [];
    windows[Window.COMMON] = this.#common;
    windows[Window.ISR] = {
      readMmio: (offset, size) => (offset === 0 ? this.#takeIsr() : size === 8 ? 0n : 0),
      writeMmio: () => {},
    };
    windows[Window.DEVICE] = {
      readMmio: (offset, size) => readRegister(device.config, offset, size),
      writeMmio: (offset, size, value) => {
        const fits = size !== 8 && offset + size <= device.config.length;
        if (fits) device.writeConfig?.(offset, size, toDword(value));
      },
    };
    windows[Window.NOTIFY] = {
      readMmio: (_, size) => (size === 8 ? 0n : 0),
      writeMmio: (offset) => this.#notify(Math.floor(offset / NOTIFY_MULTIPLIER)),
    };
    windows[Window.MSIX] = this.#msix.table;
    windows[Window.PENDING] = this.#msix.pendingBits;
    return windows;
  }

  /** Reading it takes the interrupt back. */
  #takeIsr(): number {
    const { isr } = this.#state;
    this.#state.isr = 0;
    this.pci.setInterrupt(false);
    return isr;
  }

  // ---- configuration space ----

  /** Answers where the configuration access capability is. */
  #addCapabilities(): number {
    const add = (type: number, window: number, length: number, extra: number[] = []): number => {
      const body = new Uint8Array(14 + 4 * extra.length);
      const view = new DataView(body.buffer);
      body[0] = body.length + 2;
      body[1] = type;
      body[2] = BAR;
      view.setUint32(6, window * PAGE, true);
      view.setUint32(10, length, true);
      for (const [i, word] of extra.entries()) view.setUint32(14 + 4 * i, word, true);
      const writable = new Uint8Array(body.length);
      if (type === CapabilityType.PCI) writable.fill(0xff, 6).fill(0xff, 2, 3);
      return this.pci.addCapability(VENDOR_CAPABILITY, body, writable);
    };
    const queues = this.#queues.length;
    add(CapabilityType.COMMON, Window.COMMON, COMMON_BYTES);
    add(CapabilityType.NOTIFY, Window.NOTIFY, NOTIFY_MULTIPLIER * queues, [NOTIFY_MULTIPLIER]);
    add(CapabilityType.ISR, Window.ISR, 1);
    // A device without configuration has no such structure.
    if (this.device.config.length > 0)
      add(CapabilityType.DEVICE, Window.DEVICE, this.device.config.length);
    return add(CapabilityType.PCI, Window.COMMON, 0, [0]);
  }

  #followConfig(offset: number, size: PortSize): void {
    if (offset === PciRegister.COMMAND) this.#kickAll();
    this.#msix.follow();
    if (this.#msix.isEnabled) this.pci.setInterrupt(false);
    else this.pci.setInterrupt(this.#state.isr !== 0);
    if (!this.#touchesData(offset, size)) return;
    const access = this.#configTarget();
    if (!access) return;
    const data = this.pci.peek(this.#configAccess + CapabilityAt.DATA, access.size);
    this.#bar.writeMmio(access.offset, access.size, data);
  }

  /** A read of the capability's data is a read of the BAR. */
  #prepareConfig(offset: number, size: PortSize): void {
    if (!this.#touchesData(offset, size)) return;
    const access = this.#configTarget();
    if (!access) return;
    const value = this.#bar.readMmio(access.offset, access.size);
    this.pci.poke(this.#configAccess + CapabilityAt.DATA, access.size, Number(value));
  }

  #touchesData(offset: number, size: number): boolean {
    const data = this.#configAccess + CapabilityAt.DATA;
    return offset < data + 4 && offset + size > data;
  }

  /** Where the configuration access capability points, if that is a place a driver may point it to. */
  #configTarget(): { offset: number; size: 1 | 2 | 4 } | undefined {
    const at = this.#configAccess;
    const bar = this.pci.peek(at + CapabilityAt.BAR, 1);
    const offset = this.pci.peek(at + CapabilityAt.OFFSET, 4);
    const size = this.pci.peek(at + CapabilityAt.LENGTH, 4);
    const isSize = size === 1 || size === 2 || size === 4;
    if (bar !== BAR || !isSize || offset % size !== 0 || offset > BAR_SIZE - size) return undefined;
    return { offset, size };
  }

  /** Bus mastering may have come back: what was made available meanwhile had no notification. */
  #kickAll(): void {
    for (let queue = 0; queue < this.#queues.length; queue++) this.#notify(queue);
  }
}
