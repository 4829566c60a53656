/**
 * QEMU behind the control protocol: a second implementation of the machine, to judge the command line and the guest's scripts by.
 *
 * Takes the place of the machine's worker (HYPO_MACHINE_WORKER=this file). Four ISA serial ports with the interrupts of our own
 * machine, each a Unix socket that QEMU connects to; how the guest stopped comes from QMP.
 * Not modelled: traces, the deterministic clock.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, writeFileSync } from "node:fs";
import { createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parentPort } from "node:worker_threads";
import type {
  FromMachine,
  MachineConfig,
  SerialPort,
  StopKind,
  ToMachine,
} from "../../../src/control/protocol.ts";

const PORTS: readonly SerialPort[] = [0, 1, 2, 3];
const SERIAL_IO = ["0x3f8", "0x2f8", "0x3e8", "0x2e8"];
const SERIAL_IRQ = [4, 3, 10, 11];

/**
 * Runs "$2"... and ends it when standard input does, that is when this worker is no more; then removes the folder "$1". A worker that
 * is terminated runs no code of its own any more.
 */
const KEEPER = `folder=$1; shift; exec 3<&0
"$@" </dev/null 3<&- & child=$!
( read -r _ <&3; kill -KILL $child ) 2>/dev/null & keeper=$!
wait $child; status=$?
kill $keeper 2>/dev/null; rm -rf "$folder"; exit $status`;

const REASONS: Readonly<Record<string, StopKind>> = {
  "guest-shutdown": "poweroff",
  "guest-reset": "reset",
  "guest-panic": "reset",
};

const serial: Promise<Socket>[] = [];
let folder = "";
let qemu: ChildProcess | undefined;
let qmp: Promise<Socket> | undefined;
let reason: StopKind = "killed";

function send(message: FromMachine): void {
  parentPort?.postMessage(message);
}

/** Listens at `path`; `accepted` is what QEMU opens there. */
async function listen(path: string): Promise<{ accepted: Promise<Socket> }> {
  const server = createServer();
  const accepted = new Promise<Socket>((resolve) => {
    server.once("connection", (socket: Socket) => {
      resolve(socket);
      server.close();
    });
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
  server.unref();
  return { accepted };
}

async function start(config: MachineConfig): Promise<void> {
  folder = mkdtempSync(join(tmpdir(), "hypo-qemu-"));
  for (const port of PORTS) {
    const { accepted } = await listen(join(folder, `serial${port}`));
    serial[port] = accepted;
    accepted.then((socket) => {
      socket.on("data", (data) => send({ type: "output", port, data: new Uint8Array(data) }));
      socket.on("error", () => {});
    });
  }
  const monitor = await listen(join(folder, "qmp"));
  qmp = monitor.accepted;
  qmp.then(watchMonitor);
  writeFileSync(join(folder, "kernel"), config.kernel);
  if (config.initrd) writeFileSync(join(folder, "initrd"), config.initrd);
  const command = ["qemu-system-x86_64", ...arguments_(config)];
  qemu = spawn("sh", ["-c", KEEPER, "sh", folder, ...command], {
    stdio: ["pipe", "ignore", "pipe"],
  });
  let errors = "";
  qemu.stderr?.on("data", (text) => {
    errors += text;
  });
  qemu.on("error", (error) => finish("error", error.message));
  qemu.on("spawn", () => send({ type: "started" }));
  qemu.on("exit", async (code) => {
    // What QEMU wrote before it ended may still be in the sockets.
    await Promise.all(serial.map(drained));
    if (code && code < 128) finish("error", `QEMU ended with status ${code}: ${errors.trim()}`);
    else finish(reason);
  });
}

function arguments_(config: MachineConfig): string[] {
  const serials = PORTS.flatMap((port) => [
    ...["-chardev", `socket,id=s${port},path=${join(folder, `serial${port}`)}`],
    ...["-device", `isa-serial,chardev=s${port},iobase=${SERIAL_IO[port]},irq=${SERIAL_IRQ[port]}`],
  ]);
  return [
    ...["-accel", "tcg", "-nodefaults", "-display", "none", "-no-reboot", "-cpu", "max"],
    ...["-m", `${Math.floor(config.memoryBytes / 2 ** 20)}M`],
    ...["-chardev", `socket,id=qmp,path=${join(folder, "qmp")}`, "-mon", "qmp,mode=control"],
    ...serials,
    ...["-kernel", join(folder, "kernel"), "-append", config.cmdline],
    ...(config.initrd ? ["-initrd", join(folder, "initrd")] : []),
  ];
}

function watchMonitor(socket: Socket): void {
  socket.write('{"execute":"qmp_capabilities"}\n');
  socket.on("error", () => {});
  let text = "";
  socket.on("data", (data) => {
    text += data;
    const shutdown = text.split("\n").find((line) => line.includes('"SHUTDOWN"'));
    const found = /"reason": "([a-z-]+)"/.exec(shutdown ?? "");
    if (found) reason = REASONS[found[1]!] ?? "killed";
  });
}

async function drained(opened: Promise<Socket>): Promise<void> {
  const late = new Promise<undefined>((resolve) => setTimeout(() => resolve(undefined), 100));
  const socket = await Promise.race([opened, late]);
  if (!socket || socket.closed) return;
  await new Promise<void>((resolve) => socket.once("close", () => resolve()));
}

function finish(kind: StopKind, message?: string): void {
  send({ type: "stopped", reason: message === undefined ? { kind } : { kind, message } });
  parentPort?.close();
}

parentPort?.on("message", async (message: ToMachine) => {
  if (message.type === "start") await start(message.config);
  else if (message.type === "input") (await serial[message.port])?.write(message.data);
  else if (message.type === "powerButton") (await qmp)?.write('{"execute":"system_powerdown"}\n');
  else qemu?.stdin?.end();
});
