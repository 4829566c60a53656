/**
 * Operands of an instruction read from its decoded record (state/layout.ts). Shared by the two placements of a handler.
 * Hot path: this text is emitted into every handler.
 */

import type { FunctionBuilder } from "../ir/function.ts";
import type { ModuleBuilder } from "../ir/module.ts";
import type { Val } from "../ir/value.ts";
import type { Bytes } from "../semantics/cpu.ts";
import { Insn, type Shape } from "../semantics/insn.ts";
import { Ea, GPR, Mode, Rec, S, Seg } from "../state/layout.ts";

const LOAD = {
  1: "i32.load8_u",
  2: "i32.load16_u",
  4: "i32.load",
  8: "i64.load",
  16: "v128.load",
} as const;
const STORE = {
  1: "i32.store8",
  2: "i32.store16",
  4: "i32.store",
  8: "i64.store",
  16: "v128.store",
} as const;
const REGISTER_FIELDS = [Rec.OP0, Rec.OP1, Rec.OP2] as const;

export abstract class RecordInsn extends Insn {
  readonly shape: Shape;

  constructor(module: ModuleBuilder, fn: FunctionBuilder, shape: Shape) {
    super(module, fn);
    this.shape = shape;
  }

  /** Address of the record (i32), constant during the instruction. */
  abstract record(): Val;

  protected field16(at: number): Val {
    return this.fn.load("i32.load16_u", this.record(), at);
  }

  #slot(i: number): Val {
    return this.field16(REGISTER_FIELDS[i]!);
  }

  regRead(i: number, bytes: Bytes): Val {
    return this.fn.load(LOAD[bytes], this.#slot(i));
  }

  regWrite(i: number, bytes: Bytes, v: Val): void {
    const isGpr = this.kind(i) === "r";
    if (bytes === 4 && isGpr) this.fn.store("i64.store", this.#slot(i), v.extU());
    else this.fn.store(STORE[bytes], this.#slot(i), v);
  }

  regNumber(i: number): Val {
    return this.#slot(i);
  }

  override x87Opcode(): Val {
    return this.field16(Rec.OP2);
  }

  immediate(i: number): Val {
    // A far pointer counts as two: its offset and its selector.
    const earlier = this.shape.operands.slice(0, i).some((o) => o.kind === "i" || o.kind === "f");
    if (earlier) return this.fn.load("i32.load", this.record(), Rec.CHAIN);
    return this.kind(i) === "i" && this.bytes(i) === 8
      ? this.fn.load("i64.load", this.record(), Rec.IMMEDIATE)
      : this.fn.load("i32.load", this.record(), Rec.IMMEDIATE);
  }

  #plainOffset(): Val {
    const fn = this.fn;
    const base = fn.load("i64.load", this.field16(Rec.BASE));
    const index = fn.load("i64.load", this.field16(Rec.INDEX));
    const scale = fn.load("i64.load8_u", this.record(), Rec.SCALE);
    const displacement = fn.load("i64.load32_s", this.record(), Rec.DISPLACEMENT);
    return base.add(index.shl(scale)).add(displacement);
  }

  ea(bytes: number, write: boolean): Val {
    const fn = this.fn;
    const linear = fn.declare("i64");
    fn.if(
      fn.load("i32.load8_u", this.record(), Rec.EA).and(Ea.SLOW),
      () =>
        linear.set(fn.call(this.module.get("recordLinear"), this.record(), bytes, write ? 1 : 0)),
      () => linear.set(this.#plainOffset().add(fn.load("i64.load", this.field16(Rec.SEGMENT)))),
    );
    return linear.read();
  }

  linear(offset: Val, bytes: number, write: boolean): Val {
    const { fn } = this;
    const at = this.module.get("recordLinearAt");
    return fn.call(at, this.record(), offset, bytes, write ? 1 : 0);
  }

  offset(): Val {
    const fn = this.fn;
    const offset = fn.declare("i64");
    fn.if(
      fn.load("i32.load8_u", this.record(), Rec.EA).and(Ea.SLOW),
      () => offset.set(fn.call(this.module.get("recordOffset"), this.record())),
      () => offset.set(this.#plainOffset()),
    );
    return offset.read();
  }

  override operandInformation(): { information: Val; displacement: Val } {
    const ask = (name: string): Val => this.fn.call(this.module.get(name), this.record());
    return { information: ask("recordInformation"), displacement: ask("recordDisplacement") };
  }

  memFlags(): Val {
    // Access.STACK is bit 0.
    return this.fn.load("i32.load8_u", this.record(), Rec.EA).shrU(7);
  }

  #stringOffset(register: number): Val {
    const address = this.shape.addrSize;
    const v = this.raw(8, 0, GPR + 8 * register);
    return address === 8 ? v : v.and(address === 4 ? 0xffff_ffffn : 0xffffn);
  }

  stringSource(bytes: number): Val {
    const offset = this.#stringOffset(6);
    const fn = this.fn;
    if (this.is64) return offset.add(fn.load("i64.load", this.field16(Rec.SEGMENT)));
    const segment = fn.load("i32.load8_u", this.record(), Rec.EA).shrU(Ea.SEGMENT_SHIFT).and(7);
    return fn.call(this.module.get("segLinear"), segment, offset, bytes, 0);
  }

  stringDestination(bytes: number, write: boolean): Val {
    const offset = this.#stringOffset(7);
    if (this.is64) return offset;
    return this.fn.call(this.module.get("segLinear"), Seg.ES, offset, bytes, write ? 1 : 0);
  }

  protected abstract ripPage(): Val;

  protected truncateRip(rip: Val): Val {
    return this.shape.mode === Mode.CODE64 ? rip : rip.and(0xffff_ffffn);
  }

  rip(): Val {
    return this.truncateRip(this.ripPage().add(this.field16(Rec.OFFSET).extU()));
  }

  nextRip(): Val {
    const length = this.fn.load("i32.load8_u", this.record(), Rec.LENGTH);
    return this.truncateRip(this.ripPage().add(this.field16(Rec.OFFSET).add(length).extU()));
  }

  relativeTarget(): Val {
    const target = this.nextRip().add(this.fn.load("i64.load32_s", this.record(), Rec.IMMEDIATE));
    if (this.shape.mode === Mode.CODE64) return target;
    return target.and(this.shape.opsize === 2 ? 0xffffn : 0xffff_ffffn);
  }

  protected remaining(): Val {
    return this.fn.load("i32.load8_u", this.record(), Rec.REMAINING);
  }

  override commit(host: Val): void {
    this.fn.if(host.eq(BOUNCE_WRITE_ADDRESS), () => {
      this.fn.callVoid(this.module.get("memCommit"));
      this.fn.if(this.get(S.DEVICE_WRITE_COUNT), () => {
        this.fn.callVoid(this.module.get("armDeviceStop"), this.record());
      });
    });
  }
}

const BOUNCE_WRITE_ADDRESS = 0x4000;
