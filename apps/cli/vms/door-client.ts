/** Talking to a running machine through its door. */
import { rmSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { HypolithError } from "../../../src/base/errors.ts";
import {
  type DoorAnswers,
  type DoorReply,
  type DoorRequest,
  LineReader,
  type MachineInfo,
} from "./door-protocol.ts";
import { doorPath, isMachineName, machineNames } from "./runtime-folder.ts";

const ANSWER_MS = 3000;
/** These take as long as they take. */
const PATIENT: ReadonlySet<DoorRequest["verb"]> = new Set(["wait", "agent", "snapshot"]);

/** Asks the machine `name`. Throws HypolithError: no such machine, no answer, or what the machine says against it. */
export async function ask<R extends DoorRequest>(
  name: string,
  request: R,
): Promise<DoorAnswers[R["verb"]]> {
  const { socket, result } = await exchange(name, request);
  socket.destroy();
  return result as DoorAnswers[R["verb"]];
}

/** A connection that carries something else from now on. */
export async function openStream(
  name: string,
  request: Extract<DoorRequest, { verb: "attach" | "agent" | "trace" }>,
): Promise<Socket> {
  return (await exchange(name, request)).socket;
}

interface Exchange {
  readonly socket: Socket;
  readonly result: unknown;
}

async function exchange(name: string, request: DoorRequest): Promise<Exchange> {
  if (!isMachineName(name)) throw failure(name, new Error("that is no name of a machine"));
  const path = doorPath(name);
  const { socket, reply } = await talk(path, request).catch((cause: NodeJS.ErrnoException) => {
    throw failure(name, cause);
  });
  if ("error" in reply) {
    socket.destroy();
    const { code, message, hint } = reply.error;
    throw new HypolithError(code, `${name}: ${message}`, hint === undefined ? {} : { hint });
  }
  return { socket, result: reply.result };
}

function failure(name: string, cause: NodeJS.ErrnoException): HypolithError {
  if (cause.code === "EACCES" || cause.code === "EPERM") {
    return new HypolithError("door-refused", `the machine ${name} is not yours to talk to`, {
      cause,
      hint: "its user can, or root",
    });
  }
  if (cause instanceof DoorTimeout) {
    return new HypolithError("door-silent", `the machine ${name} does not answer`, {
      cause,
      hint: `its process may hang; hypo ps says its PID, and hypo rm -f ${name} ends it`,
    });
  }
  return new HypolithError("no-such-machine", `there is no machine ${name} running`, {
    cause,
    hint: "hypo ps lists what is running, hypo ps -a also what has ended",
  });
}

class DoorTimeout extends Error {}

function talk(
  path: string,
  request: DoorRequest,
): Promise<{ readonly socket: Socket; readonly reply: DoorReply }> {
  return new Promise((resolve, reject) => {
    const socket = connect({ path, allowHalfOpen: true });
    const reader = new LineReader();
    const fail = (error: Error): void => {
      socket.destroy();
      reject(error);
    };
    const closed = (): void => fail(new Error("the door was closed"));
    if (!PATIENT.has(request.verb)) {
      socket.setTimeout(ANSWER_MS, () =>
        fail(new DoorTimeout(`no answer in ${ANSWER_MS / 1000} s`)),
      );
    }
    socket.on("error", fail);
    socket.once("close", closed);
    socket.once("end", closed);
    socket.once("connect", () => socket.write(`${JSON.stringify({ id: 1, ...request })}\n`));
    const take = (bytes: Buffer): void => {
      const line = reader.take(bytes);
      if (line === null) fail(new Error("an answer without an end"));
      if (line === undefined || line === null) return;
      socket.setTimeout(0);
      socket.pause();
      socket.off("data", take);
      socket.off("close", closed);
      socket.off("end", closed);
      const rest = reader.rest();
      if (rest.length > 0) socket.unshift(rest);
      try {
        resolve({ socket, reply: JSON.parse(line) as DoorReply });
      } catch (error) {
        fail(error as Error);
      }
    };
    socket.on("data", take);
  });
}

/** Whether anybody is behind the door. */
export function isAnswered(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path);
    const done = (isThere: boolean): void => {
      socket.destroy();
      resolve(isThere);
    };
    socket.once("connect", () => done(true));
    socket.once("error", (error: NodeJS.ErrnoException) => done(error.code === "EACCES"));
  });
}

/** The machines that answer, by name. The doors of those that are gone are taken away. */
export async function runningMachines(): Promise<MachineInfo[]> {
  const infos = await Promise.all(
    machineNames().map(async (name) => {
      try {
        return await ask(name, { verb: "info" });
      } catch {
        const path = doorPath(name);
        if (!(await isAnswered(path))) rmSync(path, { force: true });
        return undefined;
      }
    }),
  );
  return infos.filter((info) => info !== undefined);
}

/** The machine that the user means: by name, or the only one there is. */
export async function chooseMachine(name: string | undefined): Promise<string> {
  if (name !== undefined) return name;
  const running = await runningMachines();
  if (running.length === 1) return running[0]!.name;
  const names = running.map((info) => info.name).join(", ");
  throw new HypolithError(
    "which-machine",
    running.length === 0 ? "no machine is running" : `several machines are running: ${names}`,
    { hint: running.length === 0 ? "hypo run starts one" : "name one of them" },
  );
}
