/**
 * Test support: guest RAM that watches its bounds, and small files shaped like kernels.
 * The builders make valid files; tests break what they are about.
 */
import { HypolithError } from "../../../base/errors.ts";
import { invariant } from "../../../base/invariant.ts";
import type { GuestRam } from "../boot-memory.ts";
import { type KernelOptions, loadKernel } from "../load-kernel.ts";
import { e820Map } from "../memory-map.ts";

export const MIB = 1024 * 1024;

/** Guest RAM of zeros, or of 0xA5 as if used before; a write outside fails the test. */
export class TestRam implements GuestRam {
  readonly size: number;
  readonly bytes: Uint8Array;
  writes = 0;

  constructor(size: number, isUsed = false) {
    this.size = size;
    this.bytes = new Uint8Array(size);
    if (isUsed) this.bytes.fill(0xa5);
  }

  write(gpa: number, bytes: Uint8Array): void {
    const fits = Number.isSafeInteger(gpa) && gpa >= 0 && gpa + bytes.length <= this.size;
    invariant(fits, "write outside RAM");
    this.bytes.set(bytes, gpa);
    this.writes++;
  }

  u8(at: number): number {
    return this.bytes[at]!;
  }

  u16(at: number): number {
    return this.#view.getUint16(at, true);
  }

  u32(at: number): number {
    return this.#view.getUint32(at, true);
  }

  u64(at: number): number {
    return Number(this.#view.getBigUint64(at, true));
  }

  text(at: number): string {
    return String.fromCharCode(...this.bytes.subarray(at, this.bytes.indexOf(0, at)));
  }

  get #view(): DataView {
    return new DataView(this.bytes.buffer);
  }
}

/** loadKernel's options for a machine of `mib` MiB with the platform's memory map. */
export function machineOptions(
  kernel: Uint8Array,
  mib: number,
  more: Partial<KernelOptions> & { ram?: TestRam } = {},
): KernelOptions & { ram: TestRam } {
  const memoryBytes = mib * MIB;
  return {
    kernel,
    cmdline: "console=ttyS0",
    memoryBytes,
    rsdpAddress: 0xe_0000,
    e820: e820Map(memoryBytes),
    ...more,
    ram: more.ram ?? new TestRam(memoryBytes),
  };
}

/** Asserts that loading is refused with this code, before memory is touched; returns the error. */
export function refusal(options: KernelOptions & { ram: TestRam }, code: string): HypolithError {
  let caught: unknown;
  try {
    loadKernel(options);
  } catch (error) {
    caught = error;
  }
  if (!(caught instanceof HypolithError)) throw caught ?? new Error("expected a refusal");
  invariant(caught.code === code, `refused as ${caught.code}, not ${code}: ${caught.message}`);
  invariant(options.ram.writes === 0, "a refusal leaves memory untouched");
  return caught;
}

export interface BzImageShape {
  version?: number;
  setupSectors?: number;
  loadflags?: number;
  xloadflags?: number;
  relocatable?: boolean;
  alignment?: number;
  prefAddress?: number;
  initSize?: number;
  initrdMax?: number;
  cmdlineSize?: number;
  codeBytes?: number;
  /** Laid into the code at PAYLOAD_AT. */
  payload?: Uint8Array;
}

export const PAYLOAD_AT = 0x400;

/** A bzImage of protocol 2.15 whose code is 0x90 (NOP) throughout. */
export function makeBzImage(shape: BzImageShape = {}): Uint8Array {
  const { setupSectors = 4, payload = new Uint8Array(0) } = shape;
  const { codeBytes = Math.ceil((0x1000 + payload.length) / 16) * 16 } = shape;
  const setupBytes = ((setupSectors || 4) + 1) * 512;
  const file = new Uint8Array(setupBytes + codeBytes).fill(0x90, setupBytes);
  const view = new DataView(file.buffer);
  file[0x1ef] = 0xff; // the sentinel that must not be copied
  file[0x1f1] = setupSectors;
  view.setUint32(0x1f4, codeBytes / 16, true);
  view.setUint16(0x1fe, 0xaa55, true);
  view.setUint16(0x200, 0x6aeb, true);
  view.setUint32(0x202, 0x5372_6448, true);
  view.setUint16(0x206, shape.version ?? 0x20f, true);
  file[0x211] = shape.loadflags ?? 1;
  view.setUint32(0x214, 0x10_0000, true);
  view.setUint32(0x22c, shape.initrdMax ?? 0x7fff_ffff, true);
  view.setUint32(0x230, shape.alignment ?? 0x20_0000, true);
  file[0x234] = (shape.relocatable ?? true) ? 1 : 0;
  file[0x235] = 21;
  view.setUint16(0x236, shape.xloadflags ?? 0x3, true);
  view.setUint32(0x238, shape.cmdlineSize ?? 2047, true);
  if (payload.length > 0) {
    view.setUint32(0x248, PAYLOAD_AT, true);
    view.setUint32(0x24c, payload.length, true);
    file.set(payload, setupBytes + PAYLOAD_AT);
  }
  view.setBigUint64(0x258, BigInt(shape.prefAddress ?? 0x100_0000), true);
  view.setUint32(0x260, shape.initSize ?? 2 * MIB, true);
  return file;
}

export interface ElfShape {
  bits?: 32 | 64;
  machine?: number;
  type?: number;
  entry?: bigint;
  /** Physical address of the only load segment. */
  physical?: number;
  virtual?: bigint;
  memorySize?: number;
  contents?: Uint8Array;
  /** Adds a Xen note with this entry. */
  pvhEntry?: number;
  noteBytes?: 4 | 8;
}

/** An ELF image with one load segment and, if asked for, a PVH note. */
export function makeElf(shape: ElfShape = {}): Uint8Array {
  const { bits = 64, physical = 0x100_0000 } = shape;
  const { contents = Uint8Array.of(0xf4, 0xeb, 0xfd), noteBytes = bits === 64 ? 8 : 4 } = shape;
  const { memorySize = contents.length + 0x100, virtual = BigInt(physical) } = shape;
  const contentsAt = 0x200;
  const noteAt = 0x180;
  const file = new Uint8Array(contentsAt + contents.length);
  const view = new DataView(file.buffer);
  const noteSize = 16 + noteBytes;
  file.set([0x7f, 0x45, 0x4c, 0x46, bits === 64 ? 2 : 1, 1, 1]);
  view.setUint16(16, shape.type ?? 2, true);
  view.setUint16(18, shape.machine ?? (bits === 64 ? 62 : 3), true);
  const entry = shape.entry ?? BigInt(physical);
  const count = shape.pvhEntry === undefined ? 1 : 2;
  const load = {
    type: 1,
    offset: contentsAt,
    virtual,
    physical,
    size: contents.length,
    memorySize,
  };
  const note = {
    type: 4,
    offset: noteAt,
    virtual: 0n,
    physical: 0,
    size: noteSize,
    memorySize: noteSize,
  };
  if (bits === 64) {
    view.setBigUint64(24, entry, true);
    view.setBigUint64(32, 64n, true);
    view.setUint16(54, 56, true);
    view.setUint16(56, count, true);
    writeHeader64(view, 64, load);
    writeHeader64(view, 64 + 56, note);
  } else {
    view.setUint32(24, Number(entry), true);
    view.setUint32(28, 52, true);
    view.setUint16(42, 32, true);
    view.setUint16(44, count, true);
    writeHeader32(view, 52, load);
    writeHeader32(view, 52 + 32, note);
  }
  view.setUint32(noteAt, 4, true);
  view.setUint32(noteAt + 4, noteBytes, true);
  view.setUint32(noteAt + 8, 18, true);
  file.set([0x58, 0x65, 0x6e, 0], noteAt + 12);
  if (noteBytes === 8) view.setBigUint64(noteAt + 16, BigInt(shape.pvhEntry ?? 0), true);
  else view.setUint32(noteAt + 16, shape.pvhEntry ?? 0, true);
  file.set(contents, contentsAt);
  return file;
}

interface HeaderShape {
  type: number;
  offset: number;
  virtual: bigint;
  physical: number;
  size: number;
  memorySize: number;
}

function writeHeader64(view: DataView, at: number, h: HeaderShape): void {
  view.setUint32(at, h.type, true);
  const words = [h.offset, h.virtual, h.physical, h.size, h.memorySize, 4];
  words.forEach((word, i) => void view.setBigUint64(at + 8 + i * 8, BigInt(word), true));
}

function writeHeader32(view: DataView, at: number, h: HeaderShape): void {
  const words = [h.type, h.offset, h.virtual, h.physical, h.size, h.memorySize, 0, 4];
  words.forEach((word, i) => void view.setUint32(at + i * 4, Number(word), true));
}

/** An LZ4 legacy frame of literals only, with the kernel's appended size. */
export function lz4Payload(bytes: Uint8Array): Uint8Array {
  const extension = Math.max(0, bytes.length - 15);
  const lengths = [...Array(Math.floor(extension / 255)).fill(255), extension % 255];
  const block = bytes.length < 15 ? [bytes.length << 4] : [0xf0, ...lengths];
  const blockLength = block.length + bytes.length;
  const out = new Uint8Array(8 + blockLength + 4);
  const view = new DataView(out.buffer);
  out.set([0x02, 0x21, 0x4c, 0x18]);
  view.setUint32(4, blockLength, true);
  out.set(block, 8);
  out.set(bytes, 8 + block.length);
  view.setUint32(out.length - 4, bytes.length, true);
  return out;
}

/** Reproducible bytes: xorshift32. */
export function* randomBytes(seed: number): Generator<number, never> {
  let x = seed;
  for (;;) {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    yield (x >>> 8) & 0xff;
  }
}
