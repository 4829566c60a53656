/**
 * ICMP echo: answered for the subnet's own addresses, carried by the embedder for others if it may send them. If not,
 * the guest hears that the network is unreachable. A probe by TCP instead would answer another question than the guest asked.
 */
import { buildIcmp, IcmpType, Unreachable } from "../packet/icmp.ts";
import { IpProtocol } from "../packet/ipv4.ts";
import { type Routing, route } from "./destination.ts";
import type { GuestLink } from "./guest-link.ts";
import type { HostNetwork } from "./host-network.ts";

export interface Echo {
  readonly guest: number;
  readonly remote: number;
  readonly id: number;
  readonly sequence: number;
  readonly data: Uint8Array;
}

export interface EchoParts {
  readonly host: HostNetwork;
  readonly link: GuestLink;
  readonly routing: Routing;
  readonly newId: () => number;
  /** For a person. */
  readonly report: (text: string) => void;
}

const MAX_PENDING = 64;

export class EchoNat {
  readonly #parts: EchoParts;
  #pending = new Map<number, Echo>();
  #hasTold = false;

  constructor(parts: EchoParts) {
    this.#parts = parts;
  }

  reply({ guest, remote, id, sequence, data }: Echo, now: number): void {
    const payload = buildIcmp({ type: IcmpType.ECHO_REPLY, code: 0, id, sequence, data });
    const packet = { source: remote, destination: guest, protocol: IpProtocol.ICMP, payload };
    this.#parts.link.sendPacket(packet, now);
  }

  /** Answers an ICMP code if it cannot go there. */
  forward(echo: Echo, now: number): number | null {
    const { host, routing, newId } = this.#parts;
    const to = route(routing, echo.remote, 0, now);
    if (to.kind === "unreachable") return to.code;
    if (!host.echo) {
      this.#tellOfNone();
      return Unreachable.NET;
    }
    if (this.#pending.size >= MAX_PENDING) {
      const [oldest] = this.#pending.keys();
      this.#pending.delete(oldest!);
    }
    const query = newId();
    this.#pending.set(query, echo);
    host.echo(query, to.address, echo.data.slice());
    return null;
  }

  #tellOfNone(): void {
    if (this.#hasTold) return;
    this.#hasTold = true;
    this.#parts.report(
      "echo requests of the guest (ping) do not leave this computer, which has no ping program for them: they are answered with 'net unreachable'",
    );
  }

  onEcho(query: number, now: number): void {
    const echo = this.#pending.get(query);
    if (!echo) return;
    this.#pending.delete(query);
    this.reply(echo, now);
  }

  clear(): void {
    this.#pending.clear();
  }

  save(): SavedEcho[] {
    return [...this.#pending].map(([query, echo]) => ({
      ...{ query, ...echo, data: echo.data.slice() },
    }));
  }

  restore(saved: readonly SavedEcho[]): void {
    this.#pending = new Map(saved.slice(0, MAX_PENDING).map(({ query, ...echo }) => [query, echo]));
  }
}

export interface SavedEcho extends Echo {
  readonly query: number;
}
