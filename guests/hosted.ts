/**
 * Runs a small 32-bit guest of our own on a whole machine: micro-hypervisor, monitor, platform devices, deterministic clock.
 * The image is a Multiboot kernel with load addresses, entered in flat protected mode at ORIGIN + HEADER_BYTES.
 */

import type { EngineName } from "../src/control/protocol.ts";
import { Machine } from "../src/machine/machine.ts";
import { type Assembler, asm32, imm } from "../src/processor/isa/assemble.ts";
import { DEFAULT_CPU_MODEL } from "../src/processor/isa/cpuid.ts";
import { ax, dx } from "../src/processor/isa/registers.ts";

export interface HostedResult {
  /** What came out of COM1. */
  readonly output: string;
  /** Kind of the machine's end, or "limit". */
  readonly end: string;
  readonly message: string;
  readonly machine: Machine;
}

const ORIGIN = 0x10_0000;
const HEADER_BYTES = 32;
const MAGIC = 0x1bad_b002;
const LOAD_ADDRESSES = 0x1_0000;
const PM1_CONTROL = 0x604;
const SLEEP_S5 = 0x3400;

/** Turns the power off by ACPI. */
export function powerOff(a: Assembler): void {
  a.emit("mov", dx, imm(PM1_CONTROL));
  a.emit("mov", ax, imm(SLEEP_S5));
  a.emit("out", dx, ax);
}

/** A kernel file with the code that `build` emits. */
export function hostedKernel(build: (a: Assembler) => void): Uint8Array {
  const code = asm32(ORIGIN + HEADER_BYTES, build);
  const image = new Uint8Array(HEADER_BYTES + code.length);
  const view = new DataView(image.buffer);
  const end = ORIGIN + image.length;
  const words = [
    MAGIC,
    LOAD_ADDRESSES,
    -(MAGIC + LOAD_ADDRESSES),
    ORIGIN,
    ORIGIN,
    end,
    end,
    ORIGIN + HEADER_BYTES,
  ];
  words.forEach((w, i) => {
    view.setUint32(4 * i, w, true);
  });
  image.set(code, HEADER_BYTES);
  return image;
}

export function runHosted(
  build: (a: Assembler) => void,
  options: { limit?: number; cpuModel?: string; engine?: EngineName } = {},
): HostedResult {
  const { limit = 100_000_000, cpuModel = DEFAULT_CPU_MODEL } = options;
  let output = "";
  const machine: Machine = new Machine(
    {
      kernel: hostedKernel(build),
      cmdline: "",
      memoryBytes: 32 << 20,
      cpuModel,
      clock: "deterministic",
      engine: options.engine ?? "interpreter",
      traceExits: false,
      rtcEpochMs: 1_700_000_000_000,
    },
    {
      nowMs: () => 0,
      entropy: () => 1n,
      doorbell: () => machine !== undefined && machine.processor.retired > limit,
      send: (m) => {
        if (m.type === "output" && m.port === 0) output += new TextDecoder().decode(m.data);
      },
    },
  );
  const state = machine.runUntilBlocked();
  if (state.kind !== "ended")
    return { output, end: state.kind === "idle" ? "idle" : "limit", message: "", machine };
  return { output, end: state.reason.kind, message: state.reason.message ?? "", machine };
}
