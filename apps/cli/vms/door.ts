/** The door of a running machine: a Unix socket by which other processes of its user talk to it. */
import { rmSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { HypolithError } from "../../../src/base/errors.ts";
import { DRILLS, type DrillName, type ServicesReport } from "../../../src/control/protocol.ts";
import { isAnswered } from "./door-client.ts";
import { type DoorReply, type MachineInfo, takeLines } from "./door-protocol.ts";
import { doorPath, openRuntimeFolder } from "./runtime-folder.ts";

/** What is behind the door. */
export interface DoorService {
  readonly info: MachineInfo;
  services(): Promise<ServicesReport | undefined>;
  /** Answers why it was not done, or null. */
  drill(service: string, drill: DrillName): Promise<string | null>;
}

/** Opens a door; its answer closes it. Throws HypolithError "name-taken" if a machine of that name is running. */
export async function openDoor(service: DoorService): Promise<() => void> {
  const { name } = service.info;
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
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.once("close", () => sockets.delete(socket));
    serve(socket, service);
  });
  await listen(server, path);
  const close = (): void => {
    for (const socket of sockets) socket.destroy();
    server.close();
    rmSync(path, { force: true });
  };
  process.once("exit", close);
  return close;
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
  let text = "";
  socket.setEncoding("utf8");
  socket.on("error", () => {});
  socket.on("data", (data: string) => {
    const rest = takeLines(text + data, (line) => {
      void answer(line, service).then((reply) => socket.write(`${JSON.stringify(reply)}\n`));
    });
    if (rest === null) socket.destroy();
    else text = rest;
  });
}

async function answer(line: string, service: DoorService): Promise<DoorReply> {
  let id = 0;
  try {
    const request = JSON.parse(line) as Record<string, unknown>;
    id = Number(request.id) || 0;
    return { id, result: await perform(request, service) };
  } catch (error) {
    const { message } = error as Error;
    const code = error instanceof HypolithError ? error.code : "door-request";
    return { id, error: { code, message } };
  }
}

async function perform(request: Record<string, unknown>, service: DoorService): Promise<unknown> {
  const { verb } = request;
  if (verb === "info") return service.info;
  if (verb === "services") {
    const report = await service.services();
    if (!report) throw new HypolithError("machine-ended", "the machine has ended");
    return report;
  }
  if (verb === "drill") {
    const drill = DRILLS.find((name) => name === request.drill);
    if (!drill) throw new HypolithError("door-request", `there is no drill ${request.drill}`);
    const problem = await service.drill(String(request.service), drill);
    if (problem !== null) throw new HypolithError("drill-refused", problem);
    return null;
  }
  throw new HypolithError("door-request", `this machine does not know the request ${verb}`);
}
