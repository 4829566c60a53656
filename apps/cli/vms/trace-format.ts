/** Traced events for people and programs: lines of text, a table of sums, and the JSON that Perfetto and chrome://tracing open. */
import type { TraceEvent, TraceKind } from "../../../src/control/protocol.ts";

const NS = 1e9;
const US = 1e3;

export interface TraceWriter {
  /** Text to be written when the trace begins, for an event, and when it ends. */
  begin(): string;
  event(event: TraceEvent): string;
  end(): string;
}

const seconds = (ns: number, digits = 6): string => (ns / NS).toFixed(digits);

function who({ pid = 0, tid = 0, comm = "?" }: TraceEvent): string {
  if (pid === 0 && tid === 0) return comm;
  return pid === tid ? `${comm}[${pid}]` : `${comm}[${pid}/${tid}]`;
}

const hex = (n: number): string => `0x${n.toString(16).padStart(2, "0")}`;

const TEXT: Readonly<Record<TraceKind, (e: TraceEvent) => string>> = {
  syscalls: (e) =>
    `${seconds(e.t)} ${who(e)} ${e.name}(${e.args}) = ${e.ret} <${seconds(e.d ?? 0)}>`,
  exits: (e) =>
    `${seconds(e.t + (e.d ?? 0))} ${e.name} q=${e.q} rip=${e.rip} cpl=${e.cpl} after ${e.n}`,
  interrupts: (e) => `${seconds(e.t)} ${e.name} ${hex(e.vector ?? 0)} at rip=${e.rip} cpl=${e.cpl}`,
  transitions: (e) =>
    `${seconds(e.t)} ${who(e)} ${e.from} -> ${e.to} ${e.name}${e.vector === undefined ? "" : ` ${hex(e.vector)}`} rip=${e.rip}`,
};

export function textWriter(kind: TraceKind): TraceWriter {
  const line = TEXT[kind];
  return { begin: () => "", event: (e) => `${line(e)}\n`, end: () => "" };
}

export function jsonWriter(): TraceWriter {
  return { begin: () => "", event: (e) => `${JSON.stringify(e)}\n`, end: () => "" };
}

interface Sum {
  calls: number;
  errors: number;
  ns: number;
}

/** As `strace -c`. */
export function summaryWriter(): TraceWriter {
  const sums = new Map<string, Sum>();
  return {
    begin: () => "",
    event: ({ name, d = 0, err }) => {
      const sum = sums.get(name) ?? { calls: 0, errors: 0, ns: 0 };
      sums.set(name, sum);
      sum.calls++;
      sum.ns += d;
      if (err !== undefined) sum.errors++;
      return "";
    },
    end: () => {
      const total = [...sums.values()].reduce((ns, sum) => ns + sum.ns, 0);
      const rows = [...sums].sort(([, a], [, b]) => b.ns - a.ns);
      const cell = (text: string | number, width: number): string => String(text).padStart(width);
      const lines = rows.map(([name, { calls, errors, ns }]) =>
        [
          cell(total > 0 ? ((100 * ns) / total).toFixed(2) : "0.00", 6),
          cell(seconds(ns), 11),
          cell((ns / calls / US).toFixed(1), 11),
          cell(calls, 9),
          cell(errors || "", 9),
          name,
        ].join(" "),
      );
      const head = "% time     seconds  us/each      count    errors name";
      return `${[head, ...lines].join("\n")}\n`;
    },
  };
}

/** The track of the vCPU itself. */
const MACHINE = 0;
const VCPU = 1;

/** Chrome's trace event format: one process of the guest a process there, its threads threads. */
export function perfettoWriter(kind: TraceKind, machine: string): TraceWriter {
  let isFirst = true;
  const named = new Set<string>();
  /** Processes without a number, by name. */
  const numbers = new Map<string, number>();
  /** Of transitions: since when the vCPU has been where it is, and what that is called. */
  let since = -1;
  let place = "";
  const put = (record: object): string => {
    const comma = isFirst ? "" : ",\n";
    isFirst = false;
    return comma + JSON.stringify(record);
  };
  const name = (pid: number, tid: number, process: string, thread: string): string => {
    const key = `${pid}/${tid}/${process}/${thread}`;
    if (named.has(key)) return "";
    named.add(key);
    const meta = { ph: "M", pid, tid, ts: 0 };
    return (
      put({ ...meta, name: "process_name", args: { name: process } }) +
      put({ ...meta, name: "thread_name", args: { name: thread } })
    );
  };
  const ofTask = ({
    pid = 0,
    tid = 0,
    comm = "?",
  }: TraceEvent): { pid: number; tid: number; names: string } => {
    let number = pid;
    if (number === 0) {
      if (!numbers.has(comm)) numbers.set(comm, 1_000_000 + numbers.size);
      number = numbers.get(comm)!;
    }
    const thread = tid === 0 ? number : tid;
    return { pid: number, tid: thread, names: name(number, thread, comm, comm) };
  };
  const span = (
    e: TraceEvent,
    from: number,
    ns: number,
    where: { pid: number; tid: number },
    title: string,
  ): string => {
    const { t, d, name: _, pid, tid, comm, ...args } = e;
    return put({ ph: "X", name: title, cat: kind, ts: from / US, dur: ns / US, ...where, args });
  };
  const vcpu = { pid: MACHINE, tid: VCPU };
  const event = (e: TraceEvent): string => {
    if (kind === "syscalls") {
      const { names, ...where } = ofTask(e);
      return names + span(e, e.t, e.d ?? 0, where, e.name);
    }
    const names = name(MACHINE, VCPU, machine, "vCPU 0");
    if (kind === "exits") return names + span(e, e.t, e.d ?? 0, vcpu, e.name);
    if (kind === "interrupts") {
      const { t, name: title, ...args } = e;
      const label = `${title} ${hex(e.vector ?? 0)}`;
      return names + put({ ph: "i", s: "t", name: label, cat: kind, ts: t / US, ...vcpu, args });
    }
    const before = since < 0 ? "" : span(e, since, e.t - since, vcpu, place);
    since = e.t;
    place = e.to === 3 ? `user: ${who(e)}` : `kernel: ${e.name}`;
    return names + before;
  };
  return {
    begin: () => '{"displayTimeUnit":"ns","traceEvents":[\n',
    event,
    end: () => "\n]}\n",
  };
}
