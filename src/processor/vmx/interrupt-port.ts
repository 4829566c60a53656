/**
 * The interrupt controllers of a pCPU, as it sees them between two instructions.
 * SDM Vol. 3A, "Advanced Programmable Interrupt Controller (APIC)"; the 8259's INTR comes as ExtINT.
 */
export const Request = { NONE: 0, APIC: 1, EXTINT: 2 } as const;

export interface InterruptPort {
  /** The external interrupt that asks now and that the controller's priorities let through: a Request. */
  request(): number;
  /** Acknowledge cycle: the vector, in service from now on, or a spurious one if the request has been withdrawn. */
  acknowledge(): number;
  /** The vector in service was level-triggered. */
  isLevel(vector: number): boolean;
  /** End of interrupt, to the local APIC. */
  end(): void;
  /** An NMI is latched; `takeNmi` takes it. */
  readonly nmi: boolean;
  takeNmi(): void;
  /** TSC (without offset) at which to ask again although nobody has rung; Infinity: none. */
  readonly nextAt: number;
}

/** Vector of the embedder's doorbell, where that is the only source of interrupts. */
export const DOORBELL_VECTOR = 0xf0;

/** One source that asks for as long as it does, and needs no end. */
export function doorbellPort(doorbell: () => boolean): InterruptPort {
  return {
    request: () => (doorbell() ? Request.APIC : Request.NONE),
    acknowledge: () => DOORBELL_VECTOR,
    isLevel: () => false,
    end: () => {},
    nmi: false,
    takeNmi: () => {},
    nextAt: Infinity,
  };
}
