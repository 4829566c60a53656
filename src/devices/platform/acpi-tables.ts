/**
 * The ACPI tables of the machine as one image for guest memory: RSDP, RSDT, XSDT, FADT, FACS, DSDT, MADT, HPET, MCFG.
 * Spec: ACPI Specification 6.x, "ACPI Software Programming Model"; IA-PC HPET Specification, "The ACPI 2.0 HPET Description
 * Table"; PCI Firmware Specification, "MCFG Table Description".
 *
 * The image begins with the RSDP, so that a scan of 0xE0000..0xFFFFF finds it at MemoryMap.ACPI_TABLES_BASE. All sums are zero.
 * FADT revision 5: legacy devices and CMOS clock present, no 8042, no VGA, power button as fixed hardware, reset through 0xCF9,
 * ACPI mode always on.
 */
import { invariant } from "../../base/invariant.ts";
import { dsdtBody } from "./dsdt.ts";
import { HPET_COMPARATORS } from "./hpet.ts";
import { Gsi, IOAPIC_ID, Irq, MemoryMap, Port, RESET_VALUE } from "./platform-map.ts";
import { Register as RtcRegister } from "./rtc-registers.ts";
import { TableWriter, writeHeader } from "./table-writer.ts";

export interface AcpiTables {
  /** Guest-physical address of the image and of the RSDP. */
  readonly base: number;
  readonly image: Uint8Array;
  /** Each table's place in the image, by signature. */
  readonly tables: ReadonlyMap<string, Uint8Array>;
}

export interface AcpiOptions {
  readonly cpuCount: number;
  readonly base?: number;
}

const RSDP_SIZE = 36;
/** Local APIC ids are the processor numbers; ids from 255 up would need x2APIC entries. */
const MAX_CPUS = 255;
const TABLE_ALIGNMENT = 64;

export function buildAcpiTables(options: AcpiOptions): AcpiTables {
  const { cpuCount, base = MemoryMap.ACPI_TABLES_BASE } = options;
  invariant(cpuCount >= 1 && cpuCount <= MAX_CPUS, "bad processor count");
  invariant(base % 16 === 0, "the RSDP must lie on a paragraph");
  const tables = new Map<string, Uint8Array>();
  const parts: { offset: number; bytes: Uint8Array }[] = [];
  let end = RSDP_SIZE;
  const place = (signature: string, bytes: Uint8Array): number => {
    const offset = Math.ceil(end / TABLE_ALIGNMENT) * TABLE_ALIGNMENT;
    parts.push({ offset, bytes });
    tables.set(signature, bytes);
    end = offset + bytes.length;
    return base + offset;
  };

  const facs = place("FACS", buildFacs());
  const dsdt = place("DSDT", buildDsdt(cpuCount));
  const listed = [
    place("FACP", buildFadt(facs, dsdt)),
    place("APIC", buildMadt(cpuCount)),
    place("HPET", buildHpet()),
    place("MCFG", buildMcfg()),
  ];
  const rsdt = place("RSDT", buildRootTable("RSDT", listed));
  const xsdt = place("XSDT", buildRootTable("XSDT", listed));
  const rsdp = buildRsdp(rsdt, xsdt);
  tables.set("RSD PTR ", rsdp);

  const image = new Uint8Array(end);
  image.set(rsdp);
  for (const { offset, bytes } of parts) image.set(bytes, offset);
  return { base, image, tables };
}

function buildRsdp(rsdt: number, xsdt: number): Uint8Array {
  const table = new TableWriter(RSDP_SIZE);
  table.ascii(0, "RSD PTR ", 8);
  table.ascii(9, "HYPO", 6);
  table.u8(15, 2);
  table.u32(16, rsdt);
  table.u32(20, RSDP_SIZE);
  table.u64(24, xsdt);
  // The first 20 bytes sum to zero on their own for readers of ACPI 1.0.
  table.checksum(8, 20);
  table.checksum(32);
  return table.bytes;
}

function buildRootTable(signature: "RSDT" | "XSDT", tables: readonly number[]): Uint8Array {
  const size = signature === "RSDT" ? 4 : 8;
  const table = new TableWriter(36 + size * tables.length);
  for (const [i, address] of tables.entries()) {
    if (signature === "RSDT") table.u32(36 + 4 * i, address);
    else table.u64(36 + 8 * i, address);
  }
  return writeHeader(table, signature, 1);
}

function buildDsdt(cpuCount: number): Uint8Array {
  const body = dsdtBody(cpuCount);
  const table = new TableWriter(36 + body.length);
  table.bytes.set(body, 36);
  return writeHeader(table, "DSDT", 2);
}

function buildFacs(): Uint8Array {
  const table = new TableWriter(64);
  table.ascii(0, "FACS", 4);
  table.u32(4, 64);
  table.u8(32, 2);
  return table.bytes;
}

const FadtFlag = {
  WBINVD: 1 << 0,
  PROC_C1: 1 << 2,
  /** no sleep button as fixed hardware */
  SLP_BUTTON: 1 << 5,
  /** RTC wake status is not in the fixed registers */
  FIX_RTC: 1 << 6,
  TMR_VAL_EXT: 1 << 8,
  RESET_REG_SUP: 1 << 10,
} as const;
const BootArchitecture = { LEGACY_DEVICES: 1 << 0, VGA_NOT_PRESENT: 1 << 2 } as const;
const PROFILE_ENTERPRISE_SERVER = 4;
const FADT_SIZE = 268;
/** Latencies above 100 and 1000 us: no C2, no C3. */
const NO_C2_US = 0xffff;

function buildFadt(facs: number, dsdt: number): Uint8Array {
  const table = new TableWriter(FADT_SIZE);
  table.u32(36, facs);
  table.u32(40, dsdt);
  table.u8(45, PROFILE_ENTERPRISE_SERVER);
  table.u16(46, Irq.SCI);
  table.u32(56, Port.PM1_EVENT);
  table.u32(64, Port.PM1_CONTROL);
  table.u32(76, Port.PM_TIMER);
  table.u32(80, Port.GPE0);
  table.u8(88, 4);
  table.u8(89, 2);
  table.u8(91, 4);
  table.u8(92, 2);
  table.u16(96, NO_C2_US);
  table.u16(98, NO_C2_US);
  table.u8(108, RtcRegister.CENTURY);
  table.u16(109, BootArchitecture.LEGACY_DEVICES | BootArchitecture.VGA_NOT_PRESENT);
  const { WBINVD, PROC_C1, SLP_BUTTON, FIX_RTC, TMR_VAL_EXT, RESET_REG_SUP } = FadtFlag;
  table.u32(112, WBINVD | PROC_C1 | SLP_BUTTON | FIX_RTC | TMR_VAL_EXT | RESET_REG_SUP);
  table.ioRegister(116, Port.RESET_CONTROL, 1);
  table.u8(128, RESET_VALUE);
  table.u8(131, 1);
  table.u64(140, dsdt);
  table.ioRegister(148, Port.PM1_EVENT, 4, 2);
  table.ioRegister(172, Port.PM1_CONTROL, 2);
  table.ioRegister(208, Port.PM_TIMER, 4);
  table.ioRegister(220, Port.GPE0, 2, 1);
  return writeHeader(table, "FACP", 5);
}

const MADT_PCAT_COMPAT = 1;
/** Interrupt source override flags: active high, level triggered. */
const ACTIVE_HIGH_LEVEL = 0x0d;
const ALL_PROCESSORS = 0xff;

function buildMadt(cpuCount: number): Uint8Array {
  const lapics = Array.from({ length: cpuCount }, (_, id) => [0, 8, id, id, 1, 0, 0, 0]);
  const { IOAPIC_BASE } = MemoryMap;
  const entries = [
    ...lapics.flat(),
    ...[1, 12, IOAPIC_ID, 0, ...dword(IOAPIC_BASE), ...dword(0)],
    ...[2, 10, 0, Irq.PIT, ...dword(Gsi.PIT), 0, 0],
    ...[2, 10, 0, Irq.SCI, ...dword(Irq.SCI), ACTIVE_HIGH_LEVEL, 0],
    // NMI at LINT1 of every processor, conforming to the bus.
    ...[4, 6, ALL_PROCESSORS, 0, 0, 1],
  ];
  const table = new TableWriter(44 + entries.length);
  table.u32(36, MemoryMap.LAPIC_BASE);
  table.u32(40, MADT_PCAT_COMPAT);
  table.bytes.set(entries, 44);
  return writeHeader(table, "APIC", 3);
}

function buildHpet(): Uint8Array {
  const table = new TableWriter(56);
  const legacyCapable = 1 << 15;
  const counter64 = 1 << 13;
  const comparators = (HPET_COMPARATORS - 1) << 8;
  table.u32(36, 0x8086_0000 + (legacyCapable | counter64 | comparators | 1));
  // Memory space; address at 44.
  table.u8(40, 0);
  table.u64(44, MemoryMap.HPET_BASE);
  // The shortest period that loses no ticks: a guest's own interrupt path is far slower than this.
  table.u16(53, 0x80);
  return writeHeader(table, "HPET", 1);
}

function buildMcfg(): Uint8Array {
  const table = new TableWriter(60);
  table.u64(44, MemoryMap.ECAM_BASE);
  // Segment 0, buses 0..0 are zeros.
  return writeHeader(table, "MCFG", 1);
}

const dword = (value: number) => [0, 8, 16, 24].map((shift) => (value >>> shift) & 0xff);
