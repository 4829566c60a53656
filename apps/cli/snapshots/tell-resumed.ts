/** Tells the agent in a guest that goes on from a snapshot what time it is, and gives its kernel new randomness. */
import { randomBytes } from "node:crypto";
import type { ConnectionEvents, GuestConnection } from "../../../src/control/machine-client.ts";
import {
  AGENT_PORT,
  AgentFrame,
  encodeRequest,
  FrameDecoder,
  RequestFlag,
} from "../guest/agent/agent-protocol.ts";

type Connect = (port: number, events: ConnectionEvents) => GuestConnection;

const PATIENCE_MS = 10_000;
const ENTROPY_WORDS = 8;

/** Answers why it was not done, or null. */
export function tellResumed(connect: Connect): Promise<string | null> {
  return new Promise((resolve) => {
    let isOver = false;
    const finish = (problem: string | null): void => {
      if (isOver) return;
      isOver = true;
      clearTimeout(timer);
      connection.close();
      resolve(problem);
    };
    const timer = setTimeout(() => finish("its agent does not answer"), PATIENCE_MS);
    const decoder = new FrameDecoder((type, payload) => {
      if (type === AgentFrame.EXITED) finish(null);
      else if (type === AgentFrame.FAILED) finish(`error ${payload.readUInt32LE(4)}`);
    });
    const connection = connect(AGENT_PORT, {
      opened: () => connection.write(new Uint8Array(resumeRequest(Date.now()))),
      data: (bytes) => {
        if (!decoder.push(Buffer.from(bytes))) finish("its agent says what makes no sense");
        connection.taken(bytes.length);
      },
      taken: () => {},
      ended: () => finish("its agent is of another make"),
      closed: () => finish("its agent does not answer"),
    });
  });
}

/** Numbers in the place of groups: seconds, low and high word, nanoseconds, and words of randomness. */
export function resumeRequest(nowMs: number): Buffer {
  const seconds = Math.floor(nowMs / 1000);
  const nanoseconds = Math.round((nowMs - seconds * 1000) * 1e6);
  const entropy = new Uint32Array(new Uint8Array(randomBytes(4 * ENTROPY_WORDS)).buffer);
  return encodeRequest({
    ...{ argv: [], places: [], environment: {}, folder: "/", uid: 0, gid: 0, rows: 0, columns: 0 },
    flags: RequestFlag.RESUME,
    groups: [seconds % 2 ** 32, Math.floor(seconds / 2 ** 32), nanoseconds, ...entropy],
  });
}
