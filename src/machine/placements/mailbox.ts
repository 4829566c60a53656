/**
 * The hand-off between a machine's thread and a service's thread: a mailbox in shared memory, and whose turn it is.
 *
 *   0 turn i32 · 4 address low · 8 address high · 12 length · 16 status · 20 looks before sleeping · 64 message
 *
 * A message is there for who has the turn; the other one neither reads nor writes it. Both wait by looking at the turn for a while, then by
 * sleeping on it. How long is the kernel's choice (spin-choice.ts), for both.
 * The kernel's side copies a reply out before it looks at it: the thread that wrote it may write on.
 */
import { HEADER_BYTES, MESSAGE_BYTES, type Message } from "../../hypervisor/abi/message.ts";

export const Turn = {
  /** The reply is there, or nothing has been sent yet. */
  KERNEL: 0,
  /** A message is there. */
  SERVICE: 1,
  /** The service wants guest memory: address, length. */
  READ: 2,
  /** It is at the end of the message; status. */
  ANSWER: 3,
  /** The program has failed; why is in the message's data area, UTF-16. */
  FAILED: 4,
} as const;

const AT = { TURN: 0, LOW: 1, HIGH: 2, LENGTH: 3, STATUS: 4, SPINS: 5 } as const;
const MESSAGE_AT = 64;
export const MAILBOX_BYTES = MESSAGE_AT + MESSAGE_BYTES;

export class Mailbox {
  readonly #control: Int32Array;
  readonly #words: Uint32Array;
  readonly #bytes: Uint8Array;

  constructor(buffer: SharedArrayBuffer) {
    this.#control = new Int32Array(buffer, 0, MESSAGE_AT / 4);
    this.#words = new Uint32Array(buffer, MESSAGE_AT, HEADER_BYTES / 4);
    this.#bytes = new Uint8Array(buffer, MESSAGE_AT, MESSAGE_BYTES);
  }

  get turn(): number {
    return Atomics.load(this.#control, AT.TURN);
  }

  pass(turn: number): void {
    Atomics.store(this.#control, AT.TURN, turn);
    Atomics.notify(this.#control, AT.TURN);
  }

  /** Waits while the turn is `turn`: looks at it `spins` times, then sleeps at most `ms`. Answers the turn. */
  wait(turn: number, spins: number, ms: number): number {
    const control = this.#control;
    for (let i = 0; i < spins; i++) {
      const now = Atomics.load(control, AT.TURN);
      if (now !== turn) return now;
    }
    Atomics.wait(control, AT.TURN, turn, ms);
    return Atomics.load(control, AT.TURN);
  }

  /** Copies a message in: header and data. */
  put(message: Message): void {
    const { words } = message;
    const target = this.#words;
    for (let i = 0; i < words.length; i++) target[i] = words[i]!;
    const length = Math.min(message.dataBytes, message.capacity);
    if (length > 0) {
      const data = message.bytes.subarray(HEADER_BYTES, HEADER_BYTES + length);
      this.#bytes.set(data, HEADER_BYTES);
    }
  }

  /** Copies a message out. An impossible data length stays in the header, for who checks it. */
  take(message: Message): void {
    const { words } = message;
    const source = this.#words;
    for (let i = 0; i < words.length; i++) words[i] = source[i]!;
    const length = Math.min(message.dataBytes, message.capacity);
    if (length > 0) {
      message.bytes.set(this.#bytes.subarray(HEADER_BYTES, HEADER_BYTES + length), HEADER_BYTES);
    }
  }

  get spins(): number {
    return Atomics.load(this.#control, AT.SPINS);
  }

  set spins(spins: number) {
    Atomics.store(this.#control, AT.SPINS, spins);
  }

  // ---- reads of guest memory ----

  ask(low: number, high: number, length: number): void {
    Atomics.store(this.#control, AT.LOW, low | 0);
    Atomics.store(this.#control, AT.HIGH, high | 0);
    Atomics.store(this.#control, AT.LENGTH, length | 0);
  }

  get asked(): { low: number; high: number; length: number } {
    const at = (n: number): number => Atomics.load(this.#control, n) >>> 0;
    return { low: at(AT.LOW), high: at(AT.HIGH), length: at(AT.LENGTH) };
  }

  get status(): number {
    return Atomics.load(this.#control, AT.STATUS);
  }

  set status(status: number) {
    Atomics.store(this.#control, AT.STATUS, status);
  }

  /** The last `length` bytes of the message: from or to `message`. */
  putEnd(message: Message, length: number): void {
    const from = message.bytes.length - length;
    this.#bytes.set(message.bytes.subarray(from), MESSAGE_BYTES - length);
  }

  takeEnd(message: Message, length: number): void {
    message.bytes.set(this.#bytes.subarray(MESSAGE_BYTES - length), message.bytes.length - length);
  }

  // ---- failure ----

  putText(text: string): void {
    const kept = text.slice(0, 200);
    this.#bytes[HEADER_BYTES] = kept.length;
    for (let i = 0; i < kept.length; i++) {
      this.#bytes[HEADER_BYTES + 2 + 2 * i] = kept.charCodeAt(i) & 0xff;
      this.#bytes[HEADER_BYTES + 3 + 2 * i] = kept.charCodeAt(i) >> 8;
    }
  }

  /** Printable ASCII only: it is a service's word. */
  takeText(): string {
    let text = "";
    for (let i = 0; i < this.#bytes[HEADER_BYTES]!; i++) {
      const code = this.#bytes[HEADER_BYTES + 2 + 2 * i]!;
      text += code >= 32 && code < 127 ? String.fromCharCode(code) : "?";
    }
    return text;
  }
}
