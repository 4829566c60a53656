import assert from "node:assert/strict";
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { checkKernel, ENTRY } from "./check-kernel.ts";

const ROOT = join(import.meta.dirname, "..");

function copyWith(t: TestContext, line: string): string {
  const root = mkdtempSync(join(tmpdir(), "hypo-kernel-"));
  t.after(() => rmSync(root, { recursive: true }));
  cpSync(join(ROOT, "src"), join(root, "src"), { recursive: true });
  const path = join(root, ENTRY);
  writeFileSync(path, `${readFileSync(path, "utf8")}\n${line}\n`);
  return root;
}

test("the micro-hypervisor is within its budget and links no device but the interrupt controllers", async () => {
  const { problems, lines, codeBytes } = await checkKernel(ROOT);
  assert.deepEqual(problems, []);
  assert.ok(lines > 1000 && codeBytes > 10_000);
});

for (const path of [
  "../../devices/platform/uart-16550a.ts",
  "../../services/console/console.ts",
  "../../devices/port-bus.ts",
]) {
  test(`a kernel that links ${path} is refused`, async (t) => {
    const { problems } = await checkKernel(copyWith(t, `export * from "${path}";`));
    assert.match(problems.join("\n"), new RegExp(path.replaceAll("../", "")));
  });
}

test("a type of a device is not code of it", async (t) => {
  const line = 'export type { UartWires } from "../../devices/platform/uart-16550a.ts";';
  assert.deepEqual((await checkKernel(copyWith(t, line))).problems, []);
});

test("a kernel that outgrows its budget is refused", async (t) => {
  const root = copyWith(t, `export const filler = ${JSON.stringify("x".repeat(80_000))};`);
  const { problems } = await checkKernel(root);
  assert.match(problems.join(), /bytes of code, the budget/);
});
