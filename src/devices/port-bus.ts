/**
 * The I/O port space: which device decodes which port.
 * Spec: SDM Vol. 1, "Input/Output", "I/O Address Space".
 *
 * An access goes to the device that claimed its first port for its size, if the whole of it lies in that claim. Otherwise the
 * bus does what a chipset does for a narrow device: it splits the access into bytes at consecutive ports, each decoded by itself.
 * A claim names the sizes its device takes, so that the dword register 0xCF8 and the byte register 0xCF9 live side by side.
 * Bytes nobody claims go to the fallback (PCI, whose claims move at the guest's will); they can never shadow a claim.
 */
import { invariant } from "../base/invariant.ts";
import type { PortDevice, PortSize } from "./model.ts";

const PORTS = 0x1_0000;

export interface PortClaim {
  readonly base: number;
  readonly length: number;
  /** Access sizes decoded as a whole; default [1]: everything arrives as bytes. */
  readonly sizes?: readonly PortSize[];
}

interface Claim {
  readonly end: number;
  readonly device: PortDevice;
}

/** Sees an access that no claim takes whole. Answers undefined (or false) to let it be split into bytes, at last all ones. */
export interface PortFallback {
  readPort(port: number, size: PortSize): number | undefined;
  writePort(port: number, size: PortSize, value: number): boolean;
}

export class PortBus {
  readonly #claims = new Map<number, Claim>();
  readonly #fallback: PortFallback | undefined;

  constructor(options: { fallback?: PortFallback } = {}) {
    this.#fallback = options.fallback;
  }

  map(claim: PortClaim, device: PortDevice): void {
    const { base, length, sizes = [1] } = claim;
    invariant(
      base >= 0 && length > 0 && base + length <= PORTS,
      "port claim outside the port space",
    );
    for (const size of sizes) {
      for (let port = base; port < base + length; port++) {
        invariant(!this.#claims.has(port * 8 + size), `port ${port.toString(16)} claimed twice`);
        this.#claims.set(port * 8 + size, { end: base + length, device });
      }
    }
  }

  read(port: number, size: PortSize): number {
    const claim = this.#claims.get(port * 8 + size);
    if (claim !== undefined && port + size <= claim.end) return claim.device.readPort(port, size);
    const answer = this.#isFree(port, size) ? this.#fallback?.readPort(port, size) : undefined;
    if (answer !== undefined) return answer;
    if (size === 1) return 0xff;
    let value = 0;
    // An access past the last port wraps like the 16 address lines do.
    for (let i = size - 1; i >= 0; i--) value = value * 256 + this.read((port + i) % PORTS, 1);
    return value;
  }

  write(port: number, size: PortSize, value: number): void {
    const claim = this.#claims.get(port * 8 + size);
    if (claim !== undefined && port + size <= claim.end) {
      claim.device.writePort(port, size, value);
      return;
    }
    if (this.#isFree(port, size) && this.#fallback?.writePort(port, size, value)) return;
    if (size === 1) return;
    for (let i = 0; i < size; i++) this.write((port + i) % PORTS, 1, (value >>> (8 * i)) & 0xff);
  }

  /** Whether no claim decodes any byte of the access: only then may the fallback see it. */
  #isFree(port: number, size: PortSize): boolean {
    if (port + size > PORTS) return false;
    for (let i = 0; i < size; i++) if (this.#claims.has((port + i) * 8 + 1)) return false;
    return true;
  }
}
