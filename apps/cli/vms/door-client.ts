/** Talking to a running machine through its door. */
import { rmSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { HypolithError } from "../../../src/base/errors.ts";
import {
  type DoorAnswers,
  type DoorReply,
  type DoorRequest,
  type MachineInfo,
  takeLines,
} from "./door-protocol.ts";
import { doorPath, machineNames } from "./runtime-folder.ts";

const ANSWER_MS = 5000;

/** Asks the machine `name`. Throws HypolithError: no such machine, no answer, or what the machine says against it. */
export async function ask<R extends DoorRequest>(
  name: string,
  request: R,
): Promise<DoorAnswers[R["verb"]]> {
  const reply = await exchange(doorPath(name), request).catch((cause: Error) => {
    throw new HypolithError("no-such-machine", `there is no machine ${name} running`, {
      cause,
      hint: "hypo ps lists what is running",
    });
  });
  if ("error" in reply) throw new HypolithError(reply.error.code, reply.error.message);
  return reply.result as DoorAnswers[R["verb"]];
}

function exchange(path: string, request: DoorRequest): Promise<DoorReply> {
  return new Promise((resolve, reject) => {
    const socket: Socket = connect(path);
    let text = "";
    const fail = (error: Error): void => {
      socket.destroy();
      reject(error);
    };
    socket.setTimeout(ANSWER_MS, () => fail(new Error(`no answer in ${ANSWER_MS / 1000} s`)));
    socket.setEncoding("utf8");
    socket.once("error", fail);
    socket.once("close", () => reject(new Error("the door was closed")));
    socket.once("connect", () => socket.write(`${JSON.stringify({ id: 1, ...request })}\n`));
    socket.on("data", (data: string) => {
      const rest = takeLines(text + data, (line) => {
        try {
          resolve(JSON.parse(line) as DoorReply);
        } catch (error) {
          reject(error as Error);
        }
        socket.destroy();
      });
      if (rest === null) fail(new Error("an answer without an end"));
      else text = rest;
    });
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
    socket.once("error", () => done(false));
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
