/**
 * Control instructions: control and status words, environment and state images.
 * Spec: SDM Vol. 1, "Saving the x87 FPU's State with FSTENV/FNSTENV and FSAVE/FNSAVE"; Vol. 2, FLDCW, FLDENV, FNSTENV, FRSTOR, FNSAVE.
 *
 *   x87SetControl(word) · x87Initialize() · x87TagWord() -> i32
 *   x87StoreEnvironment16/32(host, real), x87LoadEnvironment16/32(host, real): images of 14 and 28 bytes, `real` = real-address form
 *   x87StoreRegisters(host), x87LoadRegisters(host): the eighty bytes after them
 */

import type { ModuleBuilder } from "../../ir/module.ts";
import type { Val } from "../../ir/value.ts";
import { S } from "../../state/layout.ts";
import type { Procedure } from "../procedure.ts";
import { Class, classOf } from "./nan.ts";
import {
  defineHelper,
  Fcw,
  fprSlot,
  parameters,
  setSlot,
  signExponent,
  significand,
  stAddress,
} from "./state.ts";

export const ENVIRONMENT_BYTES = { 2: 14, 4: 28, 8: 28 } as const;
export const REGISTER_BYTES = 10;

export function defineControl(module: ModuleBuilder): void {
  defineHelper(module, "x87SetControl", ["i32"], null, (p, fn) => {
    p.set(S.FCW, fn.param(0).and(Fcw.WRITABLE).or(Fcw.FIXED));
    fn.callVoid(module.get("x87Summary"));
  });
  defineHelper(module, "x87Initialize", [], null, (p) => {
    p.set(S.FCW, Fcw.INIT);
    p.set(S.FSW, 0);
    p.set(S.FTAG_EMPTY, 0xff);
    for (const field of [S.FOP, S.FCS, S.FDS]) p.set(field, 0);
    for (const field of [S.FIP, S.FDP]) p.set(field, 0n);
  });
  defineTagWord(module);
  defineEnvironment(module, false);
  defineEnvironment(module, true);
  defineRegisters(module);
}

/** Two bits for each physical register: 0 valid, 1 zero, 2 special, 3 empty. */
function defineTagWord(module: ModuleBuilder): void {
  defineHelper(module, "x87TagWord", [], "i32", (p, fn) => {
    const word = fn.variable("i32", 0);
    const n = fn.variable("i32", 7);
    fn.while(
      () => n.read().geS(0),
      () => {
        const kind = classOf(p, fprSlot(p, n.read()));
        const isEmpty = p.get(S.FTAG_EMPTY).shrU(n.read()).and(1);
        // Class.NORMAL and ZERO are the tags 0 and 1; all the others are special.
        const tag = kind.gtU(Class.ZERO).select(p.i32(2), kind);
        word.set(
          word
            .read()
            .shl(2)
            .or(isEmpty.select(p.i32(3), tag)),
        );
        n.set(n.read().sub(1));
      },
    );
    fn.return(word.read());
  });
}

/** Access to the fields of an image, of 4 or 2 bytes each; 4-byte ones have ones in their unused upper half. */
class Image {
  readonly p: Procedure;
  readonly host: Val;
  readonly wide: boolean;

  constructor(p: Procedure, host: Val, wide: boolean) {
    this.p = p;
    this.host = host;
    this.wide = wide;
  }

  get(i: number): Val {
    return this.wide ? this.p.raw(4, this.host, 4 * i) : this.p.raw(2, this.host, 2 * i);
  }

  word(i: number): Val {
    return this.wide ? this.p.raw(2, this.host, 4 * i) : this.p.raw(2, this.host, 2 * i);
  }

  put(i: number, v: Val): void {
    if (this.wide) this.p.setRaw(4, this.host, v, 4 * i);
    else this.p.setRaw(2, this.host, v, 2 * i);
  }

  putWord(i: number, v: Val): void {
    this.put(i, this.wide ? v.or(0xffff_0000 | 0) : v);
  }
}

const REAL_HIGH = 0xf000;
const OPCODE = 0x7ff;

function defineEnvironment(module: ModuleBuilder, wide: boolean): void {
  const suffix = wide ? "32" : "16";
  defineHelper(module, `x87StoreEnvironment${suffix}`, ["i32", "i32"], null, (p, fn) => {
    const [host, real] = parameters(fn);
    const image = new Image(p, host, wide);
    image.putWord(0, p.get(S.FCW));
    image.putWord(1, p.get(S.FSW));
    image.putWord(2, fn.call(module.get("x87TagWord")));
    const [ip, dp] = [p.get(S.FIP).wrap(), p.get(S.FDP).wrap()];
    const opcode = p.get(S.FOP).and(OPCODE);
    fn.if(
      real,
      () => {
        // Upper pointer bits from bit 12 up; four of them in the small image.
        const upper = (v: Val): Val => (wide ? v.shrU(16).shl(12) : v.shrU(4).and(REAL_HIGH));
        image.putWord(3, wide ? ip.and(0xffff) : ip);
        image.put(4, upper(ip).or(opcode));
        image.putWord(5, wide ? dp.and(0xffff) : dp);
        image.put(6, upper(dp));
      },
      () => {
        image.put(3, ip);
        image.put(4, wide ? p.get(S.FCS).or(opcode.shl(16)) : p.get(S.FCS));
        image.put(5, dp);
        image.putWord(6, p.get(S.FDS));
      },
    );
  });
  defineHelper(module, `x87LoadEnvironment${suffix}`, ["i32", "i32"], null, (p, fn) => {
    const [host, real] = parameters(fn);
    const image = new Image(p, host, wide);
    const tags = image.word(2);
    // Bit 2n of `both`: the tag of Rn is 3. Gather them.
    const both = tags.and(tags.shrU(1)).and(0x5555);
    const pairs = both.or(both.shrU(1)).and(0x3333);
    const nibbles = pairs.or(pairs.shrU(2)).and(0x0f0f);
    p.set(S.FTAG_EMPTY, nibbles.or(nibbles.shrU(4)).and(0xff));
    fn.if(
      real,
      () => {
        const upper = (i: number): Val =>
          wide ? image.get(i).shrU(12).shl(16) : image.get(i).and(REAL_HIGH).shl(4);
        p.set(S.FIP, image.word(3).or(upper(4)).extU());
        p.set(S.FOP, image.get(4).and(OPCODE));
        p.set(S.FCS, 0);
        p.set(S.FDP, image.word(5).or(upper(6)).extU());
        p.set(S.FDS, 0);
      },
      () => {
        p.set(S.FIP, image.get(3).extU());
        p.set(S.FCS, image.word(4));
        p.set(S.FOP, wide ? image.get(4).shrU(16).and(OPCODE) : p.i32(0));
        p.set(S.FDP, image.get(5).extU());
        p.set(S.FDS, image.word(6));
      },
    );
    p.set(S.FSW, image.word(1));
    fn.callVoid(module.get("x87SetControl"), image.word(0));
  });
}

/** ST(0) to ST(7), ten bytes each. */
function defineRegisters(module: ModuleBuilder): void {
  const forEach = (p: Procedure, host: Val, move: (slot: Val, at: Val) => void): void => {
    const i = p.fn.variable("i32", 0);
    p.fn.while(
      () => i.read().ltU(8),
      () => {
        move(stAddress(p, i.read()), host.add(i.read().mul(REGISTER_BYTES)));
        i.set(i.read().add(1));
      },
    );
  };
  defineHelper(module, "x87StoreRegisters", ["i32"], null, (p, fn) => {
    forEach(p, fn.param(0), (slot, at) =>
      setSlot(p, at, signExponent(p, slot), significand(p, slot)),
    );
  });
  defineHelper(module, "x87LoadRegisters", ["i32"], null, (p, fn) => {
    forEach(p, fn.param(0), (slot, at) =>
      setSlot(p, slot, signExponent(p, at), significand(p, at)),
    );
  });
}
