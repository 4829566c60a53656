/**
 * IN, OUT, INS, OUTS. SDM Vol. 2, their pages; Vol. 1, "I/O Permission Bit Map"; Vol. 3C, "Exit Qualification for I/O Instructions".
 *
 * The processor has no ports of its own: an access that no control intercepts reads all ones and writes nowhere. The permission checks
 * (#GP) precede the exit; the exit precedes every check of the memory operand. REP forms do one element per execution.
 */

import type { Val } from "../../ir/value.ts";
import { Cr4 } from "../../state/control-bits.ts";
import { Pending, S, Seg, Status } from "../../state/layout.ts";
import { Access, Vector } from "../cpu.ts";
import { Flag } from "../flags.ts";
import type { Insn, SemanticsTable } from "../insn.ts";
import type { Procedure } from "../procedure.ts";
import { giveWay } from "../strings.ts";
import { ExitReason, Primary, primary } from "./common.ts";
import { call, type ProcedureText, perform } from "./procedure-text.ts";
import { hasWideTss, inV86, ioplOf, isProtected, TSS_IO_BASE, TSS_MINIMUM_LIMIT } from "./state.ts";

const [RAX, RCX, RDX, RSI, RDI] = [0, 1, 2, 6, 7];

/** Segment field of the instruction information. */
const SEGMENT = 7 << 15;
/** L0 to G3 of DR7, and the condition "I/O". */
const DR7_ENABLES = 0xff;
const BREAK_ON_IO = 2;

/** Exit qualification. */
const Qualification = { IN: 8, STRING: 0x10, REP: 0x20, IMMEDIATE: 0x40, PORT_SHIFT: 16 } as const;

/** (port, bytes): #GP(0) if the program may not use the port. */
function checkPort(p: Procedure): void {
  const { fn } = p;
  const port = fn.param(0);
  const bytes = fn.param(1);
  const byIopl = inV86(p)
    .eqz()
    .and(p.get(S.CPL).leU(ioplOf(p)));
  fn.if(isProtected(p).eqz().or(byIopl), () => p.leave(Status.NEXT));
  const tss = p.segBase(Seg.TR);
  const limit = p.segLimit(Seg.TR);
  p.faultIf(hasWideTss(p).eqz().or(limit.ltU(TSS_MINIMUM_LIMIT)), Vector.GP);
  const at = p.load(tss.add(TSS_IO_BASE), 2, Access.SYSTEM).add(port.shrU(3));
  // Two bytes are read always, so both must be in the TSS.
  p.faultIf(at.add(1).gtU(limit), Vector.GP);
  const bits = p.load(tss.add(at.extU()), 2, Access.SYSTEM).shrU(port.and(7));
  const wanted = p.i32(1).shl(bytes).sub(1);
  p.faultIf(bits.and(wanted), Vector.GP);
}

/** (port, bytes) -> 1 if the access leaves the guest. */
function portExits(p: Procedure): void {
  const { fn } = p;
  const port = fn.param(0);
  const bytes = fn.param(1);
  fn.if(primary(p, Primary.IO_BITMAPS).eqz(), () =>
    fn.return(primary(p, Primary.UNCONDITIONAL_IO)),
  );
  // Around the end of the port space: always.
  fn.if(port.add(bytes).gtU(0x1_0000), () => fn.return(1));
  const bitAt = (n: Val): Val => {
    const map = n.and(0x8000).select(p.get(S.CTL_IO_BITMAP_B), p.get(S.CTL_IO_BITMAP_A));
    return fn
      .load("i32.load8_u", map.add(n.and(0x7fff).shrU(3)))
      .shrU(n.and(7))
      .and(1);
  };
  const n = fn.variable("i32", 0);
  fn.while(
    () => n.read().ltU(bytes),
    () => {
      fn.if(bitAt(port.add(n.read())), () => fn.return(1));
      n.set(n.read().add(1));
    },
  );
}

interface Port {
  readonly port: Val;
  readonly bytes: number;
  readonly flags: number;
}

/** (port, bytes) -> DR6 bits of the I/O breakpoints that the access meets. */
function portBreakpoints(p: Procedure): void {
  const { fn } = p;
  fn.if(p.get(S.CR4).and(Cr4.DE).eqz(), () => fn.return(0));
  fn.return(call(p, "matchBreakpoints", fn.param(0).extU(), fn.param(1), BREAK_ON_IO));
}

/**
 * Permission, then the VM exit; `prepare` records what an exit of a string instruction tells in addition. Whoever carries out the access
 * in the processor's stead also owes the trap of the breakpoints it has met.
 */
function access(insn: Insn, a: Port, prepare?: () => void): void {
  const { fn } = insn;
  perform(insn, "checkPort", a.port, a.bytes);
  const hits = fn.variable("i32", 0);
  fn.if(insn.get(S.DR7).and(DR7_ENABLES).ne(0), () =>
    hits.set(call(insn, "portBreakpoints", a.port, a.bytes)),
  );
  fn.if(call(insn, "portExits", a.port, a.bytes), () => {
    prepare?.();
    insn.set(S.IO_HITS, hits.read());
    const qualification = a.port.shl(Qualification.PORT_SHIFT).or((a.bytes - 1) | a.flags);
    insn.vmExit(ExitReason.IO, qualification.extU());
  });
  fn.if(hits.read(), () => insn.set(S.BREAK_HITS, insn.get(S.BREAK_HITS).or(hits.read())));
}

/** Port operand i: an immediate byte or DX. */
function portOf(insn: Insn, i: number): { port: Val; flags: number } {
  if (insn.kind(i) === "i")
    return { port: insn.immediate(i).and(0xff), flags: Qualification.IMMEDIATE };
  return { port: insn.gpr(RDX, 2), flags: 0 };
}

function input(insn: Insn): void {
  const { port, flags } = portOf(insn, 1);
  const bytes = insn.bytes(0);
  access(insn, { port, bytes, flags: flags | Qualification.IN });
  insn.setGpr(RAX, bytes as 1 | 2 | 4, -1);
}

function output(insn: Insn): void {
  const { port, flags } = portOf(insn, 0);
  access(insn, { port, bytes: insn.bytes(1), flags });
}

/** The address-size part of RCX, RSI or RDI. */
function counter(insn: Insn, register: number): Val {
  const size = insn.shape.addrSize;
  const v = insn.gpr(register, size);
  return v.extU();
}

function setCounter(insn: Insn, register: number, v: Val): void {
  const size = insn.shape.addrSize;
  insn.setGpr(register, size, size === 8 ? v : v.wrap());
}

function advance(insn: Insn, register: number, bytes: number): void {
  const down = insn.get(S.RFLAGS_REST).and(Flag.DF);
  const step = down.select(insn.i64(-bytes), insn.i64(bytes));
  setCounter(insn, register, counter(insn, register).add(step));
}

/** Instruction information of the exit: address size, and the segment of OUTS, which may be overridden. INS always uses ES. */
function stringInformation(insn: Insn, isOutput: boolean): Val {
  const size = insn.i32((Math.log2(insn.shape.addrSize) - 1) << 7);
  const operand = isOutput ? insn.operandInformation() : null;
  return operand ? operand.information.and(SEGMENT).or(size) : size;
}

interface StringPort {
  readonly operand: number;
  readonly register: number;
  readonly flags: number;
  linear(bytes: number): Val;
  /** Moves one element; may fault. */
  move(linear: Val, bytes: 1 | 2 | 4): void;
}

/** One element of INS or OUTS. */
function element(insn: Insn, s: StringPort): void {
  const { fn } = insn;
  const bytes = insn.bytes(s.operand) as 1 | 2 | 4;
  const rep = insn.shape.rep === 0 ? 0 : Qualification.REP;
  const port = insn.gpr(RDX, 2);
  access(insn, { port, bytes, flags: s.flags | Qualification.STRING | rep }, () => {
    insn.set(S.EXIT_LINEAR, s.linear(bytes));
    // A segment violation found on the way is not the reason for this exit.
    insn.set(S.PENDING, Pending.NONE);
    insn.set(S.EXIT_INSTRUCTION_INFO, stringInformation(insn, (s.flags & Qualification.IN) === 0));
  });
  s.move(s.linear(bytes), bytes);
  advance(insn, s.register, bytes);
  if (rep === 0) return;
  const left = counter(insn, RCX).sub(1);
  setCounter(insn, RCX, left);
  const mask = insn.shape.addrSize === 8 ? -1n : (1n << BigInt(8 * insn.shape.addrSize)) - 1n;
  fn.if(left.and(mask).ne(0), () => giveWay(insn));
}

function stringPort(insn: Insn, s: StringPort): void {
  if (insn.shape.rep === 0) {
    element(insn, s);
    return;
  }
  // Permission is needed even for no element at all, as processors have it.
  perform(insn, "checkPort", insn.gpr(RDX, 2), insn.bytes(s.operand));
  insn.fn.if(counter(insn, RCX).ne(0), () => {
    insn.set(S.RFLAGS_REST, insn.get(S.RFLAGS_REST).and(~Flag.RF));
    element(insn, s);
  });
}

function ins(insn: Insn): void {
  stringPort(insn, {
    operand: 0,
    register: RDI,
    flags: Qualification.IN,
    linear: (bytes) => insn.stringDestination(bytes, true),
    move: (linear, bytes) => {
      const host = insn.hostW(linear, bytes);
      insn.setRaw(bytes, host, -1);
      insn.commit(host);
    },
  });
}

function outs(insn: Insn): void {
  stringPort(insn, {
    operand: 1,
    register: RSI,
    flags: 0,
    linear: (bytes) => insn.stringSource(bytes),
    move: (linear, bytes) => {
      insn.hostR(linear, bytes);
    },
  });
}

export const portProcedures: readonly ProcedureText[] = [
  { name: "checkPort", params: ["i32", "i32"], answer: "status", body: checkPort },
  { name: "portExits", params: ["i32", "i32"], answer: "host", body: portExits },
  { name: "portBreakpoints", params: ["i32", "i32"], answer: "host", body: portBreakpoints },
];

export const PORTS: SemanticsTable = { in: input, out: output, ins, outs };
