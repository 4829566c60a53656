/**
 * Registers of the MC146818A and their time formats.
 * Spec: MC146818A datasheet, "Time, Calendar, and Alarm Locations" and "Registers".
 *
 * A guest may leave any bytes in the time registers: decoding brings each into its range, so time goes on from something valid.
 */

export const Register = {
  SECONDS: 0x00,
  SECONDS_ALARM: 0x01,
  MINUTES: 0x02,
  MINUTES_ALARM: 0x03,
  HOURS: 0x04,
  HOURS_ALARM: 0x05,
  DAY_OF_WEEK: 0x06,
  DAY: 0x07,
  MONTH: 0x08,
  YEAR: 0x09,
  A: 0x0a,
  B: 0x0b,
  C: 0x0c,
  D: 0x0d,
  CENTURY: 0x32,
} as const;

export const RegA = { UIP: 0x80, DIVIDER_RESET: 0x60, RATE: 0x0f } as const;
export const RegB = {
  SET: 0x80,
  PERIODIC_IE: 0x40,
  ALARM_IE: 0x20,
  UPDATE_IE: 0x10,
  BINARY: 0x04,
  HOUR_24: 0x02,
} as const;
export const RegC = {
  IRQ: 0x80,
  PERIODIC: 0x40,
  ALARM: 0x20,
  UPDATE_ENDED: 0x10,
  SOURCES: 0x70,
} as const;
export const RegD = { VALID_RAM_AND_TIME: 0x80 } as const;

const PM = 0x80;
/** An alarm byte with both top bits set matches anything. */
const ANY = 0xc0;

/** The time in the registers, as seconds since 1970 UTC. */
export function decodeTime(ram: Uint8Array): number {
  const binary = (ram[Register.B] & RegB.BINARY) !== 0;
  const field = (index: number) => (binary ? ram[index] : fromBcd(ram[index]));
  const year = field(Register.CENTURY) * 100 + (field(Register.YEAR) % 100);
  const month = Math.min(Math.max(field(Register.MONTH), 1), 12);
  const day = Math.min(Math.max(field(Register.DAY), 1), 31);
  const hour = decodeHour(ram[Register.HOURS], ram[Register.B]);
  const minute = field(Register.MINUTES) % 60;
  const second = field(Register.SECONDS) % 60;
  return daysSinceEpoch(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
}

export function encodeTime(ram: Uint8Array, seconds: number): void {
  const days = Math.floor(seconds / 86_400);
  const rest = seconds - days * 86_400;
  const { year, month, day } = dateOfDay(days);
  const write = (index: number, value: number) => {
    ram[index] = encodeByte(value, ram[Register.B]);
  };
  write(Register.SECONDS, rest % 60);
  write(Register.MINUTES, Math.floor(rest / 60) % 60);
  ram[Register.HOURS] = encodeHour(Math.floor(rest / 3600), ram[Register.B]);
  write(Register.DAY_OF_WEEK, ((((days + 4) % 7) + 7) % 7) + 1);
  write(Register.DAY, day);
  write(Register.MONTH, month);
  write(Register.YEAR, year % 100);
  write(Register.CENTURY, Math.floor(year / 100) % 100);
}

/** Whether the alarm registers name the time of day `seconds`. */
export function matchesAlarm(ram: Uint8Array, seconds: number): boolean {
  const rest = ((seconds % 86_400) + 86_400) % 86_400;
  const format = ram[Register.B];
  const matches = (index: number, byte: number) =>
    (ram[index] & ANY) === ANY || ram[index] === byte;
  return (
    matches(Register.SECONDS_ALARM, encodeByte(rest % 60, format)) &&
    matches(Register.MINUTES_ALARM, encodeByte(Math.floor(rest / 60) % 60, format)) &&
    matches(Register.HOURS_ALARM, encodeHour(Math.floor(rest / 3600), format))
  );
}

const fromBcd = (byte: number) => (byte >> 4) * 10 + (byte & 0xf);
const toBcd = (value: number) => (Math.floor(value / 10) << 4) | (value % 10);

function encodeByte(value: number, format: number): number {
  return format & RegB.BINARY ? value : toBcd(value);
}

function encodeHour(hour: number, format: number): number {
  if (format & RegB.HOUR_24) return encodeByte(hour, format);
  return encodeByte(hour % 12 || 12, format) | (hour >= 12 ? PM : 0);
}

function decodeHour(byte: number, format: number): number {
  const decode = (bits: number) => (format & RegB.BINARY ? bits : fromBcd(bits));
  if (format & RegB.HOUR_24) return decode(byte) % 24;
  return (decode(byte & ~PM) % 12) + (byte & PM ? 12 : 0);
}

/** Days since 1970-01-01 of the proleptic Gregorian calendar; exact for any year a byte pair can name. */
function daysSinceEpoch(year: number, month: number, day: number): number {
  const date = new Date(0);
  date.setUTCFullYear(year, month - 1, day);
  return Math.round(date.getTime() / 86_400_000);
}

function dateOfDay(days: number): { year: number; month: number; day: number } {
  const date = new Date(days * 86_400_000);
  return { year: date.getUTCFullYear(), month: date.getUTCMonth() + 1, day: date.getUTCDate() };
}
