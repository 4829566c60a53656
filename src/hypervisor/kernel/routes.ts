/**
 * Exit routing: which portal an exit goes to, by reason and subclass (port, guest-physical address). Default deny.
 */
import { invariant } from "../../base/invariant.ts";
import type { Portal } from "./portal.ts";

const PORTS = 0x1_0000;

interface MemoryRoute {
  readonly from: number;
  readonly to: number;
  readonly portal: Portal;
}

export class RouteTable {
  readonly #portals: Portal[] = [];
  /** Portal number + 1 per port, 0 = none. */
  readonly #ports = new Uint8Array(PORTS);
  readonly #memory: MemoryRoute[] = [];

  #number(portal: Portal): number {
    const found = this.#portals.indexOf(portal);
    if (found >= 0) return found;
    invariant(this.#portals.length < 255, "portals of one VM");
    this.#portals.push(portal);
    return this.#portals.length - 1;
  }

  routePorts(from: number, to: number, portal: Portal): void {
    invariant(from >= 0 && to < PORTS && from <= to, "port range");
    this.#ports.fill(this.#number(portal) + 1, from, to + 1);
  }

  routeMemory(from: number, to: number, portal: Portal): void {
    this.#memory.push({ from, to, portal });
  }

  port(port: number): Portal | null {
    const n = this.#ports[port & 0xffff]!;
    return n === 0 ? null : this.#portals[n - 1]!;
  }

  memory(address: number): Portal | null {
    for (const r of this.#memory) if (address >= r.from && address <= r.to) return r.portal;
    return null;
  }
}
