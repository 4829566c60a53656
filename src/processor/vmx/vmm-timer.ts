/**
 * When a stay in VMX non-root operation ends by time: the VMX-preemption timer, and the absolute deadline (vendor).
 * SDM Vol. 3C, "VMX-Preemption Timer".
 *
 * The timer counts down whenever bit `shift` of the TSC changes, so it expires at a TSC that is known at entry. Nothing counts: the
 * processor's runs end there.
 */
import { ExitReason } from "../isa/exit-reasons.ts";
import { VendorControl, VendorExit, VendorField } from "../isa/vendor.ts";
import { ExitControl, Field, PinControl } from "../isa/vmcs-fields.ts";
import type { Vmcs } from "./vmcs.ts";

export class VmmTimer {
  /** TSC (without offset) of the first boundary at which the guest is left; Infinity without a timer. */
  deadline = Infinity;
  /** Exit reason of `deadline`. */
  reason: number = ExitReason.PREEMPTION_TIMER;
  /** TSC ticks per count. */
  readonly #ticks: number;
  #expiry = Infinity;

  /** `shift`: IA32_VMX_MISC bits 4:0. */
  constructor(shift: number) {
    this.#ticks = 2 ** shift;
  }

  /** VM entry at TSC `now`. */
  arm(vmcs: Vmcs, now: number): void {
    const isActive = (vmcs.number(Field.PIN_CONTROLS) & PinControl.PREEMPTION_TIMER) !== 0;
    this.#expiry = isActive
      ? (Math.floor(now / this.#ticks) + vmcs.number(Field.PREEMPTION_TIMER)) * this.#ticks
      : Infinity;
    this.deadline = this.#expiry;
    this.reason = ExitReason.PREEMPTION_TIMER;
    if ((vmcs.number(VendorField.CONTROLS) & VendorControl.DEADLINE) === 0) return;
    const at = vmcs.number(VendorField.VMM_DEADLINE);
    if (at >= this.deadline) return;
    this.deadline = at;
    this.reason = VendorExit.VMM_DEADLINE;
  }

  /** VM exit at TSC `now`. */
  save(vmcs: Vmcs, now: number): void {
    if ((vmcs.number(Field.EXIT_CONTROLS) & ExitControl.SAVE_PREEMPTION_TIMER) === 0) return;
    const left = Math.ceil(this.#expiry / this.#ticks) - Math.floor(now / this.#ticks);
    vmcs.set(Field.PREEMPTION_TIMER, Math.max(0, left));
  }
}
