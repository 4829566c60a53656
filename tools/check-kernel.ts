/**
 * Repository check: what runs in root mode, and how large it is.
 *
 *   node tools/check-kernel.ts [ROOT]     prints source lines and reachable code; status 1 over the budget or with a device model too many
 *
 * Reachable is what a bundler finds from the files of src/hypervisor/kernel by their imports, without comments and types. Of the device
 * models only the interrupt controllers may be among it, and no service. The processor's files that it uses (VMCS, layout) are
 * counted apart: they are the machine that it runs on.
 */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { argv, exit, stderr, stdout } from "node:process";
import { build } from "esbuild";

const FOLDER = "src/hypervisor/kernel";
export const ENTRY = `${FOLDER}/kernel.ts`;
/** Source lines of the micro-hypervisor, interrupt controllers included. */
const LINE_BUDGET = 5000;
/** Bytes of code, minified. */
const CODE_BUDGET = 64 * 1024;

/** The interrupt controllers and what they are made of. */
const LINKED_DEVICES = new Set(
  [
    ...["model", "state", "mmio-access"],
    ...["ioapic", "pic-8259", "pic-chip", "platform-map"].map((name) => `platform/${name}`),
  ].map((name) => `src/devices/${name}.ts`),
);

export interface KernelReport {
  readonly files: number;
  /** Of the micro-hypervisor and the interrupt controllers. */
  readonly lines: number;
  readonly codeBytes: number;
  /** Bytes of the processor's files among it. */
  readonly processorBytes: number;
  readonly problems: readonly string[];
}

export async function checkKernel(root: string): Promise<KernelReport> {
  const { metafile } = await build({
    absWorkingDir: root,
    stdin: { contents: everything(root), resolveDir: join(root, FOLDER) },
    bundle: true,
    minify: true,
    write: false,
    metafile: true,
    format: "esm",
    platform: "neutral",
    logLevel: "silent",
    outdir: "/",
  });
  const parts = Object.entries(Object.values(metafile.outputs)[0]!.inputs);
  const isOwn = (path: string): boolean => !path.startsWith("src/processor/");
  const own = parts.filter(([path]) => isOwn(path) && path !== "<stdin>");
  const bytes = (list: typeof parts): number =>
    list.reduce((sum, [, { bytesInOutput }]) => sum + bytesInOutput, 0);
  const lines = own.reduce((sum, [path]) => sum + linesOf(join(root, path)), 0);
  const codeBytes = bytes(own);
  const problems = own
    .map(([path]) => path)
    .filter((path) => isForeign(path))
    .map((path) => `${path} is linked into the micro-hypervisor`);
  if (lines > LINE_BUDGET) problems.push(`${lines} source lines, the budget is ${LINE_BUDGET}`);
  if (codeBytes > CODE_BUDGET)
    problems.push(`${codeBytes} bytes of code, the budget is ${CODE_BUDGET}`);
  return {
    files: own.length,
    lines,
    codeBytes,
    processorBytes: bytes(parts) - codeBytes,
    problems,
  };
}

/** A module that has all files of the folder in it. */
function everything(root: string): string {
  return readdirSync(join(root, FOLDER))
    .filter((name) => name.endsWith(".ts") && !name.endsWith(".test.ts"))
    .map((name, i) => `export * as part${i} from "./${name}";`)
    .join("\n");
}

function isForeign(path: string): boolean {
  if (path.startsWith("src/hypervisor/") || path.startsWith("src/base/")) return false;
  return !LINKED_DEVICES.has(path);
}

function linesOf(path: string): number {
  return readFileSync(path, "utf8").trimEnd().split("\n").length;
}

export function describeKernel(report: KernelReport): string {
  const { files, lines, codeBytes, processorBytes } = report;
  const kib = (n: number): string => `${(n / 1024).toFixed(1)} KiB`;
  return `micro-hypervisor: ${files} files, ${lines} source lines, ${kib(codeBytes)} of code; of the processor it uses ${kib(processorBytes)}`;
}

if (import.meta.main) {
  const report = await checkKernel(argv[2] ?? join(import.meta.dirname, ".."));
  stdout.write(`${describeKernel(report)}\n`);
  for (const problem of report.problems) stderr.write(`${problem}\n`);
  exit(report.problems.length === 0 ? 0 : 1);
}
