/**
 * `hypo doctor`: what works on this machine, one line each, with a cure where something does not.
 */
import { styleText } from "node:util";
import { CHECKS, type CheckResult } from "./doctor/checks.ts";
import { ExitCode } from "./exit-code.ts";
import { defaultCacheRoot, ImageCache } from "./image/cache.ts";

export interface DoctorOptions {
  readonly json?: boolean;
}

const COLORS = { ok: "green", warn: "yellow", fail: "red" } as const;

export async function doctor(options: DoctorOptions, signal: AbortSignal): Promise<number> {
  const context = {
    cache: new ImageCache(defaultCacheRoot()),
    signal,
    mirror: process.env.HYPO_DEBIAN_MIRROR || undefined,
  };
  const results: CheckResult[] = [];
  for (const check of CHECKS) {
    const result = await check(context);
    signal.throwIfAborted();
    results.push(result);
    if (!options.json) print(result);
  }
  if (options.json) process.stdout.write(`${JSON.stringify(results, undefined, 2)}\n`);
  const failed = results.some(({ status }) => status === "fail");
  return failed ? ExitCode.CHECK_FAILED : ExitCode.OK;
}

function print({ name, status, detail, cure }: CheckResult): void {
  const word = styleText(COLORS[status], status.padEnd(4), { stream: process.stdout });
  process.stdout.write(`${word}  ${name.padEnd(11)}  ${detail}\n`);
  if (cure !== undefined) process.stdout.write(`                   try: ${cure}\n`);
}
