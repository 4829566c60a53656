/** Keeps a machine's record and log while it runs: from its side, what machine-records.ts and output-log.ts store. */
import {
  createRecord,
  type MachineRecord,
  machineFolder,
  removeRecord,
  writeRecord,
} from "./machine-records.ts";
import { type LogStream, OutputLog } from "./output-log.ts";

export interface KeptMachine {
  readonly name: string;
  readonly what: string;
  readonly config: { readonly memoryBytes: number };
  readonly isKept: boolean;
  readonly isBackground: boolean;
  readonly settings: Readonly<Record<string, unknown>>;
}

export class MachineKeeper {
  readonly started = Date.now();
  /** What never ran leaves nothing. */
  hasStarted = false;
  readonly #machine: KeptMachine;
  #record: MachineRecord | undefined;
  #log: OutputLog | undefined;

  constructor(machine: KeptMachine) {
    this.#machine = machine;
  }

  /** Takes the name. Throws HypolithError "name-taken". */
  async begin(): Promise<void> {
    const { name, what, config, isKept, isBackground, settings } = this.#machine;
    this.#record = await createRecord({
      ...{ name, what, isKept, isBackground, settings },
      ...{ started: this.started, memoryBytes: config.memoryBytes },
    });
    if (isKept || isBackground) this.#log = new OutputLog(machineFolder(name));
  }

  output(stream: LogStream, bytes: Uint8Array): void {
    this.#log?.add(stream, bytes);
  }

  end(exitCode: number, reason: string | undefined): void {
    this.#log?.close();
    const record = this.#record;
    if (!record) return;
    if (!record.isKept || !this.hasStarted) {
      removeRecord(record.name);
      return;
    }
    try {
      const why = reason === undefined ? {} : { reason };
      writeRecord({ ...record, ended: Date.now(), exitCode, ...why });
    } catch {
      // Somebody has removed it by force.
    }
  }
}
