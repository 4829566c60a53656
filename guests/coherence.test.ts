/**
 * Self-modifying and cross-modifying code, instructions and data across pages, accessed and dirty bits, TLB coherence.
 * SDM Vol. 3A, "Self-Modifying Code", "Paging: Accessed and Dirty Flags", "Invalidation of TLBs and Paging-Structure Caches".
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import {
  type Assembler,
  addr,
  asm64,
  dword,
  imm,
  mem,
  qword,
} from "../src/processor/isa/assemble.ts";
import {
  al,
  cr3,
  eax,
  ebx,
  ecx,
  edi,
  r8,
  rax,
  rbx,
  rcx,
  rdi,
  rsi,
} from "../src/processor/isa/registers.ts";
import { Field } from "../src/processor/isa/vmcs-fields.ts";
import { gprAt, RAM_BASE } from "../src/processor/state/layout.ts";
import { type BareMetalResult, EXIT_PORT, runBareMetal } from "./bare-metal.ts";

const ORIGIN = 0x10_0000;
/** Identity map of the flat loader: page directory of the second gigabyte. */
const DIRECTORY_1G = 0xc000;
const WINDOW = 0x4000_0000;
const TABLE = 0x20_0000;
const PAGE_A = 0x30_0000;
const PAGE_B = 0x30_1000;
const PF_EXITING = 1 << 14;

function exit(a: Assembler): void {
  a.emit("out", imm(EXIT_PORT), al);
}

interface WindowPages {
  /** Entries of the page table that maps WINDOW. */
  readonly entries?: readonly number[];
}

function run(build: (a: Assembler) => void, { entries = [] }: WindowPages = {}): BareMetalResult {
  return runBareMetal({
    image: asm64(ORIGIN, build),
    mode: "long64",
    prepare: (vmcs, view) => {
      view.setBigUint64(RAM_BASE + DIRECTORY_1G, BigInt(TABLE | 3), true);
      entries.forEach((e, i) => {
        view.setBigUint64(RAM_BASE + TABLE + 8 * i, BigInt(e), true);
      });
      vmcs.set(Field.EXCEPTION_BITMAP, PF_EXITING);
    },
  });
}

const entry = (r: BareMetalResult, i: number): number =>
  Number(
    r.vmcs.state.getBigUint64 && r.processor.view.getBigUint64(RAM_BASE + TABLE + 8 * i, true),
  );

test("a store into the next instruction takes effect at once", () => {
  const r = run((a) => {
    a.emit("mov", rdi, addr("patched"));
    a.emit("mov", mem(1, rdi, 1), imm(77));
    a.label("patched");
    a.emit("mov", eax, imm(1));
    exit(a);
  });
  assert.deepEqual([r.code, r.reason], [77, "exit port"]);
});

test("a loop that patches itself on every pass computes with the new immediates", () => {
  const r = run((a) => {
    a.emit("xor", ebx, ebx);
    a.emit("mov", ecx, imm(20));
    a.emit("mov", rdi, addr("patched"));
    a.label("again");
    a.label("patched");
    a.emit("mov", eax, imm(0));
    a.emit("add", ebx, eax);
    a.emit("inc", dword(rdi, 1));
    a.emit("dec", ecx);
    a.emit("jne", "again");
    a.emit("mov", eax, ebx); // 0 + 1 + ... + 19
    exit(a);
  });
  assert.equal(r.code, 190);
});

test("code patched through another linear address of its page is seen", () => {
  const r = run(
    (a) => {
      const write = (value: number): void => {
        a.emit("mov", rdi, imm(WINDOW));
        a.emit("mov", mem(2, rdi), imm(0xb8 | (value << 8))); // mov eax, value
        a.emit("mov", mem(4, rdi, 2), imm(0xc300_0000 | 0)); // ... ; ret
        a.emit("mov", rsi, imm(WINDOW + 0x1000));
      };
      write(5);
      a.emit("call", rsi);
      a.emit("mov", ebx, eax);
      write(9);
      a.emit("call", rsi);
      a.emit("shl", eax, imm(4));
      a.emit("or", eax, ebx);
      exit(a);
    },
    { entries: [PAGE_A | 3, PAGE_A | 3] },
  );
  assert.equal(r.code, 0x95);
});

test("an instruction across two pages is executed, and noticed when either half changes", () => {
  const r = run(
    (a) => {
      // mov eax, imm32 with two bytes in the first page, three in the second; then ret
      a.emit("mov", rdi, imm(WINDOW + 0xffe));
      a.emit("mov", mem(2, rdi), imm(0x01b8));
      a.emit("mov", mem(4, rdi, 2), imm(0xc300_0000 | 0));
      a.emit("call", rdi);
      a.emit("mov", ebx, eax);
      a.emit("mov", mem(1, rdi, 1), imm(2)); // first half
      a.emit("call", rdi);
      a.emit("add", ebx, eax);
      a.emit("mov", mem(1, rdi, 2), imm(1)); // second half: + 0x100
      a.emit("call", rdi);
      a.emit("shr", eax, imm(4)); // 0x10
      a.emit("add", eax, ebx);
      exit(a);
    },
    { entries: [PAGE_A | 3, PAGE_B | 3] },
  );
  assert.equal(r.code, 0x13);
});

test("an instruction whose second page is remapped executes the new bytes", () => {
  const r = run(
    (a) => {
      a.emit("mov", rdi, imm(WINDOW + 0xffe));
      a.emit("mov", mem(2, rdi), imm(0x01b8));
      a.emit("mov", mem(4, rdi, 2), imm(0xc300_0000 | 0));
      a.emit("mov", rsi, imm(WINDOW + 0x2000));
      a.emit("mov", mem(4, rsi), imm(0xc300_0001 | 0));
      a.emit("call", rdi);
      a.emit("mov", ebx, eax);
      a.emit("mov", rcx, imm(TABLE + 8));
      a.emit("mov", qword(rcx), imm(0x30_2003));
      a.emit("mov", rax, imm(WINDOW + 0x1000));
      a.emit("invlpg", mem(1, rax));
      a.emit("call", rdi);
      a.emit("shr", eax, imm(4));
      a.emit("add", eax, ebx);
      exit(a);
    },
    { entries: [PAGE_A | 3, PAGE_B | 3, 0x30_2003] },
  );
  assert.equal(r.code, 0x11);
});

test("reading sets accessed, writing sets dirty", () => {
  const r = run(
    (a) => {
      a.emit("mov", rdi, imm(WINDOW));
      a.emit("mov", eax, dword(rdi));
      a.emit("mov", dword(rdi, 0x1000), eax);
      a.emit("mov", eax, imm(1));
      exit(a);
    },
    { entries: [PAGE_A | 3, PAGE_B | 3, PAGE_B | 3] },
  );
  assert.equal(r.code, 1);
  assert.deepEqual(
    [0, 1, 2].map((i) => entry(r, i) & 0x60),
    [0x20, 0x60, 0],
  );
});

test("a write after a read of the same page still sets dirty", () => {
  const r = run(
    (a) => {
      a.emit("mov", rdi, imm(WINDOW));
      a.emit("mov", eax, dword(rdi));
      a.emit("mov", dword(rdi), eax);
      exit(a);
    },
    { entries: [PAGE_A | 3] },
  );
  assert.equal(entry(r, 0) & 0x60, 0x60);
});

test("INVLPG makes a changed translation visible, also of a large page", () => {
  const r = run(
    (a) => {
      a.emit("mov", rdi, imm(WINDOW));
      a.emit("mov", dword(rdi), imm(3));
      a.emit("mov", dword(rdi, 0x1000), imm(5));
      a.emit("mov", rcx, imm(TABLE));
      a.emit("mov", qword(rcx), imm(PAGE_B | 3));
      a.emit("invlpg", mem(1, rdi));
      a.emit("mov", ebx, dword(rdi)); // 5
      // A 2 MiB page over the whole window, touched in two places, then taken back.
      a.emit("mov", rsi, imm(DIRECTORY_1G));
      a.emit("mov", r8, qword(rsi));
      a.emit("mov", qword(rsi), imm(0x40_0083));
      a.emit("mov", rax, cr3);
      a.emit("mov", cr3, rax);
      a.emit("mov", dword(rdi), imm(7));
      a.emit("mov", dword(rdi, 0x1000), imm(7));
      a.emit("mov", qword(rsi), r8);
      a.emit("invlpg", mem(1, rdi, 0x1f_f000));
      a.emit("mov", eax, dword(rdi, 0x1000)); // 5 again
      a.emit("shl", eax, imm(4));
      a.emit("or", eax, ebx);
      exit(a);
    },
    { entries: [PAGE_A | 3, PAGE_B | 3] },
  );
  assert.equal(r.code, 0x55);
});

test("MOV CR3 forgets translations", () => {
  const r = run(
    (a) => {
      a.emit("mov", rdi, imm(WINDOW));
      a.emit("mov", dword(rdi), imm(3));
      a.emit("mov", rcx, imm(TABLE));
      a.emit("mov", qword(rcx), imm(PAGE_B | 3));
      a.emit("mov", rax, cr3);
      a.emit("mov", cr3, rax);
      a.emit("mov", eax, dword(rdi));
      exit(a);
    },
    { entries: [PAGE_A | 3] },
  );
  assert.equal(r.code, 0);
});

test("a store across a page end whose second page is absent faults and writes nothing", () => {
  const r = run(
    (a) => {
      a.emit("mov", edi, imm(WINDOW + 0xffe));
      a.emit("mov", eax, imm(-1));
      a.emit("mov", dword(rdi), eax);
      exit(a);
    },
    { entries: [PAGE_A | 3, 0] },
  );
  assert.equal(r.reason, "EXCEPTION_OR_NMI");
  assert.equal(
    r.vmcs.number(Field.EXIT_QUALIFICATION),
    WINDOW + 0x1000,
    "CR2 is the byte that faulted",
  );
  assert.equal(r.vmcs.number(Field.EXIT_INTERRUPTION_ERROR), 2, "write, not present");
  assert.equal(r.processor.view.getUint16(RAM_BASE + PAGE_A + 0xffe, true), 0);
  assert.equal(r.vmcs.state.getUint32(gprAt(0), true), 0xffff_ffff);
});

test("a read-only page faults on a write at supervisor level only with CR0.WP", () => {
  const program = (a: Assembler): void => {
    a.emit("mov", rdi, imm(WINDOW));
    a.emit("mov", dword(rdi), imm(1));
    a.emit("mov", eax, imm(1));
    exit(a);
  };
  const loose = run(program, { entries: [PAGE_A | 1] });
  assert.equal(loose.code, 1);
  const strict = runBareMetal({
    image: asm64(ORIGIN, program),
    mode: "long64",
    prepare: (vmcs, view) => {
      view.setBigUint64(RAM_BASE + DIRECTORY_1G, BigInt(TABLE | 3), true);
      view.setBigUint64(RAM_BASE + TABLE, BigInt(PAGE_A | 1), true);
      vmcs.set(Field.EXCEPTION_BITMAP, PF_EXITING);
      vmcs.set(Field.GUEST_CR0, vmcs.number(Field.GUEST_CR0) + 0x1_0000);
    },
  });
  assert.deepEqual(
    [strict.reason, strict.vmcs.number(Field.EXIT_INTERRUPTION_ERROR)],
    ["EXCEPTION_OR_NMI", 3],
  );
});

test("instruction counts are exact whatever the length of runs", () => {
  const image = asm64(ORIGIN, (a) => {
    a.emit("mov", rcx, imm(1000));
    a.label("again");
    a.emit("add", rbx, rcx);
    a.emit("push", rbx);
    a.emit("pop", rax);
    a.emit("dec", rcx);
    a.emit("jne", "again");
    exit(a);
  });
  const r = runBareMetal({ image, mode: "long64" });
  // The OUT has not been executed: its exit comes instead of it.
  assert.equal(r.instructions, 1 + 1000 * 5);
});

test("code beyond 2 GiB of this memory is executed, and rewritten", () => {
  const address = 0x8000_0000;
  const image = asm64(address, (a) => {
    a.emit("mov", ecx, imm(3));
    a.label("again");
    a.label("patched");
    a.emit("mov", eax, imm(40));
    a.emit("inc", dword("patched", 1));
    a.emit("dec", ecx);
    a.emit("jne", "again");
    a.emit("out", imm(EXIT_PORT), al);
  });
  for (const engine of ["interpreter", "jit"] as const) {
    const ramBytes = address + (1 << 20);
    const r = runBareMetal({ image, mode: "long64", address, ramBytes, engine });
    assert.deepEqual([r.reason, r.code], ["exit port", 42]);
  }
});
