/**
 * The memory of a service VM: 256 KiB, identity-mapped, every address fixed. It is copied at every checkpoint.
 *
 *   0x0_0000  nothing: null pointers fault
 *   0x0_1000  GDT and TSS · 0x0_2000 paging structures          supervisor
 *   0x1_0000  code, may not be written                          user
 *   0x2_0000  message window, may not be executed               user
 *   0x3_0000  data, may not be executed                         user
 *   0x4_0000  the end, and the top of the stack
 */
export const Layout = {
  MEMORY_BYTES: 0x4_0000,
  GDT: 0x1000,
  TSS: 0x1800,
  PAGING: 0x2000,
  PAGING_END: 0x6000,
  CODE: 0x1_0000,
  CODE_END: 0x2_0000,
  WINDOW: 0x2_0000,
  WINDOW_BYTES: 0x1_0000,
  DATA: 0x3_0000,
  STACK: 0x4_0000,
} as const;
