/**
 * A placement: where one life of a service program runs, and how it is called. The kernel knows no more of it than this.
 *
 * The kernel fills `message`, calls, and finds the reply there. The message lies in memory that nobody but the kernel writes between the
 * return of a call and the next one: a placement whose program runs on elsewhere copies the reply before it answers.
 */
import { EventKind, HEADER_BYTES, type Message } from "../abi/message.ts";
import { Status } from "../abi/status.ts";
import type { TransitionLog } from "./transition-log.ts";

/** What became of a call. */
export const Outcome = {
  /** There is a reply; nothing is known of its worth. */
  REPLIED: 0,
  /** The program threw, trapped or otherwise came to its end: see `failure`. */
  FAILED: 1,
  /** No reply within the deadline. */
  LATE: 2,
} as const;
export type Outcome = (typeof Outcome)[keyof typeof Outcome];

export type PlacementKind = "linked" | "inline" | "worker" | "guest" | "guest:ring3";

export interface Placement {
  readonly kind: PlacementKind;
  readonly message: Message;
  /** After FAILED: why, for a person. */
  readonly failure: string;
  /** Delivers what is in `message`. A placement that cannot be interrupted ignores the deadline. */
  call(deadlineMs: number): Outcome;
  /** The program's state, to be given to `restore` of another life of the same image; null if it would not say. */
  save(deadlineMs: number): unknown;
  /** Answers false if it failed. */
  restore(state: unknown, deadlineMs: number): boolean;
  /** Ends the program. Nothing is called afterwards. */
  kill(): void;
}

/** What a program may have of the kernel within a message. Called by the placement, never by the program. */
export interface PlacementPort {
  /** Copies guest memory to the end of the message buffer. Answers a Status. */
  read(address: number, length: number): Status;
  /** Where a program in a VM of its own is entered and left. */
  readonly transitions: TransitionLog;
}

/** Starts a life of a service from its image. Throws if that is impossible. */
export type ServiceImage = (port: PlacementPort) => Placement;

/** save() for placements whose programs answer SAVE. */
export function saveByMessage(placement: Placement, deadlineMs: number): Uint8Array | null {
  const { message } = placement;
  message.kind = EventKind.SAVE;
  message.dataBytes = 0;
  if (placement.call(deadlineMs) !== Outcome.REPLIED || message.status !== Status.OK) return null;
  const { dataBytes } = message;
  if (dataBytes > message.capacity) return null;
  return message.bytes.slice(HEADER_BYTES, HEADER_BYTES + dataBytes);
}

export function restoreByMessage(
  placement: Placement,
  state: Uint8Array,
  deadlineMs: number,
): boolean {
  const { message } = placement;
  message.kind = EventKind.RESTORE;
  message.dataBytes = state.length;
  message.bytes.set(state, HEADER_BYTES);
  return placement.call(deadlineMs) === Outcome.REPLIED && message.status === Status.OK;
}
