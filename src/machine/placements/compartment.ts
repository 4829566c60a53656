/**
 * A service's program in a compartment of SES: it has the language, its message buffer, its grants and one call to read guest memory.
 * Everything that exists before it is frozen. There is no clock, no entropy, no import, no code from text, and nothing of the embedder.
 *
 * openCompartment is self-contained: an embedder may evaluate its text in a realm of its own, so that not even an object of the machine's
 * realm is reachable. What crosses is numbers and strings, the buffer, and two functions.
 */

export interface CompartmentSetup {
  /** image-linker.ts */
  readonly image: string;
  /** {options, grants} as JSON. */
  readonly setup: string;
  readonly name: string;
  /** PlacementPort.read; arguments are whatever the program passes. */
  readonly read: (low: unknown, high: unknown, length: unknown) => number;
}

/** What the kernel holds of it. The buffer cannot be detached or resized: it is a WebAssembly memory that nobody has. */
export interface OpenCompartment {
  readonly buffer: ArrayBuffer;
  readonly handle: () => void;
}

/** What SES defines on a global object. */
export interface SesGlobals {
  readonly Compartment: new (options: unknown) => { evaluate(source: string): unknown };
  readonly harden: <T>(value: T) => T;
  lockdown(options: Readonly<Record<string, string>>): void;
}

export const LOCKDOWN_OPTIONS = {
  errorTaming: "safe",
  overrideTaming: "severe",
  consoleTaming: "unsafe",
  reporting: "none",
} as const;

export function openCompartment(
  ses: Pick<SesGlobals, "Compartment" | "harden">,
  { image, setup, name, read }: CompartmentSetup,
): OpenCompartment {
  const { Compartment, harden } = ses;
  const buffer = new WebAssembly.Memory({ initial: 1, maximum: 1 }).buffer;
  const DENIED = 1;
  // Made here, so that its prototype is frozen; what goes wrong in the kernel's function stays there.
  const guardedRead = (low: unknown, high: unknown, length: unknown): number => {
    try {
      return read(low, high, length);
    } catch {
      return DENIED;
    }
  };
  const compartment = new Compartment({ name, __options__: true });
  const entry = compartment.evaluate(image) as (setup: unknown) => () => void;
  const { options, grants } = JSON.parse(setup) as { options: unknown; grants: unknown };
  const handle = entry(harden({ buffer, options, grants, read: guardedRead }));
  return { buffer, handle };
}
