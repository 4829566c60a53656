/**
 * A pCPU on the bench, without hypervisor and kernel: a test writes the VMCS and the guest's memory, enters, and looks at what has come of it.
 *
 * The guest has descriptor tables (lab-tables.ts) and may use all of its memory in every ring, at its physical addresses.
 */
import type { EngineName } from "../src/control/protocol.ts";
import { DeterministicClock } from "../src/machine/clocks.ts";
import { Assembler } from "../src/processor/isa/assemble.ts";
import { Field } from "../src/processor/isa/vmcs-fields.ts";
import type { EptTables } from "../src/processor/memory/ept.ts";
import { gprAt, RAM_BASE, S } from "../src/processor/state/layout.ts";
import type { TscClock } from "../src/processor/vmx/engine-port.ts";
import type { InterruptPort } from "../src/processor/vmx/interrupt-port.ts";
import { Processor } from "../src/processor/vmx/processor.ts";
import type { Vmcs } from "../src/processor/vmx/vmcs.ts";
import { assembleBareMetal } from "./bare-metal.ts";
import {
  codeOf,
  dataOf,
  GDT_LIMIT,
  IDT_LIMIT,
  LabTables,
  type Ring,
  stackOf,
  Table,
  TSS_LIMIT,
  TSS_SELECTOR,
} from "./lab-tables.ts";

export const ORIGIN = 0x10_0000;
export const TIERS = ["interpreter", "jit"] as const;
/** Page-table pages of the flat loader, and the bit that lets ring 3 in. */
const PAGE_TABLES = [0x9000, 0xf000] as const;
const PRESENT = 1n;
const USER = 4n;

export interface LabOptions {
  readonly engine: EngineName;
  readonly mode?: "long64" | "protected32";
  readonly build: (a: Assembler) => void;
  readonly clock?: TscClock;
  readonly interrupts?: InterruptPort;
  readonly preemptionShift?: number;
}

export class Lab {
  readonly processor: Processor;
  readonly clock: TscClock;
  readonly vmcs: Vmcs;
  readonly view: DataView;
  readonly ept: EptTables;
  readonly tables: LabTables;
  readonly isLong: boolean;
  readonly #labels: Assembler;

  constructor(options: LabOptions) {
    const { engine, mode = "long64", build, interrupts, preemptionShift } = options;
    this.isLong = mode === "long64";
    this.#labels = new Assembler(this.isLong ? 64 : 32, ORIGIN);
    build(this.#labels);
    const image = this.#labels.assemble();
    this.clock = options.clock ?? new DeterministicClock();
    this.processor = new Processor({
      clock: this.clock,
      entropy: () => 42n,
      ...(interrupts ? { interrupts } : {}),
      ...(preemptionShift === undefined ? {} : { preemptionShift }),
    });
    const parts = assembleBareMetal({ image, mode, engine, address: ORIGIN }, this.processor);
    this.vmcs = parts.vmcs;
    this.view = parts.view;
    this.ept = parts.ept;
    const [from, to] = PAGE_TABLES;
    for (let at = this.isLong ? from : to; at < to; at += 8) {
      const entry = this.read(at);
      if ((entry & PRESENT) !== 0n) this.write(at, entry | USER);
    }
    this.tables = new LabTables((at, value) => this.write(at, value), this.isLong);
    const { vmcs } = this;
    vmcs.set(Field.GUEST_GDTR_BASE, Table.GDT);
    vmcs.set(Field.GUEST_GDTR_LIMIT, GDT_LIMIT);
    vmcs.set(Field.GUEST_IDTR_BASE, Table.IDT);
    vmcs.set(Field.GUEST_IDTR_LIMIT, IDT_LIMIT);
    vmcs.set(Field.GUEST_TR_SELECTOR, TSS_SELECTOR);
    vmcs.set(Field.GUEST_TR_BASE, Table.TSS);
    vmcs.set(Field.GUEST_TR_LIMIT, TSS_LIMIT);
    this.place(0, ORIGIN);
  }

  /** Address of a label of the guest. */
  at(label: string): number {
    return this.#labels.addressOf(label);
  }

  /** The guest is in `ring`, about to execute what is at an address, with that ring's stack. */
  place(ring: Ring, rip: number): void {
    const { vmcs } = this;
    const dpl = ring << 5;
    vmcs.set(Field.GUEST_CS_SELECTOR, codeOf(ring));
    vmcs.set(Field.GUEST_CS_BASE, 0);
    vmcs.set(Field.GUEST_CS_LIMIT, 0xffff_ffff);
    vmcs.set(Field.GUEST_CS_RIGHTS, (this.isLong ? 0xa09b : 0xc09b) | dpl);
    for (const name of ["SS", "DS", "ES"] as const) {
      vmcs.set(Field[`GUEST_${name}_SELECTOR`], dataOf(ring));
      vmcs.set(Field[`GUEST_${name}_BASE`], 0);
      vmcs.set(Field[`GUEST_${name}_LIMIT`], 0xffff_ffff);
      vmcs.set(Field[`GUEST_${name}_RIGHTS`], 0xc093 | dpl);
    }
    vmcs.set(Field.GUEST_RIP, rip);
    vmcs.set(Field.GUEST_RSP, stackOf(ring) - 0x8000);
    vmcs.set(Field.GUEST_RFLAGS, 2);
    vmcs.set(Field.GUEST_INTERRUPTIBILITY, 0);
    vmcs.set(Field.GUEST_ACTIVITY, 0);
    vmcs.setBig(Field.GUEST_PENDING_DEBUG, 0n);
  }

  /** Runs to the next VM exit: its reason, or -1 - VM-instruction error. */
  enter(): number {
    const error = this.processor.enter(this.vmcs);
    return error === 0 ? this.vmcs.number(Field.EXIT_REASON) : -1 - error;
  }

  /** Goes on behind the instruction that has exited. */
  skip(): void {
    this.rip += this.vmcs.number(Field.EXIT_INSTRUCTION_LENGTH);
  }

  get rip(): number {
    return this.vmcs.number(Field.GUEST_RIP);
  }

  set rip(value: number) {
    this.vmcs.set(Field.GUEST_RIP, value);
  }

  get cpl(): number {
    return this.view.getUint32(S.CPL.at, true);
  }

  get tsc(): number {
    return this.processor.tsc();
  }

  get retired(): number {
    return this.processor.retired;
  }

  /** General register by number. */
  register(n: number): bigint {
    return this.view.getBigUint64(gprAt(n), true);
  }

  setRegister(n: number, value: bigint): void {
    this.view.setBigUint64(gprAt(n), BigInt.asUintN(64, value), true);
  }

  /** Address of guest memory in the view. */
  host(at: number): number {
    return RAM_BASE + at;
  }

  /** Guest memory. */
  read(at: number): bigint {
    return this.view.getBigUint64(RAM_BASE + at, true);
  }

  write(at: number, value: bigint): void {
    this.view.setBigUint64(RAM_BASE + at, BigInt.asUintN(64, value), true);
  }
}
