/**
 * What a service program is and what it may ask of the micro-hypervisor.
 *
 * A program is written against this room alone and runs in every placement. It has no clock, no entropy, no memory of a guest and no way
 * out but these calls, each checked against the service's capabilities.
 */
import type { Message } from "./message.ts";
import type { Status } from "./status.ts";

/** An interrupt message to local APICs. SDM Vol. 3A, "Message Address Register Format". */
export interface ApicMessage {
  readonly vector: number;
  readonly deliveryMode: number;
  readonly destMode: 0 | 1;
  readonly dest: number;
  readonly level: boolean;
  readonly trigger: 0 | 1;
}

export type StopKind = "poweroff" | "reset";

export interface Hypercalls {
  /** Virtual time: nanoseconds since machine start. */
  now(): number;
  /** Asks for a call of `onTimer` at or after a time; one timer a service, Infinity disarms. */
  setTimer(deadlineNs: number): Status;
  /** Interrupt message to the VM's local APICs. */
  sendInterrupt(message: ApicMessage): Status;
  /** Level of the 8259's INTR output. */
  setExtint(level: boolean): Status;
  /** Sends bytes to a stream of the embedder that the service was given. */
  put(stream: number, bytes: Uint8Array): Status;
  /** Ends the VM. */
  stop(kind: StopKind): Status;
  log(text: string): Status;
}

export interface ServiceProgram {
  /** Answers a trapped event in place. Status.OK commits `message.groups`; anything else is the route's default. */
  onEvent(message: Message): Status;
  /** The timer has come due. */
  onTimer(now: number): void;
  /** Bytes from a stream of the embedder; answers how many were taken, the rest is offered again later. */
  onInput(stream: number, bytes: Uint8Array): number;
  /** The processor accepts the 8259's interrupt: its vector. */
  onInterruptAcknowledge(): number;
  /** The guest ended a level-triggered interrupt of this vector. */
  onEndOfInterrupt(vector: number): void;
  /** A signal of the embedder. */
  onSignal(signal: "powerButton"): void;
}

export type ServiceFactory = (hypercalls: Hypercalls) => ServiceProgram;
