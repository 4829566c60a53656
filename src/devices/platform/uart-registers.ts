/** Register bits of the 16550A. Spec: PC16550D datasheet, "Registers", tables II to V. */

export const FIFO_SIZE = 16;

/** Input clock of a PC's UART; the baud rate is this / 16 / divisor. */
const CLOCK_HERTZ = 1_843_200;

export const Ier = { RDI: 0x01, THRI: 0x02, RLSI: 0x04, MSI: 0x08 } as const;

export const Iir = {
  MODEM_STATUS: 0x00,
  NONE: 0x01,
  THRE: 0x02,
  DATA: 0x04,
  LINE_STATUS: 0x06,
  TIMEOUT: 0x0c,
  FIFO_ENABLED: 0xc0,
} as const;

export const Lcr = { STOP: 0x04, PARITY: 0x08, BREAK: 0x40, DLAB: 0x80 } as const;

export const Mcr = { DTR: 0x01, RTS: 0x02, OUT1: 0x04, OUT2: 0x08, LOOP: 0x10 } as const;

export const Lsr = {
  DR: 0x01,
  OE: 0x02,
  PE: 0x04,
  FE: 0x08,
  BI: 0x10,
  THRE: 0x20,
  TEMT: 0x40,
  FIFO_ERROR: 0x80,
} as const;

export const Msr = { CTS: 0x10, DSR: 0x20, RI: 0x40, DCD: 0x80 } as const;

export const MSR_DELTAS = 0x0f;

/** Duration of one character: start bit, 5 to 8 data bits, parity, stop bits. Divisor 0 counts as 65536, the counter's wrap. */
export function charNs(lcr: number, divisor: number): number {
  const bits = 1 + 5 + (lcr & 3) + (lcr & Lcr.PARITY ? 1 : 0) + (lcr & Lcr.STOP ? 2 : 1);
  return Math.round((bits * 16 * (divisor || 0x1_0000) * 1e9) / CLOCK_HERTZ);
}
