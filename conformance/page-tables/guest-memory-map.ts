/** Where things lie in the memory of the guest of the page-table machine (16 MiB), at addresses that are linear and physical at once. */
export const Place = {
  PROGRAM: 0x10_0000,
  /** The monitor's own tables: never changed, mapped in each root. */
  FIXED_TABLES: 0x30_0000,
  /** PAE: top tables of 32 bytes. */
  PDPTS: 0x31_0000,
  /** Pages that the steps work on: tables and data. */
  ARENA: 0x40_0000,
  COMMANDS: 0x80_0000,
  RESULTS: 0xc0_0000,
  /** The only page of the monitor that ring 3 may use: the instructions that access memory. */
  USER_STUBS: 0xe0_0000,
  END: 0x100_0000,
} as const;
export const PAGE = 4096;
export const ARENA_PAGES = 96;
/** The first of the arena's pages are top tables, the next ones tables, the others data. */
export const ROOTS = 2;
export const TABLES = 26;
export const ARENA_END = Place.ARENA + ARENA_PAGES * PAGE;
/** Each page of the arena ends with an instruction that returns to the monitor. */
export const CODE_OFFSET = 0xff8;
export const pageAt = (n: number): number => Place.ARENA + n * PAGE;
