/** A processor with the monitor on it: commands in, results out. */

import { Lab } from "../../guests/lab.ts";
import type { EngineName } from "../../src/control/protocol.ts";
import { ActiveTables } from "../../src/hypervisor/paging/active-tables.ts";
import { VirtualTlb } from "../../src/hypervisor/paging/virtual-tlb.ts";
import { ExitReason, exitReasonName } from "../../src/processor/isa/exit-reasons.ts";
import {
  Field,
  INTERRUPTION_ERROR_CODE,
  INTERRUPTION_VALID,
} from "../../src/processor/isa/vmcs-fields.ts";
import { HYPERVISOR_BASE, HYPERVISOR_BYTES } from "../../src/processor/state/layout.ts";
import { ARENA_PAGES, CODE_OFFSET, PAGE, Place, pageAt } from "./guest-memory-map.ts";
import { monitorProgram, RETURN_VECTOR } from "./monitor-program.ts";
import type { PagingMode } from "./reference-walker.ts";

export interface Target {
  readonly memory: DataView;
  /** Address of a handler of the monitor. */
  handler(name: string): number;
  /** Address of an instruction that accesses memory, for a ring. */
  stub(kind: "read" | "write", user: boolean): number;
  /** Carries out the commands that are in memory. */
  run(): void;
}

const PRESENT_ALL = 0x63n;
const LARGE = 0x80n;
const USER = 4n;
const LARGE_BYTES = 0x20_0000;

/** First entry of a top table: what maps the monitor. */
export function fixedEntry(mode: PagingMode, index: number): bigint {
  if (mode === "4-level") return BigInt(Place.FIXED_TABLES + PAGE) | PRESENT_ALL | USER;
  if (mode === "PAE") return BigInt(Place.FIXED_TABLES) | 1n;
  return BigInt(Place.FIXED_TABLES + (1 + index) * PAGE) | PRESENT_ALL | USER;
}
/** How many entries of a top table are the monitor's. */
export const fixedEntries = (mode: PagingMode): number => (mode === "32-bit" ? 4 : 1);

/** The monitor's tables: its 16 MiB at their own addresses, for the supervisor but for the stubs. */
function writeFixedTables(memory: DataView, mode: PagingMode): void {
  const userAt = (at: number): bigint => (at === Place.USER_STUBS ? USER : 0n);
  if (mode === "32-bit") {
    for (let at = 0; at < Place.END; at += PAGE)
      memory.setUint32(
        Place.FIXED_TABLES + PAGE + (at >> 12) * 4,
        Number(BigInt(at) | PRESENT_ALL | userAt(at)),
        true,
      );
    return;
  }
  for (let at = 0; at < Place.END; at += LARGE_BYTES)
    memory.setBigUint64(
      Place.FIXED_TABLES + (at / LARGE_BYTES) * 8,
      BigInt(at) | PRESENT_ALL | LARGE | userAt(at),
      true,
    );
  memory.setBigUint64(
    Place.FIXED_TABLES + PAGE,
    BigInt(Place.FIXED_TABLES) | PRESENT_ALL | USER,
    true,
  );
}

/** Where translations of guest-physical addresses come from: EPT, or active tables with EPT off. */
export type PagingSource = "ept" | "active";
const ACTIVE_BYTES = 0x40_0000;

/** The processor alone, below the least hypervisor there can be. */
export class LabTarget implements Target {
  readonly memory: DataView;
  readonly #lab: Lab;
  readonly #isActive: boolean;
  readonly #activeBytes: number;
  #active: VirtualTlb | null = null;
  #started = false;
  /** Exits for paging. */
  exits = 0;

  constructor(
    mode: PagingMode,
    engine: EngineName,
    source: PagingSource = "ept",
    activeBytes = ACTIVE_BYTES,
  ) {
    this.#isActive = source === "active";
    this.#activeBytes = activeBytes;
    const isLong = mode === "4-level";
    const lab = new Lab({
      engine,
      mode: isLong ? "long64" : "protected32",
      build: monitorProgram(mode),
    });
    this.#lab = lab;
    lab.tables.interrupt(RETURN_VECTOR, 0, lab.at("returned"));
    lab.tables.interrupt(14, 0, lab.at("page-fault"));
    this.memory = new DataView(lab.view.buffer, lab.host(0), Place.END);
    const bytes = new Uint8Array(this.memory.buffer, this.memory.byteOffset, Place.END);
    const [from, to] = [lab.at("stubs"), lab.at("stubs-end")];
    bytes.copyWithin(Place.USER_STUBS, from, to);
    for (let n = 0; n < ARENA_PAGES; n++) bytes.set([0xcd, RETURN_VECTOR], pageAt(n) + CODE_OFFSET);
    writeFixedTables(this.memory, mode);
  }

  handler(name: string): number {
    return this.#lab.at(name);
  }

  stub(kind: "read" | "write", user: boolean): number {
    const at = this.#lab.at(`${kind}-stub`);
    return user ? Place.USER_STUBS + at - this.#lab.at("stubs") : at;
  }

  /** Active tables do not serve INVPCID. */
  get hasInvpcid(): boolean {
    return !this.#isActive;
  }

  /** Paging of the guest at its first entry. */
  begin(cr0: number, cr3: number, cr4: number): void {
    const { vmcs } = this.#lab;
    vmcs.set(Field.GUEST_CR0, cr0);
    vmcs.set(Field.GUEST_CR3, cr3);
    vmcs.set(Field.GUEST_CR4, cr4);
    vmcs.setBig(Field.GUEST_PDPTE0, fixedEntry("PAE", 0));
    if (!this.#isActive) return;
    const { view, processor } = this.#lab;
    const end = HYPERVISOR_BASE + HYPERVISOR_BYTES;
    this.#active = new VirtualTlb(vmcs, view, {
      tables: new ActiveTables(view, end - this.#activeBytes, end),
      ramBytes: Place.END,
      flush: () => processor.engine.flushTlb(),
    });
  }

  /** What the kernel does with the exits of a VM without EPT. False: this one is another's. */
  #serve(active: VirtualTlb, reason: number): boolean {
    const { vmcs } = this.#lab;
    const handled = active.handle(reason);
    const interrupted = vmcs.number(Field.IDT_VECTORING_INFO);
    if (handled.kind === "other") return false;
    if (handled.kind === "next") this.#lab.skip();
    if (handled.kind === "raise") {
      if (interrupted >= INTERRUPTION_VALID) throw new Error("a fault while an event is delivered");
      const info = handled.vector | (3 << 8) | INTERRUPTION_ERROR_CODE;
      vmcs.set(Field.ENTRY_INTERRUPTION_INFO, info + INTERRUPTION_VALID);
      vmcs.set(Field.ENTRY_ERROR_CODE, handled.error);
    } else if (interrupted >= INTERRUPTION_VALID) {
      vmcs.set(Field.ENTRY_INTERRUPTION_INFO, interrupted - (interrupted & (1 << 12)));
      vmcs.set(Field.ENTRY_ERROR_CODE, vmcs.number(Field.IDT_VECTORING_ERROR));
      vmcs.set(Field.ENTRY_INSTRUCTION_LENGTH, vmcs.number(Field.EXIT_INSTRUCTION_LENGTH));
    }
    return true;
  }

  run(): void {
    const lab = this.#lab;
    if (this.#started) lab.skip();
    this.#started = true;
    let reason = lab.enter();
    while (this.#active && this.#serve(this.#active, reason)) {
      this.exits++;
      reason = lab.enter();
    }
    if (reason === ExitReason.IO) return;
    const name = reason < 0 ? `VM-instruction error ${-1 - reason}` : exitReasonName(reason);
    const at = lab.vmcs.number(Field.EXIT_QUALIFICATION).toString(16);
    throw new Error(`the monitor ended with ${name} at ${lab.rip.toString(16)}, ${at}`);
  }
}
