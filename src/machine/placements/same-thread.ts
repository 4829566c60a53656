/**
 * A service in the machine's own thread: a call is a function call. It costs next to nothing, and it cannot be interrupted: a program that
 * does not return takes the machine with it. What authority the program has is decided by where it comes from: a compartment ("inline")
 * or our own realm ("linked").
 *
 * The message lies in a WebAssembly memory of its own. Such a buffer cannot be detached or resized by whoever holds it, so the kernel may
 * write and read it without a look.
 */
import { Message } from "../../hypervisor/abi/message.ts";
import { createRuntime } from "../../hypervisor/abi/runtime.ts";
import type { Grants, ServiceFactory } from "../../hypervisor/abi/service.ts";
import { Status } from "../../hypervisor/abi/status.ts";
import {
  Outcome,
  type Placement,
  type PlacementKind,
  type PlacementPort,
  restoreByMessage,
  saveByMessage,
} from "../../hypervisor/kernel/placement.ts";
import { reasonOf } from "./reason.ts";

/** A program that has been made in its buffer. */
export interface OpenProgram {
  readonly buffer: ArrayBuffer;
  /** Handles the message in the buffer. */
  readonly handle: () => void;
}

const WORD = 0x1_0000_0000;

export class SameThread implements Placement {
  readonly kind: PlacementKind;
  readonly message: Message;
  failure = "";
  #handle: (() => void) | null;

  constructor(kind: PlacementKind, { buffer, handle }: OpenProgram) {
    this.kind = kind;
    this.message = new Message(buffer);
    this.#handle = handle;
  }

  call(): Outcome {
    const handle = this.#handle;
    if (!handle) {
      this.failure = "it has ended";
      return Outcome.FAILED;
    }
    try {
      handle();
      return Outcome.REPLIED;
    } catch (error) {
      this.failure = reasonOf(error);
      return Outcome.FAILED;
    }
  }

  save(deadlineMs: number): unknown {
    return saveByMessage(this, deadlineMs);
  }

  restore(state: unknown, deadlineMs: number): boolean {
    return restoreByMessage(this, state as Uint8Array, deadlineMs);
  }

  kill(): void {
    this.#handle = null;
  }
}

/** A program that is linked with us. */
export function openLinked(
  factory: ServiceFactory,
  { options, grants }: { options: unknown; grants: Grants },
  port: PlacementPort,
): OpenProgram {
  const { buffer } = new WebAssembly.Memory({ initial: 1, maximum: 1 });
  const handle = createRuntime({ buffer, factory, options, grants, read: readCall(port) });
  return { buffer, handle };
}

/** The arguments come from the program: numbers, or nothing at all. Never throws. */
export function readCall(
  port: PlacementPort,
): (low: unknown, high: unknown, length: unknown) => number {
  return (low, high, length) => {
    if (typeof low !== "number" || typeof high !== "number" || typeof length !== "number")
      return Status.INVALID;
    return port.read(low + high * WORD, length);
  };
}
