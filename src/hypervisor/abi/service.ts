/**
 * What a service program is and what it may ask of the micro-hypervisor.
 *
 * A program is written against this room alone and runs in every placement. It has no clock, no entropy, no memory of a guest and no way
 * out but these calls. What it does is a function of its messages: the kernel restarts a program that has failed by giving a new one
 * the last saved state and the messages since, with effects discarded. So a program keeps its state in what `save` answers, and nowhere
 * else, and never does anything outside of a message.
 *
 * Effects (all calls but `now` and `readMemory`) are carried out when the message's reply has been found good, all or none of them. Their
 * Status says at once whether they can be: a program that passes the kernel something its grants do not cover has failed.
 */
import type { Move } from "./effects.ts";
import type { Message } from "./message.ts";
import type { Status } from "./status.ts";

export type StopKind = "poweroff" | "reset";

/** A range of guest-physical memory, `to` exclusive. */
export interface MemoryWindow {
  readonly from: number;
  readonly to: number;
  readonly write: boolean;
}

/** What the kernel holds for a service as capabilities, told to the program. */
export interface Grants {
  /** Interrupt lines it may drive: global system interrupts of the platform (devices/platform/platform-map.ts). */
  readonly lines: readonly number[];
  /** May send interrupt messages (MSI) to the VM's local APICs. */
  readonly messages: boolean;
  /** Streams of the embedder. */
  readonly streams: readonly number[];
  readonly stops: readonly StopKind[];
  readonly windows: readonly MemoryWindow[];
  /** Addresses it may have routed to its own portals: as many ranges at once as there are `slots`. */
  readonly decodes: { readonly slots: number } | null;
  /** Portals of other services that it may pass an event on to. */
  readonly forwards: number;
}

export interface Hypercalls {
  readonly grants: Grants;
  /** Virtual time of the message: nanoseconds since machine start. */
  now(): number;
  /** Asks for a call of `onTimer` at or after a time; one timer a service, Infinity disarms. The last call of a message counts. */
  setTimer(deadlineNs: number): Status;
  /** Level of an interrupt line; of several services that drive one, it is the OR. */
  setLine(line: number, level: boolean): Status;
  /** An interrupt message, as a device writes it: SDM Vol. 3A, "Message Address Register Format", "Message Data Register Format". */
  sendMessage(address: number, data: number): Status;
  /** Bytes to a stream of the embedder. LIMIT if they are more than putRoom(). */
  put(stream: number, bytes: Uint8Array): Status;
  putRoom(): number;
  /** Bytes between guest memory and a stream of the embedder, without passing through here; DENIED outside the windows. */
  move(move: Move): Status;
  /** Ends the VM. */
  stop(kind: StopKind): Status;
  log(text: string): Status;
  /** Copies guest memory, as it was before this message; DENIED outside the windows. */
  readMemory(address: number, target: Uint8Array): Status;
  writeMemory(address: number, bytes: Uint8Array): Status;
  /** Has accesses to [base, base + size) of the device space routed to its own portal; size 0 gives the slot back. */
  decode(slot: number, space: "memory" | "ports", base: number, size: number): Status;
}

export interface ServiceProgram {
  /** The first message of its life: not repeated after a restart. */
  onStart?(): void;
  /** Answers a trapped event in place. OK commits `message.groups`, UNHANDLED is the route's default, FORWARD passes it on. */
  onEvent?(message: Message): Status;
  /** The timer has come due. */
  onTimer?(now: number): void;
  /** Bytes from a stream of the embedder; answers how many were taken, the rest is offered again after another message. */
  onInput?(stream: number, bytes: Uint8Array): number;
  /** A signal of the embedder. "stopping" is the last message: what has been gathered leaves now or never. */
  onSignal?(signal: "powerButton" | "stopping"): void;
  /** The VM goes on from a snapshot, `elapsedMs` of real time later: for devices that tell their guests. */
  onResumed?(elapsedMs: number): void;
  /** All its state: numbers, strings, booleans, bigints, Uint8Arrays, arrays and plain objects. Sharing is not kept. */
  save(): unknown;
  /** Takes a state that `save` made, in a program that has just been made. No effects. */
  restore(state: unknown): void;
}

/** `options` are plain data from the machine's configuration. */
export type ServiceFactory = (hypercalls: Hypercalls, options: unknown) => ServiceProgram;
