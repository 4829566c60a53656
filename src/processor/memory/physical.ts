/**
 * Guest-physical addresses: the physical map, a flat cache of the EPT, and device accesses.
 *
 * physicalHost answers the host address of a guest-physical byte, DEVICE for a page marked as a device, or 0 with a VM exit (EPT violation)
 * in PENDING. A page not yet in the map is filled by the embedder-side import `physicalFill`, which walks the real EPT.
 *
 * Device accesses leave the processor as EPT violations with access assist: a read exits before the instruction and is answered on re-entry
 * (DEVICE_REPLIES), a write is queued (DEVICE_WRITES) and exits after it.
 */

import type { ModuleBuilder } from "../ir/module.ts";
import type { Operand, Val } from "../ir/value.ts";
import type { Cpu } from "../semantics/cpu.ts";
import { Procedure } from "../semantics/procedure.ts";
import { INFO_NMI_UNBLOCKED, SYS } from "../semantics/system/state.ts";
import {
  DEVICE,
  DEVICE_ENTRIES,
  DEVICE_REPLIES,
  DEVICE_WRITES,
  Page,
  Pending,
  PHYSICAL_MAP,
  S,
} from "../state/layout.ts";

const EPT_VIOLATION = 48;
const FOUR_GIB = 0x1_0000_0000n;

/**
 * EPT-violation qualification: access in bits 2:0, linear address valid and final translation in bits 8:7, NMI unblocking due to IRET in
 * bit 12 (not defined during event delivery).
 */
function eptViolation(p: Cpu, physical: Val, access: Operand): void {
  p.set(S.EXIT_REASON, EPT_VIOLATION);
  p.set(S.EXIT_PHYSICAL, physical);
  const kind = access instanceof Object ? access : p.i32(Number(access));
  p.set(S.EXIT_QUALIFICATION, kind.or(takeNmiUnblocked(p)).or(0x180).extU());
  p.set(S.PENDING, Pending.VM_EXIT);
}

/** INFO_NMI_UNBLOCKED if the access is one of an IRET that has lifted blocking by NMI; whoever tells it clears it. */
export function takeNmiUnblocked(p: Cpu): Val {
  const unblocked = p.get(SYS.NMI_UNBLOCKED).and(p.get(S.VECTORING).eqz());
  p.set(SYS.NMI_UNBLOCKED, 0);
  return unblocked.select(p.i32(INFO_NMI_UNBLOCKED), p.i32(0));
}

export function definePhysical(module: ModuleBuilder): void {
  /** physicalHost of an address under a guest's EPT, with a walk of it whatever is cached. */
  module.function("guestPhysicalHost", ["i64", "i32"], ["i32"], (fn) => {
    const p = new Procedure(module, fn);
    const address = fn.param(0);
    const need = fn.param(1);
    const e = fn.call(module.get("physicalFill"), address.shrU(12).wrap(), need);
    fn.if(e.and(need).eq(need), () => fn.return(e.and(-4096).or(address.wrap().and(4095))));
    fn.if(e.and(Page.DEVICE), () => fn.return(DEVICE));
    p.set(S.DEVICE_SIZE, 0);
    eptViolation(p, address, need);
    fn.return(0);
  });

  module.function("physicalHost", ["i64", "i32"], ["i32"], (fn) => {
    // (guest-physical address, Page rights needed)
    const p = new Procedure(module, fn);
    const address = fn.param(0);
    const need = fn.param(1);
    p.set(S.WALK_PHYSICAL, address);
    fn.if(address.geU(FOUR_GIB), () => {
      fn.if(p.get(S.GUEST_EPT).eqz(), () => fn.return(DEVICE));
      fn.return(fn.call(module.get("guestPhysicalHost"), address, need));
    });
    const slot = address.shrU(12).wrap().shl(2).add(p.get(S.PHYSICAL_BASE));
    const entry = fn.variable("i32", fn.load("i32.load", slot, PHYSICAL_MAP));
    fn.if(entry.peek().eqz(), () => {
      entry.set(fn.call(module.get("physicalFill"), address.shrU(12).wrap(), need));
    });
    const e = entry.read();
    fn.if(e.and(need).eq(need), () => fn.return(e.and(-4096).or(address.wrap().and(4095))));
    fn.if(e.and(Page.DEVICE), () => fn.return(DEVICE));
    // What was known need not be all: the guest's EPT has dirty flags, and its entries may have got more rights since.
    fn.if(p.get(S.GUEST_EPT), () =>
      fn.return(fn.call(module.get("guestPhysicalHost"), address, need)),
    );
    p.set(S.DEVICE_SIZE, 0);
    eptViolation(p, address, need);
    fn.return(0);
  });

  /** One device read of 1, 2, 4 or 8 bytes: 1 with the data in S.DEVICE_DATA, or 0 with a VM exit in PENDING. */
  module.function("deviceRead", ["i64", "i32"], ["i32"], (fn) => {
    const p = new Procedure(module, fn);
    const next = p.get(S.DEVICE_REPLY_NEXT);
    fn.if(next.ltU(p.get(S.DEVICE_REPLY_COUNT)), () => {
      p.set(S.DEVICE_DATA, fn.load("i64.load", next.shl(4), DEVICE_REPLIES));
      p.set(S.DEVICE_REPLY_NEXT, next.add(1));
      fn.return(1);
    });
    p.set(S.DEVICE_SIZE, fn.param(1));
    p.set(S.DEVICE_IS_WRITE, 0);
    eptViolation(p, fn.param(0), Page.READ);
    fn.return(0);
  });

  /** Reads `count` bytes of a device into linear memory at a host address, in naturally sized pieces: 1, or 0 as above. */
  module.function("deviceReadBytes", ["i64", "i32", "i32"], ["i32"], (fn) => {
    const p = new Procedure(module, fn);
    const at = fn.variable("i64", fn.param(0));
    const left = fn.variable("i32", fn.param(1));
    const to = fn.variable("i32", fn.param(2));
    fn.while(
      () => left.read(),
      () => {
        const piece = pieceOf(left.read());
        fn.if(fn.call(module.get("deviceRead"), at.read(), piece).eqz(), () => fn.return(0));
        storePiece(p, to.read(), piece, p.get(S.DEVICE_DATA));
        at.set(at.read().add(piece.extU()));
        to.set(to.read().add(piece));
        left.set(left.read().sub(piece));
      },
    );
    fn.return(1);
  });

  /** Queues the write of `count` bytes at a host address to a device. */
  module.function("deviceWriteBytes", ["i64", "i32", "i32"], [], (fn) => {
    const p = new Procedure(module, fn);
    const at = fn.variable("i64", fn.param(0));
    const left = fn.variable("i32", fn.param(1));
    const from = fn.variable("i32", fn.param(2));
    fn.while(
      () => left.read(),
      () => {
        const piece = pieceOf(left.read());
        const count = p.get(S.DEVICE_WRITE_COUNT);
        fn.if(count.ltU(DEVICE_ENTRIES), () => {
          const entry = count.shl(4);
          const mask = p.i64(-1).shrU(p.i32(64).sub(piece.shl(3)).extU());
          fn.store("i64.store", entry, fn.load("i64.load", from.read()).and(mask), DEVICE_WRITES);
          fn.store("i32.store", entry, at.read().wrap(), DEVICE_WRITES + 8);
          fn.store("i32.store", entry, piece.or(at.read().high().shl(8)), DEVICE_WRITES + 12);
          p.set(S.DEVICE_WRITE_COUNT, count.add(1));
        });
        at.set(at.read().add(piece.extU()));
        from.set(from.read().add(piece));
        left.set(left.read().sub(piece));
      },
    );
  });
}

function pieceOf(left: Val): Val {
  const fn = left.fn;
  return left
    .geU(8)
    .select(fn.i32(8), left.geU(4).select(fn.i32(4), left.geU(2).select(fn.i32(2), fn.i32(1))));
}

function storePiece(p: Procedure, to: Val, piece: Val, data: Val): void {
  // The bounce buffer has room behind the last piece, so a full store is harmless.
  const fn = p.fn;
  fn.if(
    piece.eq(8),
    () => fn.store("i64.store", to, data),
    () =>
      fn.if(
        piece.eq(4),
        () => fn.store("i32.store", to, data.wrap()),
        () => fn.store("i32.store16", to, data.wrap()),
      ),
  );
}
