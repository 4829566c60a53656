/**
 * Ctrl-A, the key that is not the guest's: what follows it is for us, as in QEMU and screen.
 *
 * Pure: bytes in, bytes for the guest and commands for us out. The state is whether a Ctrl-A is waiting for its second key.
 */
const CTRL_A = 0x01;

export type EscapeCommand = "power-off" | "power-button" | "help";

export const ESCAPE_HELP: readonly string[] = [
  "Ctrl-A X   power off at once",
  "Ctrl-A P   press the power button: the guest shuts down",
  "Ctrl-A A   send Ctrl-A to the guest",
  "Ctrl-A H   this help",
];

const COMMANDS: Readonly<Record<string, EscapeCommand>> = {
  x: "power-off",
  p: "power-button",
  h: "help",
  "?": "help",
};

export interface Decoded {
  readonly bytes: Uint8Array;
  readonly commands: readonly EscapeCommand[];
}

export class EscapeKeys {
  #escaped = false;

  decode(typed: Uint8Array): Decoded {
    const bytes: number[] = [];
    const commands: EscapeCommand[] = [];
    for (const byte of typed) {
      if (!this.#escaped) {
        if (byte === CTRL_A) this.#escaped = true;
        else bytes.push(byte);
        continue;
      }
      this.#escaped = false;
      const key = String.fromCharCode(byte).toLowerCase();
      const command = COMMANDS[key];
      if (command) commands.push(command);
      else if (byte === CTRL_A || key === "a") bytes.push(CTRL_A);
      // Any other key was a slip, and is nobody's.
    }
    return { bytes: Uint8Array.from(bytes), commands };
  }
}
