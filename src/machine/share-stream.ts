/**
 * A shared folder at the other end of a file device's stream: pieces of requests in, parts of replies out, one request after the other.
 *
 * Work is done where it is asked for, in the machine's thread: a look at a file costs a tenth of a hand-over to another thread and back
 * (ADR 23). The service is suspect: requests are bounded here as well.
 */
import { HypolithError } from "../base/errors.ts";
import { type FilePiece, lifeOf, MAX_REQUEST_BYTES } from "../devices/virtio/file-device.ts";
import {
  decodePiece,
  type FileAnswer,
  FileAnswerKind,
  PIECE_HEADER_BYTES,
  putAnswer,
} from "../devices/virtio/file-message.ts";
import type { ShareSession } from "../sharing/share-session.ts";

const NO_BYTES = new Uint8Array(0);
/** Of requests whose pieces are still coming: more than a device has in flight. */
const MAX_PARTIAL = 256;

export class ShareStream {
  readonly #session: ShareSession;
  readonly #limit: number;
  readonly #answers: FileAnswer[] = [];
  readonly #partial = new Map<number, Uint8Array>();
  /** of the device */
  #life = 0;

  /** `limit`: bytes that one message to the service can hold. */
  constructor(session: ShareSession, limit: number) {
    this.#session = session;
    this.#limit = limit;
  }

  take(message: Uint8Array): void {
    const piece = decodePiece(message);
    if (!piece || piece.length > MAX_REQUEST_BYTES) return;
    const { tag, length, offset, bytes, room } = piece;
    const request = this.#gather(piece);
    if (!request) return;
    if (offset + bytes.length < length) {
      const kind = FileAnswerKind.ACCEPTED;
      this.#answers.push({ kind, tag, length: 0, offset: 0, bytes: NO_BYTES });
      return;
    }
    this.#partial.delete(tag);
    this.#reply(tag, this.#session.handle(request, room));
  }

  /** What the guest knows by number in the folder would be unknown, or another file. */
  save(): never {
    throw new HypolithError("snapshot-share", "a folder is shared with the guest", {
      hint: "a machine with shared folders cannot be kept in a snapshot yet",
    });
  }

  get hasMore(): boolean {
    return this.#answers.length > 0;
  }

  /** As many answers as one message can hold, or null. */
  give(): Uint8Array | null {
    let size = 0;
    let count = 0;
    for (const { bytes } of this.#answers) {
      if (size + PIECE_HEADER_BYTES + bytes.length > this.#limit) break;
      size += PIECE_HEADER_BYTES + bytes.length;
      count++;
    }
    if (count === 0) return null;
    const message = new Uint8Array(size);
    let at = 0;
    for (const answer of this.#answers.splice(0, count)) at = putAnswer(message, at, answer);
    return message;
  }

  /** The request up to and with this piece; undefined if it is none that can be. */
  #gather({ tag, length, offset, bytes }: FilePiece): Uint8Array | undefined {
    const life = lifeOf(tag);
    // A driver that has begun anew ends no request of before.
    if (life !== this.#life) this.#partial.clear();
    this.#life = life;
    if (offset === 0 && bytes.length === length) return bytes;
    if (offset === 0 && this.#partial.size < MAX_PARTIAL)
      this.#partial.set(tag, new Uint8Array(length));
    const request = this.#partial.get(tag);
    if (request?.length !== length) return undefined;
    request.set(bytes, offset);
    return request;
  }

  #reply(tag: number, reply: Uint8Array): void {
    const { length } = reply;
    const part = this.#limit - PIECE_HEADER_BYTES;
    let offset = 0;
    do {
      const bytes = reply.subarray(offset, offset + part);
      this.#answers.push({ kind: FileAnswerKind.REPLY, tag, length, offset, bytes });
      offset += bytes.length;
    } while (offset < length);
  }
}
