/**
 * The platform devices of the PC, soldered together: what stands between the processors and everything else.
 *
 * Each ISA interrupt reaches its PIC input and its IOAPIC pin; PIT and RTC go there through the HPET's legacy route; INTx lines go
 * to pins 16..19 and, for guests without IOAPIC, all together to one PIC input. The buses decode every access.
 * Owned by the monitor of one VM. Not here: local APICs (kernel), virtio functions (plug them into `pci` before the start).
 */
import { fanOut, SharedLine } from "../irq-line.ts";
import { MmioBus } from "../mmio-bus.ts";
import type { Clock, InterruptMessage, IrqLine, Snapshottable, TimedDevice } from "../model.ts";
import { PortBus } from "../port-bus.ts";
import { AcpiPm } from "./acpi-pm.ts";
import { DebugPort } from "./debug-port.ts";
import { HPET_FIRST_PIN, HPET_PINS, Hpet } from "./hpet.ts";
import { I8042 } from "./i8042.ts";
import { Ioapic } from "./ioapic.ts";
import { PciHost } from "./pci-host.ts";
import { PicPair } from "./pic-8259.ts";
import { Pit8254 } from "./pit-8254.ts";
import { Gsi, Irq, MemoryMap, Port, SERIAL_PORTS } from "./platform-map.ts";
import { ResetControl } from "./reset-control.ts";
import { RtcMc146818 } from "./rtc-mc146818.ts";
import { Uart16550a } from "./uart-16550a.ts";

const INTX_LINES = 4;

export interface ChipsetWires {
  readonly clock: Clock;
  /** INTR of the master PIC; acknowledge with `pic.acknowledge()` */
  readonly intr: IrqLine;
  readonly deliver: (message: InterruptMessage) => void;
  readonly serialOutput: (port: number, byte: number) => void;
  readonly serialReady?: (port: number) => void;
  readonly debugOutput?: (byte: number) => void;
  readonly powerOff: () => void;
  readonly reset: () => void;
}

export interface ChipsetOptions {
  /** UTC at machine start */
  readonly rtcEpochMs: number;
  /** presets of CMOS bytes by index */
  readonly cmos?: Readonly<Record<number, number>>;
}

export class Chipset implements TimedDevice, Snapshottable {
  readonly ports: PortBus;
  readonly memory = new MmioBus();
  readonly pic: PicPair;
  readonly ioapic: Ioapic;
  readonly pci: PciHost;
  readonly pm: AcpiPm;
  readonly serial: readonly Uart16550a[];
  readonly #timed: readonly TimedDevice[];
  readonly #parts: Readonly<Record<string, Snapshottable>>;

  constructor(wires: ChipsetWires, options: ChipsetOptions) {
    const { clock, powerOff, reset } = wires;
    this.pic = new PicPair({ intr: wires.intr });
    this.ioapic = new Ioapic({ deliver: wires.deliver });
    const intx = this.#intxLines();
    this.pci = new PciHost({ intx: intx.lines });
    this.ports = new PortBus({ fallback: this.pci.ioWindow });

    const hpet = new Hpet({
      clock,
      irq0: this.#isaLine(Irq.PIT),
      irq8: this.#isaLine(Irq.RTC),
      pins: Array.from({ length: HPET_PINS }, (_, i) => this.ioapic.line(HPET_FIRST_PIN + i)),
    });
    const pit = new Pit8254({ irq: hpet.pitInput, clock });
    const rtc = new RtcMc146818(
      { irq: hpet.rtcInput, clock },
      { epochMs: options.rtcEpochMs, cmos: options.cmos ?? {} },
    );
    this.pm = new AcpiPm({ sci: this.#isaLine(Irq.SCI), clock, powerOff });
    this.serial = SERIAL_PORTS.map((_, port) => this.#serialPort(wires, port));
    const resetControl = new ResetControl({ reset });
    const debug = new DebugPort(wires.debugOutput ? { output: wires.debugOutput } : {});

    this.#timed = [hpet, pit, rtc, this.pm, ...this.serial];
    this.#parts = {
      pic: this.pic,
      ioapic: this.ioapic,
      intx: intx.shared,
      hpet,
      pit,
      rtc,
      pm: this.pm,
      resetControl,
      pci: this.pci,
      ...Object.fromEntries(this.serial.map((uart, i) => [`serial${i}`, uart])),
    };
    this.#mapPorts({ pit, rtc, resetControl, i8042: new I8042({ reset }), debug });
    this.memory.map(MemoryMap.IOAPIC_BASE, MemoryMap.IOAPIC_SIZE, this.ioapic);
    this.memory.map(MemoryMap.HPET_BASE, MemoryMap.HPET_SIZE, hpet);
    this.memory.map(MemoryMap.ECAM_BASE, MemoryMap.ECAM_SIZE, this.pci.ecam);
    const pciSize = MemoryMap.PCI_MMIO_END - MemoryMap.PCI_MMIO_BASE;
    this.memory.map(MemoryMap.PCI_MMIO_BASE, pciSize, this.pci.memoryWindow);
  }

  deadline(): number {
    let next = Number.POSITIVE_INFINITY;
    for (const device of this.#timed) next = Math.min(next, device.deadline());
    return next;
  }

  advance(now: number): void {
    for (const device of this.#timed) device.advance(now);
  }

  save(): unknown {
    return Object.fromEntries(
      Object.entries(this.#parts).map(([name, part]) => [name, part.save()]),
    );
  }

  /** Afterwards INTR is as `pic.isRequesting()` says; its wire is not driven. */
  restore(state: unknown): void {
    const saved = state as Record<string, unknown> | undefined;
    for (const [name, part] of Object.entries(this.#parts)) part.restore(saved?.[name]);
  }

  #isaLine(irq: number): IrqLine {
    const pin = irq === Irq.PIT ? Gsi.PIT : irq;
    return fanOut(this.pic.line(irq), this.ioapic.line(pin));
  }

  #intxLines(): { lines: IrqLine[]; shared: SharedLine } {
    const shared = new SharedLine(this.pic.line(Irq.PCI));
    const lines = Array.from({ length: INTX_LINES }, (_, i) =>
      fanOut(this.ioapic.line(Gsi.PCI_INTX + i), shared.source()),
    );
    // What a firmware sets up: shared and ACPI lines are level triggered.
    this.pic.writePort(Port.ELCR, 1, 1 << Irq.PCI);
    this.pic.writePort(Port.ELCR + 1, 1, 1 << (Irq.SCI - 8));
    return { lines, shared };
  }

  #serialPort(wires: ChipsetWires, port: number): Uart16550a {
    const { clock, serialOutput, serialReady } = wires;
    return new Uart16550a({
      irq: this.#isaLine(SERIAL_PORTS[port].irq),
      clock,
      output: (byte) => serialOutput(port, byte),
      receiveReady: () => serialReady?.(port),
    });
  }

  #mapPorts(devices: {
    pit: Pit8254;
    rtc: RtcMc146818;
    resetControl: ResetControl;
    i8042: I8042;
    debug: DebugPort;
  }): void {
    const { pit, rtc, resetControl, i8042, debug } = devices;
    const { ports } = this;
    ports.map({ base: Port.PIC_MASTER, length: 2 }, this.pic);
    ports.map({ base: Port.PIC_SLAVE, length: 2 }, this.pic);
    ports.map({ base: Port.ELCR, length: 2 }, this.pic);
    ports.map({ base: Port.PIT, length: 4 }, pit);
    ports.map({ base: Port.SYSTEM_CONTROL_B, length: 1 }, pit);
    ports.map({ base: Port.RTC_INDEX, length: 2 }, rtc);
    ports.map({ base: Port.KEYBOARD_DATA, length: 1 }, i8042);
    ports.map({ base: Port.KEYBOARD_COMMAND, length: 1 }, i8042);
    ports.map({ base: Port.POST, length: 1 }, debug);
    ports.map({ base: Port.DEBUG, length: 1 }, debug);
    ports.map({ base: Port.SYSTEM_CONTROL_A, length: 1 }, resetControl);
    ports.map({ base: Port.RESET_CONTROL, length: 1 }, resetControl);
    const pmLength = Port.PM_END - Port.PM1_EVENT;
    ports.map({ base: Port.PM1_EVENT, length: pmLength, sizes: [1, 2, 4] }, this.pm);
    for (const claim of PciHost.PORT_CLAIMS) ports.map(claim, this.pci);
    for (const [i, uart] of this.serial.entries()) {
      ports.map({ base: SERIAL_PORTS[i].base, length: 8 }, uart);
    }
  }
}
