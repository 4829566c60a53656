/**
 * Tests and results as the native side reads and writes them: fixed-size records, little-endian (native-oracle.c: struct test, struct result).
 *
 *   test    code 64 · length, mode, kind, steps u8 · offset u16 · options u16 · rflags u64 · gpr 16 u64 · selectors 6 u16 · pad 4 ·
 *           FXSAVE image up to XMM15 416 · window 1024
 *   result  status, error u32 · cr2, rip, rflags u64 · gpr 16 u64 · selectors 6 u16 · outside u32 · steps, detail u32 · pad 8 · image · window
 */
import { WINDOW_BYTES } from "./world.ts";

export const RECORD_BYTES = 1664;
export const CODE_MAX = 64;
export const FX_BYTES = 416;

export const Test = {
  CODE: 0,
  LENGTH: 64,
  MODE: 65,
  KIND: 66,
  STEPS: 67,
  OFFSET: 68,
  OPTIONS: 70,
  RFLAGS: 72,
  GPR: 80,
  SELECTORS: 208,
  FX: 224,
  WINDOW: 640,
} as const;

export const Result = {
  STATUS: 0,
  ERROR: 4,
  CR2: 8,
  RIP: 16,
  RFLAGS: 24,
  GPR: 32,
  SELECTORS: 160,
  OUTSIDE: 172,
  STEPS: 176,
  DETAIL: 180,
  FX: 192,
  WINDOW: 608,
  END: 608 + WINDOW_BYTES,
} as const;

/** Offsets in an FXSAVE image. */
export const Fx = {
  FCW: 0,
  FSW: 2,
  FTW: 4,
  FOP: 6,
  FIP: 8,
  FDP: 16,
  MXCSR: 24,
  MXCSR_MASK: 28,
  ST: 32,
  XMM: 160,
} as const;

/** STEP: under TF, stops after so many traps. RUN: stops at the INT3 after the code. */
export const Kind = { STEP: 0, RUN: 1 } as const;

/** TRAPS: STEP tests count instructions on the emulated side; with this they use TF there too. FS_GS: the test may change FS or GS. */
export const Option = { TRAPS: 1, FS_GS: 2 } as const;

/** Status of a result if it is not the vector of the fault that ended the test. CRASH: our engine trapped. */
export const Status = {
  DONE: 0x100,
  SYSCALL: 0x101,
  TIMEOUT: 0x102,
  DIED: 0x103,
  CRASH: 0x104,
} as const;

/** A batch of tests or results in one buffer. */
export class Records {
  readonly bytes: Uint8Array;
  readonly view: DataView;

  constructor(count: number) {
    this.bytes = new Uint8Array(count * RECORD_BYTES);
    this.view = new DataView(this.bytes.buffer);
  }

  /** The bytes of record i, not a copy. */
  record(i: number): Uint8Array {
    return this.bytes.subarray(i * RECORD_BYTES, (i + 1) * RECORD_BYTES);
  }
}
