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
import { lengthOf, scatter, WholeBuffer } from "./scattered.ts";
import type { StreamServer } from "./stream-server.ts";

const NO_ROOM: readonly Uint8Array[] = [];

export class ShareStream implements StreamServer {
  readonly #session: ShareSession;
  #answers: FileAnswer[] = [];
  /** A request whose room for a reply comes next. */
  #waiting: { readonly tag: number; readonly request: Uint8Array } | undefined;
  /** What requests are copied to. */
  readonly #copy = new WholeBuffer();

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
    if (lengthOf(memory) !== length || length > MAX_REQUEST_BYTES) return;
    const request = this.#copy.gather(memory, length);
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
    const reply = this.#session.handle(request, lengthOf(memory));
    this.#answers.push({ tag, written: scatter(reply, memory) });
  }
}
