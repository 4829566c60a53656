/**
 * A portal: the entry point of a service for one kind of trapped event, with the state it may see and change.
 */
import type { ServiceDomain } from "./service-domain.ts";

export interface Portal {
  readonly name: string;
  readonly service: ServiceDomain;
  /** The number by which the service knows it. */
  readonly index: number;
  /** State groups copied into the message. */
  readonly stateIn: number;
  /** State groups that a reply may commit. */
  readonly stateOut: number;
  /** Where the service may pass the event on to, by the number in its reply. */
  readonly forwards: readonly Portal[];
}
