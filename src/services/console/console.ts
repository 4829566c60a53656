/**
 * The console service: the four serial ports of one VM, each joined to a stream of the embedder.
 *
 * Output is gathered: a line end, a full chunk or a millisecond without either sends it. What has been gathered is part of the state, so a
 * restart loses and doubles nothing.
 */
import type { IrqLine } from "../../devices/model.ts";
import { SERIAL_PORTS } from "../../devices/platform/platform-map.ts";
import { Uart16550a } from "../../devices/platform/uart-16550a.ts";
import { PortBus } from "../../devices/port-bus.ts";
import { answerAccess } from "../../hypervisor/abi/access.ts";
import type { Message } from "../../hypervisor/abi/message.ts";
import type { Hypercalls, ServiceFactory, ServiceProgram } from "../../hypervisor/abi/service.ts";
import type { Status } from "../../hypervisor/abi/status.ts";

/** Four of them, and what else a message may cause, fit into the smallest message buffer (4 KiB). */
const CHUNK = 512;
const FLUSH_NS = 1_000_000;
const LINE_FEED = 10;
const UART_PORTS = 8;

export const createService: ServiceFactory = (hypercalls) => new ConsoleService(hypercalls);

/** Bytes on their way out of one port. */
interface Output {
  readonly bytes: Uint8Array;
  length: number;
}

interface SavedState {
  readonly uarts: readonly unknown[];
  readonly output: readonly Uint8Array[];
  readonly flushAt: number;
  readonly timer: number;
}

class ConsoleService implements ServiceProgram {
  readonly #hypercalls: Hypercalls;
  readonly #ports = new PortBus();
  readonly #uarts: readonly Uart16550a[];
  readonly #output: readonly Output[];
  /** When gathered output leaves; Infinity while there is none. */
  #flushAt = Number.POSITIVE_INFINITY;
  #timer = Number.POSITIVE_INFINITY;

  constructor(hypercalls: Hypercalls) {
    this.#hypercalls = hypercalls;
    this.#output = SERIAL_PORTS.map(() => ({ bytes: new Uint8Array(CHUNK), length: 0 }));
    this.#uarts = SERIAL_PORTS.map(({ irq, base }, port) => {
      const line: IrqLine = { set: (level) => hypercalls.setLine(irq, level) };
      const output = (byte: number): void => this.#emit(port, byte);
      const uart = new Uart16550a({ irq: line, clock: hypercalls, output });
      this.#ports.map({ base, length: UART_PORTS }, uart);
      return uart;
    });
  }

  onEvent(message: Message): Status {
    const status = answerAccess(message, this.#ports, null);
    this.#armTimer();
    return status;
  }

  onTimer(now: number): void {
    this.#timer = Number.POSITIVE_INFINITY;
    for (const uart of this.#uarts) uart.advance(now);
    if (now >= this.#flushAt) this.#flushAll();
    this.#armTimer();
  }

  onInput(stream: number, bytes: Uint8Array): number {
    const taken = this.#uarts[stream]?.receive(bytes) ?? bytes.length;
    this.#armTimer();
    return taken;
  }

  onSignal(signal: "powerButton" | "stopping"): void {
    if (signal === "stopping") this.#flushAll();
  }

  save(): SavedState {
    return {
      uarts: this.#uarts.map((uart) => uart.save()),
      output: this.#output.map(({ bytes, length }) => bytes.slice(0, length)),
      flushAt: this.#flushAt,
      timer: this.#timer,
    };
  }

  restore(state: unknown): void {
    const { uarts, output, flushAt, timer } = state as SavedState;
    for (const [i, uart] of this.#uarts.entries()) uart.restore(uarts[i]);
    for (const [i, { bytes }] of this.#output.entries()) {
      bytes.set(output[i]!);
      this.#output[i]!.length = output[i]!.length;
    }
    this.#flushAt = flushAt;
    this.#timer = timer;
  }

  #armTimer(): void {
    let wanted = this.#flushAt;
    for (let i = 0; i < this.#uarts.length; i++)
      wanted = Math.min(wanted, this.#uarts[i]!.deadline());
    if (wanted === this.#timer) return;
    this.#timer = wanted;
    this.#hypercalls.setTimer(wanted);
  }

  #emit(port: number, byte: number): void {
    const out = this.#output[port]!;
    out.bytes[out.length++] = byte;
    if (byte === LINE_FEED || out.length === CHUNK) this.#flush(port);
    else if (this.#flushAt === Number.POSITIVE_INFINITY)
      this.#flushAt = this.#hypercalls.now() + FLUSH_NS;
  }

  #flushAll(): void {
    for (let port = 0; port < this.#output.length; port++) this.#flush(port);
    this.#flushAt = Number.POSITIVE_INFINITY;
  }

  #flush(port: number): void {
    const out = this.#output[port]!;
    if (out.length === 0) return;
    this.#hypercalls.put(port, out.bytes.subarray(0, out.length));
    out.length = 0;
  }
}
