/** The processor's virtual APIC on a bench: its page, its descriptor and a VMCS in plain memory, beside the reference model. */
import {
  Field,
  PinControl,
  PrimaryControl,
  SecondaryControl,
} from "../../src/processor/isa/vmcs-fields.ts";
import { GuestVmcs } from "../../src/processor/vmx/guest/guest-vmcs.ts";
import { ApicRegister, VirtualApic } from "../../src/processor/vmx/virtual-apic.ts";
import type { Random } from "./random.ts";
import { VirtualApicModel } from "./virtual-apic-model.ts";

const PAGE = 0x1000;
const DESCRIPTOR = 0x2000;
const VMCS = 0x3000;
const NOTIFICATION = 0xf2;
const OUTSTANDING = 32;
/** Bits of the descriptor that belong to software. */
const SOFTWARE = 0xa5;

export class VirtualApicBench {
  readonly view = new DataView(new ArrayBuffer(0x5000));
  readonly vmcs = new GuestVmcs(this.view);
  readonly apic: VirtualApic;
  readonly model: VirtualApicModel;

  constructor(eoiExits: readonly number[] = []) {
    const { vmcs } = this;
    vmcs.at = VMCS;
    vmcs.set(Field.PRIMARY_CONTROLS, (PrimaryControl.TPR_SHADOW | PrimaryControl.SECONDARY) >>> 0);
    const { APIC_ACCESSES, APIC_REGISTERS, VIRTUAL_INTERRUPTS } = SecondaryControl;
    vmcs.set(Field.SECONDARY_CONTROLS, APIC_ACCESSES | APIC_REGISTERS | VIRTUAL_INTERRUPTS);
    vmcs.set(Field.PIN_CONTROLS, PinControl.POSTED_INTERRUPTS);
    vmcs.set(Field.POSTED_NOTIFICATION_VECTOR, NOTIFICATION);
    vmcs.set(Field.VIRTUAL_APIC, PAGE);
    vmcs.set(Field.POSTED_INTERRUPT_DESCRIPTOR, DESCRIPTOR);
    for (const vector of eoiExits) {
      const at = vmcs.placeOf(Field.EOI_EXIT0 + 2 * (vector >> 6)) + ((vector & 63) >> 3);
      this.view.setUint8(at, this.view.getUint8(at) | (1 << (vector & 7)));
    }
    this.apic = new VirtualApic({ hostOf: (physical) => Number(physical), view: this.view }, vmcs);
    this.model = new VirtualApicModel(new Set(eoiExits));
  }

  /** Sets bits of the descriptor, then notifies. Answers whether it was processed, and left as it must be. */
  post(vectors: readonly number[]): boolean {
    const { view } = this;
    for (const v of vectors) {
      const at = DESCRIPTOR + (v >> 3);
      view.setUint8(at, view.getUint8(at) | (1 << (v & 7)));
    }
    view.setUint8(DESCRIPTOR + OUTSTANDING, 1);
    view.setUint8(DESCRIPTOR + OUTSTANDING + 1, SOFTWARE);
    const isDone = this.apic.takePosted(NOTIFICATION);
    this.model.post(vectors);
    const isEmpty = [0, 8, 16, 24].every((at) => view.getBigUint64(DESCRIPTOR + at, true) === 0n);
    return (
      isDone &&
      isEmpty &&
      view.getUint8(DESCRIPTOR + OUTSTANDING) === 0 &&
      view.getUint8(DESCRIPTOR + OUTSTANDING + 1) === SOFTWARE
    );
  }

  /** One operation on both. Answers what they disagree about besides their state, or null. */
  step(random: Random): string | null {
    const { apic, model } = this;
    if (model.isRecognized && random.chance(40)) {
      const [got, wanted] = [apic.accept(), model.deliver()];
      return got === wanted ? null : `delivered ${got}, not ${wanted}`;
    }
    const vector = 16 + random.below(240);
    switch (random.below(6)) {
      case 0: {
        const value = random.below(256);
        model.writeTpr(value);
        return apic.write(ApicRegister.TPR, value) === null ? null : "effect of a TPR write";
      }
      case 1: {
        if (model.svi === 0) return null;
        const effect = apic.write(ApicRegister.EOI, random.word());
        const exit = model.end();
        return (effect?.qualification ?? null) === exit
          ? null
          : `EOI led to ${effect?.qualification}, not ${exit}`;
      }
      case 2:
        model.selfIpi(vector);
        return apic.write(ApicRegister.ICR_LOW, 0x4_4000 | vector) === null
          ? null
          : "effect of a self-IPI";
      case 3:
        return this.post(Array.from({ length: random.below(5) }, () => 16 + random.below(240)))
          ? null
          : "posting";
      case 4:
        return this.post([]) ? null : "empty posting";
      default:
        model.enter();
        apic.enter();
        return null;
    }
  }

  /** Where the two differ, or null. */
  difference(): string | null {
    const { apic, model, vmcs } = this;
    const bits = (base: number): string => {
      const list: number[] = [];
      for (let v = 0; v < 256; v++)
        if ((apic.read(base + 16 * (v >> 5)) >>> (v & 31)) & 1) list.push(v);
      return list.join(" ");
    };
    const sorted = (set: ReadonlySet<number>): string => [...set].sort((a, b) => a - b).join(" ");
    const status = vmcs.number(Field.GUEST_INTERRUPT_STATUS);
    const pairs: [string, unknown, unknown][] = [
      ["VIRR", bits(ApicRegister.IRR), sorted(model.irr)],
      ["VISR", bits(ApicRegister.ISR), sorted(model.isr)],
      ["RVI", status & 0xff, model.rvi],
      ["SVI", status >> 8, model.svi],
      ["VTPR", apic.tpr, model.tpr],
      ["VPPR", apic.read(ApicRegister.PPR) & 0xff, model.ppr],
      ["recognized", apic.isRecognized, model.isRecognized],
    ];
    const wrong = pairs.find(([, got, wanted]) => got !== wanted);
    return wrong ? `${wrong[0]}: ${wrong[1]}, not ${wrong[2]}` : null;
  }
}
