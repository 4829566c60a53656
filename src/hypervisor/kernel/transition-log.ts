/**
 * VM entries and VM exits as they happen, of guests and of services' VMs: what the exit log of one event consists of.
 *
 * Costs a comparison as long as nobody watches. Times are not in it: a service's VM has a clock of its own.
 */
import { exitReasonName } from "../../processor/isa/exit-reasons.ts";
import { Field } from "../../processor/isa/vmcs-fields.ts";
import { S } from "../../processor/state/layout.ts";
import type { Vmcs } from "../../processor/vmx/vmcs.ts";

export interface Transition {
  readonly kind: "entry" | "exit";
  /** "guest", or the service whose VM it is. */
  readonly vm: string;
  readonly vcpu: number;
  /** Of an exit: reason, qualification, interruption and IDT-vectoring information. Of an entry: what it injects. */
  readonly reason: number;
  readonly qualification: number;
  readonly interruption: number;
  readonly vectoring: number;
  readonly rip: bigint;
  readonly cpl: number;
  readonly cr3: bigint;
  /** Of an exit: instructions since the entry. */
  readonly instructions: number;
}

export const GUEST = "guest";

export class TransitionLog {
  readonly #sinks: ((transition: Transition) => void)[] = [];

  /** Answers what ends it. */
  watch(sink: (transition: Transition) => void): () => void {
    this.#sinks.push(sink);
    return () => this.#sinks.splice(this.#sinks.indexOf(sink), 1);
  }

  get isWatched(): boolean {
    return this.#sinks.length > 0;
  }

  entry(vm: string, vcpu: number, vmcs: Vmcs): void {
    const interruption = vmcs.number(Field.ENTRY_INTERRUPTION_INFO);
    const event = { reason: 0, qualification: 0, interruption, vectoring: 0, instructions: 0 };
    this.#add({ kind: "entry", vm, vcpu, ...event, ...placeOf(vmcs) });
  }

  exit(vm: string, vcpu: number, vmcs: Vmcs, instructions: number): void {
    this.#add({
      ...{ kind: "exit", vm, vcpu, instructions },
      reason: vmcs.number(Field.EXIT_REASON),
      qualification: vmcs.number(Field.EXIT_QUALIFICATION),
      interruption: vmcs.number(Field.EXIT_INTERRUPTION_INFO),
      vectoring: vmcs.number(Field.IDT_VECTORING_INFO),
      ...placeOf(vmcs),
    });
  }

  #add(transition: Transition): void {
    for (const sink of this.#sinks) sink(transition);
  }
}

function placeOf(vmcs: Vmcs): { rip: bigint; cpl: number; cr3: bigint } {
  return {
    rip: vmcs.big(Field.GUEST_RIP),
    cpl: vmcs.state.getUint32(S.CPL.at, true),
    cr3: vmcs.big(Field.GUEST_CR3),
  };
}

export function formatTransition(t: Transition): string {
  const place = `rip=${t.rip.toString(16)} cpl=${t.cpl} cr3=${t.cr3.toString(16)}`;
  if (t.kind === "entry") return `- entry ${t.vm} ${place}`;
  return `- exit ${t.vm} ${exitReasonName(t.reason)} q=${t.qualification.toString(16)} ${place} n=${t.instructions}`;
}
