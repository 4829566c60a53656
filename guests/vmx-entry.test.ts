/**
 * VM entries of a guest hypervisor that must fail: each row of the checks broken alone, by what the row itself says breaks it, in a VMCS that is
 * fine without. SDM Vol. 3C, "VM Entries"; the numbers are those of "VM-Instruction Error Numbers" and exit reason 33.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { ExitReason } from "../src/processor/isa/exit-reasons.ts";
import {
  EntryControl,
  Field,
  fieldWidth,
  PrimaryControl,
  SecondaryControl,
} from "../src/processor/isa/vmcs-fields.ts";
import { type EntryCheck, TEST_CONTROLS } from "../src/processor/vmx/entry-checks/check.ts";
import { EntryChecks } from "../src/processor/vmx/entry-checks.ts";
import { UNCHECKED } from "../src/processor/vmx/guest/vmx-instructions.ts";
import { At, VmxLab } from "./vmx-lab.ts";

const ENTRY_FAILED = 0x8000_0000 + ExitReason.ENTRY_GUEST_STATE;
const CONTROLS = 7n;
const HOST_STATE = 8n;
/** Rows that fields written at every entry break by themselves. */
const LEAST_VOLATILE = 10;
const QUALIFICATION_PDPTE = 2n;
const QUALIFICATION_LINK = 4n;

/** A VMCS as a table. */
class TableVmcs {
  readonly fields: Map<number, bigint>;

  constructor(fields: Map<number, bigint>) {
    this.fields = fields;
  }

  big(field: number): bigint {
    return BigInt.asUintN(8 * fieldWidth(field), this.fields.get(field) ?? 0n);
  }

  number(field: number): number {
    return Number(this.big(field));
  }
}

const labOf = (): VmxLab => new VmxLab({ engine: "interpreter", guest: (a) => a.emit("hlt") });

test("each check of VM entry is broken by what it says, and by nothing in a good VMCS", () => {
  const lab = labOf();
  const { limits } = lab.processor.guestVmx!;
  const context = { limits, fromLong: true };
  const good = lab.goodFields();
  for (const checks of [EntryChecks.controls, EntryChecks.host, EntryChecks.guest]) {
    for (const { text, isBroken, breaks } of checks) {
      assert.equal(isBroken(new TableVmcs(good), context), false, `${text}: good VMCS`);
      // A VMM of 32 bits is the only one that some rules are about.
      const isNarrow = text.includes("outside it");
      const bad = new TableVmcs(new Map([...good, ...breaks]));
      const isCaught = isBroken(bad, isNarrow ? { limits, fromLong: false } : context);
      assert.equal(isCaught, true, `${text}: its own example`);
    }
  }
});

/** Launches the good VMCS with `check` broken. */
function launchBroken(lab: VmxLab, check: EntryCheck): string {
  lab.prepare(check.breaks.filter(([field]) => isWritable(lab, field)));
  return lab.launch();
}

/** Fields of controls that are not offered do not exist; the control's own reserved bit makes the entry fail then. */
const isWritable = (lab: VmxLab, field: number): boolean => lab.vmwrite(field, 0n) === "ok";

test("VM entry with bad controls is VMfail 7, with bad host state VMfail 8", () => {
  const lab = labOf();
  lab.prepare();
  for (const [checks, number] of [
    [EntryChecks.controls, CONTROLS],
    [EntryChecks.host, HOST_STATE],
  ] as const) {
    for (const check of checks) {
      assert.equal(launchBroken(lab, check), "fail", check.text);
      assert.equal(lab.field(Field.INSTRUCTION_ERROR), number, check.text);
    }
  }
  lab.prepare();
  assert.equal(lab.launch(), "ok");
  assert.equal(Number(lab.field(Field.EXIT_REASON)), ExitReason.HLT);
});

test("VM entry with bad guest state is an exit with bit 31, which saves nothing", () => {
  const lab = labOf();
  lab.prepare();
  for (const check of EntryChecks.guest) {
    launchBroken(lab, check);
    assert.equal(Number(lab.field(Field.EXIT_REASON)), ENTRY_FAILED, check.text);
    const expected = check.text.startsWith("VMCS link")
      ? QUALIFICATION_LINK
      : check.text.startsWith("PDPTE")
        ? QUALIFICATION_PDPTE
        : 0n;
    assert.equal(lab.field(Field.EXIT_QUALIFICATION), expected, check.text);
    const good = lab.goodFields();
    for (const [field, value] of check.breaks)
      assert.equal(
        lab.field(field),
        BigInt.asUintN(8 * fieldWidth(field), value),
        `${check.text}: ${field.toString(16)} stays`,
      );
    assert.equal(lab.vmwrite(Field.GUEST_RIP, good.get(Field.GUEST_RIP)!), "ok");
  }
  lab.prepare();
  assert.equal(lab.launch(), "ok");
  assert.equal(Number(lab.field(Field.EXIT_REASON)), ExitReason.HLT);
});

test("VM entry again looks at what was written since the last one: fields that every entry writes, one check at a time", () => {
  const lab = labOf();
  lab.prepare();
  const good = lab.goodFields();
  assert.equal(lab.launch(), "ok");
  let count = 0;
  for (const check of [...EntryChecks.controls, ...EntryChecks.guest]) {
    if (!check.breaks.every(([field]) => UNCHECKED.has(field) && isWritable(lab, field))) continue;
    lab.writeFields(check.breaks);
    const isRefused = lab.resume() === "fail";
    const isFailed = Number(lab.field(Field.EXIT_REASON)) === ENTRY_FAILED;
    assert.ok(isRefused || isFailed, check.text);
    lab.writeFields([...UNCHECKED].filter((f) => good.has(f)).map((f) => [f, good.get(f)!]));
    for (const [field] of check.breaks)
      if (!good.has(field)) assert.equal(lab.vmwrite(field, 0n), "ok");
    assert.equal(lab.resume(), "ok", `after ${check.text}`);
    assert.equal(Number(lab.field(Field.EXIT_REASON)), ExitReason.HLT, `after ${check.text}`);
    count++;
  }
  assert.ok(count >= LEAST_VOLATILE, `${count} checks`);
});

test("VM entry again: RFLAGS.VM written alone has segments looked at, a TPR threshold its reserved bits", () => {
  const lab = labOf();
  const SECONDARY_ON = BigInt(PrimaryControl.SECONDARY | PrimaryControl.TPR_SHADOW);
  lab.prepare();
  const secondary = lab.field(Field.SECONDARY_CONTROLS);
  // Protected mode without paging.
  lab.writeFields([
    [Field.PRIMARY_CONTROLS, TEST_CONTROLS.primary | SECONDARY_ON],
    [Field.SECONDARY_CONTROLS, secondary | BigInt(SecondaryControl.UNRESTRICTED_GUEST)],
    [Field.VIRTUAL_APIC, BigInt(At.DATA)],
    [Field.TPR_THRESHOLD, 0n],
    [Field.ENTRY_CONTROLS, TEST_CONTROLS.entry & ~BigInt(EntryControl.IA32E_GUEST)],
    [Field.GUEST_CR0, 0x31n],
    [Field.GUEST_CS_RIGHTS, 0xc09bn],
  ]);
  assert.equal(lab.launch(), "ok");
  assert.equal(Number(lab.field(Field.EXIT_REASON)), ExitReason.HLT);
  lab.vmwrite(Field.GUEST_RFLAGS, 0x2_0002n);
  lab.resume();
  assert.equal(
    Number(lab.field(Field.EXIT_REASON)),
    ENTRY_FAILED,
    "CS is none of virtual-8086 mode",
  );
  lab.writeFields([
    [Field.GUEST_RFLAGS, 2n],
    [Field.GUEST_RIP, lab.goodFields().get(Field.GUEST_RIP)!],
  ]);
  assert.equal(lab.resume(), "ok");
  assert.equal(Number(lab.field(Field.EXIT_REASON)), ExitReason.HLT);
  lab.vmwrite(Field.TPR_THRESHOLD, 0x10n);
  assert.equal(lab.resume(), "fail");
  assert.equal(lab.field(Field.INSTRUCTION_ERROR), CONTROLS);
});
