/**
 * Runs small guests of our own on the processor through VM entry and VM exit, with the least hypervisor there can be: ports 0xe9 (a character), 0xf4
 * (end with a code), everything else is an error.
 */

import type { EngineName } from "../src/control/protocol.ts";
import type { CpuMode } from "../src/machine/boot/boot-state.ts";
import { loadFlat } from "../src/machine/boot/flat.ts";
import { DeterministicClock } from "../src/machine/clocks.ts";
import { configureVmcs } from "../src/machine/guest-state.ts";
import { Interpreter } from "../src/processor/interpreter/interpreter.ts";
import { parseCpuModel } from "../src/processor/isa/cpuid.ts";
import { ExitReason, exitReasonName } from "../src/processor/isa/exit-reasons.ts";
import { Field, PinControl } from "../src/processor/isa/vmcs-fields.ts";
import { compileAtOnce } from "../src/processor/jit/own-thread.ts";
import { EptEntry, EptTables } from "../src/processor/memory/ept.ts";
import { HYPERVISOR_BASE, HYPERVISOR_BYTES, RAM_BASE } from "../src/processor/state/layout.ts";
import { Processor, type Sampler } from "../src/processor/vmx/processor.ts";
import { Vmcs } from "../src/processor/vmx/vmcs.ts";

export interface BareMetalResult {
  readonly output: string;
  /** Value written to port 0xf4, or -1 if the guest ended otherwise. */
  readonly code: number;
  readonly reason: string;
  readonly instructions: number;
  readonly vmcs: Vmcs;
  readonly processor: Processor;
}

export interface BareMetalOptions {
  readonly image: Uint8Array;
  readonly mode: CpuMode;
  readonly address?: number;
  readonly ramBytes?: number;
  readonly cpuModel?: string;
  readonly limit?: number;
  readonly engine?: EngineName;
  /** Changes to the VMCS before the first entry. */
  readonly prepare?: (vmcs: Vmcs, view: DataView, processor: Processor) => void;
  readonly sampler?: Sampler;
  /** Sees every exit first; answers true if it has handled it. */
  readonly onExit?: (vmcs: Vmcs, reason: number) => boolean;
}

export const DEBUG_PORT = 0xe9;
export const EXIT_PORT = 0xf4;
const BITMAPS = 0x1_0000;
const FOUR_GIB = 0x1_0000_0000;

export interface BareMetalParts {
  readonly processor: Processor;
  readonly vmcs: Vmcs;
  readonly view: DataView;
  readonly ept: EptTables;
}

/** A pCPU with a flat guest in its memory and a VMCS that is ready to be entered. */
export function assembleBareMetal(
  options: Pick<
    BareMetalOptions,
    "image" | "mode" | "address" | "ramBytes" | "cpuModel" | "engine"
  >,
  processor: Processor,
): BareMetalParts {
  const { ramBytes = 16 << 20, address = 0x10_0000 } = options;
  const cpuid = parseCpuModel(options.cpuModel ?? "max");
  const engine = new Interpreter({
    ramBytes,
    features: cpuid.features,
    services: processor,
    ...(options.engine === "jit" ? { regions: compileAtOnce } : {}),
  });
  processor.attach(engine);
  const { view } = engine;
  const ept = new EptTables(view, HYPERVISOR_BASE + BITMAPS, HYPERVISOR_BASE + HYPERVISOR_BYTES);
  ept.markDevice(0, FOUR_GIB);
  ept.map(0, RAM_BASE, ramBytes, EptEntry.READ | EptEntry.WRITE | EptEntry.EXECUTE);
  const ram = {
    size: ramBytes,
    write: (gpa: number, bytes: Uint8Array): void =>
      new Uint8Array(view.buffer).set(bytes, RAM_BASE + gpa),
  };
  const boot = loadFlat(ram, options.image, address, options.mode);
  const vmcs = new Vmcs();
  processor.load(vmcs);
  configureVmcs(vmcs, view, boot, cpuid, ept.eptp);
  vmcs.set(Field.PIN_CONTROLS, PinControl.EXTERNAL_INTERRUPT | PinControl.NMI);
  return { processor, vmcs, view, ept };
}

export function runBareMetal(options: BareMetalOptions): BareMetalResult {
  const { limit = 50_000_000 } = options;
  const processor = new Processor({
    clock: new DeterministicClock(),
    entropy: () => 42n,
    doorbell: () => processor.retired > limit,
  });
  const { vmcs, view } = assembleBareMetal(options, processor);
  options.prepare?.(vmcs, view, processor);
  processor.sampler = options.sampler ?? null;
  let output = "";
  const done = (code: number, reason: string): BareMetalResult => ({
    output,
    code,
    reason,
    instructions: processor.retired,
    vmcs,
    processor,
  });
  for (;;) {
    const error = processor.enter(vmcs);
    if (error !== 0) return done(-1, `VM-instruction error ${error}`);
    const reason = vmcs.number(Field.EXIT_REASON);
    if (options.onExit?.(vmcs, reason)) continue;
    if (reason !== ExitReason.IO) return done(-1, exitReasonName(reason));
    const qualification = vmcs.number(Field.EXIT_QUALIFICATION);
    const port = Math.floor(qualification / 0x1_0000);
    const al = vmcs.state.getUint8(0x100);
    if (port === EXIT_PORT) return done(al, "exit port");
    if (port !== DEBUG_PORT) return done(-1, `I/O port ${port.toString(16)}`);
    output += String.fromCharCode(al);
    vmcs.setBig(
      Field.GUEST_RIP,
      vmcs.big(Field.GUEST_RIP) + BigInt(vmcs.number(Field.EXIT_INSTRUCTION_LENGTH)),
    );
  }
}
