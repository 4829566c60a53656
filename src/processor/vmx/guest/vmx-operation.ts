/**
 * VMX operation of a guest hypervisor: between VMXON and VMXOFF, which VMCS is current, and where guest memory is.
 * SDM Vol. 3C, "Enabling and Entering VMX Operation", "The Virtual-Machine Control Structure"; restrictions of CR0 and CR4.
 */
import { Field, PrimaryControl } from "../../isa/vmcs-fields.ts";
import { Cr0 } from "../../state/control-bits.ts";
import { LOST_VMCS, Page, PHYSICAL_MAP, S } from "../../state/layout.ts";
import type { EntryLimits } from "../capabilities.ts";
import { VirtualApic } from "../virtual-apic.ts";
import { GuestVmcs } from "./guest-vmcs.ts";

export const NO_POINTER = 0xffff_ffff_ffff_ffffn;

export class VmxOperation {
  readonly view: DataView;
  readonly limits: EntryLimits;
  /** The current VMCS, and one to look at another with. */
  readonly vmcs: GuestVmcs;
  readonly other: GuestVmcs;
  /** The virtual APIC of the current VMCS. */
  readonly apic: VirtualApic;
  readonly #ownPage: (page: number, need: number) => number;
  /** VMXON region, and current VMCS: physical addresses, NO_POINTER for none. */
  vmxon = NO_POINTER;
  current = NO_POINTER;
  /** The current VMCS has been written since its checks passed, but for the fields that every entry writes. */
  mustCheck = true;

  /** `ownPage`: physical-map entry (Page) of a guest-physical page of the guest hypervisor, for an access that needs these rights. */
  constructor(
    view: DataView,
    limits: EntryLimits,
    ownPage: (page: number, need: number) => number,
  ) {
    this.view = view;
    this.limits = limits;
    this.#ownPage = ownPage;
    this.vmcs = new GuestVmcs(view);
    this.other = new GuestVmcs(view);
    this.apic = new VirtualApic(this, this.vmcs);
  }

  /** Host address of a byte of RAM at a guest-physical address of the guest hypervisor, 0 if there is none. */
  hostOf(physical: bigint): number {
    if (physical >> 32n !== 0n) return 0;
    const at = Number(physical);
    const page = at >>> 12;
    const known = this.view.getUint32(PHYSICAL_MAP + 4 * page, true);
    const RW = Page.READ | Page.WRITE;
    const entry = known === 0 ? this.#ownPage(page, RW) : known;
    return (entry & RW) === RW ? ((entry & -4096) | (at & 4095)) >>> 0 : 0;
  }

  pin(bit: number): boolean {
    return (this.vmcs.number(Field.PIN_CONTROLS) & bit) !== 0;
  }

  primary(bit: number): boolean {
    return (this.vmcs.number(Field.PRIMARY_CONTROLS) & bit) !== 0;
  }

  secondary(bit: number): boolean {
    return (
      this.primary(PrimaryControl.SECONDARY) &&
      (this.vmcs.number(Field.SECONDARY_CONTROLS) & bit) !== 0
    );
  }

  exitControl(bit: number): boolean {
    return (this.vmcs.number(Field.EXIT_CONTROLS) & bit) !== 0;
  }

  /** What MOV to CR0 and CR4 may not clear. */
  requireBits(isUnrestricted: boolean): void {
    const view = this.view;
    const free = isUnrestricted ? BigInt(Cr0.PE) | BigInt(Cr0.PG) : 0n;
    view.setBigUint64(S.CR0_REQUIRED.at, this.limits.cr0Fixed & ~free, true);
    view.setBigUint64(S.CR4_REQUIRED.at, this.limits.cr4Fixed, true);
  }

  setCurrent(address: bigint): void {
    this.current = address;
    this.mustCheck = true;
    this.locate();
  }

  /** The place of the current VMCS, which our own hypervisor may have moved or taken away. */
  locate(): void {
    this.mustCheck = true;
    const at = this.current === NO_POINTER ? 0 : this.hostOf(this.current);
    this.vmcs.at = at === 0 ? LOST_VMCS : at;
    this.apic.locate();
  }
}
