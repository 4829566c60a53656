/** Findings and coverage as text: one line each, with everything needed to see it again. */
import { formatDifference, GPR_NAMES, SEGMENT_NAMES } from "./compare.ts";
import type { CoverageReport } from "./coverage.ts";
import { Fx, Kind, Option, Test } from "./records.ts";
import { rowName } from "./rows.ts";
import type { Finding } from "./run.ts";
import { WINDOW, WINDOW_BYTES } from "./world.ts";

const DEFAULTS: Readonly<Record<string, bigint>> = {
  fcw: 0x37fn,
  fsw: 0n,
  ftw: 0xffn,
  mxcsr: 0x1f80n,
};
const MAX_MEMORY = 8;

/** The bytes of a test's instructions, as text. */
export function codeOf(f: Pick<Finding, "test" | "instructions">): string {
  return f.instructions
    .map((i) =>
      Buffer.from(f.test.subarray(Test.CODE + i.start, Test.CODE + i.start + i.length)).toString(
        "hex",
      ),
    )
    .join(" ");
}

export function rowsOf(f: Pick<Finding, "instructions">): string {
  return f.instructions.map((i) => (i.row ? rowName(i.row) : "(#UD)")).join("; ");
}

/** What of the initial state is not zero or default. */
export function inputOf(test: Uint8Array): string {
  const view = new DataView(test.buffer, test.byteOffset, test.byteLength);
  const out: string[] = [];
  const note = (name: string, value: bigint, normal = 0n): void => {
    if (value !== normal) out.push(`${name}=${value.toString(16)}`);
  };
  note("rflags", view.getBigUint64(Test.RFLAGS, true));
  GPR_NAMES.forEach((name, n) => {
    note(name, view.getBigUint64(Test.GPR + 8 * n, true));
  });
  const isLong = test[Test.MODE] === 64;
  SEGMENT_NAMES.forEach((name, n) => {
    const selector = BigInt(view.getUint16(Test.SELECTORS + 2 * n, true));
    if (!isLong) note(name, selector);
  });
  note("fcw", BigInt(view.getUint16(Test.FX + Fx.FCW, true)), DEFAULTS.fcw);
  note("fsw", BigInt(view.getUint16(Test.FX + Fx.FSW, true)));
  note("ftw", BigInt(view.getUint8(Test.FX + Fx.FTW)), DEFAULTS.ftw);
  note("mxcsr", BigInt(view.getUint32(Test.FX + Fx.MXCSR, true)), DEFAULTS.mxcsr);
  const wide = (name: string, at: number): void => {
    const low = view.getBigUint64(at, true);
    note(name, (view.getBigUint64(at + 8, true) << 64n) | low);
  };
  for (let n = 0; n < 8; n++) wide(`st${n}`, Test.FX + Fx.ST + 16 * n);
  for (let n = 0; n < 16; n++) wide(`xmm${n}`, Test.FX + Fx.XMM + 16 * n);
  return [...out, ...memoryOf(view)].join(" ");
}

function memoryOf(view: DataView): string[] {
  const out: string[] = [];
  for (let k = 0; k < WINDOW_BYTES; k += 8) {
    const value = view.getBigUint64(Test.WINDOW + k, true);
    if (value !== 0n) out.push(`[${(WINDOW + k).toString(16)}]=${value.toString(16)}`);
  }
  return out.length <= MAX_MEMORY
    ? out
    : [...out.slice(0, MAX_MEMORY), `... ${out.length - MAX_MEMORY} more`];
}

/** One line: where it is, what runs, from what state, and what differs. */
export function formatFinding(f: Finding, seed: number): string {
  const kind =
    f.test[Test.KIND] === Kind.RUN
      ? "run"
      : (f.test[Test.OPTIONS]! & Option.TRAPS) !== 0
        ? "traps"
        : "step";
  const at = new DataView(f.test.buffer, f.test.byteOffset)
    .getUint16(Test.OFFSET, true)
    .toString(16);
  const differences = f.differences.map(formatDifference).join(" | ");
  return `${rowsOf(f)}  seed=${seed} index=${f.index} mode=${f.test[Test.MODE]} ${kind} at=${at} code=${codeOf(f)}  in: ${inputOf(f.test)}  out: ${differences}`;
}

export function formatCoverage(c: CoverageReport): string {
  const lines = [`rows covered: ${c.covered === c.rows ? "all" : c.covered} of ${c.rows}`];
  if (c.missing.length > 0) lines.push(`  not yet: ${c.missing.join(" · ")}`);
  if (c.unavailable.length > 0) {
    lines.push(
      `  not on this machine (it runs no such code): ${c.unavailable.length}: ${c.unavailable.join(" · ")}`,
    );
  }
  const byReason = new Map<string, string[]>();
  for (const { row, reason } of c.excluded)
    byReason.set(reason, [...(byReason.get(reason) ?? []), row]);
  lines.push(`  excluded: ${c.excluded.length}`);
  for (const [reason, rows] of byReason) lines.push(`    ${rows.join(" · ")}: ${reason}`);
  return lines.join("\n");
}
