/** The verbs about snapshots. */
import { rmSync } from "node:fs";
import { HypolithError } from "../../../src/base/errors.ts";
import { formatSize } from "../../common/size.ts";
import { ExitCode } from "../exit-code.ts";
import type { Messages } from "../messages.ts";
import type { StopRequests } from "../terminal/stop-requests.ts";
import { UsageError } from "../usage-error.ts";
import { BACKGROUND_OPTION, startInBackground } from "../vms/background.ts";
import { ask } from "../vms/door-client.ts";
import { isMachineName } from "../vms/runtime-folder.ts";
import { formatAge, formatTable, oneLine } from "../vms/tables.ts";
import type {
  ForkOptions,
  RestoreOptions,
  SaveOptions,
  SnapshotListOptions,
  SnapshotRequest,
} from "./commands.ts";
import {
  checkSnapshotName,
  loadSnapshot,
  refuseAbsent,
  removeSnapshot,
  type SnapshotSummary,
  snapshotFolder,
  snapshotNames,
  summaryOf,
  temporaryFolder,
} from "./snapshot-store.ts";

const MAX_FORKS = 1000;
/** Started at once: more would only wait for processors. */
const AT_ONCE = 4;

export async function performSnapshotVerb(
  request: SnapshotRequest,
  messages: Messages,
  stops: StopRequests,
): Promise<number> {
  switch (request.verb) {
    case "save":
      return save(request.vm, request.name ?? request.vm, request.options);
    case "restore": {
      const { inBackground } = request.options;
      if (inBackground === undefined) return restore(request.name, request.options, stops);
      const { restoreHere } = await import("./restore.ts");
      return restoreHere(request.name, inBackground, request.options, messages, stops);
    }
    case "fork":
      return fork(request.source, request.options, stops);
    case "ls":
      return list(request.options);
    case "rm":
      return remove(request.names, messages);
  }
}

function print(value: unknown): void {
  process.stdout.write(`${JSON.stringify(value, undefined, 2)}\n`);
}

async function save(vm: string, name: string, { replace, json }: SaveOptions): Promise<number> {
  checkSnapshotName(name);
  if (!replace && snapshotNames().includes(name)) {
    throw new HypolithError("name-taken", `there is a snapshot ${name}`, {
      hint: `hypo snapshot save --replace ${vm} ${name}, or another name`,
    });
  }
  const { bytes, ms } = await ask(vm, { verb: "snapshot", folder: snapshotFolder(name) });
  if (json) print({ name, machine: vm, bytes, ms: Math.round(ms) });
  else process.stdout.write(`${name}\n`);
  return ExitCode.OK;
}

async function restore(
  name: string,
  options: RestoreOptions,
  { signal }: StopRequests,
): Promise<number> {
  refuseAbsent(name);
  const machine = checkMachineName(options.name ?? name);
  const folder = snapshotFolder(name);
  // What is wrong with it is better seen here.
  loadSnapshot(folder);
  const code = await startFrom(folder, machine, options, signal);
  if (code !== ExitCode.OK) return code;
  if (options.json) print({ name: machine, snapshot: name });
  else process.stdout.write(`${machine}\n`);
  return ExitCode.OK;
}

function startFrom(
  folder: string,
  machine: string,
  { publish = [], rm }: Pick<RestoreOptions, "publish" | "rm">,
  signal: AbortSignal,
): Promise<number> {
  const words = [
    ...publish.flatMap((port) => ["--publish", port]),
    ...(rm ? ["--rm"] : []),
    ...[BACKGROUND_OPTION, machine, folder],
  ];
  return startInBackground(["snapshot", "restore", ...words], signal);
}

function checkMachineName(name: string): string {
  if (isMachineName(name)) return name;
  throw new UsageError(
    `'${name}' is no name for a machine`,
    "letters, digits, '.', '_' and '-', at most 63",
  );
}

/** From a snapshot of that name, or else from where the running machine of that name is. */
async function fork(
  source: string,
  options: ForkOptions,
  { signal }: StopRequests,
): Promise<number> {
  const count = /^\d{1,4}$/.test(options.count) ? Number(options.count) : 0;
  if (count < 1 || count > MAX_FORKS)
    throw new UsageError(`'${options.count}' is no number of forks`, `1 to ${MAX_FORKS}`);
  const prefix = options.name ?? source;
  const names = Array.from({ length: count }, (_, i) => checkMachineName(`${prefix}-${i + 1}`));
  const isStored = snapshotNames().includes(source);
  const folder = isStored ? snapshotFolder(source) : temporaryFolder();
  const started: string[] = [];
  let failure = ExitCode.OK as number;
  try {
    if (!isStored) await ask(source, { verb: "snapshot", folder });
    const waiting = [...names];
    const work = async (): Promise<void> => {
      for (let name = waiting.shift(); name; name = failure === 0 ? waiting.shift() : undefined) {
        const code = await startFrom(folder, name, { publish: [], ...options }, signal);
        if (code === ExitCode.OK) started.push(name);
        else failure = code;
      }
    };
    await Promise.all(Array.from({ length: Math.min(AT_ONCE, count) }, work));
  } finally {
    // Who has started has its files open.
    if (!isStored) rmSync(folder, { recursive: true, force: true });
  }
  const inOrder = names.filter((name) => started.includes(name));
  if (options.json) print(inOrder.map((name) => ({ name, source })));
  else for (const name of inOrder) process.stdout.write(`${name}\n`);
  return failure;
}

function list({ quiet, json }: SnapshotListOptions): number {
  const names = snapshotNames();
  if (quiet && !json) {
    for (const name of names) process.stdout.write(`${name}\n`);
    return ExitCode.OK;
  }
  const rows = names.map(summaryOf);
  if (json) print(rows);
  else process.stdout.write(`${formatSnapshots(rows, Date.now())}\n`);
  return ExitCode.OK;
}

function formatSnapshots(rows: readonly SnapshotSummary[], now: number): string {
  const lines = rows.map(({ name, machine, taken, bytes, memoryBytes, what, problem }) =>
    problem === null
      ? [
          ...[name, machine, `${formatAge(now - taken)} ago`],
          ...[formatSize(roundToMebi(bytes)), formatSize(memoryBytes), oneLine(what)],
        ]
      : [name, "?", "?", "?", "?", oneLine(`cannot be used: ${problem}`)],
  );
  return formatTable([["NAME", "MACHINE", "TAKEN", "SIZE", "MEMORY", "RUNS"], ...lines]);
}

const roundToMebi = (bytes: number): number => Math.ceil(bytes / (1 << 20)) * (1 << 20);

function remove(names: readonly string[], messages: Messages): number {
  let failed = 0;
  for (const name of names) {
    try {
      removeSnapshot(name);
      process.stdout.write(`${name}\n`);
    } catch (error) {
      if (!(error instanceof HypolithError)) throw error;
      messages.failure(error);
      failed += 1;
    }
  }
  return failed === 0 ? ExitCode.OK : ExitCode.CHECK_FAILED;
}
