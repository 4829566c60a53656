/**
 * The resolver of the virtual subnet: questions of the guest, answers of the embedder's resolver, the egress policy in between.
 *
 * A name that the policy does not allow is REFUSED without asking anybody. Addresses of names that it names are told to the policy before
 * the guest hears of them. Bounded: MAX_PENDING questions at once; the oldest goes, and its asker asks again.
 */
import { get32, put32 } from "../packet/bytes.ts";
import {
  buildAnswer,
  buildFailure,
  type DnsQuestion,
  type DnsRecord,
  DnsStatus,
  DnsType,
  parseQuery,
} from "../packet/dns.ts";
import type { EgressPolicy } from "./egress.ts";
import type { FlowAddress } from "./flow.ts";
import type { HostNetwork } from "./host-network.ts";
import { HOST_NAME, Subnet } from "./subnet.ts";

/** Who asked, and so who gets the answer. */
export type DnsAsker =
  | { readonly kind: "udp"; readonly guest: number; readonly guestPort: number }
  | ({ readonly kind: "tcp" } & FlowAddress);

interface Pending {
  readonly question: DnsQuestion;
  readonly asker: DnsAsker;
}

export interface DnsParts {
  readonly host: HostNetwork;
  readonly policy: EgressPolicy;
  readonly newId: () => number;
  readonly answer: (asker: DnsAsker, answer: Uint8Array, now: number) => void;
  /** The policy does not allow a name. */
  readonly refused: (name: string) => void;
}

const MAX_PENDING = 256;
const HOST_TTL_SECONDS = 3600;
/** The reverse zone of the subnet is ours: nobody else knows anything of it. */
const REVERSE_ZONE = ".2.0.10.in-addr.arpa";
/** Over TCP a message has a length of 16 bits. */
const MAX_TCP_ANSWER = 0xffff;

export class DnsForwarder {
  readonly #parts: DnsParts;
  #pending = new Map<number, Pending>();

  constructor(parts: DnsParts) {
    this.#parts = parts;
  }

  get pending(): number {
    return this.#pending.size;
  }

  /** A query as it came. */
  ask(query: Uint8Array, asker: DnsAsker, now: number): void {
    const parsed = parseQuery(query);
    if (!parsed) return;
    if ("status" in parsed) {
      this.#parts.answer(asker, buildFailure(parsed.id, parsed.status), now);
      return;
    }
    const { question } = parsed;
    const own = ownAnswer(question, this.#parts.policy);
    if (own?.status === DnsStatus.REFUSED) this.#parts.refused(question.name);
    if (own) this.#finish({ question, asker }, own, now);
    else this.#forward({ question, asker });
  }

  #forward(pending: Pending): void {
    if (this.#pending.size >= MAX_PENDING) {
      const [oldest] = this.#pending.keys();
      this.#pending.delete(oldest!);
    }
    const id = this.#parts.newId();
    this.#pending.set(id, pending);
    this.#parts.host.resolve(id, pending.question.name, pending.question.type);
  }

  onResolved({ query, status, records }: Resolved, now: number): void {
    const pending = this.#pending.get(query);
    if (!pending) return;
    this.#pending.delete(query);
    const seen = records.filter(isNotLoopback6).map((record) => {
      if (record.type !== DnsType.A || record.data.length !== 4) return record;
      const address = get32(record.data, 0);
      // The embedder's loopback is the gateway here. Not told to the policy: else the owner of an allowed name could open it.
      if (address >>> 24 === 127) return addressRecord(Subnet.GATEWAY, record.ttl);
      this.#parts.policy.learn(pending.question.name, address, record.ttl, now);
      return record;
    });
    this.#finish(pending, { status, records: seen }, now);
  }

  #finish({ question, asker }: Pending, { status, records }: Answer, now: number): void {
    const limit = asker.kind === "tcp" ? MAX_TCP_ANSWER : question.udpBytes;
    this.#parts.answer(asker, buildAnswer(question, status, records, limit), now);
  }

  /** Forgets all questions: those who asked will ask again. */
  clear(): void {
    this.#pending.clear();
  }

  save(): SavedQuestion[] {
    return [...this.#pending].map(([id, { question, asker }]) => ({
      ...{ id, question: { ...question }, asker: { ...asker } },
    }));
  }

  restore(saved: readonly SavedQuestion[]): void {
    this.#pending = new Map(saved.slice(0, MAX_PENDING).map(({ id, ...rest }) => [id, rest]));
  }
}

export interface SavedQuestion extends Pending {
  readonly id: number;
}

export interface Resolved extends Answer {
  readonly query: number;
}

interface Answer {
  readonly status: number;
  readonly records: readonly DnsRecord[];
}

/** What is answered without asking anybody; null for the rest. */
function ownAnswer({ name, type }: DnsQuestion, policy: EgressPolicy): Answer | null {
  if (name === HOST_NAME) {
    const records = type === DnsType.A ? [addressRecord(Subnet.GATEWAY, HOST_TTL_SECONDS)] : [];
    return { status: DnsStatus.OK, records };
  }
  if (name.endsWith(REVERSE_ZONE)) return { status: DnsStatus.NO_NAME, records: [] };
  if (name === "" || !policy.mayResolve(name)) return { status: DnsStatus.REFUSED, records: [] };
  return null;
}

/** ::1 would be the guest itself. */
const isNotLoopback6 = ({ type, data }: DnsRecord): boolean =>
  type !== DnsType.AAAA || data.some((byte, i) => byte !== (i === 15 ? 1 : 0));

export function addressRecord(address: number, ttl: number): DnsRecord {
  const data = new Uint8Array(4);
  put32(data, 0, address);
  return { type: DnsType.A, ttl, data };
}
