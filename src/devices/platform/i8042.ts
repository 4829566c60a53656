/**
 * The place of the keyboard controller: an empty socket, but for the reset pulse that every x86 system tries.
 * Spec: IBM PS/2 Hardware Interface Technical Reference, "Keyboard and Auxiliary Device Controller".
 *
 * The ACPI tables say there is no 8042. For a guest that probes anyway, the status reads as a floating bus with the input-buffer-full
 * bit clear: the output buffer never empties, so a driver gives up after one flush ("No controller found"), and a
 * reboot path that waits for the input buffer does not wait.
 */
import type { PortDevice } from "../model.ts";
import { Port } from "./platform-map.ts";

const STATUS = 0xfd;
/** Pulse output lines; a 0 bit pulses its line, line 0 is the processor's reset. */
const PULSE_COMMAND = 0xf0;

export class I8042 implements PortDevice {
  readonly #reset: () => void;

  constructor(wires: { reset: () => void }) {
    this.#reset = wires.reset;
  }

  readPort(port: number): number {
    return port === Port.KEYBOARD_COMMAND ? STATUS : 0xff;
  }

  writePort(port: number, _size: number, value: number): void {
    if (port !== Port.KEYBOARD_COMMAND) return;
    if ((value & 0xf1) === PULSE_COMMAND) this.#reset();
  }
}
