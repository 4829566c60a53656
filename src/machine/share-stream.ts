/**
 * A shared folder at the other end of a file device's stream: one request after the other, read from guest memory and answered into it.
 *
 * Work is done where it is asked for, in the machine's thread: a look at a file costs a tenth of a hand-over to another thread and back
 * (ADR 23). The service is suspect: what it says is checked. A request is copied before it is looked at.
 */
import { HypolithError } from "../base/errors.ts";
import { MAX_REQUEST_BYTES } from "../devices/virtio/file-device.ts";
import {
  decodeFileHeader,
  encodeFileAnswers,
  type FileAnswer,
} from "../devices/virtio/file-message.ts";
import type { ShareSession } from "../sharing/share-session.ts";
import type { StreamServer } from "./stream-server.ts";

const NO_ROOM: readonly Uint8Array[] = [];

export class ShareStream implements StreamServer {
  readonly #session: ShareSession;
  #answers: FileAnswer[] = [];
  /** A request whose room for a reply comes next. */
  #waiting: { readonly tag: number; readonly request: Uint8Array } | undefined;
  /** What requests are copied to. */
  #copy = new Uint8Array(0);

  constructor(session: ShareSession) {
    this.#session = session;
  }

  /** Everything comes with its memory. */
  take(): void {}

  move(toMemory: boolean, header: Uint8Array, memory: readonly Uint8Array[]): void {
    const { tag, length = 0, room = 0 } = decodeFileHeader(header) ?? {};
    if (tag === undefined) return;
    if (toMemory) {
      const waiting = this.#waiting;
      this.#waiting = undefined;
      if (waiting?.tag === tag) this.#handle(tag, waiting.request, memory);
      return;
    }
    if (bytesOf(memory) !== length || length > MAX_REQUEST_BYTES) return;
    const request = this.#gather(memory, length);
    if (room > 0) this.#waiting = { tag, request };
    else this.#handle(tag, request, NO_ROOM);
  }

  get hasMore(): boolean {
    return this.#answers.length > 0;
  }

  give(): Uint8Array | null {
    const answers = this.#answers;
    if (answers.length === 0) return null;
    this.#answers = [];
    return encodeFileAnswers(answers);
  }

  save(): unknown {
    return {
      answers: this.#answers.map((answer) => ({ ...answer })),
      session: this.#session.save(),
    };
  }

  restore(state: unknown): void {
    const { answers, session } = (state ?? {}) as { answers?: FileAnswer[]; session?: unknown };
    const isAnswer = ({ tag, written }: Partial<FileAnswer>): boolean =>
      Number.isSafeInteger(tag) && Number.isSafeInteger(written);
    if (!Array.isArray(answers) || !answers.every(isAnswer))
      throw new HypolithError("snapshot-shape", "the saved end of a folder does not fit");
    this.#session.restore(session);
    this.#answers = answers;
  }

  #handle(tag: number, request: Uint8Array, memory: readonly Uint8Array[]): void {
    const reply = this.#session.handle(request, bytesOf(memory));
    let at = 0;
    for (const part of memory) {
      if (at >= reply.length) break;
      const bytes = reply.subarray(at, at + part.length);
      part.set(bytes);
      at += bytes.length;
    }
    this.#answers.push({ tag, written: at });
  }

  #gather(memory: readonly Uint8Array[], length: number): Uint8Array {
    if (this.#copy.length < length) this.#copy = new Uint8Array(length);
    let at = 0;
    for (const part of memory) {
      this.#copy.set(part, at);
      at += part.length;
    }
    return this.#copy.subarray(0, length);
  }
}

function bytesOf(memory: readonly Uint8Array[]): number {
  return memory.reduce((sum, part) => sum + part.length, 0);
}
