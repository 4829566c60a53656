/**
 * The pci service: PCI bus 0 with its host bridge, and the small ports of the chipset: reset, keyboard controller, POST codes.
 *
 * Functions of other services are on the bus by their configuration accesses alone, which are passed on; their BARs are not decoded here.
 */

import { MmioBus } from "../../devices/mmio-bus.ts";
import type { IrqLine } from "../../devices/model.ts";
import { configArgument } from "../../devices/platform/config-access.ts";
import { DebugPort } from "../../devices/platform/debug-port.ts";
import { I8042 } from "../../devices/platform/i8042.ts";
import { PciHost } from "../../devices/platform/pci-host.ts";
import { Gsi, MemoryMap, Port } from "../../devices/platform/platform-map.ts";
import { ResetControl } from "../../devices/platform/reset-control.ts";
import { PortBus } from "../../devices/port-bus.ts";
import { answerAccess } from "../../hypervisor/abi/access.ts";
import { ExitReasons } from "../../hypervisor/abi/exit-reasons.ts";
import type { Message } from "../../hypervisor/abi/message.ts";
import type { Hypercalls, ServiceFactory, ServiceProgram } from "../../hypervisor/abi/service.ts";
import { Status } from "../../hypervisor/abi/status.ts";

const INTX_LINES = 4;
/** slot and function of a bus address */
const SLOT_SHIFT = 3;
const ECAM_FUNCTION_SHIFT = 12;
const CONFIG_BYTES = 0x1000;

export interface PciOptions {
  /** Slots whose function 0 is another service's: the number of the forward is the place in the list. */
  readonly slots: readonly number[];
}

export const createService: ServiceFactory = (hypercalls, options) =>
  new PciService(hypercalls, options as PciOptions);

interface SavedState {
  readonly pci: unknown;
  readonly resetControl: unknown;
}

class PciService implements ServiceProgram {
  readonly #ports: PortBus;
  readonly #memory = new MmioBus();
  readonly #pci: PciHost;
  readonly #resetControl: ResetControl;
  /** number of the forward by bus address */
  readonly #elsewhere: ReadonlyMap<number, number>;

  constructor(hypercalls: Hypercalls, { slots }: PciOptions) {
    this.#elsewhere = new Map(slots.map((slot, i) => [slot << SLOT_SHIFT, i]));
    const line = (n: number): IrqLine => ({ set: (level) => hypercalls.setLine(n, level) });
    const reset = (): void => void hypercalls.stop("reset");
    this.#pci = new PciHost({
      intx: Array.from({ length: INTX_LINES }, (_, i) => line(Gsi.PCI_INTX + i)),
    });
    this.#ports = new PortBus({ fallback: this.#pci.ioWindow });
    this.#resetControl = new ResetControl({ reset });
    const keyboard = new I8042({ reset });
    const debug = new DebugPort();
    this.#ports.map({ base: Port.KEYBOARD_DATA, length: 1 }, keyboard);
    this.#ports.map({ base: Port.KEYBOARD_COMMAND, length: 1 }, keyboard);
    this.#ports.map({ base: Port.POST, length: 1 }, debug);
    this.#ports.map({ base: Port.DEBUG, length: 1 }, debug);
    this.#ports.map({ base: Port.SYSTEM_CONTROL_A, length: 1 }, this.#resetControl);
    this.#ports.map({ base: Port.RESET_CONTROL, length: 1 }, this.#resetControl);
    for (const claim of PciHost.PORT_CLAIMS) this.#ports.map(claim, this.#pci);
    this.#memory.map(MemoryMap.ECAM_BASE, MemoryMap.ECAM_SIZE, this.#pci.ecam);
  }

  onEvent(message: Message): Status {
    const access = this.#elsewhere.size === 0 ? undefined : this.#configAccess(message);
    const forward = access && this.#elsewhere.get(access.target);
    if (forward === undefined) return answerAccess(message, this.#ports, this.#memory);
    message.stream = forward;
    message.argument = configArgument(access!.register);
    return Status.FORWARD;
  }

  /** Which function's register an access is for, if it is one that a function answers. */
  #configAccess(message: Message): { target: number; register: number } | undefined {
    if (message.reason === ExitReasons.IO) {
      const port = message.qualification >>> 16;
      return port > Port.PCI_DATA + 3 ? undefined : this.#pci.selection(port);
    }
    const offset = message.physical - MemoryMap.ECAM_BASE;
    const size = message.deviceSize;
    const isConfig = offset >= 0 && offset < MemoryMap.ECAM_SIZE && size !== 8;
    const register = offset % CONFIG_BYTES;
    // Registers of the extended space read as zeros here: no function has any.
    if (!isConfig || register % size !== 0 || register >= 256) return undefined;
    return { target: offset >>> ECAM_FUNCTION_SHIFT, register };
  }

  save(): SavedState {
    return { pci: this.#pci.save(), resetControl: this.#resetControl.save() };
  }

  restore(state: unknown): void {
    const { pci, resetControl } = state as SavedState;
    this.#pci.restore(pci);
    this.#resetControl.restore(resetControl);
  }
}
