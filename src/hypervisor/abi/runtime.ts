/**
 * The service's side of the ABI: turns the message in its buffer into a call of the program and the program's calls into effects.
 * Part of every service's image; runs with the service's authority, which is none. The kernel trusts nothing that it does.
 */
import {
  AddressSpace,
  EffectKind,
  EffectWriter,
  type Move,
  NO_DEADLINE,
  StopNumber,
} from "./effects.ts";
import { EventKind, HEADER_BYTES, Message, SignalNumber } from "./message.ts";
import type { Grants, Hypercalls, ServiceFactory, ServiceProgram, StopKind } from "./service.ts";
import { decodeState, encodeState } from "./state-codec.ts";
import { Status } from "./status.ts";

/**
 * The one call that has its answer within a message: copies guest memory to the END of the message buffer, `length` bytes. Answers a Status.
 */
export type ReadCall = (addressLow: number, addressHigh: number, length: number) => number;

export interface RuntimeOptions {
  readonly buffer: ArrayBufferLike;
  readonly factory: ServiceFactory;
  readonly options: unknown;
  readonly grants: Grants;
  readonly read: ReadCall;
}

const WORD = 0x1_0000_0000;
const MAX_LOG = 1024;

/** Makes the program; the answer handles the message that is in the buffer. */
export function createRuntime(options: RuntimeOptions): () => void {
  const runtime = new Runtime(options);
  return () => runtime.handle();
}

class Runtime {
  readonly #message: Message;
  readonly #effects: EffectWriter;
  readonly #program: ServiceProgram;

  constructor({ buffer, factory, options, grants, read }: RuntimeOptions) {
    this.#message = new Message(buffer);
    this.#effects = new EffectWriter(this.#message);
    this.#program = factory(new Calls(this.#message, this.#effects, grants, read), options);
  }

  handle(): void {
    const message = this.#message;
    const { kind, dataBytes } = message;
    this.#effects.clear();
    if (kind === EventKind.EXIT) {
      message.status = this.#program.onEvent?.(message) ?? Status.UNHANDLED;
      message.dataBytes = this.#effects.used;
      return;
    }
    if (kind === EventKind.SAVE) {
      const end = encodeState(this.#program.save(), message.bytes, HEADER_BYTES);
      message.status = end < 0 ? Status.LIMIT : Status.OK;
      message.dataBytes = end < 0 ? 0 : end - HEADER_BYTES;
      return;
    }
    // A copy: effects are written over it.
    const data = message.bytes.slice(HEADER_BYTES, HEADER_BYTES + dataBytes);
    this.#other(kind, data);
    message.groups = 0;
    message.status = Status.OK;
    message.dataBytes = this.#effects.used;
  }

  #other(kind: number, data: Uint8Array): void {
    const message = this.#message;
    const program = this.#program;
    switch (kind) {
      case EventKind.TIMER:
        program.onTimer?.(message.time);
        break;
      case EventKind.INPUT:
        message.argument = program.onInput?.(message.stream, data) ?? data.length;
        break;
      case EventKind.SIGNAL:
        if (message.argument === SignalNumber.POWER_BUTTON) program.onSignal?.("powerButton");
        if (message.argument === SignalNumber.STOPPING) program.onSignal?.("stopping");
        if (message.argument === SignalNumber.RESUMED) program.onResumed?.(milliseconds(data));
        break;
      case EventKind.START:
        program.onStart?.();
        break;
      case EventKind.RESTORE:
        program.restore(decodeState(data));
        break;
      case EventKind.HANG:
        for (;;);
    }
  }
}

class Calls implements Hypercalls {
  readonly grants: Grants;
  readonly #message: Message;
  readonly #effects: EffectWriter;
  readonly #read: ReadCall;

  constructor(message: Message, effects: EffectWriter, grants: Grants, read: ReadCall) {
    this.grants = grants;
    this.#message = message;
    this.#effects = effects;
    this.#read = read;
  }

  now(): number {
    return this.#message.time;
  }

  setTimer(deadlineNs: number): Status {
    if (Number.isNaN(deadlineNs)) return Status.INVALID;
    const ns = Math.min(Math.max(0, Math.ceil(deadlineNs)), Number.MAX_SAFE_INTEGER);
    const words = deadlineNs === Infinity ? [NO_DEADLINE, NO_DEADLINE] : wide(ns);
    return this.#add(EffectKind.TIMER, words);
  }

  setLine(line: number, level: boolean): Status {
    if (!this.grants.lines.includes(line)) return Status.DENIED;
    return this.#add(EffectKind.LINE, [line, level ? 1 : 0]);
  }

  sendMessage(address: number, data: number): Status {
    if (!this.grants.messages) return Status.DENIED;
    return this.#add(EffectKind.INTERRUPT, [address, data]);
  }

  put(stream: number, bytes: Uint8Array): Status {
    if (!this.grants.streams.includes(stream)) return Status.DENIED;
    return this.#add(EffectKind.PUT, [stream, 0], bytes);
  }

  putRoom(): number {
    return Math.max(0, this.#effects.room(8));
  }

  move(move: Move): Status {
    const { addresses, lengths } = move.segments;
    if (!this.grants.streams.includes(move.stream)) return Status.DENIED;
    for (let i = 0; i < addresses.length; i++)
      if (!this.#isGranted(addresses[i]!, lengths[i]!, move.toMemory)) return Status.DENIED;
    return this.#effects.addMove(move) ? Status.OK : Status.LIMIT;
  }

  stop(kind: StopKind): Status {
    if (!this.grants.stops.includes(kind)) return Status.DENIED;
    const number = kind === "reset" ? StopNumber.RESET : StopNumber.POWEROFF;
    return this.#add(EffectKind.STOP, [number, 0]);
  }

  log(text: string): Status {
    return this.#add(EffectKind.LOG, [], utf8(text.slice(0, MAX_LOG / 4)));
  }

  readMemory(address: number, target: Uint8Array): Status {
    if (!this.#isGranted(address, target.length, false)) return Status.DENIED;
    const { bytes } = this.#message;
    // The area is shared with the effects of this message; they grow from its other end.
    const room = bytes.length - HEADER_BYTES - this.#effects.used;
    for (let done = 0; done < target.length; ) {
      const length = Math.min(room, target.length - done);
      if (length <= 0) return Status.LIMIT;
      const [low, high] = wide(address + done);
      const status = this.#read(low, high, length);
      if (status !== Status.OK) return status as Status;
      target.set(bytes.subarray(bytes.length - length), done);
      done += length;
    }
    return Status.OK;
  }

  writeMemory(address: number, data: Uint8Array): Status {
    if (!this.#isGranted(address, data.length, true)) return Status.DENIED;
    return this.#add(EffectKind.WRITE, wide(address), data);
  }

  decode(slot: number, space: "memory" | "ports", base: number, size: number): Status {
    const { decodes } = this.grants;
    if (!decodes || slot < 0 || slot >= decodes.slots) return Status.DENIED;
    const number = space === "ports" ? AddressSpace.PORTS : AddressSpace.MEMORY;
    return this.#add(EffectKind.DECODE, [slot, number, ...wide(base), ...wide(size)]);
  }

  #isGranted(address: number, length: number, write: boolean): boolean {
    if (!Number.isSafeInteger(address) || address < 0) return false;
    return this.grants.windows.some(
      ({ from, to, write: writable }) =>
        address >= from && address + length <= to && (writable || !write),
    );
  }

  #add(kind: number, words: readonly number[], bytes?: Uint8Array): Status {
    return this.#effects.add(kind, words, bytes) ? Status.OK : Status.LIMIT;
  }
}

function milliseconds(data: Uint8Array): number {
  return data.length === 8 ? new DataView(data.buffer).getFloat64(0, true) : 0;
}

function wide(value: number): [number, number] {
  return [value % WORD, Math.floor(value / WORD)];
}

/** TextEncoder is the embedder's, so this is done by hand. */
function utf8(text: string): Uint8Array {
  const escaped = unescapeUri(encodeURIComponent(text.replace(/[\ud800-\udfff]/g, "?")));
  return Uint8Array.from(escaped);
}

function unescapeUri(text: string): number[] {
  const bytes: number[] = [];
  for (let i = 0; i < text.length; i++) {
    if (text[i] === "%") {
      bytes.push(Number.parseInt(text.slice(i + 1, i + 3), 16));
      i += 2;
    } else bytes.push(text.charCodeAt(i));
  }
  return bytes;
}
