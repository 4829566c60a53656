/**
 * One PCI function: its configuration space, its BARs, its INTx pin.
 * Spec: PCI Local Bus Specification 3.0, "Configuration Space"; PCI Express Base Specification, "Configuration Space" (4 KiB).
 *
 * Every byte has a write mask, so a guest changes exactly the bits that hardware lets it. BARs answer sizing by masks
 * alone. A device model builds on this by composition: it makes a PciFunction with its ids and regions, adds its capabilities, and
 * takes `onConfigWrite` to follow its own registers (MSI-X enable, virtio's configuration access capability).
 * Not here: which function answers an address (pci-host.ts).
 */
import { invariant } from "../../base/invariant.ts";
import type { IrqLine, MmioDevice, PortDevice, PortSize, Snapshottable } from "../model.ts";
import { restoreState, saveState } from "../state.ts";

export const CONFIG_SIZE = 256;

export const PciRegister = {
  VENDOR: 0x00,
  DEVICE: 0x02,
  COMMAND: 0x04,
  STATUS: 0x06,
  REVISION: 0x08,
  CLASS: 0x09,
  HEADER_TYPE: 0x0e,
  BAR0: 0x10,
  SUBSYSTEM_VENDOR: 0x2c,
  SUBSYSTEM: 0x2e,
  CAPABILITIES: 0x34,
  INTERRUPT_LINE: 0x3c,
  INTERRUPT_PIN: 0x3d,
} as const;

export const PciCommand = { IO: 0x1, MEMORY: 0x2, BUS_MASTER: 0x4, INTX_DISABLE: 0x400 } as const;
const COMMAND_WRITABLE = 0x0547;
const PciStatus = { INTERRUPT: 0x08, CAPABILITIES: 0x10 } as const;
const FIRST_CAPABILITY = 0x40;
const BARS = 6;
const BAR_IO = 1;
const BAR_64 = 4;
const BAR_PREFETCHABLE = 8;

/** `readPort`, `writePort` and the MMIO methods of `device` all get offsets into the region. */
export interface PciRegion {
  readonly bar: number;
  readonly kind: "io" | "memory32" | "memory64";
  /** power of two, at least 4 for I/O and 16 for memory */
  readonly size: number;
  readonly prefetchable?: boolean;
  readonly device: PortDevice | MmioDevice;
}

export interface PciFunctionOptions {
  readonly vendor: number;
  readonly device: number;
  readonly subsystemVendor?: number;
  readonly subsystem?: number;
  readonly revision?: number;
  /** base class, subclass, programming interface: 0xBBSSPP */
  readonly classCode: number;
  /** 1..4 = INTA#..INTD#; 0 = none */
  readonly interruptPin?: number;
  readonly regions?: readonly PciRegion[];
}

export interface PciBusWires {
  readonly intx: IrqLine;
  /** What the function decodes may have changed. */
  readonly decodeChanged: () => void;
}

export class PciFunction implements Snapshottable {
  readonly regions: readonly PciRegion[];
  readonly interruptPin: number;
  readonly #state = { config: new Uint8Array(CONFIG_SIZE), interrupt: false };
  readonly #writable = new Uint8Array(CONFIG_SIZE);
  #bus: PciBusWires | undefined;
  #lastCapability = 0;
  #nextCapability = FIRST_CAPABILITY;
  #onConfigWrite: ((offset: number, size: PortSize) => void) | undefined;
  #onConfigRead: ((offset: number, size: PortSize) => void) | undefined;

  constructor(options: PciFunctionOptions) {
    this.regions = options.regions ?? [];
    this.interruptPin = options.interruptPin ?? 0;
    this.#set(PciRegister.VENDOR, 2, options.vendor);
    this.#set(PciRegister.DEVICE, 2, options.device);
    this.#set(PciRegister.REVISION, 1, options.revision ?? 0);
    this.#set(PciRegister.CLASS, 3, options.classCode);
    this.#set(PciRegister.SUBSYSTEM_VENDOR, 2, options.subsystemVendor ?? 0);
    this.#set(PciRegister.SUBSYSTEM, 2, options.subsystem ?? 0);
    this.#set(PciRegister.INTERRUPT_PIN, 1, this.interruptPin);
    this.#setWritable(PciRegister.COMMAND, 2, COMMAND_WRITABLE);
    this.#setWritable(PciRegister.INTERRUPT_LINE, 1, 0xff);
    for (const region of this.regions) this.#addRegion(region);
  }

  /** Appends a capability of `body.length + 2` bytes and answers its offset. `writable` masks the bytes of the body. */
  addCapability(id: number, body: Uint8Array, writable?: Uint8Array): number {
    const offset = this.#nextCapability;
    const end = offset + 2 + body.length;
    invariant(end <= CONFIG_SIZE, "the capabilities do not fit into configuration space");
    const { config } = this.#state;
    config[offset] = id;
    config.set(body, offset + 2);
    if (writable) this.#writable.set(writable, offset + 2);
    if (this.#lastCapability === 0) config[PciRegister.CAPABILITIES] = offset;
    else config[this.#lastCapability + 1] = offset;
    config[PciRegister.STATUS] |= PciStatus.CAPABILITIES;
    this.#lastCapability = offset;
    this.#nextCapability = (end + 3) & ~3;
    return offset;
  }

  /** `listener` runs after each guest write, with the bytes written already masked in. */
  onConfigWrite(listener: (offset: number, size: PortSize) => void): void {
    this.#onConfigWrite = listener;
  }

  /** `listener` runs before each guest read, and may poke what is about to be read. */
  onConfigRead(listener: (offset: number, size: PortSize) => void): void {
    this.#onConfigRead = listener;
  }

  /** For the host bridge, when the function is plugged in. */
  connect(bus: PciBusWires): void {
    this.#bus = bus;
  }

  /** For the host bridge: function 0 of a slot with several functions. */
  setMultifunction(): void {
    this.#state.config[PciRegister.HEADER_TYPE] |= 0x80;
  }

  /** The level of the INTx pin; the guest's "interrupt disable" keeps it off the wire. */
  setInterrupt(level: boolean): void {
    this.#state.interrupt = level;
    const { config } = this.#state;
    if (level) config[PciRegister.STATUS] |= PciStatus.INTERRUPT;
    else config[PciRegister.STATUS] &= ~PciStatus.INTERRUPT;
    this.#driveIntx();
  }

  isEnabled(bits: number): boolean {
    return (this.#get(PciRegister.COMMAND, 2) & bits) === bits;
  }

  /** A guest's read. */
  readConfig(offset: number, size: PortSize): number {
    this.#onConfigRead?.(offset, size);
    return this.#get(offset, size);
  }

  /** The device's own read: no listener runs. */
  peek(offset: number, size: PortSize): number {
    return this.#get(offset, size);
  }

  writeConfig(offset: number, size: PortSize, value: number): void {
    const { config } = this.#state;
    for (let i = 0; i < size && offset + i < CONFIG_SIZE; i++) {
      const mask = this.#writable[offset + i];
      config[offset + i] = (config[offset + i] & ~mask) | ((value >>> (8 * i)) & mask);
    }
    this.#follow(offset);
    this.#onConfigWrite?.(offset, size);
  }

  /** A firmware's or device's own write, past the masks. */
  poke(offset: number, size: PortSize, value: number): void {
    invariant(offset >= 0 && offset + size <= CONFIG_SIZE, "poke outside configuration space");
    this.#set(offset, size, value);
    this.#follow(offset);
  }

  /** Where the region is decoded at present, or -1. */
  address(region: PciRegion): number {
    const register = PciRegister.BAR0 + 4 * region.bar;
    const isIo = region.kind === "io";
    if (!this.isEnabled(isIo ? PciCommand.IO : PciCommand.MEMORY)) return -1;
    const low = this.#get(register, 4);
    if (isIo) return low - (low % 4);
    const high = region.kind === "memory64" ? this.#get(register + 4, 4) : 0;
    return high * 2 ** 32 + (low - (low % 16));
  }

  save(): unknown {
    return saveState(this.#state);
  }

  restore(state: unknown): void {
    restoreState(this.#state, state);
    this.#bus?.decodeChanged();
  }

  #addRegion(region: PciRegion): void {
    const { bar, kind, size } = region;
    invariant(bar >= 0 && bar < (kind === "memory64" ? BARS - 1 : BARS), "no such BAR");
    invariant(
      size >= (kind === "io" ? 4 : 16) && Number.isInteger(Math.log2(size)),
      "bad BAR size",
    );
    const register = PciRegister.BAR0 + 4 * bar;
    const type =
      kind === "io"
        ? BAR_IO
        : (kind === "memory64" ? BAR_64 : 0) | (region.prefetchable ? BAR_PREFETCHABLE : 0);
    this.#set(register, 4, type);
    this.#setWritable(register, 4, (0x1_0000_0000 - Math.min(size, 2 ** 32)) >>> 0);
    if (kind === "memory64")
      this.#setWritable(register + 4, 4, (2 ** 32 - Math.ceil(size / 2 ** 32)) >>> 0);
  }

  /** Command and BARs decide what is decoded, and the command whether INTx is driven. */
  #follow(offset: number): void {
    if (offset >= PciRegister.BAR0 + 4 * BARS) return;
    this.#bus?.decodeChanged();
    this.#driveIntx();
  }

  #driveIntx(): void {
    const allowed = !this.isEnabled(PciCommand.INTX_DISABLE);
    this.#bus?.intx.set(allowed && this.#state.interrupt);
  }

  #get(offset: number, size: number): number {
    let value = 0;
    for (let i = size - 1; i >= 0; i--)
      value = value * 256 + (this.#state.config[offset + i] ?? 0xff);
    return value;
  }

  #set(offset: number, size: number, value: number): void {
    for (let i = 0; i < size; i++) this.#state.config[offset + i] = value >>> (8 * i);
  }

  #setWritable(offset: number, size: number, mask: number): void {
    for (let i = 0; i < size; i++) this.#writable[offset + i] = mask >>> (8 * i);
  }
}
