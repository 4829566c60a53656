/**
 * The shapes that the run loop executes inline. Everything else is a cold handler, compiled when first met.
 * Chosen by profile of kernel boots and compiled C: what is rare only makes the loop's function larger.
 */
import { invariant } from "../../base/invariant.ts";
import { BITS } from "../semantics/bits.ts";
import { BRANCH } from "../semantics/branch.ts";
import type { OperandKind, SemanticsTable, Shape } from "../semantics/insn.ts";
import { INTEGER } from "../semantics/integer.ts";
import { MULTIPLY } from "../semantics/multiply.ts";
import { SHIFT } from "../semantics/shift.ts";
import { MOVES } from "../semantics/simd/moves.ts";
import { PACKED_INTEGER } from "../semantics/simd/packed-integer.ts";
import { STACK } from "../semantics/stack.ts";
import { Mode } from "../state/layout.ts";
import type { HotHandler } from "./run-loop.ts";

type Sized = readonly [OperandKind, number];

const SIZES = [1, 2, 4, 8] as const;
const WIDE = [4, 8] as const;

function shape(sem: string, operands: readonly Sized[], extra: Partial<Shape> = {}): Shape {
  return {
    sem,
    cc: -1,
    operands: operands.map(([kind, bytes]) => ({ kind, bytes })),
    opsize: 4,
    addrSize: 8,
    mode: Mode.CODE64,
    rep: 0,
    ...extra,
  };
}

function* forms(sem: string, sizes: readonly number[], kinds: string): Generator<Shape> {
  for (const n of sizes) {
    for (const form of kinds.split(" ")) {
      yield shape(
        sem,
        [...form].map((k) => [k as OperandKind, n] as const),
      );
    }
  }
}

function* integerShapes(): Generator<Shape> {
  for (const sem of ["add", "or", "adc", "sbb", "and", "sub", "xor", "cmp"])
    yield* forms(sem, SIZES, "rr rm mr ri mi");
  yield* forms("test", SIZES, "rr mr ri mi");
  yield* forms("mov", SIZES, "rr rm mr ri mi");
  for (const sem of ["inc", "dec", "neg", "not"]) yield* forms(sem, SIZES, "r m");
  for (const sem of ["movzx", "movsx"]) {
    for (const to of [2, 4, 8]) {
      for (const from of [1, 2, 4]) {
        if (from >= to || (sem === "movzx" && from === 4)) continue;
        yield shape(sem, [
          ["r", to],
          ["r", from],
        ]);
        yield shape(sem, [
          ["r", to],
          ["m", from],
        ]);
      }
    }
  }
  for (const n of [2, 4, 8])
    yield shape("lea", [
      ["r", n],
      ["m", 0],
    ]);
  yield* forms("xchg", WIDE, "rr mr");
  yield* forms("bswap", WIDE, "r");
  yield shape("nop", [], { opsize: 4 });
  yield shape("nop", [["r", 4]]);
  yield shape("nop", [["m", 4]]);
  yield shape("nop", [["m", 2]]);
  for (const opsize of [4, 8] as const) {
    yield shape("cbw", [], { opsize });
    yield shape("cwd", [], { opsize });
  }
  for (let cc = 0; cc < 16; cc++) {
    yield shape("setcc", [["r", 1]], { cc });
    yield shape("setcc", [["m", 1]], { cc });
    for (const n of WIDE) {
      yield shape(
        "cmovcc",
        [
          ["r", n],
          ["r", n],
        ],
        { cc },
      );
      yield shape(
        "cmovcc",
        [
          ["r", n],
          ["m", n],
        ],
        { cc },
      );
    }
  }
}

function* shiftShapes(): Generator<Shape> {
  for (const sem of ["shl", "shr", "sar", "rol", "ror"]) {
    for (const n of SIZES) {
      yield shape(sem, [
        ["r", n],
        ["i", 1],
      ]);
      yield shape(sem, [
        ["m", n],
        ["i", 1],
      ]);
      if (n >= 4)
        yield shape(sem, [
          ["r", n],
          ["r", 1],
        ]);
    }
  }
  for (const sem of ["shld", "shrd"]) {
    for (const n of WIDE)
      yield shape(sem, [
        ["r", n],
        ["r", n],
        ["i", 1],
      ]);
  }
}

function* multiplyShapes(): Generator<Shape> {
  for (const n of WIDE) {
    yield shape("imul2", [
      ["r", n],
      ["r", n],
    ]);
    yield shape("imul2", [
      ["r", n],
      ["m", n],
    ]);
    yield shape("imul3", [
      ["r", n],
      ["r", n],
      ["i", n],
    ]);
    yield shape("imul3", [
      ["r", n],
      ["m", n],
      ["i", n],
    ]);
  }
  yield shape("mul", [["r", 4]]);
}

function* bitShapes(): Generator<Shape> {
  for (const n of WIDE) {
    yield shape("bt", [
      ["r", n],
      ["i", 1],
    ]);
    yield shape("bt", [
      ["r", n],
      ["r", n],
    ]);
    yield shape("bsf", [
      ["r", n],
      ["r", n],
    ]);
    yield shape("bsr", [
      ["r", n],
      ["r", n],
    ]);
  }
}

function* stackShapes(): Generator<Shape> {
  for (const form of ["r", "m", "i"] as const) yield shape("push", [[form, 8]], { opsize: 8 });
  yield shape("pop", [["r", 8]], { opsize: 8 });
  yield shape("call", [["j", 8]], { opsize: 8 });
  yield shape("call_ind", [["r", 8]], { opsize: 8 });
  yield shape("call_ind", [["m", 8]], { opsize: 8 });
  yield shape("ret", [], { opsize: 8 });
  yield shape("leave", [], { opsize: 8 });
}

function* branchShapes(): Generator<Shape> {
  yield shape("jmp_ind", [["r", 8]], { opsize: 8 });
  yield shape("jmp_ind", [["m", 8]], { opsize: 8 });
  for (const [mode, n] of [
    [Mode.CODE64, 8],
    [Mode.CODE32, 4],
  ] as const) {
    yield shape("jmp", [["j", n]], { opsize: n, mode });
    for (let cc = 0; cc < 16; cc++) yield shape("jcc", [["j", n]], { opsize: n, mode, cc });
  }
}

/** What copies, string functions and prologues of compiled code are made of. */
function* vectorShapes(): Generator<Shape> {
  const moves = ["movaps", "movups", "movdqa", "movdqu"];
  for (const sem of moves) {
    yield shape(sem, [
      ["x", 16],
      ["x", 16],
    ]);
    yield shape(sem, [
      ["x", 16],
      ["m", 16],
    ]);
    yield shape(sem, [
      ["m", 16],
      ["x", 16],
    ]);
  }
  yield shape("movq", [
    ["x", 8],
    ["m", 8],
  ]);
  yield shape("movq", [
    ["m", 8],
    ["x", 8],
  ]);
  for (const n of WIDE) {
    yield shape("movd", [
      ["x", n],
      ["r", n],
    ]);
    yield shape("movd", [
      ["r", n],
      ["x", n],
    ]);
  }
  yield shape("movsd_xmm", [
    ["x", 8],
    ["m", 8],
  ]);
  yield shape("movsd_xmm", [
    ["m", 8],
    ["x", 8],
  ]);
  yield shape("pmovmskb", [
    ["r", 4],
    ["x", 16],
  ]);
}

function* packedShapes(): Generator<Shape> {
  for (const sem of ["pxor", "por", "pand", "pcmpeqb", "pminub", "psubb", "paddd", "paddq"]) {
    yield shape(sem, [
      ["x", 16],
      ["x", 16],
    ]);
    yield shape(sem, [
      ["x", 16],
      ["m", 16],
    ]);
  }
}

/** Inlined handlers, in handler-number order. */
export function hotHandlers(): HotHandler[] {
  const tables: readonly (readonly [Generator<Shape>, SemanticsTable])[] = [
    [integerShapes(), INTEGER],
    [shiftShapes(), SHIFT],
    [multiplyShapes(), MULTIPLY],
    [bitShapes(), BITS],
    [stackShapes(), STACK],
    [branchShapes(), BRANCH],
    [vectorShapes(), MOVES],
    [packedShapes(), PACKED_INTEGER],
  ];
  const handlers: HotHandler[] = [];
  for (const [shapes, table] of tables) {
    for (const s of shapes) {
      const semantics = table[s.sem];
      invariant(semantics, `semantics of ${s.sem}`);
      handlers.push({ shape: s, semantics });
    }
  }
  return handlers;
}
