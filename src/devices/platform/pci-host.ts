/**
 * PCI bus 0 and its host bridge: configuration mechanism #1, memory-mapped configuration, decoding of BARs, INTx routing.
 * Spec: PCI Local Bus Specification 3.0, "Configuration Mechanism #1"; PCI Express Base Specification, "ECAM".
 *
 * The host bridge at 00:00.0 has a device id that no driver and no quirk of Linux matches. Functions are plugged in before the
 * machine starts. The guest may move and overlap BARs as it likes: an address goes to the first function that decodes it,
 * and this class only sees what no platform device claimed.
 * INTx of slot s, pin p (0..3) is line (s + p) mod 4, as the _PRT of the ACPI tables says.
 */
import { invariant } from "../../base/invariant.ts";
import { SharedLine, unconnected } from "../irq-line.ts";
import { toDword } from "../mmio-access.ts";
import type { IrqLine, MmioDevice, PortDevice, PortSize, Snapshottable } from "../model.ts";
import { allOnes } from "../model.ts";
import type { PortClaim, PortFallback } from "../port-bus.ts";
import { restoreState, saveState } from "../state.ts";
import {
  CONFIG_SIZE,
  PciCommand,
  PciFunction,
  type PciRegion,
  PciRegister,
} from "./pci-function.ts";
import { Irq, MemoryMap, Port } from "./platform-map.ts";

export const PCI_SLOTS = 32;
const FUNCTIONS = 8;
const INTX_LINES = 4;
const ADDRESS_ENABLE = 0x8000_0000;
const ADDRESS_WRITABLE = 0x80ff_fffc;
const CLASS_HOST_BRIDGE = 0x06_0000;

interface Decoded {
  readonly isIo: boolean;
  readonly base: number;
  readonly end: number;
  readonly device: PciRegion["device"];
}

export class PciHost implements PortDevice, Snapshottable {
  readonly #functions = new Map<number, PciFunction>();
  readonly #intx: readonly SharedLine[];
  readonly #state = { address: 0 };
  /** cache of what the functions decode; undefined after a change */
  #decoded: readonly Decoded[] | undefined;

  /** `intx`: four lines, asserted high here whatever the polarity of INTA#..INTD# on the wire. */
  constructor(wires: { intx: readonly IrqLine[] }) {
    invariant(wires.intx.length === INTX_LINES, "PCI has four interrupt lines");
    this.#intx = wires.intx.map((line) => new SharedLine(line));
    this.plug(
      0,
      0,
      new PciFunction({ vendor: 0x8086, device: 0x0d57, classCode: CLASS_HOST_BRIDGE }),
    );
  }

  plug(slot: number, number: number, pci: PciFunction): void {
    const devfn = slot * FUNCTIONS + number;
    invariant(slot >= 0 && slot < PCI_SLOTS && number >= 0 && number < FUNCTIONS, "no such slot");
    invariant(!this.#functions.has(devfn), "the slot is taken");
    this.#functions.set(devfn, pci);
    if (number > 0) this.#functions.get(slot * FUNCTIONS)?.setMultifunction();
    const line = this.#intx[(slot + pci.interruptPin + INTX_LINES - 1) % INTX_LINES];
    pci.connect({
      intx: pci.interruptPin > 0 ? line.source() : unconnected,
      decodeChanged: () => {
        this.#decoded = undefined;
      },
    });
    if (pci.interruptPin > 0) pci.poke(PciRegister.INTERRUPT_LINE, 1, Irq.PCI);
    this.#decoded = undefined;
  }

  /** What a firmware does: gives every BAR an address, largest first, and switches decoding on. */
  assignBars(): void {
    let io: number = Port.PCI_IO_BASE;
    let memory: number = MemoryMap.PCI_MMIO_BASE;
    const all = [...this.#functions.values()].flatMap((pci) =>
      pci.regions.map((region) => ({ pci, region })),
    );
    for (const { pci, region } of all.sort((a, b) => b.region.size - a.region.size)) {
      const { size } = region;
      const base = Math.ceil((region.kind === "io" ? io : memory) / size) * size;
      const end = region.kind === "io" ? 0x1_0000 : MemoryMap.PCI_MMIO_END;
      if (base + size > end) continue;
      if (region.kind === "io") io = base + size;
      else memory = base + size;
      pci.writeConfig(PciRegister.BAR0 + 4 * region.bar, 4, base);
      const enable = region.kind === "io" ? PciCommand.IO : PciCommand.MEMORY;
      pci.writeConfig(PciRegister.COMMAND, 2, pci.readConfig(PciRegister.COMMAND, 2) | enable);
    }
  }

  /** Claims for the port bus: 0xCF8 as a dword only, 0xCFC..0xCFF in any width. */
  static readonly PORT_CLAIMS: readonly PortClaim[] = [
    { base: Port.PCI_ADDRESS, length: 4, sizes: [4] },
    { base: Port.PCI_DATA, length: 4, sizes: [1, 2, 4] },
  ];

  /**
   * What an access to the data port at `port` is for: the function (bus in bits 15:8, slot and function below) and its register. Undefined if
   * configuration is not enabled.
   */
  selection(port: number): { target: number; register: number } | undefined {
    const { address } = this.#state;
    if (!(address & ADDRESS_ENABLE) || port < Port.PCI_DATA) return undefined;
    return { target: (address >>> 8) & 0xffff, register: (address & 0xfc) + (port & 3) };
  }

  readPort(port: number, size: PortSize): number {
    const { address } = this.#state;
    if (port < Port.PCI_DATA) return address;
    if (!(address & ADDRESS_ENABLE)) return allOnes(size) as number;
    return this.#readConfig((address >>> 8) & 0xffff, (address & 0xfc) + (port & 3), size);
  }

  writePort(port: number, size: PortSize, value: number): void {
    const state = this.#state;
    if (port < Port.PCI_DATA) state.address = (value & ADDRESS_WRITABLE) >>> 0;
    else if (state.address & ADDRESS_ENABLE) {
      const register = (state.address & 0xfc) + (port & 3);
      this.#writeConfig((state.address >>> 8) & 0xffff, { register, size, value });
    }
  }

  /** I/O BARs; the fallback of the port bus. */
  readonly ioWindow: PortFallback = {
    readPort: (port, size) => {
      const hit = this.#find(true, port, size);
      return hit && (hit.device as PortDevice).readPort(port - hit.base, size);
    },
    writePort: (port, size, value) => {
      const hit = this.#find(true, port, size);
      if (hit) (hit.device as PortDevice).writePort(port - hit.base, size, value);
      return hit !== undefined;
    },
  };

  /** Memory BARs; map it at MemoryMap.PCI_MMIO_BASE. */
  readonly memoryWindow: MmioDevice = {
    readMmio: (offset, size) => {
      const address = MemoryMap.PCI_MMIO_BASE + offset;
      const hit = this.#find(false, address, size);
      return hit ? (hit.device as MmioDevice).readMmio(address - hit.base, size) : allOnes(size);
    },
    writeMmio: (offset, size, value) => {
      const address = MemoryMap.PCI_MMIO_BASE + offset;
      const hit = this.#find(false, address, size);
      if (hit) (hit.device as MmioDevice).writeMmio(address - hit.base, size, value);
    },
  };

  /** Memory-mapped configuration of bus 0; map it at MemoryMap.ECAM_BASE. */
  readonly ecam: MmioDevice = {
    readMmio: (offset, size) => {
      const register = offset & 0xfff;
      if (size === 8 || register % size !== 0) return allOnes(size);
      return this.#readConfig(offset >> 12, register, size);
    },
    writeMmio: (offset, size, value) => {
      const register = offset & 0xfff;
      if (size === 8 || register % size !== 0) return;
      this.#writeConfig(offset >> 12, { register, size, value: toDword(value) });
    },
  };

  save(): unknown {
    const functions = [...this.#functions].map(([devfn, pci]) => [devfn, pci.save()]);
    return {
      ...(saveState(this.#state) as object),
      intx: this.#intx.map((line) => line.save()),
      functions: Object.fromEntries(functions),
    };
  }

  restore(state: unknown): void {
    restoreState(this.#state, state);
    const saved = state as { intx?: unknown[]; functions?: Record<number, unknown> };
    for (const [devfn, pci] of this.#functions) pci.restore(saved.functions?.[devfn]);
    for (const [i, line] of this.#intx.entries()) line.restore(saved.intx?.[i]);
  }

  /** `target`: bus in bits 15:8, slot and function below. An absent function is a master abort: all ones. */
  #readConfig(target: number, register: number, size: PortSize): number {
    const pci = this.#functions.get(target);
    if (!pci) return allOnes(size) as number;
    return register < CONFIG_SIZE ? pci.readConfig(register, size) : 0;
  }

  #writeConfig(target: number, write: { register: number; size: PortSize; value: number }): void {
    if (write.register >= CONFIG_SIZE) return;
    this.#functions.get(target)?.writeConfig(write.register, write.size, write.value);
  }

  #find(isIo: boolean, address: number, size: number): Decoded | undefined {
    this.#decoded ??= this.#decode();
    return this.#decoded.find(
      (entry) => entry.isIo === isIo && address >= entry.base && address + size <= entry.end,
    );
  }

  #decode(): Decoded[] {
    const all = [...this.#functions.values()].flatMap((pci) =>
      pci.regions.map(({ kind, size, device }, i) => {
        const base = pci.address(pci.regions[i]);
        return { isIo: kind === "io", base, end: base + size, device };
      }),
    );
    return all.filter(({ base }) => base >= 0);
  }
}
