/** The BIOS-style memory map (e820) of the machine, from its platform map. */
import { MemoryMap } from "../../devices/platform/platform-map.ts";
import { type E820Entry, E820Type } from "./boot-memory.ts";

/** `memoryBytes` of RAM from address 0, at most up to MemoryMap.RAM_LIMIT. */
export function e820Map(memoryBytes: number): E820Entry[] {
  const { EBDA_BASE, LOW_RAM_END, ACPI_TABLES_BASE, ACPI_TABLES_END } = MemoryMap;
  const { HIGH_RAM_BASE, ECAM_BASE, ECAM_SIZE } = MemoryMap;
  const range = (base: number, end: number, type: number) => ({ base, length: end - base, type });
  const map = [
    range(0, EBDA_BASE, E820Type.RAM),
    range(EBDA_BASE, LOW_RAM_END, E820Type.RESERVED),
    range(ACPI_TABLES_BASE, ACPI_TABLES_END, E820Type.RESERVED),
    range(HIGH_RAM_BASE, Math.max(memoryBytes, HIGH_RAM_BASE), E820Type.RAM),
    range(ECAM_BASE, ECAM_BASE + ECAM_SIZE, E820Type.RESERVED),
  ];
  return map.filter(({ length }) => length > 0);
}
