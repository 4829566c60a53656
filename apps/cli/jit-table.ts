/**
 * What `--jit-stats` prints.
 */
import type { JitReport } from "../../src/control/protocol.ts";

/** What, how many, and a remark. */
type Row = readonly [string, string, string?];

/** Lines without newlines. `retired`: instructions of the whole run. */
export function formatJitReport(report: JitReport | null, retired: number): string[] {
  const rows: Row[] = [["instructions retired", count(retired)]];
  if (report) rows.push(...tierRows(report, retired));
  const label = Math.max(...rows.map(([name]) => name.length));
  const figure = Math.max(...rows.map(([, value]) => value.length));
  return [
    report ? "region tier:" : "region tier: none, this engine only interprets",
    ...rows.map(([name, value, note]) => {
      const line = `  ${name.padEnd(label)}  ${value.padStart(figure)}`;
      return note ? `${line}  ${note}` : line;
    }),
  ];
}

function tierRows(report: JitReport, retired: number): Row[] {
  const share = retired > 0 ? `${((100 * report.retired) / retired).toFixed(1)} %` : "";
  return [
    ["  in regions", count(report.retired), share],
    ["regions made", count(report.regions)],
    ["  instructions in them", count(report.instructions)],
    ["  modules", count(report.modules)],
    ["  blocks refused", count(report.refused)],
    ["  dropped", count(report.dropped)],
    ["  stale when ready", count(report.stale)],
    ["  table flushes", count(report.flushes)],
    ["entries from interpreter", count(report.entries)],
    ["entries from regions", count(report.links)],
    ["bails to interpreter", count(report.bails)],
    ["own thread, ms", report.ownMs.toFixed(1)],
  ];
}

function count(value: number): string {
  return value.toLocaleString("en-US");
}
