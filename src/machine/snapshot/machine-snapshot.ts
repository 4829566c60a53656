/**
 * What a snapshot keeps of a machine, and whether another machine can go on from it.
 *
 * Sections: "about" is the application's, "machine" says what the machine is made of, "state" is the plain data of clock, kernel, services and
 * streams, "vcpu" the state block (state/layout.ts), "tlb" the translations of a deterministic machine, "granules" and "pages" memory.
 * A machine without deterministic clock forgets its translations; so its memory can stay in the file until it is touched.
 */
import { HypolithError } from "../../base/errors.ts";
import type { MachineConfig } from "../../control/protocol.ts";
import { decodeState, packState } from "../../hypervisor/abi/state-codec.ts";
import type { VmState } from "../../hypervisor/kernel/vm-state.ts";
import { TLB_ENTRIES, TLB_ENTRY_BYTES, TLB_READ } from "../../processor/state/layout.ts";
import type { BlockPort } from "../../storage/block-port.ts";
import type { Checksum } from "./crc32.ts";
import { corrupt, type SnapshotFile, SnapshotWriter } from "./snapshot-file.ts";
import { type StoredMemory, storeMemory } from "./stored-memory.ts";

/** The configuration without what is only needed to boot, or is about one run. */
export type SnapshotConfig = Omit<
  MachineConfig,
  "kernel" | "initrd" | "profile" | "traceExits" | "reportJit" | "snapshot"
>;

export interface MachineDescription {
  readonly config: SnapshotConfig;
  /** Flags of the CPU model. */
  readonly cpu: readonly string[];
  /** Its services in order, with where they run and what their devices are. */
  readonly services: readonly ServiceDescription[];
  /** Milliseconds since 1970 when it was taken; 0: unknown. */
  readonly takenMs: number;
}

export interface ServiceDescription {
  readonly name: string;
  readonly placement: string;
  readonly device: unknown;
}

export interface MachineState {
  readonly vm: VmState;
  readonly retired: number;
  /** Virtual time, ns. */
  readonly nowNs: number;
  /** Of a deterministic clock: ns that were skipped while idle. */
  readonly skippedNs: number;
  /** Of a deterministic machine: the states of its sources of entropy. */
  readonly entropy: readonly bigint[];
  readonly streams: readonly SavedStream[];
}

/** Bytes that wait for a service, and what the other end of its stream keeps. */
export interface SavedStream {
  readonly stream: number;
  readonly chunks: readonly Uint8Array[];
  readonly server: unknown;
}

export interface MachineSnapshot {
  readonly about: Uint8Array;
  readonly description: MachineDescription;
  readonly state: MachineState;
  /** All of the VM's memory (state/layout.ts), and the guest's part of it. */
  readonly view: DataView;
  readonly memory: StoredMemory;
  readonly keepsTranslations: boolean;
}

/** The processor's state block and what lies behind it up to the scratch block. */
const BLOCK_FROM = 0x100;
const BLOCK_TO = 0x8000;
const TLB_BYTES = 3 * TLB_ENTRIES * TLB_ENTRY_BYTES;

/** Throws what the port throws. */
export function writeSnapshot(port: BlockPort, checksum: Checksum, parts: MachineSnapshot): void {
  const { buffer } = parts.view;
  const writer = new SnapshotWriter(port, checksum);
  writer.add("about", parts.about);
  writer.add("machine", packState(parts.description));
  writer.add("state", packState(parts.state));
  writer.add("vcpu", new Uint8Array(buffer, BLOCK_FROM, BLOCK_TO - BLOCK_FROM));
  if (parts.keepsTranslations) writer.add("tlb", new Uint8Array(buffer, TLB_READ, TLB_BYTES));
  let table: Uint8Array = new Uint8Array(0);
  writer.addPages((offset) => {
    const stored = storeMemory(parts.memory, port, offset, checksum);
    table = stored.table;
    return stored.length;
  });
  writer.add("granules", table);
  writer.finish();
}

export function readDescription(file: SnapshotFile): MachineDescription {
  return decoded(file.read("machine"), "its description") as MachineDescription;
}

export function readState(file: SnapshotFile): MachineState {
  return decoded(file.read("state"), "its state") as MachineState;
}

function decoded(bytes: Uint8Array, what: string): unknown {
  try {
    return decodeState(bytes);
  } catch (cause) {
    throw corrupt(what, cause);
  }
}

/** Puts the processor's state into a VM's memory. */
export function loadBlock(file: SnapshotFile, view: DataView): void {
  put(view, BLOCK_FROM, file.read("vcpu"), BLOCK_TO - BLOCK_FROM);
}

/** After everything else that forgets translations: they are there again. Answers false if the snapshot has none. */
export function loadTranslations(file: SnapshotFile, view: DataView): boolean {
  if (!file.has("tlb")) return false;
  loadBlock(file, view);
  put(view, TLB_READ, file.read("tlb"), TLB_BYTES);
  return true;
}

function put(view: DataView, at: number, bytes: Uint8Array, length: number): void {
  if (bytes.length !== length) throw corrupt("its processor");
  new Uint8Array(view.buffer).set(bytes, at);
}

/** Throws HypolithError if `now` is no machine that can go on where `then` was. */
export function checkMachine(then: MachineDescription, now: MachineDescription): void {
  const { config } = now;
  if (then.config.memoryBytes !== config.memoryBytes)
    throw mismatch("memory", `${then.config.memoryBytes >> 20} MiB of memory`);
  if (then.config.clock !== config.clock) throw mismatch("clock", `the ${then.config.clock} clock`);
  const missing = then.cpu.filter((flag) => !now.cpu.includes(flag));
  const extra = now.cpu.filter((flag) => !then.cpu.includes(flag));
  if (missing.length + extra.length > 0)
    throw new HypolithError(
      "snapshot-cpu",
      `the snapshot was taken on the CPU model ${then.config.cpuModel}, and this machine's is another one (${differences(missing, extra)})`,
      { hint: `use the CPU model ${then.config.cpuModel}, in a Hypolith that has all of it` },
    );
  checkServices(then.services, now.services);
}

function checkServices(
  then: readonly ServiceDescription[],
  now: readonly ServiceDescription[],
): void {
  for (let i = 0; i < Math.max(then.length, now.length); i++) {
    const [was, is] = [then[i], now[i]];
    if (was?.name !== is?.name)
      throw mismatch("devices", was ? `the device ${was.name}` : `no device ${is!.name}`);
    if (JSON.stringify(was!.device) !== JSON.stringify(is!.device))
      throw mismatch("devices", `another ${was!.name}`);
    if (formOf(was!.placement) !== formOf(is!.placement))
      throw mismatch("placement", `the service ${was!.name} placed as ${was!.placement}`);
  }
}

/** Programs in JavaScript have one form of state, wherever they run. */
const formOf = (placement: string): string =>
  placement.startsWith("guest") ? placement : "message";

const differences = (missing: readonly string[], extra: readonly string[]): string =>
  [...missing.map((flag) => `-${flag}`), ...extra.map((flag) => `+${flag}`)].join(" ");

function mismatch(what: string, had: string): HypolithError {
  return new HypolithError(
    `snapshot-${what}`,
    `the machine of the snapshot had ${had}: this one cannot go on from it`,
  );
}
