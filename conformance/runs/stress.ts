/** stress-ng's processor methods, each of which checks its own results. */
import type { Report } from "../harness/report.ts";
import { bootUserland } from "./userland.ts";

const SECONDS = 60;
/** Guest time is real time, but starting and ending take some too. */
const PATIENCE_SECONDS = 600;

export async function stress(report: Report): Promise<void> {
  const session = await bootUserland(report);
  const command = `stress-ng --cpu 1 --cpu-method all --verify -t ${SECONDS} --metrics-brief 2>&1`;
  const { output, status } = await session.run(command, PATIENCE_SECONDS);
  report.equal(String(status), "0", `${command}: status`);
  report.check(!/fail|error/i.test(output), "it reports no failure");
  for (const line of output.trim().split("\n")) report.fact(line);
  await eachMethod(report, session);
  await session.powerOff();
}

/** `all` may not come round in the time; so each method once. */
async function eachMethod(
  report: Report,
  session: Awaited<ReturnType<typeof bootUserland>>,
): Promise<void> {
  const { output } = await session.run("stress-ng --cpu-method which 2>&1");
  const methods = (output.split("must be one of:")[1] ?? "").trim().split(/\s+/);
  report.check(methods.length > 50, `there are ${methods.length} methods`);
  const slow: string[] = [];
  let passed = 0;
  for (const method of methods.filter((name) => name !== "all" && name !== "")) {
    const command = `stress-ng --cpu 1 --cpu-method ${method} --cpu-ops 1 --verify 2>&1`;
    const result = await session.run(command, PATIENCE_SECONDS);
    const isRight = result.status === 0 && !/fail|error/i.test(result.output);
    if (isRight) passed++;
    else report.check(false, `${method}: ${result.output.trim()}`);
    if (result.wallSeconds > 3) slow.push(`${method} ${result.wallSeconds.toFixed(1)} s`);
  }
  report.check(passed > 0, `${passed} methods passed alone`);
  if (slow.length > 0) report.fact(`slow ones: ${slow.join(", ")}`);
}
