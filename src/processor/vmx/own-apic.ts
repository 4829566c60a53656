/**
 * APIC virtualization by the VMCSs of our own hypervisor. SDM Vol. 3C, "APIC Virtualization and Virtual Interrupts". Their physical addresses
 * are those of the VM's memory.
 *
 * Beyond the manual: if the EPT entry that leads to the APIC-access page is marked as a device (memory/ept.ts), its APIC-access exits carry
 * access assist as EPT violations of devices do, so that the hypervisor needs no instruction decoder: a write is done when it exits. And direct
 * delivery (isa/vendor.ts): external interrupts become virtual ones by a bitmap and a table.
 */
import { ExitReason } from "../isa/exit-reasons.ts";
import { VendorControl, VendorField } from "../isa/vendor.ts";
import { Field, INTERRUPTION_VALID, PrimaryControl, SecondaryControl } from "../isa/vmcs-fields.ts";
import { EptEntry, type EptLeaf, frameOf } from "../memory/ept.ts";
import {
  DEVICE_WRITES,
  GPR,
  OWN_MSR_BITMAP,
  Page,
  PHYSICAL_MAP,
  PHYSICAL_MAP_PAGES,
  S,
  Status,
} from "../state/layout.ts";
import { advance } from "./advance.ts";
import { ApicVirtualization, apicAccess } from "./apic-virtualization.ts";
import type { Engine } from "./engine-port.ts";
import { type Effect, VirtualApic } from "./virtual-apic.ts";
import type { Vmcs } from "./vmcs.ts";

const GP = 13;
/** x2APIC registers in the MSR bitmap: 256 bits from byte 100H for reads, and from 900H for writes. */
const [X2APIC_READS, X2APIC_WRITES, X2APIC_BYTES] = [0x100, 0x900, 0x20];
const WRITE_BITMAP = 0x800;
/** Vectors below are no interrupts. */
const FIRST_VECTOR = 16;

export interface OwnApicPort {
  readonly engine: Engine;
  showWindow(): void;
  /** Event injection of a VM entry. Answers a Status. */
  inject(info: number): number;
  /** An exit of the engine may be that of a guest hypervisor's guest to it. Answers true if the guest goes on. */
  handledByGuest(reason: number): boolean;
  /** Where our own EPT leads from a guest-physical page. */
  leafOf(page: number): EptLeaf;
}

export class OwnApic {
  readonly apic: VirtualApic;
  readonly #port: OwnApicPort;
  readonly #virtual: ApicVirtualization;
  #vmcs: Vmcs | null = null;
  /** Controls of the VMCS, as loaded. */
  #hasShadow = false;
  #hasAccesses = false;
  #isX2apic = false;
  /** APIC-access address, and a guest-physical page that leads to it, -1 if none is known. */
  #accessFrame = 0;
  #accessPage = -1;

  constructor(port: OwnApicPort) {
    this.#port = port;
    const fields = {
      number: (field: number) => this.#vmcs!.number(field),
      big: (field: number) => this.#vmcs!.big(field),
      set: (field: number, value: number) => this.#vmcs!.set(field, value),
    };
    const { view } = port.engine;
    this.apic = new VirtualApic({ view, hostOf: hostIn(view) }, fields);
    this.#virtual = new ApicVirtualization(this.apic, fields, {
      view,
      showWindow: () => port.showWindow(),
      advance: () => advance(port.engine),
      fault: () => this.#settled(port.engine.raise(GP, 0)),
      trapExit: (effect) => this.#trapExit(effect),
    });
  }

  get #view(): DataView {
    return this.#port.engine.view;
  }

  /** The controls of `vmcs` are being loaded; the hot form of them holds what it says. */
  load(vmcs: Vmcs, primary: number, secondary: number): void {
    const view = this.#view;
    this.#vmcs = vmcs;
    this.#hasShadow = (primary & PrimaryControl.TPR_SHADOW) !== 0;
    this.#hasAccesses = (secondary & SecondaryControl.APIC_ACCESSES) !== 0;
    this.#isX2apic = (secondary & SecondaryControl.X2APIC) !== 0;
    const frame = this.#hasAccesses ? vmcs.number(Field.APIC_ACCESS) : 0;
    if (frame !== this.#accessFrame) this.forgetPage();
    this.#accessFrame = frame;
    if (!this.#hasShadow) {
      this.apic.isRecognized = false;
      return;
    }
    const { CR8_LOAD, CR8_STORE } = PrimaryControl;
    view.setInt32(S.CTL_PRIMARY.at, primary | CR8_LOAD | CR8_STORE, true);
    if (this.#isX2apic) this.#interceptMsrs();
  }

  /** All MSRs of x2APIC mode leave the engine; which of them exit is looked up there. */
  #interceptMsrs(): void {
    const view = this.#view;
    const own = view.getUint32(S.CTL_MSR_BITMAP.at, true);
    if (own === 0) return;
    const bytes = new Uint8Array(view.buffer);
    bytes.copyWithin(OWN_MSR_BITMAP, own, own + 4096);
    for (const at of [X2APIC_READS, X2APIC_WRITES])
      bytes.fill(0xff, OWN_MSR_BITMAP + at, OWN_MSR_BITMAP + at + X2APIC_BYTES);
    view.setUint32(S.CTL_MSR_BITMAP.at, OWN_MSR_BITMAP, true);
  }

  /** VM entry. Answers the exit that follows it at once, or null. */
  enter(): Effect {
    return this.#hasShadow ? this.apic.enter() : null;
  }

  // ---- the APIC-access page ----

  forgetPage(): void {
    this.#accessPage = -1;
  }

  /** Physical-map entry of a page to which `leaf` leads, if that is the APIC-access page, else 0. It is not to be kept. */
  fill(page: number, leaf: EptLeaf, need: number): number {
    if (!this.#hasAccesses || frameOf(leaf, page) !== this.#accessFrame) return 0;
    this.#accessPage = page;
    if ((need & Page.EXECUTE) !== 0) return Page.KNOWN;
    if ((leaf.entry & EptEntry.DEVICE) !== 0n) return Page.KNOWN | Page.DEVICE;
    const offset = this.#view.getUint32(S.WALK_PHYSICAL.at, true) & 0xfff;
    const isVirtual = this.apic.virtualizes(offset, (need & Page.WRITE) !== 0);
    return isVirtual ? Page.KNOWN | Page.DEVICE : Page.KNOWN;
  }

  /** Whether a guest-physical page is the APIC-access page. */
  isAccessPage(page: number): boolean {
    if (!this.#hasAccesses) return false;
    if (page === this.#accessPage) return true;
    if (page >= PHYSICAL_MAP_PAGES) return false;
    if (this.#view.getUint32(PHYSICAL_MAP + 4 * page, true) !== 0) return false;
    return frameOf(this.#port.leafOf(page), page) === this.#accessFrame;
  }

  /** An exit of the engine. Answers true if it was none of the VMCS's and the guest goes on. */
  handle(reason: number): boolean {
    switch (reason) {
      case ExitReason.EPT_VIOLATION:
        return this.#hasAccesses && this.#access();
      case ExitReason.INTERRUPT_WINDOW:
        return this.apic.isRecognized && this.#deliver();
      case ExitReason.CR_ACCESS:
        return this.#hasShadow && (this.#virtual.taskPriority() ?? false);
      case ExitReason.RDMSR:
      case ExitReason.WRMSR:
        return this.#isX2apic && !this.#exitsMsr(reason) && (this.#virtual.msr(reason) ?? false);
      default:
        return false;
    }
  }

  #exitsMsr(reason: number): boolean {
    const view = this.#view;
    const index = view.getUint32(GPR + 8, true);
    const bitmap = this.#vmcs!.number(Field.MSR_BITMAP);
    if ((this.#vmcs!.number(Field.PRIMARY_CONTROLS) & PrimaryControl.MSR_BITMAPS) === 0)
      return true;
    if (index >= 8 * WRITE_BITMAP) return true;
    const at = bitmap + (reason === ExitReason.WRMSR ? WRITE_BITMAP : 0) + (index >>> 3);
    return ((view.getUint8(at) >>> (index & 7)) & 1) !== 0;
  }

  /** An access to the APIC-access page, or writes to devices of which some are. */
  #access(): boolean {
    const view = this.#view;
    if (view.getUint32(S.DEVICE_WRITE_COUNT.at, true) > 0) {
      const effect = this.write();
      if (effect !== null) return this.#trapExit(effect);
      if (view.getUint32(S.DEVICE_WRITE_COUNT.at, true) > 0) return false;
      view.setUint32(S.DEVICE_REPLY_COUNT.at, 0, true);
      view.setUint32(S.DEVICE_REPLY_NEXT.at, 0, true);
      return true;
    }
    const address = view.getBigUint64(S.EXIT_PHYSICAL.at, true);
    if (!this.isAccessPage(Number(address >> 12n))) return false;
    const offset = Number(address & 0xfffn);
    const size = view.getUint32(S.DEVICE_SIZE.at, true);
    if (size > 0 && size <= 4 && this.apic.virtualizes(offset, false)) {
      this.#virtual.reply(offset);
      return true;
    }
    const need = view.getUint32(S.EXIT_QUALIFICATION.at, true) & 7;
    view.setBigUint64(S.EXIT_QUALIFICATION.at, apicAccess(view, offset, need), true);
    view.setUint32(S.EXIT_INTERRUPTION.at, 0, true);
    view.setUint32(S.EXIT_REASON.at, ExitReason.APIC_ACCESS, true);
    return false;
  }

  /**
   * Carries out the virtualized writes at the head of the queue of device writes. Answers the exit that follows one; null if the queue is
   * empty or begins with another write.
   */
  write(): Effect {
    const view = this.#view;
    if (!this.#hasAccesses) return null;
    let effect: Effect = null;
    let count = view.getUint32(S.DEVICE_WRITE_COUNT.at, true);
    const before = count;
    while (count > 0 && effect === null) {
      const low = view.getUint32(DEVICE_WRITES + 8, true);
      const sizeAndHigh = view.getUint32(DEVICE_WRITES + 12, true);
      const size = sizeAndHigh & 0xff;
      const offset = low & 0xfff;
      if (sizeAndHigh >>> 8 !== 0 || !this.isAccessPage(low >>> 12)) break;
      if (size > 4 || !this.apic.virtualizes(offset, true)) break;
      const data = view.getUint32(DEVICE_WRITES, true);
      dropDeviceWrite(view, count--);
      effect = this.apic.write(offset, data, size);
    }
    if (count !== before) {
      this.#port.engine.updateMode();
      this.#port.showWindow();
    }
    return effect;
  }

  // ---- interrupts ----

  #deliver(): boolean {
    const vector = this.apic.accept();
    this.#port.showWindow();
    return this.#settled(this.#port.inject(INTERRUPTION_VALID + vector));
  }

  /** An external interrupt of the local APIC has been acknowledged. Answers true if that is all: it has been posted, or is a virtual one now. */
  take(vector: number, isLevel: boolean): boolean {
    if (!this.#hasShadow) return false;
    const isTaken = this.apic.takePosted(vector) || (!isLevel && this.#direct(vector));
    if (isTaken) this.#port.showWindow();
    return isTaken;
  }

  /** Direct delivery. */
  #direct(vector: number): boolean {
    const vmcs = this.#vmcs!;
    if ((vmcs.number(VendorField.CONTROLS) & VendorControl.DIRECT_DELIVERY) === 0) return false;
    const view = this.#view;
    const bitmap = vmcs.number(VendorField.DELIVERY_BITMAP);
    if (((view.getUint8(bitmap + (vector >>> 3)) >>> (vector & 7)) & 1) === 0) return false;
    const to = view.getUint8(vmcs.number(VendorField.DELIVERY_TABLE) + vector);
    if (to < FIRST_VECTOR || !this.apic.isEnabled) return false;
    this.apic.request(to);
    return true;
  }

  // ---- exits ----

  #trapExit({ reason, qualification }: NonNullable<Effect>): boolean {
    const view = this.#view;
    view.setUint32(S.EXIT_REASON.at, reason, true);
    view.setUint32(S.EXIT_LENGTH.at, 0, true);
    view.setUint32(S.VECTORING.at, 0, true);
    view.setUint32(S.EXIT_INTERRUPTION.at, 0, true);
    view.setBigUint64(S.EXIT_QUALIFICATION.at, BigInt(qualification), true);
    return false;
  }

  #settled(status: number): boolean {
    return (
      status !== Status.EXIT ||
      this.#port.handledByGuest(this.#view.getUint32(S.EXIT_REASON.at, true))
    );
  }
}

/** Takes the oldest of `count` queued device writes away. */
export function dropDeviceWrite(view: DataView, count: number): void {
  new Uint8Array(view.buffer).copyWithin(
    DEVICE_WRITES,
    DEVICE_WRITES + 16,
    DEVICE_WRITES + 16 * count,
  );
  view.setUint32(S.DEVICE_WRITE_COUNT.at, count - 1, true);
}

/** Addresses of the VM's memory, as far as it goes. */
function hostIn(view: DataView): (physical: bigint) => number {
  return (physical) => (physical < BigInt(view.byteLength) ? Number(physical) : 0);
}
