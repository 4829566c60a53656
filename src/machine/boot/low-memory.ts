/**
 * Where the boot loaders put their own data: one fixed map of the first 192 KiB.
 *
 * Below 0x500 stay the real-mode interrupt vectors and the BIOS data area. Everything here is read once by the kernel's first
 * instructions and then free; it is inside the low usable range of the memory map, away from the top of conventional memory where
 * Linux puts its own trampolines.
 *
 *   0x00500  GDT            0x08000  stack (grows down from 0x9000)
 *   0x06000  start info     0x09000  identity map: PML4, PDPT, 4 page directories
 *   0x07000  boot_params    0x10000  memory map      0x20000  command line (64 KiB)
 */

export interface FixedArea {
  readonly name: string;
  readonly start: number;
  readonly end: number;
}

export const GDT: FixedArea = { name: "descriptor table", start: 0x500, end: 0x540 };
/** hvm_start_info with its module list, or the Multiboot information. */
export const START_INFO: FixedArea = { name: "start information", start: 0x6000, end: 0x7000 };
/** The "zero page" of the Linux boot protocol. */
export const BOOT_PARAMS: FixedArea = { name: "boot parameters", start: 0x7000, end: 0x8000 };
export const STACK: FixedArea = { name: "boot stack", start: 0x8000, end: 0x9000 };
export const IDENTITY_MAP: FixedArea = { name: "page tables", start: 0x9000, end: 0xf000 };
export const MEMORY_MAP: FixedArea = { name: "memory map", start: 0x1_0000, end: 0x1_1000 };
export const COMMAND_LINE: FixedArea = { name: "command line", start: 0x2_0000, end: 0x3_0000 };
