/**
 * The region tier against the interpreter in 32-bit code: same instruction counts, exits and state, whatever segments and address sizes do.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import {
  type Assembler,
  addr,
  asm32,
  asm64,
  byte,
  dword,
  far,
  imm,
  mem,
  qword,
  times,
  word,
} from "../src/processor/isa/assemble.ts";
import { ExitReason } from "../src/processor/isa/exit-reasons.ts";
import {
  al,
  ax,
  bl,
  bp,
  bx,
  cx,
  ds,
  dx,
  eax,
  ebp,
  ebx,
  ecx,
  edi,
  edx,
  es,
  esi,
  esp,
  fs,
  gs,
  mm0,
  mm1,
  rax,
  rsp,
  si,
  xmm0,
} from "../src/processor/isa/registers.ts";
import { Field } from "../src/processor/isa/vmcs-fields.ts";
import { gprAt, RAM_BASE, S, xmmAt } from "../src/processor/state/layout.ts";
import type { Vmcs } from "../src/processor/vmx/vmcs.ts";
import { type BareMetalResult, EXIT_PORT, runBareMetal } from "./bare-metal.ts";

const CODE = 0x10_0000;
const DATA = 0x20_0000;
/** Below 64 KiB, for 16-bit addresses. */
const LOW = 0xf000;
const TLS = DATA + 0x5010;
const STACK = 0x30_0000;
const CR4_OSFXSR = 0x200;
const ALL_EXCEPTIONS = 0xffff_ffff;
const RIGHTS = {
  writable: 0xc093,
  readOnly: 0xc091,
  expandDown: 0xc097,
  code: 0xc09b,
  unusable: 0x1_0000,
};

interface Outcome {
  readonly reason: string;
  readonly instructions: number;
  readonly registers: readonly bigint[];
  readonly rip: number;
  readonly rflags: number;
  readonly xmm0: string;
  readonly memory: string;
  readonly events: readonly string[];
}

interface Guest {
  readonly image: Uint8Array;
  readonly mode?: "protected32" | "long64";
  readonly prepare?: (vmcs: Vmcs) => void;
  /** Exceptions leave the guest, which goes on at this address. */
  readonly resumeAt?: number;
}

function run(
  { image, mode = "protected32", prepare, resumeAt }: Guest,
  engine: "interpreter" | "jit",
): [Outcome, number] {
  const events: string[] = [];
  const r: BareMetalResult = runBareMetal({
    image,
    mode,
    engine,
    address: CODE,
    prepare: (vmcs) => {
      vmcs.set(Field.GUEST_CR4, vmcs.number(Field.GUEST_CR4) + CR4_OSFXSR);
      vmcs.set(Field.EXCEPTION_BITMAP, ALL_EXCEPTIONS);
      prepare?.(vmcs);
    },
    onExit: (vmcs, reason) => {
      const isFault = reason === ExitReason.EXCEPTION_OR_NMI || reason === ExitReason.EPT_VIOLATION;
      if (!isFault || resumeAt === undefined || events.length > 1000) return false;
      const fields = [
        Field.GUEST_RIP,
        Field.EXIT_INTERRUPTION_INFO,
        Field.EXIT_QUALIFICATION,
        Field.GUEST_RFLAGS,
      ];
      const state = [0, 1, 4].map((n) => vmcs.state.getBigUint64(gprAt(n), true));
      events.push([...fields.map((f) => vmcs.number(f)), ...state].join(" "));
      vmcs.set(Field.GUEST_RIP, resumeAt);
      return true;
    },
  });
  const { vmcs, processor } = r;
  const { view } = processor;
  const outcome = {
    reason: r.reason,
    instructions: r.instructions,
    registers: Array.from({ length: 16 }, (_, n) => vmcs.state.getBigUint64(gprAt(n), true)),
    rip: vmcs.number(Field.GUEST_RIP),
    rflags: vmcs.number(Field.GUEST_RFLAGS),
    xmm0: Buffer.from(view.buffer, xmmAt(0), 16).toString("hex"),
    memory: [DATA, DATA + 0x1000, TLS - 0x1010, TLS - 0x10, LOW, STACK - 0x1000]
      .map((at) => Buffer.from(view.buffer, RAM_BASE + at, 0x1000).toString("hex"))
      .join(),
    events,
  };
  return [outcome, Number(view.getBigInt64(S.REGION_INSTRUCTIONS.at, true))];
}

/** Both engines do the same, and most of it (`share` of the instructions) happens in regions. */
function compare(guest: Guest, share: number): Outcome {
  const [interpreted, none] = run(guest, "interpreter");
  const [compiled, inRegions] = run(guest, "jit");
  assert.equal(none, 0);
  assert.deepEqual(compiled, interpreted);
  assert.ok(
    inRegions >= share * compiled.instructions,
    `${inRegions} of ${compiled.instructions} in regions`,
  );
  return compiled;
}

function end(a: Assembler): void {
  a.emit("out", imm(EXIT_PORT), al);
}

/** `count` rounds of `body` with the counter in EDI. */
function rounds(a: Assembler, count: number, body: () => void): void {
  a.emit("mov", esp, imm(STACK));
  a.emit("mov", esi, imm(DATA));
  a.emit("mov", edi, imm(count));
  a.emit("xor", eax, eax);
  a.emit("mov", ebx, imm(0x1234_5678));
  a.label("round");
  body();
  a.emit("dec", edi);
  a.emit("jne", "round");
  end(a);
}

test("32-bit regions compute what the interpreter computes: arithmetic, memory, calls, vectors", () => {
  const image = asm32(CODE, (a) => {
    rounds(a, 5000, () => {
      a.emit("mov", edx, edi);
      a.emit("and", edx, imm(0x7fc));
      a.emit("add", eax, mem(4, esi, times(edx, 2)));
      a.emit("adc", mem(4, esi, edx), eax);
      a.emit("rol", eax, imm(7));
      // Across the end of a page.
      a.emit("mov", dword(esi, 0xffe), eax);
      a.emit("add", dword(esi, 0xffd), imm(0x0101));
      a.emit("test", al, imm(0x10));
      a.emit("je", "even");
      a.emit("call", "mix");
      a.emit("jmp", "next");
      a.label("even");
      a.emit("inc", eax);
      a.emit("setc", bl);
      a.emit("mov", ecx, addr("mix"));
      a.emit("call", ecx);
      a.label("next");
      a.emit("movd", xmm0, eax);
      a.emit("paddd", xmm0, xmm0);
      a.emit("movdqu", mem(16, esi, 0x40), xmm0);
      a.emit("movq", mm0, mem(8, esi, 0x40));
      a.emit("paddw", mm0, mm1);
      a.emit("movq", mem(8, esi, 0x50), mm0);
      a.emit("cmp", eax, ebx);
      a.emit("cmova", ebx, eax);
      a.emit("mov", edx, edi);
      a.emit("and", edx, imm(3));
      a.emit("jmp", dword(addr("table"), times(edx, 4)));
      a.label("case0");
      a.emit("xor", ebx, imm(0x55));
      a.label("case1");
      a.emit("lea", ebx, mem(0, ebx, times(eax, 4), 5));
      a.label("case2");
      a.emit("bsf", ecx, ebx);
      a.label("case3");
    });
    a.label("mix");
    a.emit("push", ebp);
    a.emit("mov", ebp, esp);
    a.emit("push", ebx);
    a.emit("imul", eax, eax, imm(31));
    a.emit("bswap", eax);
    a.emit("mul", ebx);
    a.emit("bt", eax, imm(5));
    a.emit("sbb", ebx, ebx);
    a.emit("leave");
    a.emit("ret");
    a.align(4);
    a.label("table").dd("case0", "case1", "case2", "case3");
  });
  assert.equal(compare({ image }, 0.85).reason, "exit port");
});

test("32-bit regions treat the stack like the interpreter: 16-bit elements, memory operands, RET n, what they leave out", () => {
  const image = asm32(CODE, (a) =>
    rounds(a, 3000, () => {
      a.emit("push", edi);
      a.emit("push", ax);
      a.emit("push", imm(-3));
      a.emit("push", dword(esp, 2));
      a.emit("pop", dword(esp, 4));
      a.emit("add", eax, dword(esp));
      a.emit("pop", edx);
      a.emit("pop", cx);
      a.emit("pop", edx);
      a.emit("push", esp);
      a.emit("pop", edx);
      a.emit("call", "callee");
      a.emit("pusha");
      a.emit("popa");
      a.emit("enter", imm(8), imm(1));
      a.emit("mov", dword(ebp, -8), eax);
      a.emit("leave");
      a.emit("aaa");
      a.emit("jmp", "over");
      a.label("callee");
      a.emit("push", edi);
      a.emit("call", "inner");
      a.emit("ret");
      a.label("inner");
      a.emit("xor", eax, dword(esp, 4));
      a.emit("ret", imm(4));
      a.label("over");
    }),
  );
  assert.equal(compare({ image }, 0.4).reason, "exit port");
});

test("32-bit regions cut addresses to 32 and 16 bits", () => {
  const image = asm32(CODE, (a) =>
    rounds(a, 3000, () => {
      a.emit("mov", ecx, imm(-0x1000));
      // 0x201000 - 0x1000, by wrapping.
      a.emit("add", dword(ecx, esi, 0x1010), edi);
      a.emit("mov", edx, imm(0x8000_0000 + (DATA >> 1)));
      a.emit("add", eax, dword(times(edx, 2), 0x10));
      a.emit("mov", ebx, imm(0x5555_f000));
      a.emit("push", esi);
      a.emit("mov", esi, imm(0x7777_0010));
      a.emit("add", word(bx, si, 4), ax);
      a.emit("add", eax, dword(bx, 0x14));
      a.emit("mov", bp, imm(0xf008));
      a.emit("xor", byte(bp, 3), al);
      a.emit("lea", edx, mem(0, bx, si, 0x7000));
      a.emit("pop", esi);
      a.emit("add", eax, edx);
      a.emit("mov", ecx, imm(0x3_0003));
      a.label("loop16");
      a.emit("inc", eax);
      // LOOP with CX.
      a.db(0x67, 0xe2, 0xfd);
      a.emit("mov", dword(esi, 0x20), ecx);
      a.emit("mov", ecx, imm(0x1_0000));
      // JCXZ over an INC.
      a.db(0x67, 0xe3, 0x01);
      a.emit("inc", ebx);
      a.emit("mov", eax, dword(DATA + 0x20));
    }),
  );
  assert.equal(compare({ image }, 0.9).reason, "exit port");
});

/** Through GS with positive and negative offsets, as thread-local variables are. */
function threadLocals(a: Assembler): void {
  rounds(a, 2000, () => {
    // The same memory through DS: the TLB has it.
    a.emit("inc", dword(TLS - 8));
    a.emit("inc", dword(TLS - 0x1000));
    a.emit("add", eax, dword(gs, 0x10));
    a.emit("mov", ecx, imm(-8));
    a.emit("add", dword(gs, ecx), edi);
    a.emit("add", ebx, dword(gs, ecx, -0xff8));
    a.emit("mov", byte(gs, 0x14), al);
    a.emit("test", edi, imm(0xff));
    a.emit("jne", "next");
    a.emit("mov", ecx, imm(-3));
    // The last byte is beyond the limit: #GP(0), though the sum would be a fine address.
    a.emit("mov", edx, dword(gs, ecx));
    a.label("next");
    // Across the end of a page.
    a.emit("mov", dword(gs, 0xfee), eax);
  });
}

const useGs =
  (rights: number, limit = 0xffff_ffff) =>
  (vmcs: Vmcs): void => {
    vmcs.set(Field.GUEST_GS_BASE, TLS);
    vmcs.set(Field.GUEST_GS_LIMIT, limit);
    vmcs.set(Field.GUEST_GS_RIGHTS, rights);
  };

test("a segment with a base is added, wraps, and keeps its limit", () => {
  let resumeAt = 0;
  const image = asm32(CODE, (a) => {
    threadLocals(a);
    resumeAt = a.addressOf("next");
  });
  const { events, reason } = compare({ image, resumeAt, prepare: useGs(RIGHTS.writable) }, 0.5);
  assert.equal(reason, "exit port");
  assert.equal(events.length, 2000 >> 8);
});

test("segments that are limited, not writable, expand down, hold code or are unusable are left to the interpreter", () => {
  let resumeAt = 0;
  const image = asm32(CODE, (a) => {
    threadLocals(a);
    resumeAt = a.addressOf("next");
  });
  const { writable, readOnly, expandDown, code, unusable } = RIGHTS;
  for (const prepare of [
    useGs(writable & ~0x8000, 0xffff),
    useGs(readOnly),
    useGs(expandDown, 0xfff),
    useGs(code),
    useGs(unusable),
  ]) {
    const [interpreted] = run({ image, resumeAt, prepare }, "interpreter");
    const [compiled] = run({ image, resumeAt, prepare }, "jit");
    assert.ok(interpreted.events.length > 0);
    assert.deepEqual(compiled, interpreted);
  }
});

test("a 32-bit region is left with exact state where its code faults or crosses 4 GiB", () => {
  let resumeAt = 0;
  const image = asm32(CODE, (a) => {
    rounds(a, 1000, () => {
      a.emit("mov", ecx, edi);
      a.emit("and", ecx, imm(7));
      a.emit("mov", edx, edi);
      a.emit("cmp", ecx, imm(3));
      a.emit("jne", "no division");
      a.emit("xor", ecx, ecx);
      a.emit("xor", edx, edx);
      a.emit("cmp", eax, ebx);
      a.emit("div", ecx);
      a.label("no division");
      a.emit("cmp", ecx, imm(4));
      a.emit("jne", "no crossing");
      a.emit("mov", ecx, imm(-2));
      a.emit("add", dword(ecx), eax);
      a.label("no crossing");
      a.emit("cmp", ecx, imm(5));
      a.emit("jne", "next");
      a.emit("mov", esp, imm(2));
      a.emit("push", eax);
      a.label("next");
      a.emit("mov", esp, imm(STACK));
      a.emit("add", eax, edi);
      a.emit("push", eax);
      a.emit("pop", ebx);
    });
    resumeAt = a.addressOf("next");
  });
  const { events, reason } = compare({ image, resumeAt }, 0.8);
  assert.equal(reason, "exit port");
  assert.equal(events.length, 375);
});

test("loading a segment that is not flat ends the use of regions until it is flat again", () => {
  let resumeAt = 0;
  const image = asm32(CODE, (a) => {
    rounds(a, 500, () => {
      a.emit("mov", dx, ds);
      a.emit("test", edi, imm(0x1f));
      a.emit("jne", "flat");
      a.emit("xor", ecx, ecx);
      a.emit("mov", es, cx);
      // DS stays flat, but the code is other code now; ES faults.
      a.emit("add", eax, dword(esi, 4));
      a.emit("inc", dword(esi, 8));
      a.emit("mov", ecx, dword(es, esi));
      a.label("flat");
      a.emit("mov", es, dx);
      a.emit("mov", fs, dx);
      a.emit("add", dword(esi, 4), edi);
      a.emit("mov", ecx, imm(10));
      a.label("again");
      a.emit("add", ebx, dword(es, esi));
      a.emit("dec", ecx);
      a.emit("jne", "again");
    });
    resumeAt = a.addressOf("flat");
  });
  const { events, reason } = compare({ image, resumeAt }, 0.5);
  assert.equal(reason, "exit port");
  assert.equal(events.length, 500 >> 5);
});

test("32-bit regions made from rewritten code are forgotten", () => {
  const image = asm32(CODE, (a) => {
    rounds(a, 40, () => {
      a.emit("mov", ecx, imm(200));
      a.emit("xor", ebx, ebx);
      a.label("again");
      a.label("patched");
      a.emit("add", eax, imm(1));
      a.emit("dec", ecx);
      a.emit("jne", "again");
      a.emit("mov", edx, addr("patched"));
      a.emit("inc", byte(edx, 2));
      // The next instruction but one is written by this one, in the same block.
      a.emit("mov", edx, addr("near"));
      a.emit("mov", byte(edx, 1), bl);
      a.label("near");
      a.emit("mov", al, imm(7));
    });
  });
  compare({ image }, 0.5);
});

/** Descriptors: 64-bit code (8), 32-bit code (16), data (24). */
const DESCRIPTORS = [0n, 0x00af_9b00_0000_ffffn, 0x00cf_9b00_0000_ffffn, 0x00cf_9300_0000_ffffn];

test("code that is both 64-bit and 32-bit code at the same address runs as what it is", () => {
  const image = asm64(CODE, (a) => {
    a.emit("lgdt", mem(0, addr("gdtr")));
    a.emit("mov", esp, imm(STACK));
    a.emit("mov", eax, imm(24));
    for (const seg of [ds, es]) a.emit("mov", seg, ax);
    a.emit("mov", edi, imm(2000));
    a.emit("xor", eax, eax);
    a.label("round");
    a.emit("call", "both");
    a.emit("call", "both");
    a.emit("jmp", mem(6, addr("to32")));
    a.bits(32);
    a.label("narrow");
    a.emit("mov", ecx, imm(3));
    a.label("thrice");
    a.emit("call", "both");
    a.emit("dec", ecx);
    a.emit("jne", "thrice");
    a.emit("jmp", far(8, "wide"));
    a.bits(64);
    a.label("wide");
    a.emit("dec", edi);
    a.emit("jne", "round");
    end(a);
    // INC RAX in 64-bit code; DEC EAX, INC EAX, in 32-bit code. Then ADD EDX, EAX in both.
    a.label("both").db(0x48, 0xff, 0xc0, 0x01, 0xc2);
    // MOV EBX, EAX in both, and before it INC EDX in 32-bit code.
    a.db(0x42, 0x89, 0xc3);
    a.emit("ret");
    a.align(8);
    a.label("gdt").dq(...DESCRIPTORS);
    a.label("gdtr")
      .dw(DESCRIPTORS.length * 8 - 1)
      .dq("gdt");
    a.label("to32").dd("narrow").dw(16);
  });
  const { reason, registers } = compare({ image, mode: "long64" }, 0.6);
  assert.equal(reason, "exit port");
  assert.equal(registers[0], 4000n);
});

test("32-bit code with something in the upper half of RSP is left to the interpreter", () => {
  const image = asm64(CODE, (a) => {
    a.emit("lgdt", mem(0, addr("gdtr")));
    a.emit("mov", eax, imm(24));
    for (const seg of [ds, es]) a.emit("mov", seg, ax);
    a.emit("mov", rsp, imm(0x7_0000_0000 + STACK));
    a.emit("mov", rax, qword("to32"));
    a.emit("jmp", mem(6, addr("to32")));
    a.bits(32);
    a.label("narrow");
    a.emit("mov", ecx, imm(1000));
    a.label("again");
    a.emit("push", ecx);
    a.emit("call", "callee");
    a.emit("pop", ebx);
    a.emit("dec", ecx);
    a.emit("jne", "again");
    end(a);
    a.label("callee");
    a.emit("ret");
    a.align(8);
    a.label("gdt").dq(...DESCRIPTORS);
    a.label("gdtr")
      .dw(DESCRIPTORS.length * 8 - 1)
      .dq("gdt");
    a.label("to32").dd("narrow").dw(16).dw(0);
  });
  const { registers } = compare({ image, mode: "long64" }, 0);
  assert.equal(registers[4], BigInt(0x7_0000_0000 + STACK));
});

test("a 64-bit region is left for a target that is more than 2 GiB from its page", () => {
  const image = asm64(CODE, (a) => {
    a.emit("mov", ecx, imm(100));
    a.emit("jmp", "last");
    a.space(0x800);
    a.label("last");
    a.emit("dec", ecx);
    a.emit("jne", "last");
    // JMP rel32
    a.db(0xe9, 0xff, 0xff, 0xff, 0x7f);
  });
  const { reason, rip } = compare({ image, mode: "long64" }, 0.5);
  assert.equal(reason, "EPT_VIOLATION");
  assert.equal(rip, CODE + image.length + 0x7fff_ffff);
});
