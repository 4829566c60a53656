/** `hypo exec` and `hypo attach`: our streams are those of a program in a guest, or of a machine. */
import { constants } from "node:os";
import { type AgentRequest, RequestFlag } from "../guest/agent/agent-protocol.ts";
import { JOB_ENVIRONMENT } from "../guest/job.ts";
import { parseEnvironment } from "../run-plan.ts";
import { windowSize } from "../terminal/console-terminal.ts";
import type { StopRequests } from "../terminal/stop-requests.ts";
import { UsageError } from "../usage-error.ts";
import type { AttachOptions, ExecOptions } from "./commands.ts";
import { DetachKeys, parseDetachKeys } from "./detach-keys.ts";
import { ask, openStream } from "./door-client.ts";
import { exitCodeFor, type GuestDoor, placesOf, runTool, startProgram } from "./guest-program.ts";
import { findUser, type GuestUser } from "./guest-user.ts";
import { openRawTerminal } from "./raw-terminal.ts";
import { StreamClient, type StreamOutcome } from "./stream-client.ts";

export const ROOT: GuestUser = { uid: 0, gid: 0, groups: [], name: "root", home: "/root" };

export async function execInMachine(
  vm: string,
  command: readonly string[],
  options: ExecOptions,
  stops: StopRequests,
): Promise<number> {
  if (command.length === 0) throw new UsageError("exec needs a command", "hypo exec NAME COMMAND");
  const keys = parseDetachKeys(options.detachKeys);
  const request = await makeRequest(vm, command, options);
  const isTty = options.tty === true;
  const isDetached = options.detach === true;
  const reads = options.interactive === true && !isDetached;
  const filter = reads && isTty ? new DetachKeys(keys) : undefined;
  const client = await startProgram(vm, request, {
    stdin: reads ? process.stdin : undefined,
    stdout: process.stdout,
    stderr: process.stderr,
    ...(filter && { filter: (bytes: Buffer) => filter.filter(bytes) }),
    untilStarted: isDetached,
  });
  passSignals(client, stops);
  const close = reads && isTty ? openRawTerminal((size) => client.resize(size)) : () => {};
  const outcome = await client.outcome;
  close();
  return exitCodeFor(outcome, request);
}

async function makeRequest(
  vm: string,
  argv: readonly string[],
  options: ExecOptions,
): Promise<AgentRequest> {
  const info = await ask(vm, { verb: "info" });
  const wanted = options.user ?? info.user ?? undefined;
  const user = wanted === undefined ? ROOT : await lookUp(vm, wanted);
  const isTty = options.tty === true;
  const isDetached = options.detach === true;
  const environment: Record<string, string> = {
    ...JOB_ENVIRONMENT,
    ...info.environment,
    ...{ HOME: user.home, USER: user.name, LOGNAME: user.name },
    ...(isTty && { TERM: process.env.TERM || "linux" }),
    ...parseEnvironment(options.env ?? []),
  };
  return {
    ...{ argv, environment, ...user, ...windowSize() },
    places: placesOf(argv[0]!, environment.PATH ?? ""),
    folder: options.workdir ?? info.folder,
    flags:
      (isTty && !isDetached ? RequestFlag.TTY : 0) |
      (options.interactive && !isDetached ? RequestFlag.STDIN : 0) |
      (isDetached ? RequestFlag.DETACH : 0),
  };
}

export async function lookUp(vm: GuestDoor, user: string): Promise<GuestUser> {
  const read = async (path: string): Promise<string> =>
    (await runTool(vm, ["cat", path])).stdout.toString();
  return findUser(user, await read("/etc/passwd"), await read("/etc/group"));
}

export async function attachToMachine(
  vm: string,
  options: AttachOptions,
  stops: StopRequests,
): Promise<number> {
  const keys = new DetachKeys(parseDetachKeys(options.detachKeys));
  const { hasTerminal, takesInput } = await ask(vm, { verb: "info" });
  const reads = options.stdin && takesInput;
  const socket = await openStream(vm, { verb: "attach" });
  const client = new StreamClient(socket, {
    stdin: reads ? process.stdin : undefined,
    stdout: process.stdout,
    stderr: process.stderr,
    ...(process.stdin.isTTY && { filter: (bytes: Buffer) => keys.filter(bytes) }),
  });
  socket.resume();
  const isTerminal = hasTerminal && reads && process.stdin.isTTY === true;
  // A terminal sends what its user means by keys; without one, signals are passed on.
  if (isTerminal) stops.handle(() => client.detach());
  else passSignals(client, stops);
  if (isTerminal) client.resize(windowSize());
  const close = isTerminal ? openRawTerminal((size) => client.resize(size)) : () => {};
  const outcome: StreamOutcome = await client.outcome;
  close();
  return exitCodeFor(outcome, { argv: [vm], folder: "/" });
}

/** The first signal is the program's; who sends another does not want to wait. */
function passSignals(client: StreamClient, stops: StopRequests): void {
  stops.handle((signal, count) => {
    if (count === 1) client.signal(constants.signals[signal]);
    else client.detach();
  });
}
