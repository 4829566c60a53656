/**
 * String instructions. SDM Vol. 2, "MOVS", "STOS", "LODS", "CMPS", "SCAS", "REP/REPE/REPZ/REPNE/REPNZ".
 *
 * Without a repeat prefix a handler does its element itself. With one it calls a procedure per key and element size that does a chunk:
 * as many elements as lie with the first in its page (in both pages), or one where the address is special. A chunk leaves RSI, RDI
 * and RCX as after its last element, so that a fault, an interrupt or a device access in between finds them at an element; the
 * handler gives way (Status.REPEAT) after a few chunks.
 *
 * Chunks work on host addresses. That is right only where linear and effective addresses run in parallel for the rest of the page:
 * always with 64-bit addresses, else where the base is 0 and no limit is near (`isLinear`).
 */

import type { FunctionBuilder, Variable } from "../ir/function.ts";
import type { ModuleBuilder } from "../ir/module.ts";
import type { Val } from "../ir/value.ts";
import {
  BOUNCE_READ,
  BOUNCE_WRITE,
  CODE_MAP,
  CONTEXT_NONE,
  Mode,
  S,
  Slow,
  Status,
} from "../state/layout.ts";
import type { Cpu } from "./cpu.ts";
import { Flag, flagsSub } from "./flags.ts";
import type { Insn, Semantics, SemanticsTable } from "./insn.ts";
import { Procedure } from "./procedure.ts";

const RAX = 0;
const RCX = 1;
const RSI = 6;
const RDI = 7;

type Size = 1 | 2 | 4 | 8;
const SIZES: readonly Size[] = [1, 2, 4, 8];

/** Answers of a chunk procedure beside Status: elements are left, and nothing stands against going on. */
const MORE = -1;
/** Chunks of one handler call: by pages, and where they may be single elements. */
const MAX_CHUNKS = 3;
const MAX_SINGLE = 512;

const maskOf = (addrSize: number): bigint =>
  addrSize === 8 ? -1n : addrSize === 4 ? 0xffff_ffffn : 0xffffn;

/** Adds to an index register as the address size says: 16 bits keep the rest, 32 bits clear it. */
function advance(insn: Insn, register: number, delta: Val): void {
  const { addrSize } = insn.shape;
  if (addrSize === 8) insn.setGpr(register, 8, insn.gpr(register, 8).add(delta.extS()));
  else insn.setGpr(register, addrSize, insn.gpr(register, addrSize).add(delta));
}

/** Nonzero under TF (or monitor trap): the trap comes after each element. SDM Vol. 3B, "Single-Step Exception Condition". */
const isStepping = (cpu: Cpu): Val => cpu.get(S.STEPPING).and(Slow.SINGLE_STEP);

// ---- chunks ----

/**
 * A chunk procedure while it is built: (source or 0, destination or 0, address mask, isLinear, rep) -> Status or MORE.
 * `done` counts elements; `host` addresses are of the first element.
 */
class Chunk extends Procedure {
  readonly bytes: Size;
  readonly mask: Val;
  readonly rep: Val;
  /** Elements to go by RCX, not zero. */
  readonly count: Val;
  readonly isDown: Val;
  readonly step: Val;
  /** Elements that this chunk may do at once. */
  readonly room: Variable;

  constructor(module: ModuleBuilder, fn: FunctionBuilder, bytes: Size) {
    super(module, fn);
    this.bytes = bytes;
    this.mask = fn.param(2);
    this.rep = fn.param(4);
    this.count = this.gpr(RCX, 8).and(this.mask);
    this.isDown = this.get(S.RFLAGS_REST).and(Flag.DF);
    this.step = this.isDown.select(this.i32(-bytes), this.i32(bytes));
    this.room = fn.variable("i32", 1);
    // A single step ends after one element.
    const isPlain = fn.param(3).and(isStepping(this).eqz());
    fn.if(isPlain, () =>
      this.room.set(this.count.gtU(4096).select(this.i32(4096), this.count.wrap())),
    );
  }

  /** Lowers `room` to the elements from `linear` to the end of its page. */
  #withinPage(linear: Val): void {
    const offset = linear.wrap().and(4095);
    const shift = Math.log2(this.bytes);
    const up = this.i32(4096).sub(offset).shrU(shift);
    const down = offset.shrU(shift).add(1);
    this.limit(this.isDown.select(down, up));
  }

  limit(n: Val): void {
    const room = this.room.read();
    this.room.set(n.ltU(room).select(n, room));
  }

  /** Host address to read the first element of operand 0 (source) or 1 (destination). */
  readable(operand: 0 | 1): Val {
    const linear = this.fn.param(operand);
    const host = this.hostR(linear, this.bytes);
    this.#withinPage(linear);
    this.fn.if(host.eq(BOUNCE_READ), () => this.room.set(1));
    return host;
  }

  /** Host address to write the first element of the destination. */
  writable(): Val {
    const linear = this.fn.param(1);
    const host = this.hostW(linear, this.bytes);
    this.#withinPage(linear);
    this.fn.if(host.eq(BOUNCE_WRITE), () => this.room.set(1));
    return host;
  }

  /** Lowest address of n elements. */
  lowest(host: Val, n: Val): Val {
    const below = n.sub(1).mul(this.bytes);
    return this.isDown.select(host.sub(below), host);
  }

  /** Tells the code cache about a plain write of n elements (hostW knows only of one). */
  noticeCode(lowest: Val, n: Val): void {
    const page = this.fn.load("i64.load", lowest.shrU(12).shl(3), CODE_MAP);
    this.fn.if(page.ne(0), () =>
      this.fn.callVoid(this.module.get("codeWrite"), lowest, n.mul(this.bytes)),
    );
  }

  /** Moves the registers past n elements; answers what RCX has become. */
  advance(n: Val, registers: readonly number[]): Val {
    const preserved = this.mask.eq(0xffffn).select(this.i64(~0xffffn), this.i64(0n));
    const write = (register: number, v: Val): void => {
      this.setGpr(register, 8, this.gpr(register, 8).and(preserved).or(v.and(this.mask)));
    };
    for (const r of registers) write(r, this.gpr(r, 8).add(n.mul(this.step).extS()));
    const left = this.count.sub(n.extU());
    write(RCX, left);
    return left;
  }

  /** Ends the chunk: NEXT if it was the last one; gives way where a device write waits to be carried out. */
  end(left: Val): void {
    const { fn } = this;
    // The elements done have used up the answers to their device reads.
    fn.if(this.get(S.DEVICE_REPLY_NEXT), () => {
      this.set(S.DEVICE_REPLY_NEXT, 0);
      this.set(S.DEVICE_REPLY_COUNT, 0);
    });
    fn.if(this.get(S.DEVICE_WRITE_COUNT), () => {
      fn.callVoid(this.module.get("updateSlow"));
      this.leave(Status.REPEAT);
    });
    fn.if(this.get(S.BREAK_HITS).ne(0).and(left.nez()), () => this.leave(Status.REPEAT));
    fn.return(left.eqz().select(this.i32(Status.NEXT), this.i32(MORE)));
  }
}

function defineChunk(
  module: ModuleBuilder,
  key: string,
  bytes: Size,
  body: (c: Chunk) => void,
): void {
  const params = ["i64", "i64", "i64", "i32", "i32"] as const;
  module.function(
    `${key}${bytes}`,
    params,
    ["i32"],
    (fn) => body(new Chunk(module, fn, bytes)),
    true,
  );
}

/**
 * Fills [to, to + length) with what is in its first `period` bytes, repeated; `period` is a multiple of the element size.
 * Each copy doubles what is there.
 */
function repeatPattern(fn: FunctionBuilder, to: Val, period: Val, length: Val): void {
  const filled = fn.variable("i32", period);
  fn.while(
    () => filled.peek().ltU(length),
    () => {
      const have = filled.read();
      const rest = length.sub(have);
      const n = have.ltU(rest).select(have, rest);
      fn.memoryCopy(to.add(have), to, n);
      filled.set(have.add(n));
    },
  );
}

function moveChunk(c: Chunk): void {
  const { fn, bytes } = c;
  const from = c.readable(0);
  const first = c.raw(bytes, from);
  const to = c.writable();
  const distance = to.sub(from);
  fn.if(distance, () => {
    // An element that overlaps its own source cannot be part of a block.
    fn.if(distance.add(bytes - 1).leU(2 * bytes - 2), () => c.room.set(1));
    // Downwards with the destination a little below, what is written is read later: stop before it.
    fn.if(c.isDown.ne(0).and(c.room.read().geU(2)), () => {
      c.limit(distance.neg().shrU(Math.log2(bytes)));
    });
  });
  const count = c.room.read();
  const length = count.mul(bytes);
  fn.if(
    count.eq(1),
    () => {
      c.setRaw(bytes, to, first);
      c.commit(to);
    },
    () => {
      const low = c.lowest(to, count);
      c.noticeCode(low, count);
      fn.if(
        c.isDown.eqz().and(distance.ltU(length)).and(distance.ne(0)),
        () => {
          // Upwards with the destination a little above: the first `distance` bytes are repeated.
          repeatPattern(fn, from, distance, distance.add(length));
        },
        () => fn.memoryCopy(low, c.lowest(from, count), length),
      );
    },
  );
  c.end(c.advance(count, [RSI, RDI]));
}

function storeChunk(c: Chunk): void {
  const { fn, bytes } = c;
  const value = c.gpr(RAX, bytes);
  const to = c.writable();
  const n = c.room.read();
  fn.if(
    n.eq(1),
    () => {
      c.setRaw(bytes, to, value);
      c.commit(to);
    },
    () => {
      const low = c.lowest(to, n);
      const length = n.mul(bytes);
      c.noticeCode(low, n);
      if (bytes === 1) fn.memoryFill(low, value, length);
      else {
        fn.if(
          value.eqz(),
          () => fn.memoryFill(low, 0, length),
          () => {
            c.setRaw(bytes, low, value);
            repeatPattern(fn, low, c.i32(bytes), length);
          },
        );
      }
    },
  );
  c.end(c.advance(n, [RDI]));
}

function loadChunk(c: Chunk): void {
  const from = c.readable(0);
  const n = c.room.read();
  const last = c.raw(c.bytes, from.add(n.sub(1).mul(c.step)));
  const left = c.advance(n, [RSI]);
  c.setGpr(RAX, c.bytes, last);
  c.end(left);
}

/** CMPS: source against destination; SCAS: accumulator against destination. */
function compareChunk(isScan: boolean): (c: Chunk) => void {
  return (c) => {
    const { fn, bytes } = c;
    const type = bytes === 8 ? "i64" : "i32";
    // A bounced source is copied out before the second read reuses the buffer.
    const from = isScan ? c.i32(0) : c.readable(0);
    const a = fn.variable(type, isScan ? c.gpr(RAX, bytes) : c.raw(bytes, from));
    const to = c.readable(1);
    const b = fn.variable(type, c.raw(bytes, to));
    const n = c.room.read();
    const done = fn.variable("i32", 1);
    const wantsEqual = c.rep.eq(0xf3);
    const goesOn = (): Val => a.peek().eq(b.peek()).eq(wantsEqual);
    fn.while(
      () => goesOn().and(done.peek().ltU(n)),
      () => {
        const offset = done.read().mul(c.step);
        if (!isScan) a.set(c.raw(bytes, from.add(offset)));
        b.set(c.raw(bytes, to.add(offset)));
        done.set(done.read().add(1));
      },
    );
    const [x, y] = [a.read(), b.read()];
    const left = c.advance(done.read(), isScan ? [RDI] : [RSI, RDI]);
    flagsSub(c, bytes, x, y, x.sub(y));
    c.end(x.eq(y).eq(wantsEqual).select(left, c.i64(0n)));
  };
}

/** The chunk procedures, named by key and element size. */
export function defineStringProcedures(module: ModuleBuilder): void {
  for (const bytes of SIZES) {
    defineChunk(module, "movs", bytes, moveChunk);
    defineChunk(module, "stos", bytes, storeChunk);
    defineChunk(module, "lods", bytes, loadChunk);
    defineChunk(module, "cmps", bytes, compareChunk(false));
    defineChunk(module, "scas", bytes, compareChunk(true));
  }
}

// ---- handlers ----

interface StringKey {
  readonly key: string;
  readonly source: boolean;
  /** "none", or how the element at ES:RDI is accessed. */
  readonly destination: "none" | "read" | "write";
  /** One element: everything but the index registers. */
  readonly element: (insn: Insn, bytes: Size) => void;
}

function stringInstruction(k: StringKey): Semantics {
  return (insn) => {
    if (insn.shape.rep !== 0) repeat(insn, k);
    else {
      const bytes = insn.bytes(0) as Size;
      k.element(insn, bytes);
      const isDown = insn.get(S.RFLAGS_REST).and(Flag.DF);
      const step = isDown.select(insn.i32(-bytes), insn.i32(bytes));
      if (k.source) advance(insn, RSI, step);
      if (k.destination !== "none") advance(insn, RDI, step);
    }
  };
}

/** 1 if linear addresses are effective addresses: the base is 0 and no limit comes before the end of a page. */
function isLinear(insn: Insn, source: Val, destination: Val, k: StringKey): Val {
  const { addrSize } = insn.shape;
  if (insn.is64 && addrSize === 8) return insn.i32(1);
  let all = insn.is64 ? insn.i32(1) : insn.get(S.MODE).and(Mode.FLAT).ne(0);
  if (k.source) all = all.and(source.eq(insn.gpr(RSI, addrSize).extU()));
  if (k.destination !== "none") all = all.and(destination.eq(insn.gpr(RDI, addrSize).extU()));
  return all;
}

/**
 * Leaves in the middle of a repeated instruction. Until it goes on RF is set: its breakpoint has been dealt with, and what interrupts it here
 * pushes RF as 1. SDM Vol. 3B, "Instruction-Breakpoint Exception Condition".
 */
export function giveWay(insn: Insn): void {
  insn.set(S.RFLAGS_REST, insn.get(S.RFLAGS_REST).or(Flag.RF));
  insn.set(S.RESUME_BUDGET, insn.get(S.BUDGET_START).sub(insn.retired()).sub(1));
  insn.leave(Status.REPEAT);
}

function repeat(insn: Insn, k: StringKey): void {
  const { fn } = insn;
  const bytes = insn.bytes(0) as Size;
  const { addrSize, rep } = insn.shape;
  fn.if(insn.gpr(RCX, addrSize).eqz(), () => insn.leave(Status.NEXT));
  insn.set(S.RFLAGS_REST, insn.get(S.RFLAGS_REST).and(~Flag.RF));
  const budget = fn.variable("i32", isStepping(insn).select(insn.i32(1), insn.i32(MAX_SINGLE)));
  fn.loop((again) => {
    const none = insn.i64(0n);
    const source = k.source ? insn.stringSource(bytes) : none;
    const destination =
      k.destination === "none" ? none : insn.stringDestination(bytes, k.destination === "write");
    // With every access to be looked at, a chunk is one element (Chunk).
    const linear = isLinear(insn, source, destination, k).and(insn.get(S.CONTEXT).ne(CONTEXT_NONE));
    const chunk = insn.module.get(`${k.key}${bytes}`);
    const status = fn.call(chunk, source, destination, maskOf(addrSize), linear, rep);
    fn.if(status.eq(MORE), () => {
      const cost = linear.select(insn.i32(Math.ceil(MAX_SINGLE / MAX_CHUNKS)), insn.i32(1));
      const left = budget.read().sub(cost);
      budget.set(left);
      fn.brIf(left.gtS(0), again);
      giveWay(insn);
    });
    fn.if(status.eq(Status.FAULT), () => insn.leave(Status.FAULT));
    fn.if(status.eq(Status.REPEAT), () => giveWay(insn));
  });
}

export const STRINGS: SemanticsTable = {
  movs: stringInstruction({
    key: "movs",
    source: true,
    destination: "write",
    element: (insn, bytes) => {
      const v = insn.load(insn.stringSource(bytes), bytes);
      insn.store(insn.stringDestination(bytes, true), bytes, v);
    },
  }),
  stos: stringInstruction({
    key: "stos",
    source: false,
    destination: "write",
    element: (insn, bytes) => {
      insn.store(insn.stringDestination(bytes, true), bytes, insn.gpr(RAX, bytes));
    },
  }),
  lods: stringInstruction({
    key: "lods",
    source: true,
    destination: "none",
    element: (insn, bytes) => {
      insn.setGpr(RAX, bytes, insn.load(insn.stringSource(bytes), bytes));
    },
  }),
  cmps: stringInstruction({
    key: "cmps",
    source: true,
    destination: "read",
    element: (insn, bytes) => {
      const a = insn.load(insn.stringSource(bytes), bytes);
      const b = insn.load(insn.stringDestination(bytes, false), bytes);
      flagsSub(insn, bytes, a, b, a.sub(b));
    },
  }),
  scas: stringInstruction({
    key: "scas",
    source: false,
    destination: "read",
    element: (insn, bytes) => {
      const a = insn.gpr(RAX, bytes);
      const b = insn.load(insn.stringDestination(bytes, false), bytes);
      flagsSub(insn, bytes, a, b, a.sub(b));
    },
  }),
};
