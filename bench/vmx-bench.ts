/**
 * What virtualization inside costs: a VM exit and entry of the guest hypervisor's guest for a CPUID (VMRESUME to VMRESUME, with the three VMREADs and
 * VMWRITEs that skip it), the same exit to our own hypervisor for comparison, and a memory access that misses the TLB: under the
 * guest's EPT, under page tables of the guest hypervisor's, and in the guest hypervisor itself.
 */
import { EXIT_PORT, runBareMetal } from "../guests/bare-metal.ts";
import { VmxLab } from "../guests/vmx-lab.ts";
import type { EngineName } from "../src/control/protocol.ts";
import { type Assembler, asm64, imm, qword } from "../src/processor/isa/assemble.ts";
import { ExitReason } from "../src/processor/isa/exit-reasons.ts";
import { al, dx, rax, rbx, rcx, rdi, rsi } from "../src/processor/isa/registers.ts";
import { Field, SecondaryControl } from "../src/processor/isa/vmcs-fields.ts";
import type { BenchOptions } from "./options.ts";
import { best } from "./statistics.ts";

export interface VmxResult {
  readonly engine: EngineName;
  /** Nanoseconds, best round. */
  readonly rows: ReadonlyArray<readonly [what: string, ns: number]>;
}

/** Of this process, all threads: as everything here is compared. */
function cpuMs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}

const ROUND_TRIPS = 100_000;
const PAGES = 3072;
const PASSES = 60;
const HANDLER = 0x48_0000;
const COUNT = 0x1f_3000;
const WALK_BASE = 0x20_0000;

/** The hypervisor's side of a CPUID: skip it and enter again, COUNT times. */
function handler(lab: VmxLab): Uint8Array {
  return asm64(HANDLER, (a) => {
    a.emit("mov", rax, imm(Field.GUEST_RIP)).emit("vmread", rbx, rax);
    a.emit("mov", rcx, imm(Field.EXIT_INSTRUCTION_LENGTH)).emit("vmread", rcx, rcx);
    a.emit("add", rbx, rcx).emit("vmwrite", rax, rbx);
    a.emit("dec", qword(COUNT)).emit("je", "done");
    a.emit("vmresume");
    a.label("done").emit("mov", rax, imm(lab.exitAddress)).emit("jmp", rax);
  });
}

function nested(engine: EngineName, secondary: number): number {
  const lab = new VmxLab({
    engine,
    guest: (a) => a.label("again").emit("cpuid").emit("jmp", "again"),
  });
  lab.prepare([
    [Field.SECONDARY_CONTROLS, BigInt(secondary)],
    [Field.HOST_RIP, BigInt(HANDLER)],
  ]);
  lab.writeBytes(HANDLER, handler(lab));
  const measure = (count: number): number => {
    lab.write(COUNT, BigInt(count));
    const started = cpuMs();
    if (lab.isLaunched) lab.resume();
    else lab.launch();
    return ((cpuMs() - started) * 1e6) / count;
  };
  measure(ROUND_TRIPS / 10);
  return measure(ROUND_TRIPS);
}

function own(engine: EngineName): number {
  const image = asm64(0x10_0000, (a) => a.label("again").emit("cpuid").emit("jmp", "again"));
  let left = ROUND_TRIPS;
  const started = cpuMs();
  runBareMetal({
    ...{ image, mode: "long64", engine },
    onExit: (vmcs, reason) => {
      if (reason !== ExitReason.CPUID || left-- === 0) return false;
      vmcs.setBig(Field.GUEST_RIP, vmcs.big(Field.GUEST_RIP) + 2n);
      return true;
    },
  });
  return ((cpuMs() - started) * 1e6) / ROUND_TRIPS;
}

/** Reads a word of every page, in turn: with direct-mapped translations of fewer pages two thirds of them are walks. */
function strides(a: Assembler): void {
  a.emit("mov", rdi, imm(PASSES));
  a.label("pass").emit("mov", rsi, imm(WALK_BASE)).emit("mov", rcx, imm(PAGES));
  a.label("page").emit("mov", rax, qword(rsi)).emit("add", rsi, imm(4096));
  a.emit("dec", rcx).emit("jne", "page");
  a.emit("dec", rdi).emit("jne", "pass");
}

function nestedWalks(engine: EngineName, secondary: number): number {
  const lab = new VmxLab({
    engine,
    guest: (a) => {
      a.label("all");
      strides(a);
      a.emit("hlt").emit("jmp", "all");
    },
  });
  lab.prepare([[Field.SECONDARY_CONTROLS, BigInt(secondary)]]);
  lab.launch();
  lab.skip();
  const started = cpuMs();
  lab.resume();
  return ((cpuMs() - started) * 1e6) / (PAGES * PASSES);
}

function ownWalks(engine: EngineName): number {
  const image = asm64(0x10_0000, (a) => {
    strides(a);
    strides2(a);
    a.emit("mov", dx, imm(EXIT_PORT)).emit("mov", al, imm(0)).emit("out", dx, al);
  });
  let started = 0;
  runBareMetal({
    ...{ image, mode: "long64", engine },
    onExit: (vmcs, reason) => {
      if (reason !== ExitReason.CPUID) return false;
      started = cpuMs();
      vmcs.setBig(Field.GUEST_RIP, vmcs.big(Field.GUEST_RIP) + 2n);
      return true;
    },
  });
  return ((cpuMs() - started) * 1e6) / (PAGES * PASSES);
}

/** The second, measured, time. */
function strides2(a: Assembler): void {
  a.emit("cpuid");
  a.emit("mov", rdi, imm(PASSES));
  a.label("pass2").emit("mov", rsi, imm(WALK_BASE)).emit("mov", rcx, imm(PAGES));
  a.label("page2").emit("mov", rax, qword(rsi)).emit("add", rsi, imm(4096));
  a.emit("dec", rcx).emit("jne", "page2");
  a.emit("dec", rdi).emit("jne", "pass2");
}

const { EPT, VPID, UNRESTRICTED_GUEST } = SecondaryControl;

export function benchVmx({ rounds, engines, progress }: BenchOptions): readonly VmxResult[] {
  return engines.map((engine) => {
    const measure = (what: string, run: () => number): readonly [string, number] => {
      progress(`vmx: ${engine}, ${what}`);
      return [what, best(Array.from({ length: rounds }, run))];
    };
    const tier = engine === "interpreter" ? "interpreter" : "jit";
    return {
      engine,
      rows: [
        measure("CPUID exit to our own hypervisor", () => own(tier)),
        measure("CPUID exit inside, EPT and VPID", () =>
          nested(tier, EPT | VPID | UNRESTRICTED_GUEST),
        ),
        measure("CPUID exit inside, no EPT, no VPID", () => nested(tier, 0)),
        measure("access, own guest", () => ownWalks(tier)),
        measure("access, inside without EPT", () => nestedWalks(tier, VPID)),
        measure("access, inside with EPT", () =>
          nestedWalks(tier, EPT | VPID | UNRESTRICTED_GUEST),
        ),
      ],
    };
  });
}

export function printVmx(results: readonly VmxResult[]): void {
  for (const { engine, rows } of results) {
    console.log(`\nvmx, ${engine}: nanoseconds of CPU (best round)`);
    for (const [what, ns] of rows) console.log(`${what.padEnd(40)}${ns.toFixed(0).padStart(8)}`);
  }
}
