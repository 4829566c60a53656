/**
 * Every way from one privilege level to another (or the same) that x86 has, as guests of one instruction: they arrive at the label "target",
 * whose instruction is a CPUID.
 */
import type { Lab } from "../../guests/lab.ts";
import {
  callGateOf,
  codeOf,
  dataOf,
  RINGS,
  type Ring,
  SYSRET_BASE,
  stackOf,
} from "../../guests/lab-tables.ts";
import { type Assembler, addr, imm, mem } from "../../src/processor/isa/assemble.ts";
import { cr0, eax } from "../../src/processor/isa/registers.ts";
import { TransitionCause } from "../../src/processor/isa/vendor.ts";
import { Field } from "../../src/processor/isa/vmcs-fields.ts";
import { gprAt, S } from "../../src/processor/state/layout.ts";

export interface LevelTransition {
  readonly name: string;
  readonly mode: "long64" | "protected32";
  readonly from: Ring;
  readonly to: Ring;
  /** TransitionCause, and the vector of an event. */
  readonly cause: number;
  readonly vector: number;
  /** Puts the guest before the instruction. */
  prepare(lab: Lab): void;
}

const VECTOR = 0x80;
const OVERFLOW = 4;
const UNDEFINED = 6;
const BREAKPOINT = 3;
const DEBUG = 1;
const RFLAGS = 2;
const RFLAGS_V86 = 0x2_3002;
const RFLAGS_OF = 0x802;
const EFER_SCE = 1;
const RCX = 1;
const RDX = 2;
const R11 = 11;
/** Interruption types. */
const [EXCEPTION, SOFTWARE_INTERRUPT, PRIVILEGED, SOFTWARE_EXCEPTION] = [3, 4, 5, 6];
/** In virtual-8086 mode: CS selector of the code, and where its stack is. */
const V86_CS = 0x1_0000 >>> 4;
const V86_CODE = 0x1_0000;
const V86_STACK = 0x2000;

export function transitionGuest(a: Assembler): void {
  const one = (label: string, emit: () => void): void => {
    a.label(label);
    emit();
  };
  one("int", () => a.emit("int", imm(VECTOR)));
  one("int3", () => a.emit("int3"));
  one("int1", () => a.db(0xf1));
  one("ud2", () => a.emit("ud2"));
  one("gate", () => a.emit("callf", mem(6, addr("gatePointer"))));
  one("callf", () => a.emit("callf", mem(6, addr("pointer"))));
  one("jmpf", () => a.emit("jmpf", mem(6, addr("pointer"))));
  if (a.mode === 64) {
    one("iret", () => a.emit("iretq"));
    one("retf", () => a.db(0x48, 0xcb));
    one("syscall", () => a.emit("syscall"));
    one("sysret", () => a.db(0x48, 0x0f, 0x07));
    one("sysexit", () => a.db(0x48, 0x0f, 0x35));
  } else {
    one("iret", () => a.emit("iretd"));
    one("retf", () => a.emit("retf"));
    one("into", () => a.db(0xce));
    one("sysexit", () => a.emit("sysexit"));
    one("protect", () => a.emit("mov", cr0, eax));
    a.emit("cpuid");
  }
  one("sysenter", () => a.emit("sysenter"));
  a.align(16);
  a.label("target").emit("cpuid");
  a.align(16);
  a.label("pointer").dd("target").dw(0);
  a.align(16);
  a.label("gatePointer").dd(0).dw(0);
}

type Prepare = (lab: Lab) => void;

function transition(
  name: string,
  mode: LevelTransition["mode"],
  [from, to]: readonly [Ring, Ring],
  cause: number,
  prepare: Prepare,
  vector = 0,
): LevelTransition {
  const whole = (lab: Lab): void => {
    const { vmcs } = lab;
    lab.place(from, lab.at("target"));
    vmcs.set(Field.GUEST_EFER, vmcs.number(Field.GUEST_EFER) | EFER_SCE);
    prepare(lab);
  };
  return { name, mode, from, to, cause, vector, prepare: whole };
}

/** Pointer in the guest's memory with a selector. */
function point(lab: Lab, label: string, selector: number): void {
  const at = lab.at(label);
  lab.write(at, (lab.read(at) & ~0xffff_0000_0000n) | (BigInt(selector) << 32n));
}

/** A frame on the guest's stack, first item lowest. */
function push(lab: Lab, items: readonly number[]): void {
  const rsp = lab.vmcs.number(Field.GUEST_RSP);
  items.forEach((item, i) => {
    if (lab.isLong) lab.write(rsp + 8 * i, BigInt(item));
    else lab.view.setUint32(lab.host(rsp + 4 * i), item, true);
  });
}

/** To the same or an inner level. */
function inward(mode: LevelTransition["mode"], levels: readonly [Ring, Ring]): LevelTransition[] {
  const [from, to] = levels;
  const event = (name: string, vector: number, type: number, flags = RFLAGS): LevelTransition =>
    transition(
      name,
      mode,
      levels,
      TransitionCause.EVENT + type,
      (lab) => {
        lab.tables.interrupt(vector, to, lab.at("target"));
        lab.vmcs.set(Field.GUEST_RFLAGS, flags);
        lab.rip = lab.at(name);
      },
      vector,
    );
  const all = [
    event("int", VECTOR, SOFTWARE_INTERRUPT!),
    event("int3", BREAKPOINT, SOFTWARE_EXCEPTION!),
    event("int1", DEBUG, PRIVILEGED!),
    event("ud2", UNDEFINED, EXCEPTION!),
    transition("gate", mode, levels, TransitionCause.FAR_CALL, (lab) => {
      lab.tables.call(to, lab.at("target"));
      point(lab, "gatePointer", callGateOf(to) | 3);
      lab.rip = lab.at("gate");
    }),
  ];
  if (mode === "protected32") all.push(event("into", OVERFLOW, SOFTWARE_EXCEPTION!, RFLAGS_OF));
  if (from === to)
    for (const [name, cause] of [
      ["callf", TransitionCause.FAR_CALL],
      ["jmpf", TransitionCause.FAR_JUMP],
    ] as const)
      all.push(
        transition(name, mode, levels, cause, (lab) => {
          point(lab, "pointer", codeOf(to));
          lab.rip = lab.at(name);
        }),
      );
  return all;
}

/** To the same or an outer level. */
function outward(mode: LevelTransition["mode"], levels: readonly [Ring, Ring]): LevelTransition[] {
  const [, to] = levels;
  const stack = [stackOf(to) - 0x100, dataOf(to)];
  return [
    transition("iret", mode, levels, TransitionCause.IRET, (lab) => {
      push(lab, [lab.at("target"), codeOf(to), RFLAGS, ...stack]);
      lab.rip = lab.at("iret");
    }),
    transition("retf", mode, levels, TransitionCause.FAR_RETURN, (lab) => {
      push(lab, [lab.at("target"), codeOf(to), ...stack]);
      lab.rip = lab.at("retf");
    }),
  ];
}

/** STAR, LSTAR and the MSRs of SYSENTER lead to the target. */
function fastTargets(lab: Lab): void {
  const target = BigInt(lab.at("target"));
  const { view } = lab;
  const star = (BigInt(SYSRET_BASE | 3) << 48n) | (BigInt(codeOf(0)) << 32n);
  view.setBigUint64(S.STAR.at, star, true);
  view.setBigUint64(S.LSTAR.at, target, true);
  lab.vmcs.set(Field.GUEST_SYSENTER_CS, codeOf(0));
  lab.vmcs.setBig(Field.GUEST_SYSENTER_EIP, target);
  lab.vmcs.setBig(Field.GUEST_SYSENTER_ESP, BigInt(stackOf(0)));
  view.setBigUint64(gprAt(RCX), target, true);
  view.setBigUint64(gprAt(RDX), target, true);
  view.setBigUint64(gprAt(R11), BigInt(RFLAGS), true);
}

function fast(mode: LevelTransition["mode"], from: Ring): LevelTransition[] {
  const one = (name: string, levels: readonly [Ring, Ring], cause: number): LevelTransition =>
    transition(name, mode, levels, cause, (lab) => {
      fastTargets(lab);
      // SYSEXIT takes RSP from RCX.
      if (name === "sysexit") lab.setRegister(RCX, BigInt(stackOf(3)));
      lab.rip = lab.at(name);
    });
  const all = [one("sysenter", [from, 0], TransitionCause.SYSENTER)];
  if (mode === "long64") all.push(one("syscall", [from, 0], TransitionCause.SYSCALL));
  if (from !== 0) return all;
  all.push(one("sysexit", [0, 3], TransitionCause.SYSEXIT));
  if (mode === "long64") all.push(one("sysret", [0, 3], TransitionCause.SYSRET));
  return all;
}

/** Virtual-8086 mode, and protection switched off and on. */
function legacy(): LevelTransition[] {
  const enterV86 = (lab: Lab): void => {
    const { vmcs } = lab;
    for (const name of ["CS", "SS", "DS", "ES", "FS", "GS"] as const) {
      const selector = name === "CS" ? V86_CS : 0;
      vmcs.set(Field[`GUEST_${name}_SELECTOR`], selector);
      vmcs.set(Field[`GUEST_${name}_BASE`], selector << 4);
      vmcs.set(Field[`GUEST_${name}_LIMIT`], 0xffff);
      vmcs.set(Field[`GUEST_${name}_RIGHTS`], 0xf3);
    }
    vmcs.set(Field.GUEST_RFLAGS, RFLAGS_V86);
    vmcs.set(Field.GUEST_RSP, V86_STACK);
  };
  const code = (lab: Lab, bytes: readonly number[]): void => {
    lab.processor.engine.noticeWrite(lab.host(V86_CODE), bytes.length);
    new Uint8Array(lab.view.buffer).set(bytes, lab.host(V86_CODE));
  };
  const CPUID = [0x0f, 0xa2];
  return [
    transition("iret to V86", "protected32", [0, 3], TransitionCause.IRET, (lab) => {
      code(lab, CPUID);
      push(lab, [0, V86_CS, RFLAGS_V86, V86_STACK, 0, 0, 0, 0, 0]);
      lab.rip = lab.at("iret");
    }),
    transition(
      "int from V86",
      "protected32",
      [3, 0],
      TransitionCause.EVENT + SOFTWARE_INTERRUPT!,
      (lab) => {
        enterV86(lab);
        code(lab, [0xcd, VECTOR]);
        lab.tables.interrupt(VECTOR, 0, lab.at("target"));
        lab.rip = 0;
      },
      VECTOR,
    ),
    transition("iret in V86", "protected32", [3, 3], TransitionCause.IRET, (lab) => {
      enterV86(lab);
      // IRET of 16-bit items; behind it the target.
      code(lab, [0xcf, ...CPUID]);
      for (const [i, item] of [1, V86_CS, RFLAGS].entries())
        lab.view.setUint16(lab.host(V86_STACK + 2 * i), item, true);
      lab.rip = 0;
    }),
    transition("protection off", "protected32", [0, 0], TransitionCause.MOV_CR0, (lab) => {
      lab.setRegister(0, BigInt(lab.vmcs.number(Field.GUEST_CR0) & ~1));
      lab.rip = lab.at("protect");
    }),
  ];
}

export const TRANSITIONS: readonly LevelTransition[] = [
  ...(["long64", "protected32"] as const).flatMap((mode) => [
    ...RINGS.flatMap((from) =>
      RINGS.flatMap((to) => [
        ...(to <= from ? inward(mode, [from, to]) : []),
        ...(to >= from ? outward(mode, [from, to]) : []),
      ]),
    ),
    ...RINGS.flatMap((from) => fast(mode, from)),
  ]),
  ...legacy(),
];
