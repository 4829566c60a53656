/** The door of a running machine: a Unix socket by which other processes of its user talk to it. */
import { rmSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { HypolithError } from "../../../src/base/errors.ts";
import {
  DRILLS,
  type DrillName,
  type ServicesReport,
  TRACE_KINDS,
  type TraceRequest,
} from "../../../src/control/protocol.ts";
import type { AgentLine } from "./agent-line.ts";
import { isAnswered } from "./door-client.ts";
import {
  type DoorReply,
  LineReader,
  type MachineInfo,
  type MachineStats,
  type SnapshotTaken,
} from "./door-protocol.ts";
import { doorPath, openRuntimeFolder } from "./runtime-folder.ts";

/** What is behind the door. Where it throws HypolithError, that is the answer. */
export interface DoorService {
  readonly name: string;
  info(): MachineInfo;
  services(): Promise<ServicesReport | undefined>;
  stats(): Promise<MachineStats>;
  /** Answers why it was not done, or null. */
  drill(service: string, drill: DrillName): Promise<string | null>;
  stop(seconds: number): void;
  kill(signal: string): void;
  pause(): void;
  unpause(): void;
  /** The exit code, when it is known. */
  readonly ended: Promise<number>;
  attach(socket: Socket): void;
  openAgent(): Promise<AgentLine>;
  /** Into a folder of its own. */
  snapshot(folder: string): Promise<SnapshotTaken>;
  trace(request: TraceRequest, socket: Socket): void;
}

/** What was said must have left before the process ends, but not be waited for long. */
const FAREWELL_MS = 500;

/** Opens a door; its answer closes it. Throws HypolithError "name-taken" if a machine of that name is running. */
export async function openDoor(service: DoorService): Promise<() => Promise<void>> {
  const { name } = service;
  openRuntimeFolder();
  const path = doorPath(name);
  if (await isAnswered(path)) {
    throw new HypolithError("name-taken", `a machine named ${name} is running`, {
      hint: "choose another --name; hypo ps lists what is running",
    });
  }
  // Left by a process that was killed.
  rmSync(path, { force: true });
  const sockets = new Set<Socket>();
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    sockets.add(socket);
    socket.once("close", () => sockets.delete(socket));
    serve(socket, service);
  });
  await listen(server, path);
  // Once only: the next machine of this name has its door at the same place.
  const removeDoor = (): void => rmSync(path, { force: true });
  process.once("exit", removeDoor);
  return async () => {
    server.close();
    removeDoor();
    process.off("exit", removeDoor);
    const gone = [...sockets].map(
      (socket) => new Promise((resolve) => socket.once("close", resolve)),
    );
    for (const socket of sockets) socket.end(() => socket.destroy());
    await Promise.race([Promise.all(gone), sleep(FAREWELL_MS, undefined, { ref: false })]);
    for (const socket of sockets) socket.destroy();
  };
}

/** The machine keeps the process alive, not its door. */
function listen(server: Server, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(path, () => {
      server.unref();
      resolve();
    });
  });
}

function serve(socket: Socket, service: DoorService): void {
  const reader = new LineReader();
  socket.on("error", () => {});
  const take = (bytes: Buffer): void => {
    for (let line = reader.take(bytes); line !== undefined; line = reader.take()) {
      if (line === null) {
        socket.destroy();
        return;
      }
      void answer(line, service).then(({ reply, use }) => {
        if (!socket.writable) return;
        socket.write(`${JSON.stringify(reply)}\n`);
        if (!use) return;
        socket.off("data", take);
        socket.off("end", end);
        socket.pause();
        const rest = reader.rest();
        if (rest.length > 0) socket.unshift(rest);
        use(socket);
        socket.resume();
      });
    }
  };
  const end = (): void => {
    socket.end();
  };
  socket.on("data", take);
  socket.on("end", end);
}

interface Answer {
  readonly reply: DoorReply;
  /** Who has the connection from now on. */
  readonly use?: (socket: Socket) => void;
}

async function answer(line: string, service: DoorService): Promise<Answer> {
  let id = 0;
  try {
    const request = JSON.parse(line) as Record<string, unknown>;
    id = Number(request.id) || 0;
    if (request.verb === "attach")
      return { reply: { id, result: null }, use: (socket) => service.attach(socket) };
    if (request.verb === "agent") {
      const agent = await service.openAgent();
      return { reply: { id, result: null }, use: (socket) => agent.join(socket) };
    }
    if (request.verb === "trace") {
      const wanted = checkTrace(request.request);
      return { reply: { id, result: null }, use: (socket) => service.trace(wanted, socket) };
    }
    return { reply: { id, result: await perform(request, service) } };
  } catch (error) {
    const { message } = error as Error;
    if (!(error instanceof HypolithError))
      return { reply: { id, error: { code: "door-request", message } } };
    const { code, hint } = error;
    return { reply: { id, error: { code, message, ...(hint === undefined ? {} : { hint }) } } };
  }
}

function checkTrace(value: unknown): TraceRequest {
  const { kind, names, processes } = (value ?? {}) as Record<string, unknown>;
  const known = TRACE_KINDS.find((word) => word === kind);
  if (!known) throw new HypolithError("door-request", `there is no trace of ${kind}`);
  const words = (list: unknown): string[] | undefined =>
    Array.isArray(list) ? list.map(String) : undefined;
  const [only, tasks] = [words(names), words(processes)];
  return {
    kind: known,
    ...(only ? { names: only } : {}),
    ...(tasks ? { processes: tasks } : {}),
  };
}

async function perform(request: Record<string, unknown>, service: DoorService): Promise<unknown> {
  switch (request.verb) {
    case "info":
      return service.info();
    case "services": {
      const report = await service.services();
      if (!report) throw new HypolithError("machine-ended", "the machine has ended");
      return report;
    }
    case "stats":
      return service.stats();
    case "stop":
      service.stop(Math.max(0, Number(request.seconds) || 0));
      return null;
    case "kill":
      service.kill(String(request.signal));
      return null;
    case "pause":
      service.pause();
      return null;
    case "unpause":
      service.unpause();
      return null;
    case "snapshot":
      return service.snapshot(String(request.folder));
    case "wait":
      return { exitCode: await service.ended };
    case "drill": {
      const drill = DRILLS.find((name) => name === request.drill);
      if (!drill) throw new HypolithError("door-request", `there is no drill ${request.drill}`);
      const problem = await service.drill(String(request.service), drill);
      if (problem !== null) throw new HypolithError("drill-refused", problem);
      return null;
    }
  }
  throw new HypolithError("door-request", `this machine does not know the request ${request.verb}`);
}
