/**
 * The machine's process between a door and the agent in its guest: bytes both ways, with the credit of both ends. What they mean is between
 * who asks and the agent (guest/agent/agent-protocol.ts).
 */
import type { Duplex } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { HypolithError } from "../../../src/base/errors.ts";
import type { ConnectionEvents, GuestConnection } from "../../../src/control/machine-client.ts";
import { SOCKET_WINDOW } from "../../../src/control/protocol.ts";
import { AGENT_PORT } from "../guest/agent/agent-protocol.ts";

type Connect = (port: number, events: ConnectionEvents) => GuestConnection;

/** A guest that boots has no agent yet. */
const BOOT_MS = 90_000;
const RETRY_MS = 100;

export interface AgentLine {
  /** From now on its bytes are the agent's. */
  join(socket: Duplex): void;
}

/** Throws HypolithError "no-agent" if nobody answers in the guest. `isOver`: the machine has ended. */
export async function openAgentLine(
  connect: Connect,
  isOver: () => boolean,
  patienceMs = BOOT_MS,
): Promise<AgentLine> {
  const deadline = performance.now() + patienceMs;
  while (!isOver()) {
    const line = new Line();
    if (await line.open(connect, deadline - performance.now())) return line;
    if (performance.now() > deadline) {
      throw new HypolithError("no-agent", "the agent in the guest does not answer", {
        hint: "hypo logs shows what the guest says; hypo attach leads to its console",
      });
    }
    await sleep(RETRY_MS);
  }
  throw new HypolithError("machine-ended", "the machine has ended");
}

class Line implements AgentLine {
  #connection: GuestConnection | undefined;
  #socket: Duplex | undefined;
  /** Of the guest, before anybody is joined. */
  readonly #early: Uint8Array[] = [];
  #waiting: Buffer[] = [];
  #underWay = 0;
  #isOver = false;
  #hasEnded = false;

  open(connect: Connect, ms: number): Promise<boolean> {
    return new Promise((resolve) => {
      const timer = setTimeout(() => {
        this.#connection?.close();
        resolve(false);
      }, ms);
      const done = (isOpen: boolean): void => {
        clearTimeout(timer);
        resolve(isOpen);
      };
      this.#connection = connect(AGENT_PORT, {
        opened: () => done(true),
        data: (bytes) => this.#output(bytes),
        taken: (bytes) => {
          this.#underWay -= bytes;
          this.#offer();
        },
        ended: () => this.#socket?.end(),
        closed: () => {
          this.#isOver = true;
          this.#socket?.end();
          done(false);
        },
      });
    });
  }

  join(socket: Duplex): void {
    this.#socket = socket;
    for (const bytes of this.#early.splice(0)) this.#output(bytes);
    if (this.#isOver) {
      socket.end();
      return;
    }
    socket.on("data", (bytes: Buffer) => {
      this.#waiting.push(bytes);
      this.#offer();
    });
    socket.once("end", () => {
      this.#hasEnded = true;
      this.#offer();
    });
    socket.once("close", () => this.#connection?.close());
  }

  #output(bytes: Uint8Array): void {
    const { length } = bytes;
    if (!this.#socket) this.#early.push(bytes);
    else if (this.#socket.writable)
      this.#socket.write(bytes, () => this.#connection?.taken(length));
  }

  #offer(): void {
    while (this.#waiting.length > 0 && this.#underWay < SOCKET_WINDOW) {
      const head = this.#waiting.shift()!;
      const part = head.subarray(0, SOCKET_WINDOW - this.#underWay);
      if (part.length < head.length) this.#waiting.unshift(head.subarray(part.length));
      this.#underWay += part.length;
      // A copy: a Buffer of Node's may be a window of a larger one, all of which would be sent.
      this.#connection?.write(new Uint8Array(part));
    }
    if (this.#waiting.length > 0) this.#socket?.pause();
    else if (this.#hasEnded) this.#connection?.end();
    else this.#socket?.resume();
  }
}
