/**
 * The common configuration structure of a virtio PCI device: feature negotiation, device status, queue set-up.
 * Spec: virtio 1.2, "Common configuration structure layout", "Device Initialization".
 *
 * A register file with rules: a driver may write anything in any order, and gets no further than the order of the specification
 * lets it. Features freeze at FEATURES_OK, and a selection that may not be leaves that bit clear; queues are set up after
 * it and freeze when enabled; status bits go only by a reset.
 * Not here: how the registers are reached (virtio-pci.ts), what an interrupt is (virtio-pci.ts).
 */
import { toDword } from "../mmio-access.ts";
import type { MmioDevice, MmioSize, Snapshottable } from "../model.ts";
import { restoreState, saveState } from "../state.ts";
import { readRegister } from "./register-file.ts";
import { DeviceStatus, Feature } from "./virtio-device.ts";
import type { Virtqueue } from "./virtqueue.ts";

export const NO_VECTOR = 0xffff;
export const COMMON_BYTES = 56;

const At = {
  DEVICE_FEATURE_SELECT: 0,
  DEVICE_FEATURE: 4,
  DRIVER_FEATURE_SELECT: 8,
  DRIVER_FEATURE: 12,
  CONFIG_VECTOR: 16,
  NUM_QUEUES: 18,
  STATUS: 20,
  GENERATION: 21,
  QUEUE_SELECT: 22,
  QUEUE_SIZE: 24,
  QUEUE_VECTOR: 26,
  QUEUE_ENABLE: 28,
  NOTIFY_OFFSET: 30,
  /** descriptor table, available ring, used ring: low and high words */
  QUEUE_ADDRESSES: 32,
} as const;

const FEATURE_WORDS = 2;

export interface CommonConfigWires {
  /** DRIVER_OK was set. */
  activate(): void;
  /** Status 0 was written: everything but this file's own state goes back to its beginning. */
  reset(): void;
  /** Vectors that MSI-X has. */
  readonly vectors: number;
}

export class CommonConfig implements MmioDevice, Snapshottable {
  readonly #queues: readonly Virtqueue[];
  readonly #wires: CommonConfigWires;
  /** offered features, as words of 32 */
  readonly #offered: readonly number[];
  readonly #state: {
    deviceFeatureSelect: number;
    driverFeatureSelect: number;
    driverFeatures: number[];
    configVector: number;
    status: number;
    generation: number;
    queueSelect: number;
    queueVectors: number[];
  };
  readonly #image = new Uint8Array(COMMON_BYTES);
  readonly #view = new DataView(this.#image.buffer);

  constructor(queues: readonly Virtqueue[], features: readonly number[], wires: CommonConfigWires) {
    this.#queues = queues;
    this.#wires = wires;
    const words = new Array<number>(FEATURE_WORDS).fill(0);
    for (const bit of features) words[bit >> 5] = (words[bit >> 5] | (1 << (bit & 31))) >>> 0;
    this.#offered = words;
    this.#state = this.#fresh();
  }

  get status(): number {
    return this.#state.status;
  }

  get configVector(): number {
    return this.#state.configVector;
  }

  queueVector(queue: number): number {
    return this.#state.queueVectors[queue] ?? NO_VECTOR;
  }

  hasFeature(bit: number): boolean {
    return ((this.#state.driverFeatures[bit >> 5] ?? 0) & (1 << (bit & 31))) !== 0;
  }

  needReset(): void {
    this.#state.status |= DeviceStatus.NEEDS_RESET;
  }

  /** The configuration space of the device has changed: a driver that reads it in pieces can tell. */
  nextGeneration(): void {
    this.#state.generation = (this.#state.generation + 1) & 0xff;
  }

  readMmio(offset: number, size: MmioSize): number | bigint {
    this.#paint();
    return readRegister(this.#image, offset, size);
  }

  writeMmio(offset: number, size: MmioSize, value: number | bigint): void {
    if (size === 8 && offset >= At.QUEUE_ADDRESSES) {
      const wide = BigInt.asUintN(64, BigInt(value));
      this.#write(offset, 4, Number(wide & 0xffff_ffffn));
      this.#write(offset + 4, 4, Number(wide >> 32n));
    } else if (size !== 8) this.#write(offset, size, toDword(value));
  }

  save(): unknown {
    return saveState(this.#state);
  }

  restore(state: unknown): void {
    restoreState(this.#state, state);
  }

  #fresh() {
    return {
      deviceFeatureSelect: 0,
      driverFeatureSelect: 0,
      driverFeatures: new Array<number>(FEATURE_WORDS).fill(0),
      configVector: NO_VECTOR,
      status: 0,
      generation: 0,
      queueSelect: 0,
      queueVectors: this.#queues.map(() => NO_VECTOR),
    };
  }

  get #selected(): Virtqueue | undefined {
    return this.#queues[this.#state.queueSelect];
  }

  #paint(): void {
    const view = this.#view;
    const state = this.#state;
    view.setUint32(At.DEVICE_FEATURE_SELECT, state.deviceFeatureSelect, true);
    view.setUint32(At.DEVICE_FEATURE, this.#offered[state.deviceFeatureSelect] ?? 0, true);
    view.setUint32(At.DRIVER_FEATURE_SELECT, state.driverFeatureSelect, true);
    const taken = state.driverFeatures[state.driverFeatureSelect] ?? 0;
    view.setUint32(At.DRIVER_FEATURE, taken, true);
    view.setUint16(At.CONFIG_VECTOR, state.configVector, true);
    view.setUint16(At.NUM_QUEUES, this.#queues.length, true);
    view.setUint8(At.STATUS, state.status);
    view.setUint8(At.GENERATION, state.generation);
    view.setUint16(At.QUEUE_SELECT, state.queueSelect, true);
    const queue = this.#selected?.state;
    // "if a driver selects a queue that is not there, queue_size reads 0"
    view.setUint16(At.QUEUE_SIZE, queue?.size ?? 0, true);
    view.setUint16(At.QUEUE_VECTOR, queue ? this.queueVector(state.queueSelect) : NO_VECTOR, true);
    view.setUint16(At.QUEUE_ENABLE, queue?.enabled ? 1 : 0, true);
    view.setUint16(At.NOTIFY_OFFSET, queue ? state.queueSelect : 0, true);
    for (let i = 0; i < 6; i++)
      view.setUint32(At.QUEUE_ADDRESSES + 4 * i, queue?.addresses[i] ?? 0, true);
  }

  /** Each field is written whole, at its own width. */
  #write(offset: number, size: number, value: number): void {
    if (size === 4) this.#writeDword(offset, value);
    else if (size === 2) this.#writeWord(offset, value & 0xffff);
    else if (offset === At.STATUS) this.#writeStatus(value & 0xff);
  }

  #writeDword(offset: number, value: number): void {
    const state = this.#state;
    if (offset === At.DEVICE_FEATURE_SELECT) state.deviceFeatureSelect = value;
    else if (offset === At.DRIVER_FEATURE_SELECT) state.driverFeatureSelect = value;
    else if (offset === At.DRIVER_FEATURE) this.#takeFeatures(value);
    else if (offset >= At.QUEUE_ADDRESSES && offset < COMMON_BYTES && offset % 4 === 0) {
      const queue = this.#settable();
      if (queue) queue.state.addresses[(offset - At.QUEUE_ADDRESSES) / 4] = value;
    }
  }

  #writeWord(offset: number, value: number): void {
    const state = this.#state;
    const vector = value < this.#wires.vectors ? value : NO_VECTOR;
    if (offset === At.CONFIG_VECTOR) state.configVector = vector;
    else if (offset === At.QUEUE_SELECT) state.queueSelect = value;
    else if (offset === At.QUEUE_VECTOR && this.#selected)
      state.queueVectors[state.queueSelect] = vector;
    else if (offset === At.QUEUE_SIZE) {
      const queue = this.#settable();
      if (queue) queue.state.size = value;
    } else if (offset === At.QUEUE_ENABLE && value === 1) {
      this.#settable()?.enable(this.ringFeatures);
    }
  }

  get ringFeatures(): { indirect: boolean; eventIndex: boolean } {
    return {
      indirect: this.hasFeature(Feature.INDIRECT_DESC),
      eventIndex: this.hasFeature(Feature.EVENT_IDX),
    };
  }

  /** The selected queue while the driver may set it up. */
  #settable(): Virtqueue | undefined {
    const { status } = this.#state;
    const queue = this.#selected;
    return status & DeviceStatus.FEATURES_OK && !queue?.state.enabled ? queue : undefined;
  }

  #takeFeatures(value: number): void {
    const { status, driverFeatures, driverFeatureSelect: select } = this.#state;
    if (status & DeviceStatus.FEATURES_OK || select >= FEATURE_WORDS) return;
    driverFeatures[select] = value;
  }

  #writeStatus(value: number): void {
    const state = this.#state;
    if (value === 0) {
      Object.assign(state, this.#fresh());
      this.#wires.reset();
      return;
    }
    let added = value & ~state.status & ~DeviceStatus.NEEDS_RESET;
    if (added & DeviceStatus.FEATURES_OK && !this.#isAcceptable()) {
      added &= ~DeviceStatus.FEATURES_OK;
    }
    const isReady = ((state.status | added) & DeviceStatus.FEATURES_OK) !== 0;
    if (added & DeviceStatus.DRIVER_OK && !isReady) added &= ~DeviceStatus.DRIVER_OK;
    state.status |= added;
    if (added & DeviceStatus.DRIVER_OK) this.#wires.activate();
  }

  /** Only what was offered, and no driver of the legacy interface. */
  #isAcceptable(): boolean {
    const isSubset = this.#state.driverFeatures.every(
      (word, i) => (word & ~this.#offered[i]) === 0,
    );
    return isSubset && this.hasFeature(Feature.VERSION_1);
  }
}
