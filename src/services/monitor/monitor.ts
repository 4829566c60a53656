/**
 * The monitor: the service that serves one VM's device accesses. Owns the platform chipset and its serial streams.
 *
 * It answers two portals' events, I/O instructions and device pages, by its buses, in place. It sees RAX, RSI/RDI and RIP of the instruction and the
 * access itself, nothing else of the guest.
 */

import type { MmioSize, PortSize } from "../../devices/model.ts";
import { Chipset } from "../../devices/platform/chipset.ts";
import { ExitReasons } from "../../hypervisor/abi/exit-reasons.ts";
import { DeviceAccess, type Message, StateGroup } from "../../hypervisor/abi/message.ts";
import type { Hypercalls, ServiceFactory, ServiceProgram } from "../../hypervisor/abi/service.ts";
import { Status } from "../../hypervisor/abi/status.ts";

export interface MonitorOptions {
  /** UTC at machine start, milliseconds since 1970. */
  readonly rtcEpochMs: number;
}

const RAX = 0;
const SERIAL_PORTS = 4;
/** Bytes of serial output gathered before they leave; a line end or the end of an event flushes. */
const CHUNK = 4096;

/** I/O qualification. SDM Vol. 3C, "Exit Qualification for I/O Instructions". */
const IoBits = { SIZE: 7, IN: 1 << 3, STRING: 1 << 4 } as const;

export const createMonitor =
  (options: MonitorOptions): ServiceFactory =>
  (hypercalls) =>
    new Monitor(hypercalls, options);

class Monitor implements ServiceProgram {
  readonly #hypercalls: Hypercalls;
  readonly #chipset: Chipset;
  readonly #output = Array.from({ length: SERIAL_PORTS }, () => ({
    bytes: new Uint8Array(CHUNK),
    length: 0,
  }));
  #timer = Infinity;

  constructor(hypercalls: Hypercalls, options: MonitorOptions) {
    this.#hypercalls = hypercalls;
    this.#chipset = new Chipset(
      {
        clock: { now: () => hypercalls.now() },
        intr: { set: (level) => hypercalls.setExtint(level) },
        deliver: (message) => hypercalls.sendInterrupt(message),
        serialOutput: (port, byte) => this.#emit(port, byte),
        powerOff: () => this.#stop("poweroff"),
        reset: () => this.#stop("reset"),
      },
      { rtcEpochMs: options.rtcEpochMs },
    );
    this.#armTimer();
  }

  onEvent(message: Message): Status {
    const status = message.reason === ExitReasons.IO ? this.#io(message) : this.#memory(message);
    this.#armTimer();
    return status;
  }

  onTimer(now: number): void {
    this.#timer = Infinity;
    this.#chipset.advance(now);
    this.#flushAll();
    this.#armTimer();
  }

  onInput(stream: number, bytes: Uint8Array): number {
    const taken = this.#chipset.serial[stream]?.receive(bytes) ?? bytes.length;
    this.#armTimer();
    return taken;
  }

  onInterruptAcknowledge(): number {
    return this.#chipset.pic.acknowledge();
  }

  onEndOfInterrupt(vector: number): void {
    this.#chipset.ioapic.eoi(vector);
  }

  onSignal(): void {
    this.#chipset.pm.pressPowerButton();
  }

  #io(message: Message): Status {
    const q = message.qualification;
    const size = ((q & IoBits.SIZE) + 1) as PortSize;
    const port = q >>> 16;
    if (q & IoBits.STRING) return Status.UNHANDLED;
    if (q & IoBits.IN) message.writeRegister(RAX, size, this.#chipset.ports.read(port, size));
    else {
      const low = message.registerLow(RAX);
      this.#chipset.ports.write(port, size, size === 4 ? low : low & (2 ** (8 * size) - 1));
    }
    message.skip();
    message.groups = StateGroup.RIP | (q & IoBits.IN ? StateGroup.LOW_REGISTERS : 0);
    return Status.OK;
  }

  #memory(message: Message): Status {
    const size = message.deviceSize as MmioSize;
    const address = message.physical;
    if (message.deviceAccess === DeviceAccess.WRITE) {
      const data = message.deviceData;
      this.#chipset.memory.write(address, size, size === 8 ? data : Number(data));
      message.groups = 0;
    } else {
      message.deviceData = BigInt.asUintN(64, BigInt(this.#chipset.memory.read(address, size)));
      message.groups = StateGroup.DEVICE;
    }
    return Status.OK;
  }

  #armTimer(): void {
    const deadline = this.#chipset.deadline();
    const wanted = this.#hasOutput()
      ? Math.min(deadline, this.#hypercalls.now() + 1_000_000)
      : deadline;
    if (wanted === this.#timer) return;
    this.#timer = wanted;
    this.#hypercalls.setTimer(wanted);
  }

  #hasOutput(): boolean {
    return this.#output.some((o) => o.length > 0);
  }

  #emit(port: number, byte: number): void {
    const out = this.#output[port]!;
    out.bytes[out.length++] = byte;
    if (byte === 10 || out.length === CHUNK) this.#flush(port);
  }

  #flush(port: number): void {
    const out = this.#output[port]!;
    if (out.length === 0) return;
    this.#hypercalls.put(port, out.bytes.slice(0, out.length));
    out.length = 0;
  }

  #flushAll(): void {
    for (let port = 0; port < SERIAL_PORTS; port++) this.#flush(port);
  }

  #stop(kind: "poweroff" | "reset"): void {
    this.#flushAll();
    this.#hypercalls.stop(kind);
  }
}
