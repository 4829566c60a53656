/**
 * Our end of a program's streams in a guest, or of the machine's own: frames (guest/agent/agent-protocol.ts) on a socket, joined to readable
 * and writable streams here.
 *
 * Standard input is read when there is room for it at the other end, so a program that reads nothing leaves ours alone after a window's worth.
 * Output that nobody takes here stops the socket, and by its credit the program.
 */
import type { Duplex, Readable, Writable } from "node:stream";
import type { WindowSize } from "../../common/control-line.ts";
import {
  AgentFrame,
  encodeFrame,
  FrameDecoder,
  HostFrame,
  MAX_PAYLOAD,
  numbers,
  STDIN_WINDOW,
} from "../guest/agent/agent-protocol.ts";

export type StreamOutcome =
  /** `status`: as wait4 has it. */
  | { readonly kind: "exited"; readonly status: number }
  /** Of a machine. */
  | { readonly kind: "ended"; readonly code: number }
  | { readonly kind: "failed"; readonly step: number; readonly errno: number }
  /** It has started, and nobody waits for its end. */
  | { readonly kind: "started" }
  /** The connection broke off. */
  | { readonly kind: "lost" }
  /** By us. */
  | { readonly kind: "detached" };

export interface StreamEnds {
  readonly stdin?: Readable | undefined;
  readonly stdout: Writable;
  readonly stderr: Writable;
  /** What becomes of standard input before it is sent; null: detach. */
  readonly filter?: (bytes: Buffer) => Buffer | null;
  /** Do not wait for the end. */
  readonly untilStarted?: boolean;
}

export class StreamClient {
  readonly outcome: Promise<StreamOutcome>;
  readonly #socket: Duplex;
  readonly #ends: StreamEnds;
  #resolve: (outcome: StreamOutcome) => void = () => {};
  #room = STDIN_WINDOW;
  #isOver = false;
  #isInputOver = false;

  constructor(socket: Duplex, ends: StreamEnds) {
    this.#socket = socket;
    this.#ends = ends;
    this.outcome = new Promise((resolve) => {
      this.#resolve = resolve;
    });
    const decoder = new FrameDecoder((type, payload) => this.#take(type, payload));
    socket.on("data", (bytes: Buffer) => {
      if (!decoder.push(bytes)) this.#finish({ kind: "lost" });
    });
    socket.on("error", () => this.#finish({ kind: "lost" }));
    for (const event of ["end", "close"]) socket.on(event, () => this.#finish({ kind: "lost" }));
    for (const out of [ends.stdout, ends.stderr]) out.on("drain", this.#drained);
    if (ends.stdin) this.#listen(ends.stdin);
  }

  resize({ rows, columns }: WindowSize): void {
    const size = Buffer.alloc(4);
    size.writeUInt16LE(rows & 0xffff, 0);
    size.writeUInt16LE(columns & 0xffff, 2);
    this.#send(HostFrame.RESIZE, size);
  }

  signal(number: number): void {
    this.#send(HostFrame.SIGNAL, numbers(number));
  }

  detach(): void {
    this.#finish({ kind: "detached" });
  }

  #send(type: number, payload: Uint8Array): void {
    if (!this.#isOver) this.#socket.write(encodeFrame(type, payload));
  }

  readonly #drained = (): void => {
    const { stdout, stderr } = this.#ends;
    if (!stdout.writableNeedDrain && !stderr.writableNeedDrain) this.#socket.resume();
  };

  #take(type: number, payload: Buffer): void {
    if (this.#isOver) return;
    const number = (at: number): number =>
      payload.length >= at + 4 ? payload.readUInt32LE(at) : 0;
    switch (type) {
      case AgentFrame.STDOUT:
      case AgentFrame.STDERR: {
        const { stdout, stderr } = this.#ends;
        if (!(type === AgentFrame.STDOUT ? stdout : stderr).write(payload)) this.#socket.pause();
        break;
      }
      case AgentFrame.STARTED:
        if (this.#ends.untilStarted) this.#finish({ kind: "started" });
        break;
      case AgentFrame.TAKEN:
        this.#room += number(0);
        this.#offer();
        break;
      case AgentFrame.EXITED:
        this.#finish({ kind: "exited", status: number(0) });
        break;
      case AgentFrame.ENDED:
        this.#finish({ kind: "ended", code: number(0) });
        break;
      case AgentFrame.FAILED:
        this.#finish({ kind: "failed", step: number(0), errno: number(4) });
        break;
    }
  }

  #listen(stdin: Readable): void {
    stdin.on("readable", this.#offer);
    stdin.once("end", this.#inputEnded);
    stdin.once("error", this.#inputEnded);
    this.#offer();
  }

  readonly #inputEnded = (): void => {
    if (this.#isInputOver) return;
    this.#isInputOver = true;
    this.#send(HostFrame.STDIN, new Uint8Array(0));
  };

  readonly #offer = (): void => {
    const { stdin, filter } = this.#ends;
    while (stdin && !this.#isOver && !this.#isInputOver && this.#room > 0) {
      const most = Math.min(this.#room, MAX_PAYLOAD);
      const block = stdin.read(Math.min(stdin.readableLength, most) || undefined) as Buffer | null;
      if (!block) return;
      const here = block.subarray(0, most);
      if (here.length < block.length) stdin.unshift(block.subarray(here.length));
      const bytes = filter ? filter(here) : here;
      if (bytes === null) {
        this.detach();
        return;
      }
      if (bytes.length === 0) continue;
      this.#room -= bytes.length;
      this.#send(HostFrame.STDIN, bytes);
    }
  };

  #finish(outcome: StreamOutcome): void {
    if (this.#isOver) return;
    this.#isOver = true;
    const { stdin, stdout, stderr } = this.#ends;
    for (const out of [stdout, stderr]) out.off("drain", this.#drained);
    stdin?.off("readable", this.#offer);
    stdin?.off("end", this.#inputEnded);
    this.#socket.destroy();
    this.#resolve(outcome);
  }
}

const SIGNALLED = 128;

/** The exit code of a shell for a status of wait4. */
export function exitCodeOf(status: number): number {
  const signal = status & 0x7f;
  return signal === 0 ? (status >> 8) & 0xff : SIGNALLED + signal;
}
