/** Access rights of a segment, in the format of the VMCS. SDM Vol. 3C, "Guest Register State". */
export const Rights = {
  TYPE: 0xf,
  ACCESSED: 1,
  WRITABLE: 2,
  READABLE: 2,
  EXPAND_DOWN: 4,
  CONFORMING: 4,
  CODE: 8,
  S: 0x10,
  DPL: 0x60,
  PRESENT: 0x80,
  AVL: 0x1000,
  LONG: 0x2000,
  DB: 0x4000,
  GRANULARITY: 0x8000,
  UNUSABLE: 0x1_0000,
} as const;
