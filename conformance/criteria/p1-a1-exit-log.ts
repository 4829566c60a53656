/**
 * P1-A1: the exit log of one guest OUT 0x3F8 whose service is an x86 program in a VM of its own. Exactly: exit 30 of the guest, entry into
 * the service, exit 18 of the service, entry into the guest; the byte is in the serial log; RIP is behind the instruction. With the service
 * at CPL 3 the log is the same but for that number.
 */

import { hostedKernel } from "../../guests/hosted.ts";
import { chatter, starKernel } from "../../guests/programs.ts";
import type { PlacementName } from "../../src/control/protocol.ts";
import { GUEST, type Transition } from "../../src/hypervisor/kernel/transition-log.ts";
import { Machine } from "../../src/machine/machine.ts";
import { ExitReason, exitReasonName } from "../../src/processor/isa/exit-reasons.ts";
import type { Criterion, CriterionResult } from "./criterion.ts";

const COM1 = 0x3f8;
const SERVICE = "console";
/** OUT DX, AL. */
const OUT_BYTES = 1n;

interface Run {
  readonly log: readonly Transition[];
  readonly serial: string;
  readonly end: string;
}

function run(kernel: Uint8Array, placement: PlacementName): Run {
  const log: Transition[] = [];
  let serial = "";
  const machine = new Machine(
    {
      ...{ kernel, cmdline: "", memoryBytes: 16 << 20, cpuModel: "x86-64-v2", rtcEpochMs: 0 },
      ...{ clock: "deterministic", traceExits: false, services: { [SERVICE]: placement } },
    },
    {
      nowMs: () => performance.now(),
      entropy: () => 1n,
      doorbell: () => false,
      send: (message) => {
        if (message.type === "output") serial += Buffer.from(message.data).toString("latin1");
      },
    },
  );
  machine.vm.log.transitions.watch((transition) => log.push(transition));
  for (;;) {
    const state = machine.runUntilBlocked();
    if (state.kind === "ended") return { log, serial, end: state.reason.kind };
  }
}

const isSerialOut = (t: Transition): boolean =>
  t.vm === GUEST &&
  t.kind === "exit" &&
  t.reason === ExitReason.IO &&
  Math.floor(t.qualification / 0x1_0000) === COM1 &&
  (t.qualification & 8) === 0;

/** Why what follows the first serial OUT is not what it has to be, or null. */
function complain({ log, serial, end }: Run, cpl: number): string | null {
  const at = log.findIndex(isSerialOut);
  const event = log.slice(at, at + 4);
  const [exit, entry, reply, next] = event;
  if (at < 0 || !exit || !entry || !reply || !next) return "no OUT 0x3F8 in the log";
  const words = event.map((t) => `${t.kind} ${t.vm}${t.kind === "exit" ? ` ${t.reason}` : ""}`);
  const wanted = [`exit ${GUEST} 30`, `entry ${SERVICE}`, `exit ${SERVICE} 18`, `entry ${GUEST}`];
  if (words.join(", ") !== wanted.join(", ")) return words.join(", ");
  if (entry.cpl !== cpl || reply.cpl !== cpl) return `service at CPL ${entry.cpl}, ${reply.cpl}`;
  if (next.rip !== exit.rip + OUT_BYTES) return `guest RIP ${exit.rip} became ${next.rip}`;
  if (serial !== "*") return `serial log ${JSON.stringify(serial)}`;
  return end === "poweroff" ? null : `the guest's end: ${end}`;
}

/** Where two logs differ in anything but the service's CPL, or null. */
function compare(a: readonly Transition[], b: readonly Transition[]): string | null {
  const line = (t: Transition | undefined): string =>
    JSON.stringify({ ...t, cpl: t?.vm === GUEST ? t.cpl : "-" }, (_, v) =>
      typeof v === "bigint" ? v.toString(16) : v,
    );
  for (let i = 0; i < Math.max(a.length, b.length); i++)
    if (line(a[i]) !== line(b[i])) return `record ${i}: ${line(a[i])} and ${line(b[i])}`;
  return null;
}

async function judge(): Promise<CriterionResult> {
  const star = starKernel();
  const [ring0, ring3] = [run(star, "guest"), run(star, "guest:ring3")];
  const talk = hostedKernel(chatter);
  const [long0, long3] = [run(talk, "guest"), run(talk, "guest:ring3")];
  const again = run(talk, "guest");
  const complaints = [
    complain(ring0, 0),
    complain(ring3, 3),
    compare(ring0.log, ring3.log),
    compare(long0.log, long3.log),
    compare(long0.log, again.log),
  ].filter((text) => text !== null);
  const at = ring0.log.findIndex(isSerialOut);
  const event = ring0.log.slice(at, at + 4);
  return {
    passed: complaints.length === 0 && long0.serial === long3.serial && long0.serial.length === 50,
    measured:
      complaints[0] ??
      `${event.map(describe).join(" -> ")}; ${long0.log.length} records equal at CPL 0 and 3`,
    details: [...complaints, ...event.map((t) => `${describe(t)} at RIP ${t.rip.toString(16)}`)],
  };
}

function describe(t: Transition): string {
  if (t.kind === "entry") return `entry ${t.vm}`;
  return `exit ${t.reason} (${exitReasonName(t.reason)}) ${t.vm} after ${t.instructions} instructions`;
}

export const exitLog: Criterion = {
  id: "P1-A1",
  title: "one OUT 0x3F8 of a guest, answered by a service in a VM of its own",
  bar: "exit 30, entry, exit 18, entry; byte in the log; RIP behind; CPL 0 and 3 alike",
  timeBase: "none",
  runMode: "mh",
  isSeeded: false,
  run: judge,
};
