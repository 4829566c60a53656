import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, realpathSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { execPath } from "node:process";
import { test } from "node:test";
import { checkRepository } from "./check-imports.ts";
import { scan } from "./scan-source.ts";

const ROOT = join(import.meta.dirname, "..");

/** A small tree in which every import is allowed. */
const SOUND: Readonly<Record<string, string>> = {
  "package.json":
    '{ "dependencies": { "commander": "1" }, "devDependencies": { "fast-check": "1", "@xterm/xterm": "1" } }',
  "README.md":
    "See [the kernel](src/hypervisor/kernel/kernel.ts#top) and [the web](https://example.org/x).\n",
  "src/base/errors.ts": "export class HypolithError extends Error {}\n",
  "src/processor/isa/row.ts": 'import { HypolithError } from "../../base/errors.ts";\n',
  "src/processor/state/layout.ts": "export const GPR = 0x100;\n",
  "src/processor/semantics/cpu.ts":
    'import { GPR } from "../state/layout.ts";\nimport "../isa/row.ts";\n',
  "src/processor/memory/walk.ts": 'import type { Cpu } from "../semantics/cpu.ts";\n',
  "src/processor/core/iret.ts": 'import { walk } from "../memory/walk.ts";\n',
  "src/processor/vmx/vmcs.ts": 'import { GPR } from "../state/layout.ts";\n',
  "src/hypervisor/abi/status.ts": "export const Status = {};\n",
  "src/hypervisor/kernel/kernel.ts":
    'import "../../processor/vmx/vmcs.ts";\nimport "../abi/status.ts";\n',
  "src/devices/uart.ts": 'import { HypolithError } from "../base/errors.ts";\n',
  "src/services/monitor/monitor.ts":
    'import "../../devices/uart.ts";\nimport "../../hypervisor/abi/status.ts";\n',
  "src/processor/isa/assemble.ts": "export class Assembler {}\n",
  "src/services/guest/console-program.ts":
    'import type { Assembler } from "../../processor/isa/assemble.ts";\n',
  "src/services/pager/pager.ts": 'import "../../hypervisor/abi/status.ts";\n',
  "src/control/protocol.ts": "export type ToMachine = never;\n",
  "src/machine/machine.ts":
    'import "../services/monitor/monitor.ts";\nimport "../hypervisor/kernel/kernel.ts";\n',
  "src/machine/embedder-node.ts":
    'import { hrtime } from "node:process";\nsetTimeout(() => {}, hrtime.length);\n',
  "src/devices/uart.test.ts":
    'import fc from "fast-check";\nimport "../machine/machine.ts";\nimport "node:test";\n',
  "apps/cli/run.ts":
    'import { Command } from "commander";\nimport "../../src/control/protocol.ts";\nimport "node:fs";\n',
  "src/machine/embedder-browser-worker.ts":
    'import "./machine.ts";\nsetTimeout(() => performance.now(), 1);\n',
  "apps/common/size.ts": 'import "../../src/control/protocol.ts";\n',
  "apps/web/page.ts":
    'import { Terminal } from "@xterm/xterm";\nimport "../common/size.ts";\ndocument.title = location.href;\n',
  "apps/cli/start.ts":
    'new Worker(new URL("../../src/machine/embedder-node.ts", import.meta.url));\n',
};

function withTree<T>(changes: Readonly<Record<string, string>>, body: (root: string) => T): T {
  const root = realpathSync(mkdtempSync(join(tmpdir(), "check-imports-")));
  try {
    for (const [path, text] of Object.entries({ ...SOUND, ...changes })) {
      mkdirSync(dirname(join(root, path)), { recursive: true });
      writeFileSync(join(root, path), text);
    }
    return body(root);
  } finally {
    rmSync(root, { recursive: true });
  }
}

/** "file:line rule" of each breach. */
function breachesOf(changes: Readonly<Record<string, string>>): string[] {
  return withTree(changes, (root) =>
    checkRepository(root).breaches.map((b) => `${b.file}:${b.line} ${b.rule}`),
  );
}

test("a tree whose imports all point down is sound", () => {
  assert.deepEqual(breachesOf({}), []);
});

/** What is planted, in which file, and the breach that must be found. */
const PLANTED: readonly (readonly [what: string, file: string, text: string, rule: string])[] = [
  [
    "the kernel imports a device",
    "src/hypervisor/kernel/x.ts",
    'import "../../devices/uart.ts";',
    "direction",
  ],
  [
    "the kernel imports a service",
    "src/hypervisor/kernel/x.ts",
    'import "../../services/pager/pager.ts";',
    "direction",
  ],
  [
    "the kernel imports semantics",
    "src/hypervisor/kernel/x.ts",
    'import "../../processor/semantics/cpu.ts";',
    "direction",
  ],
  [
    "a device imports the processor",
    "src/devices/x.ts",
    'export * from "../processor/isa/row.ts";',
    "direction",
  ],
  [
    "a service imports the kernel",
    "src/services/monitor/x.ts",
    'import "../../hypervisor/kernel/kernel.ts";',
    "direction",
  ],
  [
    "a service imports another one",
    "src/services/monitor/x.ts",
    'import type { P } from "../pager/pager.ts";',
    "direction",
  ],
  [
    "a service in TypeScript imports the assembler",
    "src/services/monitor/x.ts",
    'import type { Assembler } from "../../processor/isa/assemble.ts";',
    "direction",
  ],
  [
    "a service in x86 imports more than the assembler",
    "src/services/guest/x.ts",
    'import "../../processor/isa/row.ts";',
    "direction",
  ],
  [
    "semantics import memory",
    "src/processor/semantics/x.ts",
    'const m = await import("../memory/walk.ts");',
    "direction",
  ],
  ["base imports anything", "src/base/x.ts", 'import "../processor/state/layout.ts";', "direction"],
  [
    "the processor imports the kernel",
    "src/processor/vmx/x.ts",
    'import "../../hypervisor/kernel/kernel.ts";',
    "direction",
  ],
  ["an app imports a device", "apps/cli/x.ts", 'import "../../src/devices/uart.ts";', "direction"],
  [
    "a second file of an app starts the machine",
    "apps/cli/x.ts",
    'import "../../src/machine/machine.ts";',
    "direction",
  ],
  ["an app imports another one", "apps/console/x.ts", 'import "../cli/run.ts";', "direction"],
  ["what apps share imports an app", "apps/common/x.ts", 'import "../cli/run.ts";', "direction"],
  [
    "what apps share starts the machine",
    "apps/common/x.ts",
    'import "../../src/machine/machine.ts";',
    "direction",
  ],
  ["the page imports a builtin", "apps/web/x.ts", 'import { join } from "node:path";', "browser"],
  ["what apps share imports a builtin", "apps/common/x.ts", 'import "node:fs";', "browser"],
  ["what apps share takes a Buffer", "apps/common/x.ts", "Buffer.from([1]);", "browser"],
  [
    "the browser embedder imports a builtin",
    "src/machine/embedder-browser-x.ts",
    'import { gunzipSync } from "node:zlib";',
    "browser",
  ],
  [
    "the browser embedder asks for the environment",
    "src/machine/embedder-browser-x.ts",
    "export const h = process.env.HOME;",
    "browser",
  ],
  [
    "the page imports a package that is not bundled",
    "apps/web/x.ts",
    'import fc from "fast-check";',
    "package",
  ],
  [
    "the command line imports a package of the page",
    "apps/cli/x.ts",
    'import "@xterm/xterm";',
    "package",
  ],
  [
    "src/ imports a builtin",
    "src/devices/x.ts",
    'import { readFileSync } from "node:fs";',
    "embedder",
  ],
  [
    "src/ imports a builtin by its old name",
    "src/machine/x.ts",
    'import { readFileSync } from "fs";',
    "embedder",
  ],
  [
    "src/ imports a package",
    "src/machine/x.ts",
    'import { Command } from "commander";',
    "embedder",
  ],
  ["src/ reads a clock", "src/devices/x.ts", "export const now = Date.now();", "ambient"],
  ["src/ takes entropy", "src/processor/vmx/x.ts", "crypto.getRandomValues(x);", "ambient"],
  ["src/ prints", "src/hypervisor/kernel/x.ts", 'console.log("here");', "ambient"],
  ["src/ imports what it computes", "src/machine/x.ts", "await import(name);", "ambient"],
  ["an app imports a devDependency", "apps/cli/x.ts", 'import fc from "fast-check";', "package"],
  [
    "a test imports a package nobody declared",
    "src/base/x.test.ts",
    'import "leftpad/sub";',
    "package",
  ],
  ["product code imports test code", "src/base/x.ts", 'import "./testing/y.ts";', "test"],
  [
    "product code imports the conformance suite",
    "src/processor/isa/x.ts",
    'import "../../../conformance/y.ts";',
    "test",
  ],
  ["an import leaves the repository", "tools/x.ts", 'import "../../elsewhere/y.ts";', "outside"],
  ["a folder of src/ that no rule knows", "src/gadgets/x.ts", "export {};", "room"],
  ["a path of somebody's machine", "docs/x.md", `Look into ${"/home"}/me/hypolith.`, "path"],
  ["a link that leads nowhere", "docs/x.md", "See [this](../src/nothing.ts).", "link"],
];

for (const [what, file, text, rule] of PLANTED) {
  test(`a planted breach is found: ${what}`, () => {
    // An import that points up may close a cycle as well.
    const found = breachesOf({ [file]: `\n${text}\n` }).filter((b) => !b.endsWith(" cycle"));
    assert.deepEqual(found, [`${file}:${rule === "room" ? 1 : 2} ${rule}`]);
  });
}

test("a cycle between rooms is reported with its way round, besides the import that points up", () => {
  const found = withTree(
    { "src/processor/memory/x.ts": 'import "../core/iret.ts";' },
    checkRepository,
  ).breaches;
  assert.deepEqual(found.map((b) => b.rule).sort(), ["cycle", "direction"]);
  const cycle = found.find((b) => b.rule === "cycle")!;
  assert.equal(cycle.file, "src/processor/memory/x.ts");
  assert.match(cycle.text, /^(memory -> core -> memory|core -> memory -> core)$/);
});

test("the path of the checkout itself is no part of any file", () => {
  withTree({}, (root) => {
    writeFileSync(join(root, "notes.md"), `cd ${root}/src\n`);
    assert.deepEqual(
      checkRepository(root).breaches.map((b) => b.rule),
      ["path"],
    );
  });
});

test("comments, strings, templates and methods called import are no imports", () => {
  const { imports, opaque } = scan(`
    // import "a";
    /* import "b"; */
    const s = 'import "c"', t = \`import "d" \${f(\`from "e"\`, { g: "from" })} import "h"\`;
    const r = /["'\`]/.test(s); module.import("i", []); Array.from("j");
    import "k"; export { x } from 'l'; import type { y } from
      "m"; const z = import("n"); type T = typeof import("o");
    new URL("./p.ts", import.meta.url); new URL("q", s);
  `);
  assert.deepEqual(
    imports.map((i) => i.specifier),
    ["k", "l", "m", "n", "o", "./p.ts"],
  );
  assert.deepEqual(opaque, []);
});

test("names that a file declares itself are not the embedder's", () => {
  assert.deepEqual(
    breachesOf({
      "src/devices/x.ts": "const window = { base: 0 };\nexport const b = window.base;\n",
    }),
    [],
  );
});

test("the command names file, line and rule, and fails", () => {
  withTree({ "src/devices/x.ts": '\n\nimport "node:fs";\n' }, (root) => {
    const run = spawnSync(execPath, [join(ROOT, "tools/check-imports.ts"), root], {
      encoding: "utf8",
    });
    assert.equal(run.status, 1);
    assert.match(run.stderr, /^src\/devices\/x\.ts:3 embedder: node:fs/m);
  });
});

test("this repository keeps its rules", () => {
  const { breaches } = checkRepository(realpathSync(ROOT));
  assert.deepEqual(
    breaches.map((b) => `${b.file}:${b.line} ${b.rule}: ${b.text}`),
    [],
  );
});
