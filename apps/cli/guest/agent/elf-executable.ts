/**
 * A static ELF executable: the file itself, headers and all, as a segment to be executed, and a segment of zeros.
 * Spec: System V ABI, "Object Files", "Program Loading".
 */
export interface ExecutableParts {
  readonly bits: 32 | 64;
  /** What stands behind the headers; its first instruction is the entry. */
  readonly code: Uint8Array;
  /** Where the file is loaded. */
  readonly codeAddress: number;
  readonly dataAddress: number;
  readonly dataBytes: number;
}

const EXECUTABLE = 2;
const LOAD = 1;
const MACHINES = { 32: 3, 64: 62 } as const;
const SIZES = { 32: { file: 52, program: 32 }, 64: { file: 64, program: 56 } } as const;
const SEGMENTS = 2;
const Flag = { EXECUTE: 1, WRITE: 2, READ: 4 } as const;
const PAGE = 0x1000;

function headerBytes(bits: 32 | 64): number {
  return SIZES[bits].file + SEGMENTS * SIZES[bits].program;
}

function build({ bits, code, codeAddress, dataAddress, dataBytes }: ExecutableParts): Uint8Array {
  const { file, program } = SIZES[bits];
  const start = headerBytes(bits);
  const bytes = new Uint8Array(start + code.length);
  const view = new DataView(bytes.buffer);
  bytes.set(code, start);
  bytes.set([0x7f, 0x45, 0x4c, 0x46, bits === 64 ? 2 : 1, 1, 1]);
  let at = 16;
  const half = (value: number): void => {
    view.setUint16(at, value, true);
    at += 2;
  };
  const int = (value: number): void => {
    view.setUint32(at, value, true);
    at += 4;
  };
  const word = (value: number): void => {
    int(value);
    if (bits === 64) int(0);
  };
  half(EXECUTABLE);
  half(MACHINES[bits]);
  int(1);
  word(codeAddress + start);
  word(file);
  word(0);
  int(0);
  for (const value of [file, program, SEGMENTS, 0, 0, 0]) half(value);
  const segment = (flags: number, address: number, fileBytes: number, memory: number): void => {
    int(LOAD);
    if (bits === 64) int(flags);
    for (const value of [0, address, address, fileBytes, memory]) word(value);
    if (bits === 32) int(flags);
    word(PAGE);
  };
  segment(Flag.READ | Flag.EXECUTE, codeAddress, bytes.length, bytes.length);
  segment(Flag.READ | Flag.WRITE, dataAddress, 0, dataBytes);
  return bytes;
}

export const elfExecutable = { headerBytes, build };
