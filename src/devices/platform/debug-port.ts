/**
 * Ports that firmware and kernels write for people to watch: POST codes (0x80), which Linux also uses as an I/O delay, and the
 * debug console of emulators (0xE9), which identifies itself by reading as its own number.
 */
import type { PortDevice } from "../model.ts";
import { Port } from "./platform-map.ts";

export class DebugPort implements PortDevice {
  readonly #output: ((byte: number) => void) | undefined;

  /** Without `output` the debug console is absent. */
  constructor(wires: { output?: (byte: number) => void } = {}) {
    this.#output = wires.output;
  }

  readPort(port: number): number {
    return port === Port.DEBUG && this.#output ? Port.DEBUG : 0xff;
  }

  writePort(port: number, _size: number, value: number): void {
    if (port === Port.DEBUG) this.#output?.(value & 0xff);
  }
}
