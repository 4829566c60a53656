/**
 * Task switches through 16-bit and 32-bit task-state segments.
 * Spec: SDM Vol. 3A, "Task Switching", "Exception Conditions Checked During a Task Switch"; Vol. 3C, "Treatment of Task Switches".
 *
 * taskSwitch(selector of the TSS, TaskSource, EIP to save, EFLAGS to save) -> JUMP (S.RIP is the new task's EIP), FAULT (still in the old task,
 * nothing changed), TASK_FAULT (in the new task, event pending), EXIT (reason 9, in VMX non-root operation, after the checks on the new
 * TSS descriptor). Never reached in IA-32e mode.
 *
 * Order: checks and reads; probes of everything that will be written; the old task's state, busy bits and link; the new registers; then the
 * new segments, whose faults belong to the new task.
 */

import type { Val } from "../ir/value.ts";
import { Access, type Cpu, Vector } from "../semantics/cpu.ts";
import { Flag, setRflagsImage } from "../semantics/flags.ts";
import type { Procedure } from "../semantics/procedure.ts";
import {
  DescriptorType,
  descriptorBase,
  descriptorDpl,
  descriptorLimit,
  descriptorRights,
  descriptorType,
  isCode,
  isConforming,
  isNull,
  isPresent,
  markAccessed,
  readDescriptor,
  rplOf,
  setSegment,
  storeSegment,
} from "../semantics/system/descriptor.ts";
import {
  call,
  callVoid,
  obtain,
  type ProcedureText,
  perform,
} from "../semantics/system/procedure-text.ts";
import { frameBelow, moveStackPointer, placeFrame } from "../semantics/system/stack-frame.ts";
import {
  hasWideTss,
  SYS,
  selectorFaultIf,
  TASK_FAULT,
  TASK_GPRS,
  TASK_SEGMENTS,
  wrapLinear,
} from "../semantics/system/state.ts";
import { Cr0 } from "../state/control-bits.ts";
import { GPR, S, Seg, Status, segmentAt } from "../state/layout.ts";

/** Source of a task switch, as in the exit qualification. */
export const TaskSource = { CALL: 0, IRET: 1, JMP: 2, GATE: 3 } as const;

const EXIT_TASK_SWITCH = 9;
/** L0..L3 and LE of DR7. */
const DR7_LOCAL = 0x155;

/** Offsets in a TSS. SDM Vol. 3A, "Task-State Segment (TSS)", "16-Bit Task-State Segment (TSS)". */
interface TssShape {
  readonly bytes: number;
  readonly width: 2 | 4;
  /** First of EIP, EFLAGS, eight registers, segments: consecutive items. */
  readonly state: number;
  /** Segments in order ES CS SS DS (FS GS), then LDT. */
  readonly segments: number;
}

const TSS32: TssShape = { bytes: 104, width: 4, state: 0x20, segments: 6 };
const TSS16: TssShape = { bytes: 44, width: 2, state: 0x0e, segments: 4 };
const TSS32_CR3 = 0x1c;
const TSS32_TRAP = 0x64;
const REGISTERS = 8;

const segmentsAt = (t: TssShape): number => t.state + t.width * (2 + REGISTERS);
/** Bytes of the state that a switch saves. */
const savedBytes = (t: TssShape): number => t.width * (2 + REGISTERS + t.segments);

/** Reads a new task's state into SYS.TASK_*. */
function readTask(t: TssShape): (p: Procedure) => void {
  return (p) => {
    const host = p.hostR(p.fn.param(0), t.bytes, Access.SYSTEM);
    const read = (at: number): Val => p.raw(t.width, host, at);
    const keep = (to: number, v: Val): void => p.fn.store("i32.store", 0, v, to);
    p.set(SYS.TASK_CR3, t.width === 4 ? read(TSS32_CR3) : 0);
    p.set(SYS.TASK_TRAP, t.width === 4 ? read(TSS32_TRAP).and(1) : 0);
    p.set(SYS.TASK_EIP, read(t.state));
    p.set(SYS.TASK_EFLAGS, read(t.state + t.width));
    for (let i = 0; i < REGISTERS; i++) {
      // A 16-bit TSS loads the lower halves only.
      const v = read(t.state + t.width * (2 + i));
      keep(TASK_GPRS + 4 * i, t.width === 4 ? v : v.or(p.gpr(i, 4).and(0xffff_0000 | 0)));
    }
    for (let i = 0; i < 6; i++) {
      keep(
        TASK_SEGMENTS + 4 * i,
        i < t.segments ? read(segmentsAt(t) + t.width * i).and(0xffff) : p.i32(0),
      );
    }
    keep(TASK_SEGMENTS + 4 * Seg.LDTR, read(segmentsAt(t) + t.width * t.segments).and(0xffff));
  };
}

/** (EIP, EFLAGS): writes the state of the old task. */
function saveTask(t: TssShape): (p: Procedure) => void {
  return (p) => {
    const { fn } = p;
    const linear = wrapLinear(p, p.segBase(Seg.TR).add(t.state));
    const host = p.hostW(linear, savedBytes(t), Access.SYSTEM | Access.MODIFY);
    const put = (i: number, v: Val): void => p.setRaw(t.width, host, v, t.width * i);
    put(0, fn.param(0));
    put(1, fn.param(1));
    for (let i = 0; i < REGISTERS; i++) put(2 + i, p.gpr(i, 4));
    for (let i = 0; i < t.segments; i++) {
      // The upper half of a 32-bit TSS's selector fields is reserved and kept.
      p.setRaw(2, host, p.segSelector(i), t.width * (2 + REGISTERS + i));
    }
    p.commit(host);
  };
}

/** Makes sure that `bytes` can be written later without a fault. */
function probe(p: Cpu, linear: Val, bytes: number): void {
  p.hostW(linear, bytes, Access.SYSTEM | Access.MODIFY);
}

function checkTss(p: Procedure, selector: Val, source: Val): Val {
  const vector = source.eq(TaskSource.IRET).select(p.i32(Vector.TS), p.i32(Vector.GP));
  selectorFaultIf(p, selector.and(4), vector, selector);
  const d = readDescriptor(p, selector, vector);
  const busy = source.eq(TaskSource.IRET).shl(1);
  const type = descriptorType(d);
  const ok = type.and(~8).eq(busy.or(DescriptorType.TSS16));
  selectorFaultIf(p, ok.eqz(), vector, selector);
  selectorFaultIf(p, isPresent(d).eqz(), Vector.NP, selector);
  const least = type.and(8).select(p.i32(TSS32.bytes - 1), p.i32(TSS16.bytes - 1));
  selectorFaultIf(p, descriptorLimit(d).ltU(least), Vector.TS, selector);
  return d;
}

function taskSwitch(p: Procedure): void {
  const { fn } = p;
  const [selector, source, eip, eflags] = [fn.param(0), fn.param(1), fn.param(2), fn.param(3)];
  const d = checkTss(p, selector, source);
  fn.if(p.get(S.NON_ROOT), () => p.vmExit(EXIT_TASK_SWITCH, selector.or(source.shl(30)).extU()));
  const descriptor = p.get(SYS.DESCRIPTOR_LINEAR);
  const old = wrapLinear(p, p.get(S.GDTR_BASE).add(p.segSelector(Seg.TR).and(0xfff8).extU()));
  const oldSelector = p.segSelector(Seg.TR);
  const isNested = source.eq(TaskSource.CALL).or(source.eq(TaskSource.GATE));
  const isWide = descriptorType(d).and(8);
  const base = descriptorBase(d);
  const oldIsWide = hasWideTss(p);
  const setsBusy = source.ne(TaskSource.IRET);

  fn.if(
    isWide,
    () => perform(p, "readTask32", base),
    () => perform(p, "readTask16", base),
  );
  fn.if(
    isNested.eqz(),
    () => probe(p, old.add(5), 1),
    () => probe(p, base, 2),
  );
  fn.if(setsBusy, () => probe(p, descriptor.add(5), 1));
  fn.if(
    oldIsWide,
    () => perform(p, "saveTask32", eip.wrap(), eflags),
    () => perform(p, "saveTask16", eip.wrap(), eflags),
  );

  fn.if(
    isNested.eqz(),
    () => perform(p, "setBusy", old, 0),
    () => p.store(base, 2, oldSelector, Access.SYSTEM),
  );
  fn.if(setsBusy, () => perform(p, "setBusy", descriptor, 2));
  storeSegment(p, segmentAt(Seg.TR), {
    base,
    limit: descriptorLimit(d),
    rights: descriptorRights(d).or(2),
    selector,
  });
  p.set(S.CR0, p.get(S.CR0).or(Cr0.TS));
  p.set(S.DR7, p.get(S.DR7).and(~DR7_LOCAL));
  const nested = isNested.select(p.i32(Flag.NT), p.i32(0));
  const newFlags = p.get(SYS.TASK_EFLAGS);
  setRflagsImage(p, newFlags.and(isWide.select(p.i32(-1), p.i32(0xffff))).or(nested));
  const status = call(p, "enterTask", isWide);
  fn.return(status.eqz().select(p.i32(Status.JUMP), p.i32(TASK_FAULT)));
}

/** (TSS is 32-bit): registers and segments of the new task -> NEXT, or FAULT in the new task. */
function enterTask(p: Procedure): void {
  const { fn } = p;
  const word = (at: number): Val => fn.load("i32.load", 0, at);
  const selectorOf = (seg: number): Val => word(TASK_SEGMENTS + 4 * seg);
  p.set(S.RIP, p.get(SYS.TASK_EIP).extU());
  for (let i = 0; i < REGISTERS; i++)
    fn.store("i64.store", 0, word(TASK_GPRS + 4 * i).extU(), GPR + 8 * i);
  // Visible selectors first: a handler of the faults below sees them, with nothing behind them.
  for (const seg of [Seg.ES, Seg.CS, Seg.SS, Seg.DS, Seg.FS, Seg.GS, Seg.LDTR]) {
    const rights = 0x1_0000 | (seg === Seg.CS ? 0x9b : 0);
    storeSegment(p, segmentAt(seg), { base: 0n, limit: 0, rights, selector: selectorOf(seg) });
  }
  const isV86 = p.get(S.RFLAGS_REST).and(Flag.VM);
  p.set(S.CPL, isV86.select(p.i32(3), selectorOf(Seg.CS).and(3)));
  const paging = p.get(S.CR0).and(Cr0.PG).ne(0);
  fn.if(fn.param(0).ne(0).and(paging), () => perform(p, "loadCr3", p.get(SYS.TASK_CR3).extU()));
  callVoid(p, "updateMode");
  perform(p, "loadLdtr", selectorOf(Seg.LDTR), Vector.TS);
  fn.if(
    isV86,
    () => {
      for (let seg = 0; seg < 6; seg++) callVoid(p, "loadRealSegment", seg, selectorOf(seg));
    },
    () => {
      perform(p, "enterTaskStack", selectorOf(Seg.SS));
      perform(p, "enterTaskCode", selectorOf(Seg.CS));
      for (const seg of [Seg.ES, Seg.DS, Seg.FS, Seg.GS])
        perform(p, "loadDataSegment", seg, selectorOf(seg), Vector.TS);
    },
  );
  callVoid(p, "updateMode");
  p.faultIf(p.get(S.RIP).gtU(p.segLimit(Seg.CS).extU()), Vector.GP, p.get(SYS.EXT));
  fn.if(p.get(SYS.TASK_TRAP), () => {
    p.set(S.PENDING_ADDRESS, 0x8000n);
    p.fault(Vector.DB);
  });
}

/** (selector): SS of a new task. */
function enterTaskStack(p: Procedure): void {
  const selector = p.fn.param(0);
  selectorFaultIf(p, isNull(selector), Vector.TS, selector);
  const cpl = p.get(S.CPL);
  callVoid(p, "cacheStack", selector, obtain(p, "stackDescriptor", selector, cpl, Vector.TS), cpl);
}

/** (selector): CS of a new task. */
function enterTaskCode(p: Procedure): void {
  const selector = p.fn.param(0);
  selectorFaultIf(p, isNull(selector), Vector.TS, selector);
  const d = readDescriptor(p, selector, Vector.TS);
  const dpl = descriptorDpl(d);
  const wrongDpl = isConforming(d).select(dpl.gtU(rplOf(selector)), dpl.ne(rplOf(selector)));
  selectorFaultIf(p, isCode(d).eqz().or(wrongDpl), Vector.TS, selector);
  selectorFaultIf(p, isPresent(d).eqz(), Vector.NP, selector);
  setSegment(p, Seg.CS, selector, markAccessed(p, d));
}

/** (error code): pushed onto the new task's stack, in the width of its TSS -> JUMP or TASK_FAULT. */
function pushTaskError(p: Procedure): void {
  const { fn } = p;
  fn.return(call(p, "pushTaskItem", fn.param(0)).select(p.i32(TASK_FAULT), p.i32(Status.JUMP)));
}

function pushTaskItem(p: Procedure): void {
  const { fn } = p;
  const size = hasWideTss(p).select(p.i32(4), p.i32(2));
  const host = placeFrame(p, frameBelow(p, size), size, size, Access.STACK);
  fn.if(
    size.eq(4),
    () => p.setRaw(4, host, fn.param(0)),
    () => p.setRaw(2, host, fn.param(0)),
  );
  p.commit(host);
  moveStackPointer(p, size.extU().neg());
}

export const taskProcedures: readonly ProcedureText[] = [
  { name: "taskSwitch", params: ["i32", "i32", "i64", "i32"], answer: "status", body: taskSwitch },
  { name: "readTask32", params: ["i64"], answer: "status", body: readTask(TSS32) },
  { name: "readTask16", params: ["i64"], answer: "status", body: readTask(TSS16) },
  { name: "saveTask32", params: ["i32", "i32"], answer: "status", body: saveTask(TSS32) },
  { name: "saveTask16", params: ["i32", "i32"], answer: "status", body: saveTask(TSS16) },
  { name: "enterTask", params: ["i32"], answer: "status", body: enterTask },
  { name: "enterTaskStack", params: ["i32"], answer: "status", body: enterTaskStack },
  { name: "enterTaskCode", params: ["i32"], answer: "status", body: enterTaskCode },
  { name: "pushTaskError", params: ["i32"], answer: "status", body: pushTaskError },
  { name: "pushTaskItem", params: ["i32"], answer: "status", body: pushTaskItem },
];
