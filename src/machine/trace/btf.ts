/**
 * BTF: the types of a Linux kernel, which it carries in its own memory. Only what is needed to find the running task.
 * Linux, Documentation/bpf/btf.rst.
 */
const MAGIC = 0x0001_eb9f;
const HEADER_BYTES = 24;
const TYPE_BYTES = 12;
const Kind = { STRUCT: 4, UNION: 5, VAR: 14, DATASEC: 15 } as const;
/** Bytes behind a type of each kind: fixed, and for each of its `vlen`. */
const EXTRA: readonly (readonly [number, number])[] = [
  ...([
    [0, 0],
    [4, 0],
    [0, 0],
    [12, 0],
    [0, 12],
    [0, 12],
    [0, 8],
    [0, 0],
    [0, 0],
    [0, 0],
  ] as const),
  ...([
    [0, 0],
    [0, 0],
    [0, 0],
    [0, 8],
    [4, 0],
    [0, 12],
    [0, 0],
    [4, 0],
    [0, 0],
    [0, 12],
  ] as const),
];
const PER_CPU = ".data..percpu";

export interface TaskLayout {
  /** Of the pointer to the running task, from the base of a processor's own data. */
  readonly current: number;
  /** Members of task_struct. */
  readonly comm: number;
  readonly pid: number;
  readonly tgid: number;
}

/** Whether BTF may begin at an address: a header that makes sense. */
export function isBtf(view: DataView, at: number, end: number): boolean {
  if (at + HEADER_BYTES > end || view.getUint32(at, true) !== MAGIC) return false;
  const [headerBytes, , typeBytes, stringsAt, stringBytes] = header(view, at);
  return (
    headerBytes === HEADER_BYTES &&
    typeBytes > 0 &&
    stringsAt === typeBytes &&
    at + HEADER_BYTES + typeBytes + stringBytes <= end
  );
}

type Header = readonly [number, number, number, number, number];

function header(view: DataView, at: number): Header {
  return [4, 8, 12, 16, 20].map((offset) => view.getUint32(at + offset, true)) as unknown as Header;
}

interface Type {
  readonly at: number;
  readonly kind: number;
  readonly count: number;
  /** Member offsets have a bit-field size in their upper byte. */
  readonly hasFields: boolean;
}

/** What the types at an address say of tasks; null if they do not say all of it. */
export function taskLayout(view: DataView, at: number): TaskLayout | null {
  const [, , typeBytes, stringsAt, stringBytes] = header(view, at);
  const types = at + HEADER_BYTES;
  const strings = types + stringsAt;
  const decoder = new TextDecoder("latin1");
  const bytes = new Uint8Array(view.buffer);
  const nameAt = (offset: number): string => {
    let end = strings + offset;
    while (end < strings + stringBytes && bytes[end] !== 0) end++;
    return decoder.decode(bytes.subarray(strings + offset, end));
  };
  let task: Type | undefined;
  let hot: Type | undefined;
  let section: Type | undefined;
  /** Names of variables by type number. */
  const variables = new Map<number, number>();
  const end = types + typeBytes;
  for (let p = types, id = 1; p + TYPE_BYTES <= end; id++) {
    const info = view.getUint32(p + 4, true);
    const kind = (info >>> 24) & 0x1f;
    const count = info & 0xffff;
    const extra = EXTRA[kind];
    if (!extra) return null;
    const type = { at: p, kind, count, hasFields: info >>> 31 === 1 };
    if (p + TYPE_BYTES + extra[0] + extra[1] * count > end) return null;
    if (kind === Kind.VAR) variables.set(id, view.getUint32(p, true));
    else if (kind === Kind.STRUCT || kind === Kind.DATASEC) {
      const name = nameAt(view.getUint32(p, true));
      if (name === "task_struct" && count > 0) task = type;
      else if (name === "pcpu_hot") hot = type;
      else if (name === PER_CPU) section = type;
    }
    p += TYPE_BYTES + extra[0] + extra[1] * count;
  }
  if (!task || !section) return null;
  const member = (type: Type, wanted: string): number | undefined => {
    for (let i = 0; i < type.count; i++) {
      const m = type.at + TYPE_BYTES + 12 * i;
      if (nameAt(view.getUint32(m, true)) !== wanted) continue;
      const offset = view.getUint32(m + 8, true);
      return (type.hasFields ? offset & 0xff_ffff : offset) / 8;
    }
    return undefined;
  };
  const variable = (wanted: string): number | undefined => {
    for (let i = 0; i < section.count; i++) {
      const v = section.at + TYPE_BYTES + 12 * i;
      const name = variables.get(view.getUint32(v, true));
      if (name !== undefined && nameAt(name) === wanted) return view.getUint32(v + 4, true);
    }
    return undefined;
  };
  // Linux 6.2 to 6.14 has it in a structure of hot data, as the first member of a nameless union.
  const direct = variable("current_task");
  const inHot = hot === undefined ? undefined : variable("pcpu_hot");
  const current = direct ?? inHot;
  const comm = member(task, "comm");
  const pid = member(task, "pid");
  const tgid = member(task, "tgid");
  if (current === undefined || comm === undefined || pid === undefined || tgid === undefined)
    return null;
  return { current, comm, pid, tgid };
}
