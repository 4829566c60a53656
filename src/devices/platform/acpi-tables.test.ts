import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, test } from "node:test";
import fc from "fast-check";
import { buildAcpiTables } from "./acpi-tables.ts";
import { MemoryMap } from "./platform-map.ts";
import { sumBytes } from "./table-writer.ts";

const { base, image, tables } = buildAcpiTables({ cpuCount: 2 });
const view = new DataView(image.buffer);
const signatureAt = (address: number) =>
  String.fromCharCode(...image.subarray(address - base, address - base + 4));
const table = (signature: string) => {
  const bytes = tables.get(signature);
  assert.ok(bytes);
  return { bytes, data: new DataView(bytes.buffer) };
};

describe("structure", () => {
  test("all sums are zero, and the RSDP's first 20 bytes on their own", () => {
    for (const [signature, bytes] of tables) {
      if (signature !== "FACS") assert.equal(sumBytes(bytes), 0, signature);
    }
    assert.equal(sumBytes(image.subarray(0, 20)), 0);
    assert.equal(sumBytes(image.subarray(0, 36)), 0);
  });

  test("a scan finds the RSDP, and RSDT and XSDT list the same tables", () => {
    assert.equal(base, MemoryMap.ACPI_TABLES_BASE);
    assert.equal(String.fromCharCode(...image.subarray(0, 8)), "RSD PTR ");
    const rsdt = view.getUint32(16, true);
    const xsdt = Number(view.getBigUint64(24, true));
    assert.deepEqual([signatureAt(rsdt), signatureAt(xsdt)], ["RSDT", "XSDT"]);
    const entries = [0, 1, 2, 3].map((i) => view.getUint32(rsdt - base + 36 + 4 * i, true));
    const wide = [0, 1, 2, 3].map((i) => Number(view.getBigUint64(xsdt - base + 36 + 8 * i, true)));
    assert.deepEqual(entries, wide);
    assert.deepEqual(entries.map(signatureAt), ["FACP", "APIC", "HPET", "MCFG"]);
  });

  test("the FADT leads to an aligned FACS and to the DSDT", () => {
    const { data } = table("FACP");
    assert.equal(signatureAt(data.getUint32(36, true)), "FACS");
    assert.equal(data.getUint32(36, true) % 64, 0);
    assert.equal(signatureAt(data.getUint32(40, true)), "DSDT");
    assert.equal(Number(data.getBigUint64(140, true)), data.getUint32(40, true));
  });

  test("for any number of processors the image fits its place and the MADT counts them", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 255 }), (cpuCount) => {
        const built = buildAcpiTables({ cpuCount });
        assert.ok(built.image.length <= MemoryMap.ACPI_TABLES_END - MemoryMap.ACPI_TABLES_BASE);
        const madt = built.tables.get("APIC") ?? new Uint8Array();
        const types: number[] = [];
        for (let at = 44; at < madt.length; at += madt[at + 1]) types.push(madt[at]);
        assert.deepEqual(types, [...new Array(cpuCount).fill(0), 1, 2, 2, 4]);
        for (const [signature, bytes] of built.tables) {
          if (signature !== "FACS") assert.equal(sumBytes(bytes), 0);
        }
      }),
      { numRuns: 10 },
    );
    assert.throws(() => buildAcpiTables({ cpuCount: 0 }));
    assert.throws(() => buildAcpiTables({ cpuCount: 256 }));
  });
});

describe("FADT", () => {
  const { data, bytes } = table("FACP");

  test("revision 5 with SCI 9, PM1 and timer at 0x600, and no SMI command", () => {
    assert.deepEqual([bytes.length, bytes[8]], [268, 5]);
    assert.equal(data.getUint16(46, true), 9);
    assert.equal(data.getUint32(48, true), 0);
    assert.deepEqual(
      [56, 64, 76].map((at) => data.getUint32(at, true)),
      [0x600, 0x604, 0x608],
    );
    assert.equal(bytes[108], 0x32);
  });

  test("boot flags: legacy devices, no 8042, no VGA, CMOS clock there", () => {
    assert.equal(data.getUint16(109, true), 0x05);
  });

  test("reset by 6 to 0xCF9; fixed power button; 32-bit timer; not hardware-reduced", () => {
    const flags = data.getUint32(112, true);
    assert.equal(flags & (1 << 10), 1 << 10);
    assert.equal(flags & (1 << 4), 0);
    assert.equal(flags & (1 << 8), 1 << 8);
    assert.equal(flags & (1 << 20), 0);
    assert.deepEqual([...bytes.subarray(116, 129)], [1, 8, 0, 1, 0xf9, 0x0c, 0, 0, 0, 0, 0, 0, 6]);
  });
});

test("MADT: PIT on pin 2, SCI active high and level", () => {
  const { bytes } = table("APIC");
  assert.deepEqual(
    [...bytes.subarray(44 + 16, 44 + 16 + 12 + 20)],
    [
      ...[1, 12, 0, 0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0],
      ...[2, 10, 0, 0, 2, 0, 0, 0, 0, 0],
      ...[2, 10, 0, 9, 9, 0, 0, 0, 0x0d, 0],
    ],
  );
});

const expected = new URL("./dsdt.expected.txt", import.meta.url);

test("the DSDT of two processors is the reviewed one; write it anew with UPDATE_EXPECTED=1", () => {
  const lines =
    Buffer.from(table("DSDT").bytes)
      .toString("hex")
      .match(/.{1,64}/g) ?? [];
  const text = `${lines.join("\n")}\n`;
  if (process.env.UPDATE_EXPECTED) writeFileSync(expected, text);
  assert.ok(readFileSync(expected, "utf8") === text);
});

const hasIasl = spawnSync("iasl", ["-v"]).status === 0;

test("iasl disassembles every table and compiles it again to the same bytes", {
  skip: !hasIasl,
}, () => {
  const folder = mkdtempSync(join(tmpdir(), "acpi-"));
  try {
    for (const [signature, bytes] of tables) {
      if (signature === "RSD PTR ") continue;
      const source = join(folder, `${signature}.dsl`);
      const binary = join(folder, `${signature}.aml`);
      writeFileSync(binary, bytes);
      const run = (...args: string[]) =>
        execFileSync("iasl", args, { cwd: folder, encoding: "utf8", stdio: "pipe" });
      assert.doesNotMatch(run("-d", binary), /warning|error/i);
      // -oa: no optimisation, so that the bytes can be compared.
      assert.match(run("-oa", source), /0 Errors, 0 Warnings, 0 Remarks/);
      const again = readFileSync(binary);
      // iasl writes its own compiler id and version into the header, and the checksum follows.
      const compare = (data: Uint8Array) =>
        Buffer.from(data.subarray(signature === "FACS" ? 0 : 36)).toString("hex");
      assert.ok(compare(again) === compare(bytes), signature);
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
});
