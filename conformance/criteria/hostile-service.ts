/**
 * A hostile service as an x86 program: what it does to its first guest's OUT is chosen by the byte. Acts that nothing stops answer the OUT as
 * a console would, so that its guest goes on.
 */
import { EffectKind } from "../../src/hypervisor/abi/effects.ts";
import { GuestCall } from "../../src/hypervisor/abi/guest-call.ts";
import { HEADER_BYTES, MessageOffset, StateGroup } from "../../src/hypervisor/abi/message.ts";
import { Status } from "../../src/hypervisor/abi/status.ts";
import { type Assembler, byte, dword, imm, mem, qword } from "../../src/processor/isa/assemble.ts";
import {
  al,
  cr0,
  cr3,
  dx,
  eax,
  ebx,
  ecx,
  edx,
  r13,
  r15,
  rax,
  rbx,
  rcx,
  rdx,
} from "../../src/processor/isa/registers.ts";
import { HYPERVISOR_BASE, RAM_BASE } from "../../src/processor/state/layout.ts";
import { Layout } from "../../src/services/guest/memory-layout.ts";
import { type GuestProgram, serviceLoop } from "../../src/services/guest/service-program.ts";

/** A failure as the kernel words it; null: nothing stops it, and it concerns its own VM only. */
type Outcome = RegExp | null;

export interface Act {
  readonly title: string;
  readonly code: (a: Assembler) => void;
  readonly ring0: Outcome;
  readonly ring3: Outcome;
  /** What its own CR3 is when it answers; otherwise what it was. */
  readonly cr3?: number;
}

const PAGE = 4096;
/** Last level of the paging structures (services/guest/memory-image.ts), and the page that nothing else is in. */
const PAGE_TABLE = Layout.PAGING + 3 * PAGE;
const SPARE_PAGE = Layout.DATA + 8 * PAGE;
const OTHER_TABLES = Layout.DATA + 9 * PAGE;
const PRESENT_WRITE = 3;
/** Present, writable, user, accessed. */
const TABLE_RIGHTS = 0x27;
const IA32_VMX_BASIC = 0x480;
const IA32_EFER = 0xc000_0080;
const CR0_WP = 0x1_0000;
const GUEST_CR3 = 0x6802;
/** Of the guest, and of nobody's window. */
const GUEST_ADDRESS = 0x10_0000;

const GP = /^it failed: exception 13 /;
const PF = /^it failed: exception 14 /;
const UD = /^it failed: exception 6 /;
const exit = (name: string): RegExp => new RegExp(`^it failed: VM exit ${name} at`);
const both = (outcome: Outcome): Pick<Act, "ring0" | "ring3"> => ({
  ring0: outcome,
  ring3: outcome,
});

const data = (bytes: number) => mem(bytes, Layout.DATA);

/** VMX instructions exit at any CPL. */
const VMX: readonly Act[] = [
  ["vmxon", data(8)],
  ["vmptrld", data(8)],
  ["vmptrst", data(8)],
  ["vmclear", data(8)],
  ["vmwrite", rax, rbx],
  ["vmread", rbx, rax],
  ["vmlaunch"],
  ["vmresume"],
  ["vmxoff"],
  ["invept", rax, data(16)],
  ["invvpid", rax, data(16)],
].map(([name, ...operands]): Act => {
  const mnemonic = name as string;
  return {
    title: mnemonic.toUpperCase(),
    code: (a) => {
      a.emit("mov", eax, imm(GUEST_CR3));
      a.emit(mnemonic, ...(operands as never[]));
    },
    ...both(exit(mnemonic.toUpperCase())),
  };
});

/** Maps guest-physical `frame` at SPARE_PAGE in the program's own paging structures. */
function mapSpare(a: Assembler, frame: number): void {
  a.emit("mov", rax, imm(BigInt(frame) + BigInt(PRESENT_WRITE)));
  a.emit("mov", qword(PAGE_TABLE + 8 * (SPARE_PAGE / PAGE)), rax);
  a.emit("invlpg", byte(SPARE_PAGE));
}

const MEMORY: readonly Act[] = [
  {
    title: "MOV CR3 to paging structures of its own making",
    code: (a) => {
      a.emit("mov", eax, imm((Layout.PAGING + PAGE) | TABLE_RIGHTS));
      a.emit("mov", qword(OTHER_TABLES), rax);
      a.emit("mov", eax, imm(OTHER_TABLES));
      a.emit("mov", cr3, rax);
    },
    ring0: null,
    ring3: GP,
    cr3: OTHER_TABLES,
  },
  {
    title: "reads where the kernel's memory would be",
    code: (a) => a.emit("mov", rax, qword(HYPERVISOR_BASE)),
    ...both(PF),
  },
  ...[HYPERVISOR_BASE, RAM_BASE, 0x1000, 0x1_0000_0000, 0xff_ffff_f000, 0].map(
    (frame): Act => ({
      title: `maps physical 0x${frame.toString(16)} and writes there`,
      code: (a) => {
        mapSpare(a, frame);
        a.emit("mov", dword(SPARE_PAGE), imm(0x5a));
      },
      ring0:
        frame === 0x1000
          ? null
          : new RegExp(
              `^it failed: VM exit EPT_VIOLATION of guest-physical ${frame.toString(16)} at`,
            ),
      ring3: PF,
    }),
  ),
  {
    title: "writes its own code",
    code: (a) => a.emit("mov", dword(Layout.CODE), imm(0)),
    ...both(PF),
  },
  {
    title: "writes its own code with CR0.WP clear",
    code: (a) => {
      a.emit("mov", rax, cr0);
      a.emit("and", rax, imm(~CR0_WP));
      a.emit("mov", cr0, rax);
      a.emit("mov", dword(Layout.CODE), imm(0));
    },
    ring0: /^it failed: VM exit EPT_VIOLATION of guest-physical 10000 at/,
    ring3: GP,
  },
  {
    title: "executes its message",
    code: (a) => {
      a.emit("lea", rax, qword(r15, HEADER_BYTES));
      a.emit("jmp", rax);
    },
    ...both(PF),
  },
];

const AMBIENT: readonly Act[] = [
  {
    title: "RDMSR of IA32_VMX_BASIC",
    code: (a) => {
      a.emit("mov", ecx, imm(IA32_VMX_BASIC));
      a.emit("rdmsr");
    },
    ring0: exit("RDMSR"),
    ring3: GP,
  },
  {
    title: "WRMSR of IA32_EFER",
    code: (a) => {
      a.emit("mov", ecx, imm(IA32_EFER));
      a.emit("wrmsr");
    },
    ring0: exit("WRMSR"),
    ring3: GP,
  },
  {
    title: "OUT to a port",
    code: (a) => {
      a.emit("mov", dx, imm(0x3f8));
      a.emit("out", dx, al);
    },
    ring0: exit("IO"),
    ring3: GP,
  },
  { title: "HLT", code: (a) => a.emit("hlt"), ring0: exit("HLT"), ring3: GP },
  { title: "CLI and STI", code: (a) => a.emit("cli").emit("sti"), ring0: null, ring3: GP },
  { title: "LIDT", code: (a) => a.emit("lidt", mem(0, SPARE_PAGE)), ring0: null, ring3: GP },
  { title: "an interrupt of its own", code: (a) => a.emit("int", imm(0x80)), ...both(GP) },
  { title: "RDTSC", code: (a) => a.emit("rdtsc"), ...both(exit("RDTSC")) },
  { title: "CPUID", code: (a) => a.emit("cpuid"), ...both(exit("CPUID")) },
  { title: "RDRAND", code: (a) => a.emit("rdrand", rax), ...both(UD) },
  { title: "UD2", code: (a) => a.emit("ud2"), ...both(UD) },
  {
    title: "jmp $",
    code: (a) => a.label("for_ever").emit("jmp", "for_ever"),
    ...both(/^no reply within \d+ ms/),
  },
  {
    title: "calls without end",
    code: (a) => {
      a.label("call_again");
      a.emit("mov", eax, imm(GuestCall.NOW));
      a.emit("vmcall");
      a.emit("jmp", "call_again");
    },
    ...both(/^it failed: \d+ calls within one message/),
  },
];

/** A record of two words in the reply. */
function record(a: Assembler, kind: number, words: readonly number[]): void {
  a.emit("mov", dword(r13), imm(kind));
  a.emit("mov", dword(r13, 4), imm(4 * words.length));
  for (const [i, value] of words.entries()) a.emit("mov", dword(r13, 8 + 4 * i), imm(value));
  a.emit("add", r13, imm(8 + 4 * words.length));
}

const EFFECTS: readonly Act[] = [
  {
    title: "has its device write to memory of the guest that is no window",
    code: (a) => record(a, EffectKind.WRITE, [GUEST_ADDRESS, 0, 0x5a5a_5a5a, 0]),
    ...both(/^write outside the memory windows/),
  },
  {
    title: "has its device write below the guest's memory, where the kernel's is",
    code: (a) => record(a, EffectKind.WRITE, [HYPERVISOR_BASE - RAM_BASE, -1, 0x5a5a_5a5a, 0]),
    ...both(/^write outside the memory windows/),
  },
  {
    title: "the same by VMCALL",
    code: (a) => {
      a.emit("mov", eax, imm(EffectKind.WRITE));
      a.emit("mov", rbx, imm(HYPERVISOR_BASE - RAM_BASE));
      a.emit("mov", ecx, imm(Layout.DATA));
      a.emit("mov", edx, imm(8));
      a.emit("vmcall");
    },
    ...both(/^write outside the memory windows/),
  },
  {
    title: "reads memory of the guest that is no window: refused by a Status",
    code: (a) => {
      a.emit("mov", eax, imm(GuestCall.READ));
      a.emit("mov", rbx, imm(GUEST_ADDRESS));
      a.emit("mov", edx, imm(64));
      a.emit("vmcall");
      a.emit("cmp", rax, imm(Status.DENIED));
      a.emit("jne", "was_granted");
    },
    ...both(null),
  },
  {
    title: "logs memory beyond its own: refused by a Status",
    code: (a) => {
      a.emit("mov", eax, imm(EffectKind.LOG));
      a.emit("mov", ecx, imm(Layout.MEMORY_BYTES - 4));
      a.emit("mov", edx, imm(8));
      a.emit("vmcall");
      a.emit("cmp", rax, imm(Status.INVALID));
      a.emit("jne", "was_granted");
    },
    ...both(null),
  },
  {
    title: "raises an interrupt line of another service",
    code: (a) => record(a, EffectKind.LINE, [8, 1]),
    ...both(/^line 8 is not a capability/),
  },
  {
    title: "sends an interrupt message",
    code: (a) => record(a, EffectKind.INTERRUPT, [0xfee0_0000, 0x30]),
    ...both(/^interrupt messages are not a capability/),
  },
  {
    title: "turns the power off",
    code: (a) => record(a, EffectKind.STOP, [1, 0]),
    ...both(/^poweroff is not a capability/),
  },
];

const REPLIES: readonly Act[] = [
  {
    title: "replies with groups that are not its portal's",
    code: (a) => {
      a.emit("mov", ecx, imm(StateGroup.RIP | StateGroup.RFLAGS | StateGroup.INJECTION));
      a.emit("xor", edx, edx);
      a.emit("jmp", "reply");
    },
    ...both(/^reply to io refused: state groups .* outside the capability/),
  },
  {
    title: "replies to another message",
    code: (a) => a.emit("inc", dword(r15, MessageOffset.SEQ)),
    ...both(/^reply to another message/),
  },
  {
    title: "replies with an instruction pointer that cannot be loaded",
    code: (a) => {
      a.emit("mov", rcx, imm(1n << 60n));
      a.emit("mov", qword(r15, MessageOffset.RIP), rcx);
    },
    ...both(/^reply to io refused: RIP cannot be loaded/),
  },
  {
    title: "replies with more effects than there is memory",
    code: (a) => a.emit("add", r13, imm(0x7fff_0000)),
    ...both(/^it failed: a reply of an impossible length/),
  },
];

const WAS_GRANTED = "something was granted";

export const ACTS: readonly Act[] = [...VMX, ...MEMORY, ...AMBIENT, ...EFFECTS, ...REPLIES];

/** The byte of an OUT is the number of the act. */
export const hostileService: GuestProgram = {
  code: (a) => {
    serviceLoop(a, { exit: "on_exit" });
    a.label("on_exit");
    a.emit("movzx", ebx, byte(r15, MessageOffset.REGISTERS));
    for (const [n, { code }] of ACTS.entries()) {
      a.emit("cmp", ebx, imm(n));
      a.emit("jne", `not_${n}`);
      code(a);
      a.emit("jmp", "answer");
      a.label(`not_${n}`);
    }
    a.label("answer");
    a.emit("mov", eax, dword(r15, MessageOffset.LENGTH));
    a.emit("add", qword(r15, MessageOffset.RIP), rax);
    a.emit("mov", ecx, imm(StateGroup.RIP));
    a.emit("xor", edx, edx);
    a.emit("jmp", "reply");
    a.label("was_granted");
    a.emit("mov", eax, imm(GuestCall.FAIL));
    a.emit("mov", rcx, imm(Layout.DATA));
    a.emit("mov", rdx, imm(WAS_GRANTED.length));
    a.emit("vmcall");
  },
  data: new TextEncoder().encode(WAS_GRANTED),
};
