/** The machine's end of `hypo attach`: who is attached sees its output, and may type. */
import type { Socket } from "node:net";
import type { WindowSize } from "../../common/control-line.ts";
import {
  AgentFrame,
  encodeFrame,
  FrameDecoder,
  HostFrame,
  MAX_PAYLOAD,
  numbers,
} from "../guest/agent/agent-protocol.ts";

export interface AttachedInput {
  /** `done` when there is room for more. */
  bytes(bytes: Buffer, done: () => void): void;
  end(): void;
  resize(size: WindowSize): void;
  signal(number: number): void;
}

/** Who does not read for so long is left behind. */
const MAX_UNREAD = 16 << 20;

export class Attachments {
  readonly #input: AttachedInput;
  readonly #sockets = new Set<Socket>();

  constructor(input: AttachedInput) {
    this.#input = input;
  }

  get count(): number {
    return this.#sockets.size;
  }

  add(socket: Socket): void {
    this.#sockets.add(socket);
    const decoder = new FrameDecoder((type, payload) => this.#take(socket, type, payload));
    socket.on("data", (bytes: Buffer) => {
      if (!decoder.push(bytes)) socket.destroy();
    });
    socket.once("close", () => this.#sockets.delete(socket));
  }

  output(stream: 1 | 2, data: Uint8Array): void {
    if (this.#sockets.size === 0) return;
    const type = stream === 1 ? AgentFrame.STDOUT : AgentFrame.STDERR;
    for (let at = 0; at < data.length; at += MAX_PAYLOAD) {
      const frame = encodeFrame(type, data.subarray(at, at + MAX_PAYLOAD));
      for (const socket of this.#sockets) {
        socket.write(frame);
        if (socket.writableLength > MAX_UNREAD) socket.destroy();
      }
    }
  }

  end(code: number): void {
    for (const socket of this.#sockets) socket.end(encodeFrame(AgentFrame.ENDED, numbers(code)));
    this.#sockets.clear();
  }

  #take(socket: Socket, type: number, payload: Buffer): void {
    if (type === HostFrame.STDIN) {
      if (payload.length === 0) {
        this.#input.end();
        return;
      }
      const bytes = Buffer.from(payload);
      this.#input.bytes(bytes, () => {
        if (socket.writable) socket.write(encodeFrame(AgentFrame.TAKEN, numbers(bytes.length)));
      });
    } else if (type === HostFrame.RESIZE && payload.length >= 4) {
      this.#input.resize({ rows: payload.readUInt16LE(0), columns: payload.readUInt16LE(2) });
    } else if (type === HostFrame.SIGNAL && payload.length >= 4) {
      this.#input.signal(payload.readUInt32LE(0));
    }
  }
}
