/**
 * The interrupt controllers of a pCPU for criteria: a local APIC and an 8259 pair, wired to INTR as on a PC. They are the models that the
 * micro-hypervisor gives its guests, here as the hardware below it.
 */
import { Port } from "../../src/devices/platform/platform-map.ts";
import { InterruptControllers } from "../../src/hypervisor/kernel/interrupt-controllers.ts";
import { LocalApic } from "../../src/hypervisor/kernel/local-apic.ts";
import { type InterruptPort, Request } from "../../src/processor/vmx/interrupt-port.ts";

/** Registers of the local APIC by number. */
export const Apic = {
  TPR: 0x08,
  PPR: 0x0a,
  EOI: 0x0b,
  SVR: 0x0f,
  ISR: 0x10,
  TMR: 0x18,
  IRR: 0x20,
} as const;
export const PIC_VECTORS = 0x30;
const OCW2_EOI = 0x20;
const OCW3_READ_ISR = 0x0b;
const FIXED = 0;

export class PhysicalInterrupts implements InterruptPort {
  readonly apic: LocalApic;
  readonly controllers: InterruptControllers;
  nmi = false;
  nextAt = Infinity;
  now: () => number = () => 0;
  /** At `nextAt`, once. */
  arrive: () => void = () => {};
  /** Between recognition of a request and its acknowledge cycle. */
  beforeAcknowledge: () => void = () => {};
  acknowledged = 0;

  constructor() {
    this.apic = new LocalApic(0, { eoi: () => {}, ipi: () => {} }, true);
    this.controllers = new InterruptControllers(() => {});
    for (const [port, second] of [
      [Port.PIC_MASTER, 4],
      [Port.PIC_SLAVE, 2],
    ] as const) {
      const base = port === Port.PIC_MASTER ? PIC_VECTORS : PIC_VECTORS + 8;
      this.controllers.writePort(port, 1, 0x11);
      for (const word of [base, second, 1, 0]) this.controllers.writePort(port + 1, 1, word);
    }
  }

  /** A message from an I/O APIC. */
  post(vector: number, isLevel = false): void {
    this.apic.deliver(FIXED, vector, isLevel ? 1 : 0);
  }

  /** A line of the 8259 pair. */
  line(irq: number, level: boolean): void {
    this.controllers.setLine(irq, 0, level);
  }

  /** Whole bit vectors: IRR, ISR, TMR. */
  bits(register: number): bigint {
    let all = 0n;
    for (let i = 7; i >= 0; i--) all = (all << 32n) | BigInt(this.apic.read(register + i, 0) >>> 0);
    return all;
  }

  get ppr(): number {
    return this.apic.read(Apic.PPR, 0);
  }

  /** In-service registers of the 8259 pair: master, slave. */
  picInService(): [number, number] {
    return [Port.PIC_MASTER, Port.PIC_SLAVE].map((port) => {
      this.controllers.writePort(port, 1, OCW3_READ_ISR);
      return this.controllers.readPort(port, 1);
    }) as [number, number];
  }

  endPic(vector: number): void {
    if (vector >= PIC_VECTORS + 8) this.controllers.writePort(Port.PIC_SLAVE, 1, OCW2_EOI);
    this.controllers.writePort(Port.PIC_MASTER, 1, OCW2_EOI);
  }

  // ---- to the pCPU ----

  request(): number {
    if (this.now() >= this.nextAt) {
      this.nextAt = Infinity;
      this.arrive();
    }
    if (this.apic.pending() >= 0) return Request.APIC;
    return this.controllers.intr && this.apic.acceptsExtint() ? Request.EXTINT : Request.NONE;
  }

  acknowledge(): number {
    const wasApic = this.apic.pending() >= 0;
    this.beforeAcknowledge();
    this.acknowledged++;
    const vector = this.apic.pending();
    if (vector >= 0) {
      this.apic.acknowledge(vector);
      return vector;
    }
    // Withdrawn: who had asked answers with its spurious vector.
    return wasApic ? this.apic.read(Apic.SVR, 0) & 0xff : this.controllers.pic.acknowledge();
  }

  isLevel(vector: number): boolean {
    return ((this.bits(Apic.TMR) >> BigInt(vector)) & 1n) !== 0n;
  }

  end(): void {
    this.apic.write(Apic.EOI, 0, 0);
  }

  takeNmi(): void {
    this.nmi = false;
  }
}
