/** The table of capability MSRs in docs/virtualization.md is what the processor says. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { capabilityMsrs, FEATURE_CONTROL } from "../src/processor/vmx/capabilities.ts";
import { VmxLab } from "./vmx-lab.ts";

const PAGE = new URL("../docs/virtualization.md", import.meta.url);
const CPU = "x86-64-v2,+vmx";
/** IA32_VMX_CR0_FIXED0 and the three after it share a row. */
const CR_FIXED = [0x486, 0x487, 0x488, 0x489];

/** Values by MSR, of the rows that begin with its number. */
function documented(text: string): Map<number, bigint> {
  const hex = (digits: string): bigint => BigInt(`0x${digits.replace("_", "")}`);
  const values = new Map<number, bigint>();
  for (const [, names, cells] of text.matchAll(/^\| (4[0-9A-F]{2}H[^|]*) \| ([^|]+) \|/gm)) {
    const words = cells!.split(",").map((word) => hex(word.trim()));
    const numbers = [...names!.matchAll(/(4[0-9A-F]{2})H/g)].map(([, n]) => Number(`0x${n}`));
    if (numbers[0] === CR_FIXED[0])
      for (const [i, msr] of CR_FIXED.entries()) values.set(msr, words[i]!);
    else for (const msr of numbers) values.set(msr, words[0]!);
  }
  return values;
}

test("docs/virtualization.md has the capability MSRs as they are, all of them", () => {
  const lab = new VmxLab({ engine: "interpreter", guest: (a) => a.emit("hlt"), cpuModel: CPU });
  const real = capabilityMsrs(lab.processor.guestVmx!.limits);
  const written = documented(readFileSync(PAGE, "utf8"));
  assert.equal(real.get(FEATURE_CONTROL), 5n);
  real.delete(FEATURE_CONTROL);
  const show = (values: Map<number, bigint>): string[] =>
    [...values].sort(([a], [b]) => a - b).map(([n, v]) => `${n.toString(16)} ${v.toString(16)}`);
  assert.deepEqual(show(written), show(real));
});
