/**
 * One byte string, two decoders: ours and iced-x86 (as an Intel processor). Answers what differs.
 *
 * Compared: validity, length, mnemonic, operand and address size, LOCK and repeat prefixes, and every operand (kind, register, address
 * parts, segment, immediate, branch distance, memory size). What iced knows and our processor lacks must be #UD, or a NOP where the
 * opcode is in hint space. The justified differences are in JUSTIFIED; everything else is a bug.
 */
import {
  Code,
  CpuidFeature,
  DecoderOptions,
  Decoder as IcedDecoder,
  Instruction as IcedInstruction,
  MemorySizeExt,
  Mnemonic,
  OpKind,
  Register,
} from "iced-x86";
import { createInstruction, decode } from "../src/processor/isa/decode.ts";
import type { Instruction, Mode, Operand } from "../src/processor/isa/instruction.ts";
import type { Row } from "../src/processor/isa/row.ts";
import { ROWS } from "../src/processor/isa/table.ts";

/** Features of iced's instructions that our rows cover. */
const COVERED: ReadonlySet<string> = new Set(
  (
    "INTEL8086 INTEL8086_ONLY INTEL186 INTEL286 INTEL386 INTEL486 X64 AES CLFLUSHOPT CLFSH CMOV CMPXCHG16B CPUID CX8 FPU FPU287 FPU387 " +
    "FSGSBASE FXSR INVEPT INVPCID INVVPID MMX MONITOR MOVBE MSR MULTIBYTENOP PAUSE PCLMULQDQ POPCNT PREFETCHW PREFETCHWT1 " +
    "RDPID RDPMC RDRAND RDSEED RDTSCP SEP SMAP SSE SSE2 SSE3 SSE4_1 SSE4_2 SSSE3 SYSCALL TSC VMX XSAVE XSAVEC XSAVEOPT XSAVES CET_IBT"
  ).split(" "),
);

interface Justified {
  readonly why: string;
  readonly applies: (code: string, mode: Mode, ours: Row | undefined) => boolean;
}

/** Differences that are meant. */
export const JUSTIFIED: readonly Justified[] = [
  {
    why: "SDM: SYSCALL and SYSRET are #UD outside 64-bit mode; AMD, which iced follows here, has them in legacy mode.",
    applies: (code, mode, ours) =>
      mode !== 64 && /^Sys(call|retd)$/.test(code) && ours === undefined,
  },
];

interface CodeFacts {
  readonly name: string;
  readonly mnemonic: string;
  readonly isCovered: boolean;
  readonly operandSize: number;
  readonly addressSize: number;
}

const SAME_MNEMONIC: Record<string, string> = {
  SYSRETQ: "SYSRET",
  SYSEXITQ: "SYSEXIT",
  FSTPNCE: "FSTP",
  PCMPESTRI64: "PCMPESTRI",
  PCMPESTRM64: "PCMPESTRM",
};

const FEATURE_NAMES = namesOf(CpuidFeature);
const CODE_NAMES = namesOf(Code);
const MNEMONIC_NAMES = namesOf(Mnemonic);

function namesOf(numbers: object): string[] {
  const names: string[] = [];
  for (const [name, value] of Object.entries(numbers))
    if (typeof value === "number") names[value] = name;
  return names;
}

/** Class and number of iced's registers: "gpr4:0" and so on. */
const REGISTER_NAMES = registerNames();

function registerNames(): string[] {
  const names: string[] = [];
  const range = (first: number, count: number, prefix: string): void => {
    for (let i = 0; i < count; i++) names[first + i] = `${prefix}:${i}`;
  };
  range(Register.AL, 4, "gpr1");
  range(Register.AH, 4, "gpr8h1");
  for (let i = 4; i < 16; i++) names[Register.SPL + i - 4] = `gpr1:${i}`;
  range(Register.AX, 16, "gpr2");
  range(Register.EAX, 16, "gpr4");
  range(Register.RAX, 16, "gpr8");
  range(Register.ES, 6, "seg");
  range(Register.XMM0, 16, "xmm");
  range(Register.MM0, 8, "mm");
  range(Register.ST0, 8, "st");
  range(Register.CR0, 16, "cr");
  range(Register.DR0, 16, "dr");
  return names;
}

export class IcedComparison {
  readonly mode: Mode;
  /** How often each row was the answer of both. */
  readonly rowHits = new Uint32Array(ROWS.length);
  readonly #theirs = new IcedInstruction();
  readonly #ours = createInstruction();
  readonly #facts: CodeFacts[] = [];
  readonly #verdicts = new Map<number, string>();
  #decoder: IcedDecoder | undefined;
  #bytes = new Uint8Array(0);

  constructor(mode: Mode) {
    this.mode = mode;
  }

  /** The bytes the next comparisons look at. */
  load(bytes: Uint8Array<ArrayBuffer>): void {
    this.#decoder?.free();
    const options =
      DecoderOptions.NoWbnoinvd | DecoderOptions.NoMPFX_0FBC | DecoderOptions.NoMPFX_0FBD;
    this.#decoder = new IcedDecoder(this.mode, bytes, options);
    this.#bytes = bytes;
  }

  /** Says how the decoders differ about the bytes at `offset`, or "". */
  compare(offset: number): string {
    const theirs = this.#theirs;
    const decoder = this.#decoder!;
    decoder.position = offset;
    decoder.decodeOut(theirs);
    const length = decode(this.#bytes, offset, this.mode, this.#ours);
    const code = theirs.code;
    if (code === Code.INVALID) return length < 0 ? "" : this.#justify("", "valid");
    const facts = this.#factsOf(code);
    if (!facts.isCovered) {
      if (length < 0 || (length === theirs.length && isHint(this.#ours.row))) return "";
      return this.#justify(facts.name, "uncovered feature");
    }
    if (length < 0) return this.#justify(facts.name, "invalid");
    const difference =
      this.#verdict(code, facts) || this.#compareSizes(facts) || this.#compareOperands();
    if (difference === "" && length !== theirs.length) return this.#justify(facts.name, "length");
    if (difference !== "") return this.#justify(facts.name, difference);
    this.rowHits[this.#ours.row.id]! += 1;
    return "";
  }

  #justify(code: string, difference: string): string {
    const row = difference === "invalid" ? undefined : this.#ours.row;
    if (JUSTIFIED.some((j) => j.applies(code, this.mode, row))) return "";
    return `${difference}: iced ${code || "INVALID"}, ours ${row ? `${row.mnemonic} ${row.operands}` : "UD"}`;
  }

  #factsOf(code: number): CodeFacts {
    let facts = this.#facts[code];
    if (facts) return facts;
    const info = this.#theirs.opCode;
    const mnemonic = (MNEMONIC_NAMES[this.#theirs.mnemonic] ?? "?").toUpperCase();
    facts = {
      name: CODE_NAMES[code] ?? String(code),
      mnemonic: SAME_MNEMONIC[mnemonic] ?? mnemonic,
      isCovered: Array.from(this.#theirs.cpuidFeatures()).every((f) =>
        COVERED.has(FEATURE_NAMES[f] ?? ""),
      ),
      operandSize: info.operandSize >> 3,
      addressSize: info.addressSize >> 3,
    };
    info.free();
    this.#facts[code] = facts;
    return facts;
  }

  /** What does not depend on the bytes, once for each pair of iced code and row. */
  #verdict(code: number, facts: CodeFacts): string {
    const row = this.#ours.row;
    const key = code * 4096 + row.id;
    let verdict = this.#verdicts.get(key);
    if (verdict === undefined) {
      const isSame =
        facts.mnemonic === row.mnemonic ||
        (isHint(row) && /^(RESERVEDNOP|PREFETCH)/.test(facts.mnemonic));
      verdict = isSame ? "" : "mnemonic";
      this.#verdicts.set(key, verdict);
    }
    return verdict;
  }

  #compareSizes(facts: CodeFacts): string {
    const ours = this.#ours;
    const theirs = this.#theirs;
    if (facts.operandSize !== 0 && facts.operandSize !== ours.opsize) return "operand size";
    if (facts.addressSize !== 0 && facts.addressSize !== ours.addrSize) return "address size";
    if (theirs.hasLockPrefix !== ours.lock) return "lock";
    if (ours.row.repeats) {
      const rep = theirs.hasRepPrefix ? 0xf3 : theirs.hasRepnePrefix ? 0xf2 : 0;
      if (rep !== ours.rep) return "repeat";
    }
    return "";
  }

  #compareOperands(): string {
    const ours = this.#ours;
    const theirs = this.#theirs;
    let count = ours.opCount;
    const last = ours.row.operands[count - 1];
    if (last === "XMM0" || last === "BA") count -= 1; // iced leaves these implicit
    if (isHint(ours.row) && theirs.opCount === 2) return this.#compareOperand(0, ours.ops[0]);
    if (theirs.opCount !== count) return "operand count";
    for (let i = 0; i < count; i++) {
      const difference = this.#compareOperand(i, ours.ops[i]!);
      if (difference !== "") return `operand ${i}: ${difference}`;
    }
    return "";
  }

  #compareOperand(i: number, op: Operand): string {
    const theirs = this.#theirs;
    const kind = theirs.opKind(i);
    switch (kind) {
      case OpKind.Register:
        return op.kind === "reg"
          ? sameRegister(theirs.opRegister(i), op, this.#ours.row.specs[i]?.size === "w")
          : "kind";
      case OpKind.NearBranch16:
      case OpKind.NearBranch32:
      case OpKind.NearBranch64:
        return op.kind === "rel" ? this.#compareBranch(kind, op) : "kind";
      case OpKind.FarBranch16:
      case OpKind.FarBranch32:
        return op.kind === "far" ? this.#compareFar(kind, op) : "kind";
      case OpKind.Memory:
        return op.kind === "mem" ? this.#compareMemory(op) : "kind";
      default:
        if (kind >= OpKind.MemorySegSI && kind <= OpKind.MemoryESRDI) {
          return op.kind === "mem" ? this.#compareString(kind, op) : "kind";
        }
        return op.kind === "imm" ? this.#compareImmediate(kind, op) : "kind";
    }
  }

  #compareImmediate(kind: OpKind, op: Operand): string {
    const theirs = this.#theirs;
    switch (kind) {
      case OpKind.Immediate8:
        return sameImmediate(theirs.immediate8, 1, op);
      case OpKind.Immediate8_2nd:
        return sameImmediate(Number(theirs.immediate(1)), 1, op);
      case OpKind.Immediate16:
        return sameImmediate(theirs.immediate16, 2, op);
      case OpKind.Immediate32:
        return sameImmediate(theirs.immediate32 | 0, 4, op);
      case OpKind.Immediate8to16:
        return sameImmediate(theirs.immediate8to16, 2, op);
      case OpKind.Immediate8to32:
        return sameImmediate(theirs.immediate8to32, 4, op);
      case OpKind.Immediate8to64:
        return sameImmediate(Number(theirs.immediate8to64), 8, op);
      case OpKind.Immediate32to64:
        return sameImmediate(Number(theirs.immediate32to64), 8, op);
      default: {
        const value = BigInt.asIntN(64, theirs.immediate64);
        const ours = (BigInt(op.immHi) << 32n) | BigInt(op.immLo >>> 0);
        return value === ours && Number(value) === op.imm && op.size === 8 ? "" : "immediate 64";
      }
    }
  }

  #compareBranch(kind: OpKind, op: Operand): string {
    const theirs = this.#theirs;
    if (kind === OpKind.NearBranch16) {
      return op.size === 2 && ((theirs.nextIP32 + op.imm) & 0xffff) === theirs.nearBranch16
        ? ""
        : "branch 16";
    }
    if (op.size !== (kind === OpKind.NearBranch32 ? 4 : 8)) return "branch size";
    const target =
      kind === OpKind.NearBranch32
        ? theirs.nearBranch32
        : Number(theirs.nearBranch64 & 0xffffffffn);
    return ((theirs.nextIP32 + op.imm) | 0) === (target | 0) ? "" : "branch";
  }

  #compareFar(kind: OpKind, op: Operand): string {
    const theirs = this.#theirs;
    const isSame =
      op.sel === theirs.farBranchSelector &&
      (kind === OpKind.FarBranch16
        ? op.size === 2 && op.imm === theirs.farBranch16
        : op.size === 4 && op.imm === theirs.farBranch32);
    return isSame ? "" : "far pointer";
  }

  #compareString(kind: OpKind, op: Operand): string {
    const isEs = kind >= OpKind.MemoryESDI;
    const base = kind >= OpKind.MemorySegDI ? 7 : 6;
    const addrSize = 2 << ((kind - OpKind.MemorySegSI) % 3);
    if (op.base !== base || op.index !== -1 || op.disp !== 0) return "string address";
    if (this.#ours.addrSize !== addrSize) return "string address size";
    if (isEs) return op.seg === 0 ? this.#compareMemorySize(op) : "string segment";
    return this.#sameSegment(op) ? this.#compareMemorySize(op) : "string segment";
  }

  #sameSegment(op: Operand): boolean {
    return (
      REGISTER_NAMES[this.#theirs.memorySegment] === `seg:${op.seg}` ||
      // iced shows an override that 64-bit mode ignores
      (this.mode === 64 &&
        op.seg <= 3 &&
        this.#theirs.hasSegmentPrefix &&
        this.#ours.segOverride === -1)
    );
  }

  #compareMemorySize(op: Operand): string {
    const size = MemorySizeExt.size(this.#theirs.memorySize);
    if (isHint(this.#ours.row)) return "";
    return size === op.size || size === 0 || op.size === 0 ? "" : `memory size ${size} ${op.size}`;
  }

  #compareMemory(op: Operand): string {
    const theirs = this.#theirs;
    const base = theirs.memoryBase;
    const index = theirs.memoryIndex;
    if (this.#ours.row.sem === "xlat")
      return base === xlatBase(this.#ours) && op.base === 3 ? "" : "xlat";
    if (!this.#sameSegment(op)) return "segment";
    let disp = BigInt.asIntN(64, theirs.memoryDisplacement);
    if (base === Register.RIP || base === Register.EIP) {
      if (op.base !== 16) return "rip base";
      const next = theirs.nextIP32;
      return ((Number(BigInt.asIntN(32, disp)) - next) | 0) === op.disp
        ? this.#compareMemorySize(op)
        : "rip displacement";
    }
    const width = `gpr${this.#ours.addrSize}`;
    if ((op.base < 0 ? undefined : `${width}:${op.base}`) !== REGISTER_NAMES[base]) return "base";
    if ((op.index < 0 ? undefined : `${width}:${op.index}`) !== REGISTER_NAMES[index])
      return "index";
    if (op.index >= 0 && 1 << op.scale !== theirs.memoryIndexScale) return "scale";
    const bits = this.#ours.addrSize * 8;
    disp = BigInt.asIntN(bits, disp);
    const ours = BigInt.asIntN(bits, (BigInt(op.dispHi) << 32n) | BigInt(op.disp >>> 0));
    return disp === ours ? this.#compareMemorySize(op) : "displacement";
  }
}

function xlatBase(ours: Instruction): Register {
  return ours.addrSize === 8 ? Register.RBX : ours.addrSize === 4 ? Register.EBX : Register.BX;
}

function sameImmediate(value: number, size: number, op: Operand): string {
  const ours = op.imm;
  const isSame =
    size === 1
      ? ours === value
      : size === 2
        ? (ours & 0xffff) === (value & 0xffff)
        : ours === value;
  const halves = op.immLo === (ours | 0) && op.immHi === (ours < 0 ? -1 : 0);
  return isSame && halves && op.size === size ? "" : `immediate ${value} ${ours}`;
}

function sameRegister(register: Register, op: Operand, isWordOf: boolean): string {
  const name = REGISTER_NAMES[register];
  const isSized = op.cls === "gpr" || op.cls === "gpr8h";
  const ours = `${op.cls}${isSized ? op.size : ""}:${op.num}`;
  if (name === ours) return "";
  // A word operand (SDM: Ew) is named by the operand size in iced.
  if (
    isWordOf &&
    op.cls === "gpr" &&
    op.size === 2 &&
    new RegExp(`^gpr[48]:${op.num}$`).test(name ?? "")
  )
    return "";
  return `register ${name} ${ours}`;
}

/** NOPs of the hint space 0F 0D, 0F 18-1F, whose meaning on newer processors ours may ignore. */
function isHint(row: Row): boolean {
  return row.map === "0F" && (row.opcode === 0x0d || (row.opcode >= 0x18 && row.opcode <= 0x1f));
}
