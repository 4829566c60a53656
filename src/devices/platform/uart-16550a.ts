/**
 * UART 16550A with 16-byte FIFOs, as a PC's COM port.
 * Spec: National Semiconductor PC16550D datasheet, "Registers" and "FIFO Interrupt Mode Operation".
 *
 * The transmitter is infinitely fast: a byte written leaves through `output` at once, so THRE and TEMT read as 1 always, and the
 * THRE interrupt comes back right after each write. The receiver FIFO is fed from a bounded backlog whenever it has room, so
 * overrun happens in loopback only. The far end obeys RTS: it holds its bytes until the guest raises RTS or enables the receive
 * interrupt, so nothing typed while a driver resets the FIFOs is lost.
 *
 * The INTR pin reaches the bus through the OUT2 gate of the PC; in loopback OUT2 is forced off.
 * Not here: parity and framing errors, which a virtual line never has.
 */
import type { Clock, IrqLine, PortDevice, Snapshottable, TimedDevice } from "../model.ts";
import { restoreState, saveState } from "../state.ts";
import { ByteRing } from "./byte-ring.ts";
import { charNs, FIFO_SIZE, Ier, Iir, Lcr, Lsr, Mcr, MSR_DELTAS, Msr } from "./uart-registers.ts";

const BACKLOG_SIZE = 4096;
const TRIGGER_LEVELS = [1, 4, 8, 14] as const;
/** The receive timeout: FIFO neither filled nor read for this many characters. */
const TIMEOUT_CHARACTERS = 4;
const NEVER = Number.MAX_SAFE_INTEGER;

export interface UartWires {
  readonly irq: IrqLine;
  readonly clock: Clock;
  readonly output: (byte: number) => void;
  /** The backlog has room again after receive() had to refuse bytes. */
  readonly receiveReady?: () => void;
}

export class Uart16550a implements PortDevice, TimedDevice, Snapshottable {
  readonly #wires: UartWires;
  readonly #fifo: ByteRing;
  readonly #errors: ByteRing;
  readonly #backlog: ByteRing;
  readonly #state = {
    ier: 0,
    lcr: 0,
    mcr: 0,
    scratch: 0,
    divisor: 1,
    fifoEnabled: false,
    trigger: 1,
    /** OE PE FE BI, sticky until LSR is read */
    lineErrors: 0,
    /** CTS DSR RI DCD pins as driven by the far end, in MSR positions */
    pins: Msr.CTS | Msr.DSR | Msr.DCD,
    deltas: 0,
    threPending: false,
    timeoutPending: false,
    timeoutAt: NEVER,
    intr: false,
    refused: false,
    fifo: ByteRing.state(FIFO_SIZE),
    errors: ByteRing.state(FIFO_SIZE),
    backlog: ByteRing.state(BACKLOG_SIZE),
  };

  constructor(wires: UartWires) {
    this.#wires = wires;
    this.#fifo = new ByteRing(this.#state.fifo);
    this.#errors = new ByteRing(this.#state.errors);
    this.#backlog = new ByteRing(this.#state.backlog);
  }

  /** Bytes from the far end; answers how many were taken. The rest is the caller's to offer again at receiveReady. */
  receive(bytes: Uint8Array): number {
    let accepted = this.#backlog.pushAll(bytes);
    this.#refill();
    accepted += this.#backlog.pushAll(bytes.subarray(accepted));
    if (accepted < bytes.length) this.#state.refused = true;
    this.#updateInterrupt();
    return accepted;
  }

  canReceive(): boolean {
    return this.#backlog.free > 0;
  }

  /** A break condition on the line: a zero byte with BI, at once and ahead of the backlog. */
  receiveBreak(): void {
    if (this.#state.mcr & Mcr.LOOP) return;
    this.#arrive(0, Lsr.BI);
    this.#updateInterrupt();
  }

  /** Levels of the far end's outputs, in MSR positions (Msr.CTS | Msr.DSR | Msr.RI | Msr.DCD). */
  setModemPins(pins: number): void {
    this.#changeModemLines(() => {
      this.#state.pins = pins & 0xf0;
    });
    this.#updateInterrupt();
  }

  deadline(): number {
    const { timeoutAt, timeoutPending } = this.#state;
    return this.#timeoutArmed() && !timeoutPending ? timeoutAt : Number.POSITIVE_INFINITY;
  }

  advance(now: number): void {
    this.#updateInterrupt(now);
  }

  readPort(port: number): number {
    const value = this.#read(port & 7);
    this.#updateInterrupt();
    return value;
  }

  writePort(port: number, _size: number, value: number): void {
    this.#write(port & 7, value & 0xff);
    this.#updateInterrupt();
  }

  save(): unknown {
    return saveState(this.#state);
  }

  restore(state: unknown): void {
    restoreState(this.#state, state);
  }

  #read(register: number): number {
    const state = this.#state;
    switch (register) {
      case 0:
        return state.lcr & Lcr.DLAB ? state.divisor & 0xff : this.#readReceiver();
      case 1:
        return state.lcr & Lcr.DLAB ? state.divisor >> 8 : state.ier;
      case 2:
        return this.#readInterruptId();
      case 3:
        return state.lcr;
      case 4:
        return state.mcr;
      case 5:
        return this.#readLineStatus();
      case 6: {
        const value = this.#modemLines() | state.deltas;
        state.deltas = 0;
        return value;
      }
      default:
        return state.scratch;
    }
  }

  #write(register: number, value: number): void {
    const state = this.#state;
    switch (register) {
      case 0:
        if (state.lcr & Lcr.DLAB) state.divisor = (state.divisor & 0xff00) | value;
        else this.#transmit(value);
        break;
      case 1:
        if (state.lcr & Lcr.DLAB) state.divisor = (state.divisor & 0xff) | (value << 8);
        else this.#writeInterruptEnable(value);
        break;
      case 2:
        this.#writeFifoControl(value);
        break;
      case 3:
        // A break sent in loopback arrives at the own receiver.
        if (value & ~state.lcr & Lcr.BREAK && state.mcr & Mcr.LOOP) this.#arrive(0, Lsr.BI);
        state.lcr = value;
        break;
      case 4:
        this.#changeModemLines(() => {
          state.mcr = value & 0x1f;
        });
        this.#refill();
        break;
      case 7:
        state.scratch = value;
        break;
      // LSR and MSR are for reading only; factory tests are not modelled.
    }
  }

  #transmit(byte: number): void {
    const state = this.#state;
    // The request drops while the holding register is full, then rises anew: an edge for the PIC.
    state.threPending = false;
    this.#updateInterrupt();
    if (state.mcr & Mcr.LOOP) this.#arrive(byte & (0xff >> (3 - (state.lcr & 3))), 0);
    else this.#wires.output(byte);
    state.threPending = true;
  }

  /** A character has been shifted in. A full FIFO keeps its bytes: the new one is lost (OE). */
  #arrive(byte: number, errors: number): void {
    const state = this.#state;
    if (this.#fifo.count >= (state.fifoEnabled ? FIFO_SIZE : 1)) {
      state.lineErrors |= Lsr.OE;
      if (state.fifoEnabled) return;
      // Without FIFO the holding register is overwritten.
      this.#fifo.clear();
      this.#errors.clear();
    }
    if (this.#fifo.count === 0) state.lineErrors |= errors;
    this.#fifo.push(byte);
    this.#errors.push(errors);
    this.#restartTimeout();
  }

  #readReceiver(): number {
    const state = this.#state;
    if (this.#fifo.count === 0) return 0;
    const byte = this.#fifo.shift();
    this.#errors.shift();
    if (this.#fifo.count > 0) state.lineErrors |= this.#errors.peek(0);
    state.timeoutPending = false;
    this.#restartTimeout();
    this.#refill();
    return byte;
  }

  /** Reading IIR withdraws the THRE request if that is what it reports. */
  #readInterruptId(): number {
    const id = this.#interruptId();
    if (id === Iir.THRE) this.#state.threPending = false;
    return id | (this.#state.fifoEnabled ? Iir.FIFO_ENABLED : 0);
  }

  #readLineStatus(): number {
    const state = this.#state;
    const ready = this.#fifo.count > 0 ? Lsr.DR : 0;
    const inFifo = state.fifoEnabled && this.#errors.some() ? Lsr.FIFO_ERROR : 0;
    const value = ready | state.lineErrors | Lsr.THRE | Lsr.TEMT | inFifo;
    state.lineErrors = 0;
    if (this.#errors.count > 0) this.#errors.replaceFirst(0);
    return value;
  }

  /** Enabling the THRE interrupt while the transmitter is empty requests it; drivers probe for exactly this. */
  #writeInterruptEnable(value: number): void {
    const state = this.#state;
    if (value & ~state.ier & Ier.THRI) state.threPending = true;
    state.ier = value & 0x0f;
    this.#refill();
  }

  #writeFifoControl(value: number): void {
    const state = this.#state;
    const enable = (value & 1) !== 0;
    if (enable !== state.fifoEnabled || (enable && value & 2)) this.#clearReceiver();
    if (enable) state.trigger = TRIGGER_LEVELS[(value >> 6) as 0 | 1 | 2 | 3];
    state.fifoEnabled = enable;
    this.#refill();
  }

  #clearReceiver(): void {
    this.#fifo.clear();
    this.#errors.clear();
    this.#state.timeoutPending = false;
    this.#state.timeoutAt = NEVER;
  }

  #refill(): void {
    const state = this.#state;
    const held = state.mcr & Mcr.LOOP || !(state.mcr & Mcr.RTS || state.ier & Ier.RDI);
    if (held) return;
    const capacity = state.fifoEnabled ? FIFO_SIZE : 1;
    while (this.#fifo.count < capacity && this.#backlog.count > 0) {
      this.#arrive(this.#backlog.shift(), 0);
    }
    // Half empty rather than one byte free: the far end is told in big steps.
    if (state.refused && this.#backlog.free >= BACKLOG_SIZE / 2) {
      state.refused = false;
      this.#wires.receiveReady?.();
    }
  }

  /** MSR bits 7:4: the pins, or in loopback this UART's own outputs. */
  #modemLines(): number {
    const { mcr, pins } = this.#state;
    if (!(mcr & Mcr.LOOP)) return pins;
    return (
      (mcr & Mcr.RTS ? Msr.CTS : 0) |
      (mcr & Mcr.DTR ? Msr.DSR : 0) |
      (mcr & Mcr.OUT1 ? Msr.RI : 0) |
      (mcr & Mcr.OUT2 ? Msr.DCD : 0)
    );
  }

  /** Each delta bit is 4 below its line; RI counts only its trailing edge. */
  #changeModemLines(change: () => void): void {
    const before = this.#modemLines();
    change();
    const after = this.#modemLines();
    const changed = (before ^ after) & ~(after & Msr.RI);
    this.#state.deltas |= (changed >> 4) & MSR_DELTAS;
  }

  #restartTimeout(): void {
    const { clock } = this.#wires;
    const wait = TIMEOUT_CHARACTERS * charNs(this.#state.lcr, this.#state.divisor);
    this.#state.timeoutAt = this.#fifo.count > 0 ? clock.now() + wait : NEVER;
  }

  #timeoutArmed(): boolean {
    const { ier, fifoEnabled, trigger } = this.#state;
    const { count } = this.#fifo;
    return fifoEnabled && (ier & Ier.RDI) !== 0 && count > 0 && count < trigger;
  }

  /** The highest of the pending and enabled requests, in the order of the datasheet's interrupt control table. */
  #interruptId(): number {
    const { ier, lineErrors, timeoutPending, threPending, deltas, fifoEnabled, trigger } =
      this.#state;
    if (ier & Ier.RLSI && lineErrors) return Iir.LINE_STATUS;
    if (ier & Ier.RDI && this.#fifo.count >= (fifoEnabled ? trigger : 1)) return Iir.DATA;
    if (ier & Ier.RDI && timeoutPending) return Iir.TIMEOUT;
    if (ier & Ier.THRI && threPending) return Iir.THRE;
    if (ier & Ier.MSI && deltas) return Iir.MODEM_STATUS;
    return Iir.NONE;
  }

  #updateInterrupt(now = this.#wires.clock.now()): void {
    const state = this.#state;
    if (this.#timeoutArmed() && now >= state.timeoutAt) state.timeoutPending = true;
    const gate = (state.mcr & (Mcr.OUT2 | Mcr.LOOP)) === Mcr.OUT2;
    const intr = gate && this.#interruptId() !== Iir.NONE;
    if (intr === state.intr) return;
    state.intr = intr;
    this.#wires.irq.set(intr);
  }
}
