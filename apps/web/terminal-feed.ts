/**
 * From the guest to the terminal, at the terminal's pace. A page in the background draws next to nothing while its guest runs on, and a
 * terminal that is behind by too much throws things away without a word. So only some output is under way at a time; of what waits, the
 * oldest is dropped when it gets too much: it would have left the scrollback unseen.
 */
export interface TerminalSink {
  write(data: Uint8Array | string, done?: () => void): void;
}

/** At most this much is in the terminal's own queue. */
const UNDER_WAY = 256 * 1024;
/** At most this much waits here: more lines than a scrollback holds. */
const WAITING = 2 * 2 ** 20;

export class TerminalFeed {
  readonly #sink: TerminalSink;
  #waiting: Uint8Array[] = [];
  #waitingBytes = 0;
  #underWay = 0;
  #dropped = 0;

  constructor(sink: TerminalSink) {
    this.#sink = sink;
  }

  write(data: Uint8Array): void {
    this.#waiting.push(data);
    this.#waitingBytes += data.length;
    while (this.#waitingBytes > WAITING && this.#waiting.length > 1) {
      const oldest = this.#waiting.shift()!;
      this.#waitingBytes -= oldest.length;
      this.#dropped += oldest.length;
    }
    this.#pump();
  }

  #pump(): void {
    while (this.#waiting.length > 0 && this.#underWay < UNDER_WAY) {
      if (this.#dropped > 0) {
        // CAN ends an escape sequence that lost its end.
        this.#sink.write(`\x18\r\n\x1b[0m[${this.#dropped} bytes of output left out]\r\n`);
        this.#dropped = 0;
      }
      const data = this.#waiting.shift()!;
      this.#waitingBytes -= data.length;
      this.#underWay += data.length;
      this.#sink.write(data, () => {
        this.#underWay -= data.length;
        this.#pump();
      });
    }
  }
}
