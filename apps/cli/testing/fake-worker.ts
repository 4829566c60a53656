/**
 * A machine for tests of the command line: no processor, only the guest's side of the serial ports, acting one of the parts below.
 *
 * Takes the place of the machine's worker (HYPO_MACHINE_WORKER=this file); "--append fake=PART" chooses the part.
 */
import { parentPort } from "node:worker_threads";
import {
  type FromMachine,
  type MachineConfig,
  type SerialPort,
  SerialUse,
  type StopKind,
  type ToMachine,
} from "../../../src/control/protocol.ts";

type Part = (config: MachineConfig) => void;

const send = (message: FromMachine): void => parentPort!.postMessage(message);
const write = (port: SerialPort, text: string | Uint8Array): void => {
  send({ type: "output", port, data: new Uint8Array(Buffer.from(text)) });
};
const control = (line: string): void => write(SerialUse.CONTROL, `${line}\n`);

let hear: (port: SerialPort, data: Buffer) => void = () => {};
let mayStop = true;

function stop(
  kind: StopKind,
  more: { message?: string; dump?: string; hint?: string; code?: string } = {},
): void {
  send({ type: "stopped", reason: { kind, ...more } });
  parentPort!.close();
}

function end(status: number): void {
  control(`exit ${status}`);
  stop("poweroff");
}

const PARTS: Readonly<Record<string, Part>> = {
  exit7: () => {
    control("ready");
    write(SerialUse.CONSOLE, "a kernel message\r\n");
    write(SerialUse.JOB, "out\n");
    write(SerialUse.JOB_ERROR, "err\n");
    end(7);
  },
  cat: () => {
    let partial = Buffer.alloc(0);
    hear = (port, data) => {
      if (port !== SerialUse.JOB) return;
      partial = Buffer.concat([partial, data]);
      const head = partial.indexOf("\n");
      const length = Number(partial.toString("latin1", 0, head));
      if (head < 0 || partial.length < head + 1 + length) return;
      if (length === 0) return end(0);
      write(SerialUse.JOB, partial.subarray(head + 1, head + 1 + length));
      partial = partial.subarray(head + 1 + length);
      control("in");
    };
    control("ready");
    control("in");
  },
  polite: () => {
    hear = (port, data) => {
      if (port === SerialUse.CONTROL && data.toString().startsWith("signal ")) end(0);
    };
    control("ready");
    write(SerialUse.JOB, "started\n");
  },
  stubborn: () => {
    mayStop = false;
    control("ready");
    write(SerialUse.JOB, "started\n");
  },
  booting: () => write(SerialUse.CONSOLE, "booting\r\n"),
  yes: () => {
    control("ready");
    const more = (): void => {
      write(SerialUse.JOB, "y\n".repeat(10_000));
      setTimeout(more, 1);
    };
    more();
  },
  config: ({ kernel, initrd, ...rest }) => {
    const { length: initrdBytes = 0 } = initrd ?? [];
    write(SerialUse.JOB, JSON.stringify({ ...rest, kernelBytes: kernel.length, initrdBytes }));
    end(0);
  },
  trace: ({ traceExits }) => {
    for (let i = 0; traceExits && i < 3; i++) send({ type: "trace", data: `exit ${i}\n` });
    end(0);
  },
  reports: ({ reportJit, profile }) => {
    if (reportJit) send({ type: "jitStats", report: null, retired: 1234 });
    const names = profile?.symbols?.names;
    if (profile) send({ type: "profile", data: JSON.stringify([profile.every, names]) });
    end(0);
  },
  "triple-fault": () =>
    stop("triple-fault", {
      message: "triple fault at RIP 0x1234",
      dump: "RIP 0x1234 CR2 0x0 CR3 0x1000",
    }),
  panic: () => {
    write(SerialUse.CONSOLE, "Kernel panic - not syncing: VFS: no root\r\n");
    stop("reset");
  },
  reset: () => stop("reset"),
  "power-off": () => stop("poweroff"),
  refuse: () =>
    stop("error", {
      code: "kernel-unrecognized",
      message: "the kernel file is no kernel",
      hint: "look at it",
    }),
  crash: () => {
    throw new Error("a bug in the machine");
  },
  leave: () => process.exit(3),
  log: () => {
    for (const level of ["error", "warn", "info", "debug"] as const)
      send({ type: "log", level, text: `a ${level}` });
    end(0);
  },
  console: () => {
    hear = (port, data) => {
      if (port === SerialUse.CONTROL && data.toString() === "poweroff\n") return end(0);
      if (port !== SerialUse.CONSOLE) return;
      write(SerialUse.CONSOLE, `<${data.toString("latin1")}>`);
      if (data.includes("q")) end(5);
    };
    write(SerialUse.CONSOLE, "console up\r\n");
    control("ready");
  },
};

parentPort!.on("message", (message: ToMachine) => {
  if (message.type === "start") {
    const part = /\bfake=(\S+)/.exec(message.config.cmdline)?.[1] ?? "";
    if (part !== "refuse") send({ type: "started" });
    PARTS[part]!(message.config);
  } else if (message.type === "input") {
    hear(message.port, Buffer.from(message.data));
  } else if (message.type === "stop" && mayStop) {
    stop("killed");
  }
});
