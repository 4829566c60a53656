/**
 * Comparison of two results of one test, field by field. What may differ is decided in differences.ts.
 * Hot path: nearly all results are equal, and that is found without a field by field look.
 */
import { Fx, RECORD_BYTES, type Records, Result, Status } from "./records.ts";
import { WINDOW, WINDOW_BYTES } from "./world.ts";

/** One field that differs. Values are unsigned. */
export interface Difference {
  /** status error cr2 rip rflags, a register, a segment, fcw fsw ftw fop fip fdp mxcsr, st0.., xmm0.., outside, or [address] of eight bytes. */
  readonly field: string;
  readonly native: bigint;
  readonly ours: bigint;
}

export const GPR_NAMES = [
  "rax",
  "rcx",
  "rdx",
  "rbx",
  "rsp",
  "rbp",
  "rsi",
  "rdi",
  "r8",
  "r9",
  "r10",
  "r11",
  "r12",
  "r13",
  "r14",
  "r15",
] as const;
export const SEGMENT_NAMES = ["es", "cs", "ss", "ds", "fs", "gs"] as const;

/** CF PF AF ZF SF DF OF IOPL NT AC ID. TF is the oracle's, IF and VIF the kernel's, RF the exception's. */
const RFLAGS_COMPARED = 0x24_7cd5;
const FLAG_NT = 0x4000;
const FSW_SUMMARY = 0x80;

interface Range {
  readonly from: number;
  readonly to: number;
}

const EXACT: readonly Range[] = [
  { from: Result.STATUS, to: Result.RFLAGS },
  { from: Result.GPR, to: Result.SELECTORS + 16 },
  { from: Result.FX + Fx.FCW, to: Result.FX + Fx.FTW + 1 },
  { from: Result.FX + Fx.MXCSR, to: Result.FX + Fx.MXCSR_MASK },
  { from: Result.FX + Fx.XMM, to: Result.END },
];

/**
 * Whether a native result says anything of FOP, FIP and FDP. AMD64 APM Vol. 2, "FXSAVE and FXRSTOR Instructions": AMD's processors save them
 * (and load them) only if an unmasked exception is pending.
 */
function tellsPointers(native: Records, i: number): boolean {
  return (native.view.getUint16(i * RECORD_BYTES + Result.FX + Fx.FSW, true) & FSW_SUMMARY) !== 0;
}

function equalRange(a: Uint8Array, b: Uint8Array, from: number, to: number): boolean {
  return Buffer.compare(a.subarray(from, to), b.subarray(from, to)) === 0;
}

/** Whether record i of both is equal in all that is compared, given the RFLAGS bits that count. */
export function isEqual(native: Records, ours: Records, i: number, rflags: number): boolean {
  const at = i * RECORD_BYTES;
  const a = native.bytes;
  const b = ours.bytes;
  if (
    ((native.view.getUint32(at + Result.RFLAGS, true) ^
      ours.view.getUint32(at + Result.RFLAGS, true)) &
      rflags) !==
    0
  )
    return false;
  if (
    tellsPointers(native, i) &&
    !equalRange(a, b, at + Result.FX + Fx.FOP, at + Result.FX + Fx.MXCSR)
  )
    return false;
  for (const { from, to } of EXACT) {
    if (!equalRange(a, b, at + from, at + to)) return false;
  }
  for (let n = 0; n < 8; n++) {
    const st = at + Result.FX + Fx.ST + 16 * n;
    for (let k = 0; k < 10; k++) if (a[st + k] !== b[st + k]) return false;
  }
  return true;
}

/** RFLAGS bits that count in a test. */
export function comparedFlags(undefinedFlags: number, keepsNestedTask: boolean): number {
  return RFLAGS_COMPARED & ~undefinedFlags & ~(keepsNestedTask ? 0 : FLAG_NT);
}

function little(bytes: Uint8Array, at: number, count: number): bigint {
  let value = 0n;
  for (let i = count - 1; i >= 0; i--) value = (value << 8n) | BigInt(bytes[at + i]!);
  return value;
}

/** All fields that differ. */
export function differences(
  native: Records,
  ours: Records,
  i: number,
  rflags: number,
): Difference[] {
  const out: Difference[] = [];
  const base = i * RECORD_BYTES;
  const field = (name: string, at: number, bytes: number, mask = -1n): void => {
    const a = little(native.bytes, base + at, bytes);
    const b = little(ours.bytes, base + at, bytes);
    if (((a ^ b) & mask) !== 0n) out.push({ field: name, native: a, ours: b });
  };
  field("status", Result.STATUS, 4);
  field("error", Result.ERROR, 4);
  field("cr2", Result.CR2, 8);
  field("rip", Result.RIP, 8);
  field("rflags", Result.RFLAGS, 8, BigInt(rflags));
  GPR_NAMES.forEach((name, n) => {
    field(name, Result.GPR + 8 * n, 8);
  });
  SEGMENT_NAMES.forEach((name, n) => {
    field(name, Result.SELECTORS + 2 * n, 2);
  });
  field("outside", Result.OUTSIDE, 4);
  const fx: readonly (readonly [string, number, number])[] = [
    ["fcw", Fx.FCW, 2],
    ["fsw", Fx.FSW, 2],
    ["ftw", Fx.FTW, 1],
    ["fop", Fx.FOP, 2],
    ["fip", Fx.FIP, 8],
    ["fdp", Fx.FDP, 8],
    ["mxcsr", Fx.MXCSR, 4],
  ];
  for (const [name, at, bytes] of fx) {
    if (bytes !== 8 && name !== "fop") field(name, Result.FX + at, bytes);
    else if (tellsPointers(native, i)) field(name, Result.FX + at, bytes);
  }
  for (let n = 0; n < 8; n++) field(`st${n}`, Result.FX + Fx.ST + 16 * n, 10);
  for (let n = 0; n < 16; n++) field(`xmm${n}`, Result.FX + Fx.XMM + 16 * n, 16);
  for (let k = 0; k < WINDOW_BYTES; k += 8)
    field(`[${(WINDOW + k).toString(16)}]`, Result.WINDOW + k, 8);
  return out;
}

const STATUS_NAMES: Readonly<Record<number, string>> = {
  0: "#DE",
  1: "#DB",
  3: "#BP",
  4: "#OF",
  5: "#BR",
  6: "#UD",
  7: "#NM",
  8: "#DF",
  10: "#TS",
  11: "#NP",
  12: "#SS",
  13: "#GP",
  14: "#PF",
  16: "#MF",
  17: "#AC",
  19: "#XM",
  [Status.DONE]: "done",
  [Status.SYSCALL]: "syscall",
  [Status.TIMEOUT]: "timeout",
  [Status.DIED]: "died",
  [Status.CRASH]: "crash",
};

export function statusName(status: number): string {
  return STATUS_NAMES[status] ?? `status ${status.toString(16)}`;
}

/** A difference as text. */
export function formatDifference(d: Difference): string {
  if (d.field === "status")
    return `status native=${statusName(Number(d.native))} ours=${statusName(Number(d.ours))}`;
  return `${d.field} native=${d.native.toString(16)} ours=${d.ours.toString(16)}`;
}
