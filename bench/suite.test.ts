import assert from "node:assert/strict";
import { test } from "node:test";
import type { CommandResult } from "../conformance/harness/guest-session.ts";
import { clockIsRight, runSuite } from "./suite.ts";
import { after, type Contestant, type Workload } from "./workload.ts";

const OPTIONS = { rounds: 2, progress: (): void => {} };
const ROW: Workload = { name: "row", group: "micro", description: "", command: "work" };

/** Answers by command; everything costs a second more than before. */
class Fake implements Contestant {
  readonly heard: string[] = [];
  readonly #answers: Readonly<Record<string, string>>;
  readonly #status: number;

  constructor(answers: Readonly<Record<string, string>>, status = 0) {
    this.#answers = answers;
    this.#status = status;
  }

  run(command: string): Promise<CommandResult> {
    this.heard.push(command);
    const seconds = this.heard.length;
    return Promise.resolve({
      output: this.#answers[command] ?? "",
      status: this.#status,
      wallSeconds: seconds,
      cpuSeconds: seconds,
      retired: undefined,
    });
  }

  kill(): void {}
}

test("each round is one sample of each contestant, in turns", async () => {
  const [native, guest] = [new Fake({ work: "7\n" }), new Fake({ work: "7\r\n" })];
  const [row] = await runSuite([ROW], { native, guest }, OPTIONS);
  assert.equal(row!.checksum, "7");
  assert.deepEqual(row!.failures, {});
  assert.deepEqual(
    row!.samples.guest!.map(({ cpu }) => cpu),
    [1, 2],
  );
});

test("only the command between preparation and result is measured", async () => {
  const guest = new Fake({ show: "made" });
  const workload = { ...ROW, prepare: "make", result: "show" };
  const [row] = await runSuite([workload], { guest }, { ...OPTIONS, rounds: 1 });
  assert.deepEqual(guest.heard, ["make", "work", "show"]);
  assert.equal(row!.checksum, "made");
  assert.equal(row!.samples.guest![0]!.cpu, 2);
});

test("a result that differs from the first contestant's is a failure and no sample", async () => {
  const contestants = { native: new Fake({ work: "7" }), guest: new Fake({ work: "8" }) };
  const [row] = await runSuite([ROW], contestants, OPTIONS);
  assert.equal(row!.samples.guest, undefined);
  assert.match(row!.failures.guest!, /result 8, elsewhere 7/);
  assert.equal(row!.samples.native!.length, 2);
});

test("long results differ by their hash, wherever they differ", async () => {
  const long = "line\n".repeat(1000);
  const contestants = { native: new Fake({ work: long }), guest: new Fake({ work: `${long}x` }) };
  const [row] = await runSuite([ROW], contestants, OPTIONS);
  assert.match(row!.checksum, /^[0-9a-f]{40}$/);
  assert.match(row!.failures.guest!, /elsewhere/);
});

test("silence and a status other than 0 are failures, and the other rows go on", async () => {
  const silent = new Fake({ other: "1" });
  const failing = new Fake({ work: "7", other: "1" }, 132);
  const other = { ...ROW, name: "other", command: "other" };
  const [row, next] = await runSuite([ROW, other], { silent, failing }, OPTIONS);
  assert.match(row!.failures.silent!, /printed nothing/);
  assert.match(row!.failures.failing!, /status 132/);
  assert.equal(next!.samples.silent!.length, 2);
});

test("what a program says it took is its own account and not part of the result", async () => {
  const native = new Fake({ work: "checksum=7 seconds=0.25\n" });
  const guest = new Fake({ work: "checksum=7 seconds=0.5\n" });
  const [row] = await runSuite([ROW], { native, guest }, { ...OPTIONS, rounds: 1 });
  assert.equal(row!.checksum, "7");
  assert.equal(row!.samples.guest![0]!.own, 0.5);
});

test("a guest whose account is much less than its process's time has a wrong clock", () => {
  const sample = { cpu: 10, wall: 10, retired: undefined };
  assert.equal(clockIsRight({ ...sample, own: 9 }), true);
  assert.equal(clockIsRight({ ...sample, own: 5 }), false);
  assert.equal(clockIsRight({ ...sample, own: undefined }), true);
});

test("terms go before all commands of a workload", () => {
  const workload = after("export A=1;", { ...ROW, prepare: "make" });
  assert.equal(workload.command, "export A=1; work");
  assert.equal(workload.prepare, "export A=1; make");
  assert.equal("result" in workload, false);
});
