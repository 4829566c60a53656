/**
 * VMX instructions of a guest hypervisor, but for VM entries. SDM Vol. 3C, "VMX Instruction Reference".
 * What they answer is how they end (Outcome); flags and RIP are the caller's.
 */
import { ExitReason } from "../../isa/exit-reasons.ts";
import { Field, SecondaryControl } from "../../isa/vmcs-fields.ts";
import { Cr4 } from "../../state/control-bits.ts";
import { S } from "../../state/layout.ts";
import { REVISION } from "../capabilities.ts";
import { isVirtual8086 } from "../entry-checks/check.ts";
import { readRflags, writeRflags } from "../rflags.ts";
import { type GuestVmcs, supportedFields } from "./guest-vmcs.ts";
import { type Fault, isFault, type Operands } from "./operands.ts";
import {
  ARITHMETIC,
  FAIL_INVALID,
  GP,
  KEEP_FLAGS,
  type Outcome,
  RFLAGS,
  SUCCEED,
  UD,
  VmxError,
} from "./outcome.ts";
import type { Translations } from "./translations.ts";
import { NO_POINTER, type VmxOperation } from "./vmx-operation.ts";

/** Fields that hypervisors write at every exit, and whose rules are looked at at every entry. */
export const UNCHECKED: ReadonlySet<number> = new Set<number>([
  Field.GUEST_RIP,
  Field.GUEST_RSP,
  Field.GUEST_RFLAGS,
  Field.GUEST_INTERRUPTIBILITY,
  Field.GUEST_PENDING_DEBUG,
  Field.GUEST_INTERRUPT_STATUS,
  Field.ENTRY_INTERRUPTION_INFO,
  Field.ENTRY_ERROR_CODE,
  Field.ENTRY_INSTRUCTION_LENGTH,
  Field.EXCEPTION_BITMAP,
  Field.PREEMPTION_TIMER,
  Field.TPR_THRESHOLD,
  Field.TSC_OFFSET,
  Field.TSC_MULTIPLIER,
  Field.HOST_RSP,
]);

/** An EPT pointer that VM entry takes. */
export function isGoodEptp(eptp: bigint, physicalBits: number): boolean {
  const type = eptp & 7n;
  return (
    (type === 0n || type === 6n) && (eptp & 0xfb8n) === 0x18n && eptp >> BigInt(physicalBits) === 0n
  );
}

export class VmxInstructions {
  readonly #operation: VmxOperation;
  readonly #translations: Translations;
  readonly #operands: Operands;
  readonly #fields: ReadonlySet<number>;

  constructor(operation: VmxOperation, translations: Translations, operands: Operands) {
    this.#operation = operation;
    this.#translations = translations;
    this.#operands = operands;
    this.#fields = supportedFields(operation.limits);
  }

  /** The instruction that has left the engine with `reason`; null for another one. */
  run(reason: number): Outcome | null {
    switch (reason) {
      case ExitReason.VMXON:
        return this.#vmxon();
      case ExitReason.VMXOFF:
        return this.inRoot(() => this.#vmxoff());
      case ExitReason.VMCLEAR:
        return this.inRoot(() => this.#vmclear());
      case ExitReason.VMPTRLD:
        return this.inRoot(() => this.#vmptrld());
      case ExitReason.VMPTRST:
        return this.inRoot(() => this.#vmptrst());
      case ExitReason.VMREAD:
        return this.inRoot(() => this.#vmread());
      case ExitReason.VMWRITE:
        return this.inRoot(() => this.#vmwrite());
      case ExitReason.INVEPT:
        return this.inRoot(() => this.#invept());
      case ExitReason.INVVPID:
        return this.inRoot(() => this.#invvpid());
      case ExitReason.VMCALL:
        return this.inRoot(() => VmxError.VMCALL_IN_ROOT);
      default:
        return null;
    }
  }

  /** What stands before every VMX instruction but VMXON. */
  inRoot(body: () => Outcome): Outcome {
    if (this.#operation.vmxon === NO_POINTER) return { vector: UD };
    if (this.#operation.view.getUint32(S.CPL.at, true) !== 0) return { vector: GP, error: 0 };
    return body();
  }

  /** The 64-bit address operand of VMXON, VMCLEAR, VMPTRLD. */
  #pointer(): bigint | Fault {
    const words = this.#operands.read(8);
    return isFault(words) ? words : words[0];
  }

  #isBadPointer(address: bigint): boolean {
    return (
      (address & 0xfffn) !== 0n || address >> BigInt(this.#operation.limits.physicalBits) !== 0n
    );
  }

  #vmxon(): Outcome {
    const view = this.#operation.view;
    if ((view.getUint32(S.CR4.at, true) & Cr4.VMXE) === 0) return { vector: UD };
    if (view.getUint32(S.CPL.at, true) !== 0) return { vector: GP, error: 0 };
    if (this.#operation.vmxon !== NO_POINTER) return VmxError.VMXON_IN_ROOT;
    const missing = this.#operation.limits.cr0Fixed & ~view.getBigUint64(S.CR0.at, true);
    if (missing !== 0n) return { vector: GP, error: 0 };
    const address = this.#pointer();
    if (isFault(address)) return address;
    if (this.#isBadPointer(address)) return FAIL_INVALID;
    const at = this.#operation.hostOf(address);
    if (at === 0 || view.getUint32(at, true) !== REVISION) return FAIL_INVALID;
    this.#operation.vmxon = address;
    this.#operation.setCurrent(NO_POINTER);
    this.#operation.requireBits(false);
    this.#translations.begin();
    return SUCCEED;
  }

  #vmxoff(): Outcome {
    const view = this.#operation.view;
    this.#operation.vmxon = NO_POINTER;
    this.#operation.setCurrent(NO_POINTER);
    view.setBigUint64(S.CR0_REQUIRED.at, 0n, true);
    view.setBigUint64(S.CR4_REQUIRED.at, 0n, true);
    return SUCCEED;
  }

  #vmclear(): Outcome {
    const address = this.#pointer();
    if (isFault(address)) return address;
    if (this.#isBadPointer(address)) return VmxError.VMCLEAR_ADDRESS;
    if (address === this.#operation.vmxon) return VmxError.VMCLEAR_VMXON;
    const at = this.#operation.hostOf(address);
    if (at === 0) return VmxError.VMCLEAR_ADDRESS;
    this.#operation.other.at = at;
    this.#operation.other.isLaunched = false;
    if (address === this.#operation.current) this.#operation.setCurrent(NO_POINTER);
    return SUCCEED;
  }

  #vmptrld(): Outcome {
    const address = this.#pointer();
    if (isFault(address)) return address;
    if (this.#isBadPointer(address)) return VmxError.VMPTRLD_ADDRESS;
    if (address === this.#operation.vmxon) return VmxError.VMPTRLD_VMXON;
    const at = this.#operation.hostOf(address);
    if (at === 0) return VmxError.VMPTRLD_ADDRESS;
    this.#operation.other.at = at;
    const shadows =
      (this.#operation.limits.secondary.allowed & SecondaryControl.VMCS_SHADOWING) !== 0;
    if (this.#operation.other.revision !== REVISION || (this.#operation.other.isShadow && !shadows))
      return VmxError.VMPTRLD_REVISION;
    this.#operation.setCurrent(address);
    return SUCCEED;
  }

  #vmptrst(): Outcome {
    return this.#operands.write(8, this.#operation.current) ?? SUCCEED;
  }

  /** Part of a field that an encoding names: bit 0 is the upper half of a 64-bit field. */
  #fieldOf(encoding: bigint): { field: number; isHigh: boolean } | null {
    if (encoding > 0x7fffn) return null;
    const isHigh = (encoding & 1n) !== 0n;
    const field = Number(encoding & ~1n);
    if (!this.#fields.has(field)) return null;
    if (isHigh && ((field >> 13) & 3) !== 1) return null;
    return { field, isHigh };
  }

  #vmread(): Outcome {
    if (this.#operation.current === NO_POINTER) return FAIL_INVALID;
    return this.#readField(this.#operation.vmcs);
  }

  #readField(vmcs: GuestVmcs): Outcome {
    const ops = this.#operands;
    const place = this.#fieldOf(ops.register(ops.second));
    if (!place) return VmxError.UNSUPPORTED_FIELD;
    const whole = vmcs.big(place.field);
    const value = place.isHigh ? whole >> 32n : whole;
    if (ops.isRegister) ops.setRegister(ops.first, value);
    else return ops.write(ops.width, value) ?? SUCCEED;
    return SUCCEED;
  }

  #vmwrite(): Outcome {
    if (this.#operation.current === NO_POINTER) return FAIL_INVALID;
    const { vmcs } = this.#operation;
    const encoding = this.#operands.register(this.#operands.second);
    const wasVirtual8086 = isVirtual8086(vmcs);
    const outcome = this.#writeField(vmcs);
    // Rules for segments depend on RFLAGS.VM; that a TPR threshold has no reserved bits is a rule for controls.
    const mayBreakMore =
      isVirtual8086(vmcs) !== wasVirtual8086 || vmcs.number(Field.TPR_THRESHOLD) > 15;
    if (mayBreakMore || !UNCHECKED.has(Number(encoding & 0xffffn)))
      this.#operation.mustCheck = true;
    return outcome;
  }

  #writeField(vmcs: GuestVmcs): Outcome {
    const ops = this.#operands;
    let value: bigint;
    if (ops.isRegister) value = ops.register(ops.first);
    else {
      const words = ops.read(ops.width);
      if (isFault(words)) return words;
      value = words[0];
    }
    const place = this.#fieldOf(ops.register(ops.second));
    if (!place) return VmxError.UNSUPPORTED_FIELD;
    if (place.isHigh) {
      const low = vmcs.big(place.field) & 0xffff_ffffn;
      vmcs.setBig(place.field, ((value & 0xffff_ffffn) << 32n) | low);
    } else vmcs.setBig(place.field, value);
    return SUCCEED;
  }

  /** VMREAD and VMWRITE of a guest's guest on the shadow VMCS, where the bitmaps let it; null if it is an exit. */
  shadowAccess(reason: number): Outcome | null {
    if (!this.#operation.secondary(SecondaryControl.VMCS_SHADOWING)) return null;
    const ops = this.#operands;
    const encoding = ops.register(ops.second);
    if (encoding > 0x7fffn) return null;
    const isRead = reason === ExitReason.VMREAD;
    const page = this.#operation.vmcs.big(isRead ? Field.VMREAD_BITMAP : Field.VMWRITE_BITMAP);
    const at = this.#operation.hostOf(page + (encoding >> 3n));
    if (at === 0 || ((this.#operation.view.getUint8(at) >> Number(encoding & 7n)) & 1) !== 0)
      return null;
    if (this.#operation.view.getUint32(S.CPL.at, true) !== 0) return { vector: GP, error: 0 };
    const link = this.#operation.vmcs.big(Field.VMCS_LINK);
    this.#operation.other.at = link === NO_POINTER ? 0 : this.#operation.hostOf(link);
    if (this.#operation.other.at === 0) return FAIL_INVALID;
    const outcome = isRead
      ? this.#readField(this.#operation.other)
      : this.#writeField(this.#operation.other);
    if (typeof outcome !== "number" || outcome <= 0) return outcome;
    // VMfail: the error number goes to the shadow VMCS.
    this.#operation.other.set(Field.INSTRUCTION_ERROR, outcome);
    const view = this.#operation.view;
    writeRflags(view, (readRflags(view) & ~ARITHMETIC) | RFLAGS.ZF);
    return KEEP_FLAGS;
  }

  #invept(): Outcome {
    const type = this.#operands.register(this.#operands.second);
    if (type !== 1n && type !== 2n) return VmxError.INVALID_OPERAND;
    const words = this.#operands.read(16);
    if (isFault(words)) return words;
    if (type === 1n && !isGoodEptp(words[0], this.#operation.limits.physicalBits))
      return VmxError.INVALID_OPERAND;
    this.#translations.forgetAll();
    return SUCCEED;
  }

  #invvpid(): Outcome {
    const type = this.#operands.register(this.#operands.second);
    if (type > 3n) return VmxError.INVALID_OPERAND;
    const words = this.#operands.read(16);
    if (isFault(words)) return words;
    const [vpid, linear] = words;
    const ALL = 2n;
    if (vpid >> 16n !== 0n) return VmxError.INVALID_OPERAND;
    if (type !== ALL && vpid === 0n) return VmxError.INVALID_OPERAND;
    if (type === 0n && BigInt.asUintN(64, BigInt.asIntN(48, linear)) !== linear)
      return VmxError.INVALID_OPERAND;
    // More than asked for: everything of the guest's guest.
    this.#translations.forgetLinear();
    return SUCCEED;
  }
}
