/**
 * How a guest reaches its virtual APIC: the exits of the engine that are no VM exits, because the VMCS has them virtualized. MOV CR8 and the
 * MSRs of x2APIC mode leave the engine by themselves, accesses to the APIC-access page as those to a device.
 * SDM Vol. 3C, "Virtualizing CR8-Based TPR Accesses", "Virtualizing Memory-Mapped APIC Accesses", "Virtualizing MSR-Based APIC Accesses".
 *
 * One piece of code for VMCSs of our own hypervisor (processor.ts) and those of a guest hypervisor (guest-vmx.ts), which say what an exit, a
 * fault and the end of an instruction are. The functions answer true if the guest goes on, false for an exit (S.EXIT_*) to our own hypervisor.
 */
import { ExitReason } from "../isa/exit-reasons.ts";
import { Field, PrimaryControl } from "../isa/vmcs-fields.ts";
import { DEVICE_REPLIES, GPR, gprAt, S } from "../state/layout.ts";
import type { ApicFields, Effect, VirtualApic } from "./virtual-apic.ts";

const CR8 = 8;
/** Qualification of a control-register access: register in bits 3:0, kind in 5:4 (0 = load), general register in 11:8. */
const ACCESS_KIND = 0x30;

export interface ApicHost {
  readonly view: DataView;
  /** The engine stops where the guest is open to an interrupt if somebody waits for it: that may have changed. */
  showWindow(): void;
  /** Past the instruction at RIP. */
  advance(): void;
  /** The instruction at RIP is a #GP(0). */
  fault(): boolean;
  /** A VM exit after the instruction at whose end RIP is. */
  trapExit(effect: NonNullable<Effect>): boolean;
}

export class ApicVirtualization {
  readonly #apic: VirtualApic;
  readonly #vmcs: ApicFields;
  readonly #host: ApicHost;

  constructor(apic: VirtualApic, vmcs: ApicFields, host: ApicHost) {
    this.#apic = apic;
    this.#vmcs = vmcs;
    this.#host = host;
  }

  /** An operation of the virtual APIC is done, and with it the instruction. */
  settle(effect: Effect): boolean {
    this.#host.showWindow();
    return effect === null || this.#host.trapExit(effect);
  }

  /** A CR access with a TPR shadow. Answers null for another register, or one that the VMM wants to see. */
  taskPriority(): boolean | null {
    const { view } = this.#host;
    const qualification = view.getUint32(S.EXIT_QUALIFICATION.at, true);
    if ((qualification & 15) !== CR8) return null;
    const isLoad = (qualification & ACCESS_KIND) === 0;
    const exits = isLoad ? PrimaryControl.CR8_LOAD : PrimaryControl.CR8_STORE;
    if ((this.#vmcs.number(Field.PRIMARY_CONTROLS) & exits) !== 0) return null;
    const register = gprAt((qualification >> 8) & 15);
    if (!isLoad) {
      view.setBigUint64(register, BigInt(this.#apic.tpr >>> 4), true);
      this.#host.advance();
      return true;
    }
    const value = view.getBigUint64(register, true);
    if (value > 15n) return this.#host.fault();
    this.#host.advance();
    return this.settle(this.#apic.writeTpr(Number(value) << 4));
  }

  /** RDMSR or WRMSR that no bitmap sends to the VMM. Answers null if it is not virtualized. */
  msr(reason: number): boolean | null {
    const { view } = this.#host;
    const index = view.getUint32(GPR + 8, true);
    if (reason === ExitReason.RDMSR) {
      const value = this.#apic.readMsr(index);
      if (value === null) return null;
      view.setBigUint64(gprAt(0), value & 0xffff_ffffn, true);
      view.setBigUint64(gprAt(2), value >> 32n, true);
      this.#host.advance();
      return true;
    }
    const high = BigInt(view.getUint32(gprAt(2), true)) << 32n;
    const effect = this.#apic.writeMsr(index, high | BigInt(view.getUint32(gprAt(0), true)));
    if (effect === undefined) return null;
    if (effect === "fault") return this.#host.fault();
    this.#host.advance();
    return this.settle(effect);
  }

  /** A virtualized read of the APIC-access page: answered as a device's is. */
  reply(offset: number): void {
    const { view } = this.#host;
    const count = view.getUint32(S.DEVICE_REPLY_COUNT.at, true);
    const value = BigInt(this.#apic.read(offset & 0xff0)) >> BigInt(8 * (offset & 3));
    view.setBigUint64(DEVICE_REPLIES + 16 * count, value, true);
    view.setUint32(S.DEVICE_REPLY_COUNT.at, count + 1, true);
    view.setUint32(S.DEVICE_REPLY_NEXT.at, 0, true);
  }
}

/** Qualification of an APIC-access exit. SDM Vol. 3C, "Exit Qualification for APIC-Access VM Exits". `need`: Page rights. */
export function apicAccess(view: DataView, offset: number, need: number): bigint {
  const [WRITE, EXECUTE] = [2, 4];
  const isDelivery = view.getUint32(S.VECTORING.at, true) !== 0;
  const access = (need & EXECUTE) !== 0 ? 2 : (need & WRITE) !== 0 ? 1 : 0;
  return BigInt(offset | ((isDelivery ? 3 : access) << 12));
}
