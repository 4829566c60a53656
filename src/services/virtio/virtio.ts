/**
 * A virtio service: one virtio device of one VM as a PCI function, with the stream of the embedder that is its other end.
 *
 * Configuration accesses come from the pci service, which has the bus; accesses to the BAR come straight, since the service has them decoded to
 * itself wherever the guest puts the BAR. It reaches guest memory by its windows, sends its own interrupt messages, and
 * drives the one INTx line that its slot has. All state is the models'; one program serves every kind of device.
 */
import type { MmioSize } from "../../devices/model.ts";
import { configRegister } from "../../devices/platform/config-access.ts";
import { PciRegister } from "../../devices/platform/pci-function.ts";
import { Irq, MemoryMap } from "../../devices/platform/platform-map.ts";
import type { GuestMemory } from "../../devices/virtio/guest-memory.ts";
import { VirtioPci } from "../../devices/virtio/virtio-pci.ts";
import { answerAccess, type MemorySpace, type PortSpace } from "../../hypervisor/abi/access.ts";
import type { Message } from "../../hypervisor/abi/message.ts";
import type { Hypercalls, ServiceFactory, ServiceProgram } from "../../hypervisor/abi/service.ts";
import { Status } from "../../hypervisor/abi/status.ts";
import { createDeviceEnd, type DeviceEnd } from "./device-end.ts";
import type { VirtioServiceOptions } from "./options.ts";

const SLOT = 0;
const NOT_DECODED = -1;

export const createService: ServiceFactory = (hypercalls, options) =>
  new VirtioService(hypercalls, options as VirtioServiceOptions);

interface SavedState {
  readonly pci: unknown;
  readonly transport: unknown;
  readonly decoded: number;
  readonly isTimerSet: boolean;
}

class VirtioService implements ServiceProgram {
  readonly #hypercalls: Hypercalls;
  readonly #end: DeviceEnd;
  readonly #transport: VirtioPci;
  /** Where the BAR is decoded for us at present. */
  #decoded = NOT_DECODED;
  #isTimerSet = false;
  #isRestoring = false;
  /** Register of the configuration access that is being answered. */
  #register = 0;

  constructor(hypercalls: Hypercalls, { device, gsi }: VirtioServiceOptions) {
    this.#hypercalls = hypercalls;
    this.#end = createDeviceEnd(device, hypercalls);
    this.#transport = new VirtioPci(this.#end.device, {
      memory: grantedMemory(hypercalls),
      send: (address, data) => hypercalls.sendMessage(address, data),
      refused: (reason) => hypercalls.log(`driver refused: ${reason}`),
    });
    const { pci } = this.#transport;
    pci.connect({
      intx: { set: (level) => this.#isRestoring || hypercalls.setLine(gsi, level) },
      decodeChanged: () => this.#decode(),
    });
    pci.poke(PciRegister.INTERRUPT_LINE, 1, Irq.PCI);
  }

  onEvent(message: Message): Status {
    this.#register = configRegister(message.argument);
    const status =
      this.#register < 0
        ? answerAccess(message, null, this.#bar)
        : answerAccess(message, this.#configPorts, this.#configMemory);
    this.#settle();
    return status;
  }

  onInput(_: number, bytes: Uint8Array): number {
    const taken = this.#end.receive(bytes);
    this.#settle();
    return taken;
  }

  onResumed(): void {
    this.#end.resumed?.();
    this.#settle();
  }

  onTimer(): void {
    this.#isTimerSet = false;
    this.#settle();
  }

  save(): SavedState {
    return {
      pci: this.#transport.pci.save(),
      transport: this.#transport.save(),
      decoded: this.#decoded,
      isTimerSet: this.#isTimerSet,
    };
  }

  restore(state: unknown): void {
    const { pci, transport, decoded, isTimerSet } = state as SavedState;
    this.#isRestoring = true;
    this.#decoded = decoded;
    this.#isTimerSet = isTimerSet;
    this.#transport.pci.restore(pci);
    this.#transport.restore(transport);
    this.#isRestoring = false;
  }

  #settle(): void {
    if (!this.#end.settle() || this.#isTimerSet) return;
    this.#isTimerSet = true;
    this.#hypercalls.setTimer(this.#hypercalls.now());
  }

  /** Follows the BAR; outside the window of PCI devices nothing is decoded. */
  #decode(): void {
    if (this.#isRestoring) return;
    const { pci } = this.#transport;
    const [region] = pci.regions;
    const address = pci.address(region);
    const isInside =
      address >= MemoryMap.PCI_MMIO_BASE && address + region.size <= MemoryMap.PCI_MMIO_END;
    const wanted = isInside ? address : NOT_DECODED;
    if (wanted === this.#decoded) return;
    this.#decoded = wanted;
    this.#hypercalls.decode(SLOT, "memory", isInside ? address : 0, isInside ? region.size : 0);
  }

  readonly #bar: MemorySpace = {
    read: (address, size) => {
      const offset = address - this.#decoded;
      const [{ device }] = this.#transport.pci.regions;
      return "readMmio" in device ? device.readMmio(offset, size) : 0;
    },
    write: (address, size, value) => {
      const offset = address - this.#decoded;
      const [{ device }] = this.#transport.pci.regions;
      if ("writeMmio" in device) device.writeMmio(offset, size, value);
    },
  };

  readonly #configPorts: PortSpace = {
    read: (_, size) => this.#transport.pci.readConfig(this.#register, size),
    write: (_, size, value) => this.#transport.pci.writeConfig(this.#register, size, value),
  };

  /** The pci service passes on only what fits. */
  readonly #configMemory: MemorySpace = {
    read: (_, size) => this.#transport.pci.readConfig(this.#register, narrow(size)),
    write: (_, size, value) =>
      this.#transport.pci.writeConfig(this.#register, narrow(size), Number(value)),
  };
}

const narrow = (size: MmioSize): 1 | 2 | 4 => (size === 8 ? 4 : size);

function grantedMemory(hypercalls: Hypercalls): GuestMemory {
  const { windows } = hypercalls.grants;
  return {
    contains: (gpa, length) =>
      windows.some(({ from, to, write }) => write && gpa >= from && gpa <= to - length),
    read: (gpa, into) => into.length === 0 || hypercalls.readMemory(gpa, into) === Status.OK,
    write: (gpa, bytes) => bytes.length === 0 || hypercalls.writeMemory(gpa, bytes) === Status.OK,
  };
}
