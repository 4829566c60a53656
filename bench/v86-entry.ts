/**
 * v86 alone in a process: `v86-entry.ts CONFIG.json`, and the same conversation as conformance/harness/process-entry.ts. Standard input
 * goes to the second serial port; on standard output come lines of JSON, the console on standard error.
 */
import { readFileSync } from "node:fs";
import type { BootFiles } from "../conformance/harness/guest-machine.ts";
import type { V86Package } from "./v86-package.ts";

export interface V86Config extends BootFiles {
  readonly v86: V86Package;
}

/** A piece of what the guest sent on its second serial port. */
export interface V86Message {
  readonly text: string;
  readonly retired: number;
}

/** What we use of the library. */
interface Emulator {
  add_listener(event: string, listener: (value: number) => void): void;
  serial_send_bytes(port: number, bytes: Uint8Array): void;
  get_instruction_counter(): number;
}
type EmulatorConstructor = new (options: object) => Emulator;

const NEWLINE = 10;
const COUNTER_SIZE = 2 ** 32;

const config = JSON.parse(process.argv[2]!) as V86Config;
const { V86 } = (await import(config.v86.libraryPath)) as { V86: EmulatorConstructor };
const image = (path: string): { buffer: ArrayBuffer } => {
  return { buffer: new Uint8Array(readFileSync(path)).buffer };
};
const emulator = new V86({
  wasm_path: config.v86.wasmPath,
  memory_size: config.memoryMib * 2 ** 20,
  vga_memory_size: 2 * 2 ** 20,
  bios: image(config.v86.biosPath),
  bzimage: image(config.kernelPath),
  initrd: image(config.initrdPath),
  cmdline: config.append,
  acpi: false,
  autostart: true,
  disable_keyboard: true,
  disable_mouse: true,
  disable_speaker: true,
  uart1: true,
});

let counted = 0;
let lastCount = 0;

/** Its counter has 32 bits and goes around within seconds; sums stay right as long as somebody looks more often. */
function retired(): number {
  const now = emulator.get_instruction_counter() >>> 0;
  counted += (now - lastCount + COUNTER_SIZE) % COUNTER_SIZE;
  lastCount = now;
  return counted;
}
setInterval(retired, 500).unref();

let line = "";
emulator.add_listener("serial0-output-byte", (byte) => {
  process.stderr.write(Uint8Array.of(byte));
});
emulator.add_listener("serial1-output-byte", (byte) => {
  line += String.fromCharCode(byte);
  if (byte !== NEWLINE) return;
  const message: V86Message = { text: line, retired: retired() };
  process.stdout.write(`${JSON.stringify(message)}\n`);
  line = "";
});
process.stdin.on("data", (data: Buffer) => emulator.serial_send_bytes(1, new Uint8Array(data)));
// Whoever started us is gone.
process.stdin.on("end", () => process.exit());
