/**
 * Where the x86 console keeps a UART: devices/platform/uart-16550a.ts as bytes in memory. The receiver's FIFO is one ring of bytes with the
 * line errors of each beside it.
 */
import { SERIAL_PORTS } from "../../devices/platform/platform-map.ts";
import { FIFO_SIZE, Msr } from "../../devices/platform/uart-registers.ts";
import { Layout } from "./memory-layout.ts";

export const BACKLOG_BYTES = 4096;
/** A line end, a full chunk or FLUSH_NS without either sends what has been gathered. */
export const CHUNK_BYTES = 512;
export const FLUSH_NS = 1_000_000;

/** Offsets in a UART. Bytes where nothing else is said. */
export const Uart = {
  IER: 0,
  LCR: 1,
  MCR: 2,
  SCRATCH: 3,
  /** u16 */
  DIVISOR: 4,
  FIFO_ENABLED: 6,
  TRIGGER: 7,
  LINE_ERRORS: 8,
  PINS: 9,
  DELTAS: 10,
  THRE_PENDING: 11,
  TIMEOUT_PENDING: 12,
  INTR: 13,
  IRQ: 14,
  /** u64 */
  TIMEOUT_AT: 16,
  FIFO_HEAD: 24,
  FIFO_COUNT: 25,
  /** u16 */
  OUTPUT_BYTES: 26,
  /** u32 */
  STREAM: 28,
  FIFO: 32,
  ERRORS: 32 + FIFO_SIZE,
  /** u32 each */
  BACKLOG_HEAD: 64,
  BACKLOG_COUNT: 68,
  OUTPUT: 80,
  BACKLOG: 80 + CHUNK_BYTES,
  BYTES: 0x1400,
} as const;

/** Times, u64: when gathered output leaves, and what the timer has been set to. */
export const FLUSH_AT = Layout.DATA;
export const TIMER_AT = Layout.DATA + 8;
const FIRST_UART = Layout.DATA + 0x100;

export const NEVER = 0xffff_ffff_ffff_ffffn;

export const uartAt = (n: number): number => FIRST_UART + Uart.BYTES * n;

/** The data section as the program finds it in its first message. */
export function initialData(): Uint8Array {
  const bytes = new Uint8Array(uartAt(SERIAL_PORTS.length) - Layout.DATA);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(FLUSH_AT - Layout.DATA, NEVER, true);
  view.setBigUint64(TIMER_AT - Layout.DATA, NEVER, true);
  for (const [n, { irq }] of SERIAL_PORTS.entries()) {
    const at = uartAt(n) - Layout.DATA;
    view.setUint16(at + Uart.DIVISOR, 1, true);
    view.setUint8(at + Uart.TRIGGER, 1);
    view.setUint8(at + Uart.PINS, Msr.CTS | Msr.DSR | Msr.DCD);
    view.setUint8(at + Uart.IRQ, irq);
    view.setBigUint64(at + Uart.TIMEOUT_AT, NEVER, true);
    view.setUint32(at + Uart.STREAM, n, true);
  }
  return bytes;
}
