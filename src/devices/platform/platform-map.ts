/**
 * Where everything is: guest-physical memory, I/O ports and interrupt lines of the PC that Hypolith builds.
 * The only place that names these numbers; boot loaders, devices, ACPI tables and the monitor all take them from here.
 */

export const MemoryMap = {
  EBDA_BASE: 0x9_fc00,
  LOW_RAM_END: 0xa_0000,
  /** ACPI tables, RSDP first; reserved in the e820 map up to HIGH_RAM_BASE. */
  ACPI_TABLES_BASE: 0xe_0000,
  ACPI_TABLES_END: 0x10_0000,
  /** 16 bytes behind the tables: which life of a snapshot this is. */
  GENERATION_ID: 0xf_f000,
  HIGH_RAM_BASE: 0x10_0000,
  /** RAM never reaches past this. */
  RAM_LIMIT: 0xc000_0000,
  PCI_MMIO_BASE: 0xc000_0000,
  /** exclusive */
  PCI_MMIO_END: 0xfec0_0000,
  IOAPIC_BASE: 0xfec0_0000,
  IOAPIC_SIZE: 0x1000,
  HPET_BASE: 0xfed0_0000,
  HPET_SIZE: 0x400,
  LAPIC_BASE: 0xfee0_0000,
  LAPIC_SIZE: 0x1000,
  /** PCI Express memory-mapped configuration of bus 0: 1 MiB; reserve it in the e820 map. */
  ECAM_BASE: 0xfef0_0000,
  ECAM_SIZE: 0x10_0000,
} as const;

export const Port = {
  PIC_MASTER: 0x20,
  PIC_SLAVE: 0xa0,
  ELCR: 0x4d0,
  PIT: 0x40,
  KEYBOARD_DATA: 0x60,
  SYSTEM_CONTROL_B: 0x61,
  KEYBOARD_COMMAND: 0x64,
  RTC_INDEX: 0x70,
  POST: 0x80,
  SYSTEM_CONTROL_A: 0x92,
  DEBUG: 0xe9,
  PM1_EVENT: 0x600,
  PM1_CONTROL: 0x604,
  PM_TIMER: 0x608,
  /** Status and enable of general purpose events 0..7, a byte each. */
  GPE0: 0x60c,
  /** exclusive */
  PM_END: 0x60e,
  PCI_ADDRESS: 0xcf8,
  RESET_CONTROL: 0xcf9,
  PCI_DATA: 0xcfc,
  /** I/O BARs are placed from here up to the end of the port space. */
  PCI_IO_BASE: 0xd000,
} as const;

/** ISA interrupt lines. */
export const Irq = {
  PIT: 0,
  CASCADE: 2,
  COM2: 3,
  COM1: 4,
  /** The one PIC input that all PCI INTx lines share when the guest runs without the IOAPIC. */
  PCI: 5,
  RTC: 8,
  SCI: 9,
  COM3: 10,
  COM4: 11,
} as const;

/** Global system interrupts = IOAPIC pins. ISA lines are identical but for the PIT, as on every PC. */
export const Gsi = {
  PIT: 2,
  /** INTA#..INTD# of bus 0 are the pins from here, rotated by slot. */
  PCI_INTX: 16,
} as const;

export const IOAPIC_ID = 0;

/** Value of the reset control register that resets the machine. */
export const RESET_VALUE = 6;

/** SLP_TYP of soft-off in the PM1 control register and in \_S5. */
export const SLEEP_TYPE_S5 = 5;

export const PIT_HERTZ = 1_193_182;
export const PM_TIMER_HERTZ = 3_579_545;
export const HPET_PERIOD_FS = 10_000_000;

export interface SerialPort {
  readonly base: number;
  readonly irq: number;
  readonly name: string;
}

/** In the order of the control protocol's ports 0..3. */
export const SERIAL_PORTS: readonly SerialPort[] = [
  { name: "COM1", base: 0x3f8, irq: Irq.COM1 },
  { name: "COM2", base: 0x2f8, irq: Irq.COM2 },
  { name: "COM3", base: 0x3e8, irq: Irq.COM3 },
  { name: "COM4", base: 0x2e8, irq: Irq.COM4 },
];
