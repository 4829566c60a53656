/**
 * Exit routing: which portal an exit goes to, by reason and subclass (port, guest-physical address).
 *
 * What has no route meets nobody, as on a bus: reads give ones, writes are dropped. Static routes are made at start; a service may have
 * ranges of the device space routed to itself while it holds the right to (DECODE). Static routes win, then who came first.
 */
import { invariant } from "../../base/invariant.ts";
import type { Portal } from "./portal.ts";

const PORTS = 0x1_0000;

interface MemoryRoute {
  readonly from: number;
  /** inclusive */
  readonly to: number;
  readonly portal: Portal;
}

export interface DecodedRange {
  /** Number of the service. */
  readonly owner: number;
  readonly slot: number;
  readonly space: "memory" | "ports";
  readonly base: number;
  /** 0 frees the slot. */
  readonly size: number;
  readonly portal: Portal | null;
}

export class RouteTable {
  readonly #portals: Portal[] = [];
  /** Portal number + 1 per port, 0 = none. */
  readonly #ports = new Uint8Array(PORTS);
  readonly #memory: MemoryRoute[] = [];
  #decoded: DecodedRange[] = [];
  #last: MemoryRoute | null = null;

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

  /** Sets or frees a slot of a service. */
  decode(range: DecodedRange): void {
    this.#decoded = this.#decoded.filter(
      (other) => other.owner !== range.owner || other.slot !== range.slot,
    );
    if (range.size > 0) this.#decoded.push(range);
    this.#last = null;
  }

  /** What services have had decoded, in order. */
  get decoded(): readonly DecodedRange[] {
    return this.#decoded;
  }

  port(port: number): Portal | null {
    const n = this.#ports[port & 0xffff]!;
    return n === 0 ? this.#dynamic("ports", port & 0xffff) : this.#portals[n - 1]!;
  }

  memory(address: number): Portal | null {
    const last = this.#last;
    if (last && address >= last.from && address <= last.to) return last.portal;
    for (const route of this.#memory) {
      if (address < route.from || address > route.to) continue;
      this.#last = route;
      return route.portal;
    }
    return this.#dynamic("memory", address);
  }

  #dynamic(space: "memory" | "ports", address: number): Portal | null {
    for (const range of this.#decoded) {
      if (range.space !== space || address < range.base || address >= range.base + range.size)
        continue;
      return range.portal;
    }
    return null;
  }
}
