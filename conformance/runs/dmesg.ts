/**
 * A healthy PC in the eyes of Debian's cloud kernel: what it logs at level warning or worse is at most what docs/boot-messages.md
 * lists and explains.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { boot } from "../harness/boot.ts";
import { CHECKOUT } from "../harness/cache.ts";
import type { Report } from "../harness/report.ts";

const LISTED_AT_MOST = 5;
const WARNING = 4;
const LEVEL_MASK = 7;

/** Words that no healthy boot logs, at any level. */
const SICK =
  /MP-BIOS bug|TSC unstable|unchecked MSR|nobody cared|Call Trace|soft lockup|clocksource: .*(unstable|skewed)|Spurious|Machine check/i;

export async function dmesg(report: Report): Promise<void> {
  const { session } = await boot("cloud", {});
  const { output } = await session.run("/lab/busybox dmesg -r");
  const clock = await session.run(
    "cat /sys/devices/system/clocksource/clocksource0/current_clocksource",
  );
  await session.powerOff();
  const listed = listedMessages();
  report.check(
    listed.length <= LISTED_AT_MOST,
    `docs/boot-messages.md lists ${listed.length} lines`,
  );
  const lines = output.split("\n").map(parseLine);
  report.check(lines.length > 100, `the log was read (${lines.length} lines)`);
  for (const { text } of lines.filter(({ level }) => level <= WARNING)) {
    report.check(
      listed.some((pattern) => pattern.test(text)),
      `warning: ${text}`,
    );
  }
  const sick = lines.filter(({ text }) => SICK.test(text));
  report.check(sick.length === 0, "no line tells of a sick machine");
  for (const { text } of sick) report.fact(text);
  report.equal(clock.output.trim(), "tsc", "the clock source is the TSC");
}

/** "<6>[    0.1] text"; continuation lines of one message have no prefix and its level. */
function parseLine(line: string): { level: number; text: string } {
  const [, priority, text] = /^<(\d+)>\[[^\]]*\] (.*)$/.exec(line) ?? [];
  if (text === undefined) return { level: LEVEL_MASK, text: line };
  return { level: Number(priority) & LEVEL_MASK, text };
}

/** Items of the form "- `text`", where "*" stands for anything. */
function listedMessages(): RegExp[] {
  const document = readFileSync(join(CHECKOUT, "docs/boot-messages.md"), "utf8");
  return [...document.matchAll(/^- `(.+)`/gm)].map(([, text]) => {
    const parts = text!.split("*").map((part) => part.replaceAll(/[.*+?^${}()|[\]\\]/g, "\\$&"));
    return new RegExp(`^${parts.join(".*")}$`);
  });
}
