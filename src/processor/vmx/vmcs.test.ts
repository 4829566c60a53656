import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import {
  Field,
  fieldWidth,
  INTERRUPTION_VALID,
  PinControl,
  PrimaryControl,
  SecondaryControl,
} from "../isa/vmcs-fields.ts";
import { S } from "../state/layout.ts";
import { checkControls, checkGuestState, checkInjection } from "./entry-checks.ts";
import { readRflags, writeRflags } from "./rflags.ts";
import { STATE_END, Vmcs } from "./vmcs.ts";

const ARITHMETIC = 0x8d5;

/** A guest in flat 64-bit mode that passes every check. */
function validGuest(): Vmcs {
  const vmcs = new Vmcs();
  for (const name of ["ES", "SS", "DS", "FS", "GS"] as const) {
    vmcs.set(Field[`GUEST_${name}_RIGHTS`], 0xc093);
    vmcs.set(Field[`GUEST_${name}_LIMIT`], 0xffff_ffff);
  }
  vmcs.set(Field.GUEST_CS_RIGHTS, 0xa09b);
  vmcs.set(Field.GUEST_CS_LIMIT, 0xffff_ffff);
  vmcs.set(Field.GUEST_TR_RIGHTS, 0x8b);
  vmcs.set(Field.GUEST_LDTR_RIGHTS, 0x1_0000);
  vmcs.set(Field.GUEST_CR0, 0x8000_0031);
  vmcs.set(Field.GUEST_CR4, 0x20);
  vmcs.set(Field.GUEST_EFER, 0x500);
  vmcs.set(Field.ENTRY_CONTROLS, (1 << 9) | (1 << 15));
  vmcs.set(Field.PRIMARY_CONTROLS, PrimaryControl.HLT);
  vmcs.set(Field.GUEST_RFLAGS, 2);
  vmcs.set(Field.GUEST_RIP, 0x1000);
  return vmcs;
}

test("every field reads back what was written, in its width", () => {
  const vmcs = new Vmcs();
  for (const encoding of Object.values(Field)) {
    if (encoding === Field.GUEST_RFLAGS) continue;
    const value = 0x8123_4567_89ab_cdefn & ((1n << BigInt(8 * fieldWidth(encoding))) - 1n);
    vmcs.setBig(encoding, value);
    assert.equal(vmcs.big(encoding), value, encoding.toString(16));
  }
});

test("guest state moves into the processor on load and back on clear", () => {
  const live = new DataView(new ArrayBuffer(STATE_END));
  const vmcs = validGuest();
  vmcs.activate(live);
  assert.equal(live.getBigUint64(S.RIP.at, true), 0x1000n);
  live.setBigUint64(S.RIP.at, 0x2000n, true);
  assert.equal(vmcs.number(Field.GUEST_RIP), 0x2000);
  vmcs.deactivate();
  live.setBigUint64(S.RIP.at, 0n, true);
  assert.equal(vmcs.number(Field.GUEST_RIP), 0x2000);
});

test("RFLAGS survive the lazy representation, also images no instruction makes", () => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 0x3f_ffff }), (image) => {
      const state = new DataView(new ArrayBuffer(STATE_END));
      const legal = (image & 0x3f_7fd5) | 2;
      writeRflags(state, image);
      assert.equal(readRflags(state), legal, (image & ARITHMETIC).toString(16));
    }),
  );
});

test("a valid guest passes the entry checks", () => {
  const vmcs = validGuest();
  assert.equal(checkControls(vmcs), null);
  assert.equal(checkGuestState(vmcs), null);
  assert.equal(checkInjection(vmcs), null);
});

const BROKEN: readonly (readonly [string, (v: Vmcs) => void])[] = [
  ["guest CR0.PG without CR0.PE", (v) => v.set(Field.GUEST_CR0, 0x8000_0030)],
  ["IA-32e mode guest without PAE paging", (v) => v.set(Field.GUEST_CR4, 0)],
  ["guest EFER", (v) => v.set(Field.GUEST_EFER, 0x400)],
  ["RIP is not canonical", (v) => v.setBig(Field.GUEST_RIP, 0x8000_0000_0000n)],
  ["activity state is not supported", (v) => v.set(Field.GUEST_ACTIVITY, 4)],
  [
    "pending debug exceptions have reserved bits",
    (v) => v.setBig(Field.GUEST_PENDING_DEBUG, 0x2000n),
  ],
  ["blocking by STI with IF clear", (v) => v.set(Field.GUEST_INTERRUPTIBILITY, 1)],
  ["TR type", (v) => v.set(Field.GUEST_TR_RIGHTS, 0x1_0000)],
  ["CS.L and CS.D", (v) => v.set(Field.GUEST_CS_RIGHTS, 0xe09b)],
  ["ES is not present", (v) => v.set(Field.GUEST_ES_RIGHTS, 0xc013)],
  [
    "RFLAGS.IF is clear for an external interrupt",
    (v) => v.set(Field.ENTRY_INTERRUPTION_INFO, INTERRUPTION_VALID + 0x20),
  ],
];

for (const [rule, breakIt] of BROKEN) {
  test(`VM entry refuses: ${rule}`, () => {
    const vmcs = validGuest();
    breakIt(vmcs);
    assert.equal(checkGuestState(vmcs), rule);
  });
}

test("VM entry refuses controls that contradict each other", () => {
  const expectRule = (rule: string, set: (v: Vmcs) => void): void => {
    const vmcs = validGuest();
    set(vmcs);
    assert.equal(checkControls(vmcs), rule);
  };
  expectRule("virtual NMIs require NMI exiting", (v) =>
    v.set(Field.PIN_CONTROLS, PinControl.VIRTUAL_NMI),
  );
  expectRule("I/O bitmap A address is not aligned", (v) => {
    v.set(Field.PRIMARY_CONTROLS, PrimaryControl.HLT | PrimaryControl.IO_BITMAPS);
    v.set(Field.IO_BITMAP_A, 0x1001);
  });
  expectRule("UNRESTRICTED_GUEST requires EPT", (v) => {
    v.set(Field.PRIMARY_CONTROLS, (PrimaryControl.HLT | PrimaryControl.SECONDARY) >>> 0);
    v.set(Field.SECONDARY_CONTROLS, SecondaryControl.UNRESTRICTED_GUEST);
  });
  expectRule("saving an inactive preemption timer", (v) => v.set(Field.EXIT_CONTROLS, 1 << 22));
  expectRule("number of CR3-target values", (v) => v.set(Field.CR3_TARGET_COUNT, 5));
});

test("VM entry refuses injections that are not legal", () => {
  const rule = (info: number, length = 0): string | null => {
    const vmcs = validGuest();
    vmcs.set(Field.ENTRY_INTERRUPTION_INFO, INTERRUPTION_VALID + info);
    vmcs.set(Field.ENTRY_INSTRUCTION_LENGTH, length);
    return checkInjection(vmcs);
  };
  assert.equal(rule((1 << 8) | 0x20), "interruption type is reserved");
  assert.equal(rule((2 << 8) | 3), "an NMI has vector 2");
  assert.equal(rule((3 << 8) | 13), "error-code delivery", "#GP without its error code");
  assert.equal(rule((4 << 8) | 0x80), "instruction length of a software event");
  assert.equal(rule((4 << 8) | 0x80, 2), null);
});
