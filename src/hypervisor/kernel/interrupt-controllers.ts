/**
 * The platform's interrupt controllers, 8259 pair and IOAPIC: besides the local APIC the only device models in root mode.
 *
 * They stay here because every interrupt passes them, and because who drives which line is a matter of rights: a service holds lines as
 * capabilities, and a line that several services drive is the OR of theirs. Lines are global system interrupts: 0..15 are the ISA
 * interrupts (line 0, the PIT, is IOAPIC pin 2), 16..19 the PCI INTx lines, which also share one PIC input, 20..23 pins of the IOAPIC.
 */
import { Ioapic } from "../../devices/platform/ioapic.ts";
import { PicPair } from "../../devices/platform/pic-8259.ts";
import { Gsi, Irq, MemoryMap, Port } from "../../devices/platform/platform-map.ts";
import type { ApicMessage } from "./apic-message.ts";

export const LINES = 24;
const ISA_LINES = 16;
const INTX_END = Gsi.PCI_INTX + 4;

type PortSize = 1 | 2 | 4;
type MmioSize = 1 | 2 | 4 | 8;

export class InterruptControllers {
  readonly pic: PicPair;
  readonly ioapic: Ioapic;
  /** INTR of the master 8259. */
  intr = false;
  /** Per line a bit for each service that asserts it. */
  readonly #asserted = new Uint32Array(LINES);

  constructor(deliver: (message: ApicMessage) => void) {
    this.pic = new PicPair({
      intr: {
        set: (level) => {
          this.intr = level;
        },
      },
    });
    this.ioapic = new Ioapic({ deliver });
    // What a firmware sets up: shared and ACPI lines are level triggered.
    this.pic.writePort(Port.ELCR, 1, 1 << Irq.PCI);
    this.pic.writePort(Port.ELCR + 1, 1, 1 << (Irq.SCI - 8));
  }

  /** Level of a line as the service with number `source` (0..31) drives it. */
  setLine(line: number, source: number, level: boolean): void {
    const before = this.#asserted[line]!;
    const after = level ? before | (1 << source) : before & ~(1 << source);
    this.#asserted[line] = after;
    // A level that is set again goes through, too: harmless by the contract of lines, and a pulse within one message is two calls.
    this.#drive(line, after !== 0);
  }

  #drive(line: number, level: boolean): void {
    if (line < ISA_LINES) {
      if (line === Irq.CASCADE) return;
      this.pic.line(line).set(level);
      this.ioapic.line(line === Irq.PIT ? Gsi.PIT : line).set(level);
      return;
    }
    this.ioapic.line(line).set(level);
    if (line < INTX_END) this.pic.line(Irq.PCI).set(this.#anyIntx());
  }

  #anyIntx(): boolean {
    for (let line = Gsi.PCI_INTX; line < INTX_END; line++)
      if (this.#asserted[line] !== 0) return true;
    return false;
  }

  ownsPort(port: number): boolean {
    return (
      (port & 0xffff_fffe) === Port.PIC_MASTER ||
      (port & 0xffff_fffe) === Port.PIC_SLAVE ||
      (port & 0xffff_fffe) === Port.ELCR
    );
  }

  ownsMemory(address: number): boolean {
    return (
      address >= MemoryMap.IOAPIC_BASE && address < MemoryMap.IOAPIC_BASE + MemoryMap.IOAPIC_SIZE
    );
  }

  /** Wider accesses come apart into bytes, as a chipset does for 8-bit devices. */
  readPort(port: number, size: PortSize): number {
    let value = 0;
    for (let i = size - 1; i >= 0; i--)
      value = value * 256 + (this.ownsPort(port + i) ? this.pic.readPort(port + i) : 0xff);
    return value;
  }

  writePort(port: number, size: PortSize, value: number): void {
    for (let i = 0; i < size; i++)
      if (this.ownsPort(port + i)) this.pic.writePort(port + i, 1, (value >>> (8 * i)) & 0xff);
  }

  readMemory(address: number, size: MmioSize): number | bigint {
    return this.ioapic.readMmio(address - MemoryMap.IOAPIC_BASE, size);
  }

  writeMemory(address: number, size: MmioSize, value: number | bigint): void {
    this.ioapic.writeMmio(address - MemoryMap.IOAPIC_BASE, size, value);
  }

  save(): unknown {
    return {
      pic: this.pic.save(),
      ioapic: this.ioapic.save(),
      intr: this.intr,
      asserted: [...this.#asserted],
    };
  }

  restore(state: unknown): void {
    const saved = state as { pic: unknown; ioapic: unknown; intr: boolean; asserted: number[] };
    this.pic.restore(saved.pic);
    this.ioapic.restore(saved.ioapic);
    this.intr = saved.intr;
    this.#asserted.set(saved.asserted);
  }
}
