/**
 * MSI-X of one PCI function: capability, vector table, pending bits.
 * Spec: PCI Local Bus Specification 3.0, "MSI-X Capability and Table Structures"; SDM Vol. 3A, "Message Signalled Interrupts".
 *
 * A message that is masked, by its vector or for the function, waits as a pending bit and leaves when it is unmasked. A message whose
 * address is not the local APICs' goes nowhere: there is nothing else that takes messages.
 */
import { DeliveryMode, type MmioDevice, type MmioSize, type Snapshottable } from "../model.ts";
import { PciCommand, type PciFunction } from "../platform/pci-function.ts";
import { restoreState, saveState } from "../state.ts";
import { readRegister, writeRegister } from "./register-file.ts";

const CAPABILITY_ID = 0x11;
const ENTRY_BYTES = 16;
const Control = { ENABLE: 0x80, MASK_ALL: 0x40 } as const;
/** vector control, bit 0 */
const MASKED = 1;
const APIC_AREA = 0xfee;
const DELIVERY_MODES: readonly number[] = [
  DeliveryMode.FIXED,
  DeliveryMode.LOWEST_PRIORITY,
  DeliveryMode.NMI,
  DeliveryMode.EXTINT,
];

/** An interrupt message as a device writes it. SDM Vol. 3A, "Message Address Register Format", "Message Data Register Format". */
export type SendMessage = (address: number, data: number) => void;

export interface MsixPlace {
  readonly bar: number;
  readonly tableOffset: number;
  readonly pendingOffset: number;
}

export class Msix implements Snapshottable {
  readonly vectors: number;
  readonly #pci: PciFunction;
  readonly #capability: number;
  readonly #send: SendMessage;
  readonly #state: { table: Uint8Array; pending: Uint8Array };

  constructor(pci: PciFunction, vectors: number, place: MsixPlace, send: SendMessage) {
    this.#pci = pci;
    this.vectors = vectors;
    this.#send = send;
    this.#state = {
      table: new Uint8Array(vectors * ENTRY_BYTES),
      // 64-bit words of bits
      pending: new Uint8Array(8 * Math.ceil(vectors / 64)),
    };
    this.reset();
    const body = new Uint8Array(10);
    const view = new DataView(body.buffer);
    view.setUint16(0, vectors - 1, true);
    view.setUint32(2, place.tableOffset | place.bar, true);
    view.setUint32(6, place.pendingOffset | place.bar, true);
    const writable = Uint8Array.of(0, Control.ENABLE | Control.MASK_ALL);
    this.#capability = pci.addCapability(CAPABILITY_ID, body, writable);
  }

  get isEnabled(): boolean {
    return (this.#control() & Control.ENABLE) !== 0;
  }

  /** Sends the vector's message, now or when it is unmasked. Vectors that do not exist do nothing. */
  trigger(vector: number): void {
    if (vector >= this.vectors) return;
    this.#state.pending[vector >> 3] |= 1 << (vector & 7);
    this.#sendPending(vector);
  }

  /** After any write to configuration space: masks may have gone. */
  follow(): void {
    this.#sendAllPending();
  }

  readonly table: MmioDevice = {
    readMmio: (offset, size) => readRegister(this.#state.table, offset, size),
    writeMmio: (offset, size, value) => {
      if (size < 4) return;
      writeRegister(this.#state.table, { offset, size, value });
      // Of vector control only the mask is there.
      const control = (offset & ~(ENTRY_BYTES - 1)) + 12;
      const { table } = this.#state;
      if (control < table.length) table.set([table[control] & MASKED, 0, 0, 0], control);
      this.#sendAllPending();
    },
  };

  readonly pendingBits: MmioDevice = {
    readMmio: (offset: number, size: MmioSize) => readRegister(this.#state.pending, offset, size),
    writeMmio: () => {},
  };

  /** As after a reset of the function: all vectors masked. */
  reset(): void {
    const { table, pending } = this.#state;
    table.fill(0);
    pending.fill(0);
    for (let vector = 0; vector < this.vectors; vector++) table[vector * ENTRY_BYTES + 12] = MASKED;
  }

  save(): unknown {
    return saveState(this.#state);
  }

  restore(state: unknown): void {
    restoreState(this.#state, state);
  }

  #control(): number {
    return this.#pci.peek(this.#capability + 3, 1);
  }

  #sendAllPending(): void {
    for (const [i, bits] of this.#state.pending.entries()) {
      for (let bit = 0; bits >> bit; bit++) this.#sendPending(8 * i + bit);
    }
  }

  #sendPending(vector: number): void {
    const { table, pending } = this.#state;
    const bit = 1 << (vector & 7);
    if (vector >= this.vectors || !(pending[vector >> 3] & bit)) return;
    const isOpen = (this.#control() & (Control.ENABLE | Control.MASK_ALL)) === Control.ENABLE;
    const at = vector * ENTRY_BYTES;
    if (!isOpen || table[at + 12] & MASKED || !this.#pci.isEnabled(PciCommand.BUS_MASTER)) return;
    pending[vector >> 3] &= ~bit;
    const view = new DataView(table.buffer, at, ENTRY_BYTES);
    const [low, high, data] = [0, 4, 8].map((offset) => view.getUint32(offset, true));
    if (high === 0 && isInterruptMessage(low, data)) this.#send(low, data);
  }
}

/** Whether a write of `data` to `address` is a message to local APICs that a device may send. */
export function isInterruptMessage(address: number, data: number): boolean {
  const deliveryMode = (data >>> 8) & 7;
  return address >>> 20 === APIC_AREA && DELIVERY_MODES.includes(deliveryMode);
}
