/**
 * Egress policy: where a guest may connect to.
 *
 * "open" allows all that can be forwarded. Else only what a rule names: an address range, or a DNS name ("*.NAME" for what is below it), each
 * with ":PORT" for one port. Names hold for the addresses that our own DNS forwarder has given the guest for them, for as long as the
 * record lives: a connection to an address that was not learnt so is refused, and so is the question for any other name, which would
 * otherwise be a way out by itself.
 *
 * Bounded: MAX_PINS addresses; the one that expires first goes. State is plain.
 */
import { HypolithError } from "../../base/errors.ts";
import { type Cidr, isInCidr, parseCidr } from "../packet/address.ts";
import { HOST_NAME, Subnet } from "./subnet.ts";

export interface NameRule {
  readonly name: string;
  /** The name itself is not meant, but all below it. */
  readonly below: boolean;
  /** 0 for all. */
  readonly port: number;
}

export interface AddressRule {
  readonly cidr: Cidr;
  readonly port: number;
}

export interface EgressRules {
  readonly open: boolean;
  readonly names: readonly NameRule[];
  readonly addresses: readonly AddressRule[];
}

export const OPEN_EGRESS: EgressRules = { open: true, names: [], addresses: [] };

const USAGE =
  "write open, deny, NAME, *.NAME, ADDRESS or ADDRESS/BITS, each of the last four with :PORT if you like";

/** The words of `--egress`. Throws HypolithError "egress-rule". */
export function parseEgress(words: readonly string[]): EgressRules {
  const rest = words.filter((word) => word !== "open" && word !== "deny");
  const isOpen = words.includes("open");
  if (isOpen && (rest.length > 0 || words.includes("deny"))) {
    throw new HypolithError("egress-rule", "open allows everything and stands alone", {
      hint: USAGE,
    });
  }
  const names: NameRule[] = [];
  const addresses: AddressRule[] = [];
  for (const word of rest) {
    const rule = parseRule(word);
    if (!rule) {
      throw new HypolithError("egress-rule", `"${word}" names no place to connect to`, {
        hint: USAGE,
      });
    }
    if ("cidr" in rule) addresses.push(rule);
    else names.push(rule);
  }
  return { open: isOpen || words.length === 0, names, addresses };
}

const LABEL = "[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?";
const NAME_PATTERN = new RegExp(`^${LABEL}(?:\\.${LABEL})*$`);

function parseRule(word: string): NameRule | AddressRule | null {
  const [place = "", portText, ...more] = word.toLowerCase().split(":");
  const port = portText === undefined ? 0 : parsePort(portText);
  if (more.length > 0 || port === null) return null;
  const cidr = parseCidr(place);
  if (cidr) return { cidr, port };
  const below = place.startsWith("*.");
  const name = (below ? place.slice(2) : place).replace(/\.$/, "");
  // What looks like numbers is an address with a mistake, not a name.
  if (name.length > 253 || !NAME_PATTERN.test(name) || /(^|\.)\d+$/.test(name)) return null;
  return { name, below, port };
}

export function parsePort(text: string): number | null {
  const port = /^\d{1,5}$/.test(text) ? Number(text) : 0;
  return port >= 1 && port <= 65_535 ? port : null;
}

interface Pin {
  readonly address: number;
  readonly port: number;
  expires: number;
}

const MAX_PINS = 4096;
/** A record that lives shorter is kept so long: who has just asked must have time to connect. */
const LEAST_SECONDS = 30;
const MOST_SECONDS = 86_400;

export class EgressPolicy {
  readonly #rules: EgressRules;
  #pins: Pin[] = [];

  constructor(rules: EgressRules) {
    this.#rules = rules;
  }

  /** May the guest connect, or send, to this address (the gateway's stands for the embedder itself)? */
  allows(address: number, port: number, now: number): boolean {
    if (this.#rules.open) return true;
    const isRuled = this.#rules.addresses.some(
      (rule) => isInCidr(address, rule.cidr) && fits(rule, port),
    );
    if (isRuled) return true;
    if (address === Subnet.GATEWAY)
      return this.#rules.names.some((rule) => matches(rule, HOST_NAME) && fits(rule, port));
    // What a name's owner says is believed for addresses beyond this machine only.
    return this.#pins.some(
      (pin) => pin.address === address && pin.expires > now && fits(pin, port),
    );
  }

  mayResolve(name: string): boolean {
    return this.#rules.open || this.#rules.names.some((rule) => matches(rule, name));
  }

  /** The forwarder answers a question for `name` with this address. */
  learn(name: string, address: number, ttlSeconds: number, now: number): void {
    if (this.#rules.open) return;
    const seconds = Math.min(Math.max(ttlSeconds, LEAST_SECONDS), MOST_SECONDS);
    const expires = now + seconds * 1e9;
    for (const { port } of this.#rules.names.filter((rule) => matches(rule, name))) {
      const known = this.#pins.find((pin) => pin.address === address && pin.port === port);
      if (known) known.expires = Math.max(known.expires, expires);
      else this.#pin({ address, port, expires }, now);
    }
  }

  #pin(pin: Pin, now: number): void {
    if (this.#pins.length >= MAX_PINS) {
      this.#pins = this.#pins.filter(({ expires }) => expires > now);
      this.#pins.sort((a, b) => b.expires - a.expires).splice(MAX_PINS - 1);
    }
    this.#pins.push(pin);
  }

  save(): readonly Pin[] {
    return this.#pins.map((pin) => ({ ...pin }));
  }

  restore(pins: readonly Pin[]): void {
    this.#pins = pins.slice(0, MAX_PINS).map((pin) => ({ ...pin }));
  }
}

const fits = (rule: { readonly port: number }, port: number): boolean =>
  rule.port === 0 || rule.port === port;

const matches = (rule: NameRule, name: string): boolean =>
  rule.below ? name.endsWith(`.${rule.name}`) : name === rule.name;
