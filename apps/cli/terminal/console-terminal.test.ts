/**
 * The terminal is given back as it was, on every way out. A real terminal: `script` of util-linux makes one.
 */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { HYPO, makeWorld, play, Running } from "../testing/hypo-process.ts";

const HAS_SCRIPT = spawnSync("script", ["--version"]).status === 0;

interface Session {
  readonly run: Running;
  readonly type: (text: string) => void;
  /** Sends a signal to hypo itself. */
  readonly signal: (name: string) => void;
  /** The exit code; fails if the terminal is not as it was. */
  readonly code: () => Promise<number>;
}

async function openConsole(test: TestContext, part: string): Promise<Session> {
  const world = await makeWorld(test);
  const { folder } = world;
  writeFileSync(join(folder, "kernel"), "kernel");
  const argv = [...play(part), "--kernel", "kernel"].join(" ");
  const script = `stty rows 33 cols 99; stty -a >before
'${process.execPath}' '${HYPO}' ${argv} & echo $! >pid; fg >/dev/null; echo $? >code
stty -a >after`;
  writeFileSync(join(folder, "script"), `set -m\n${script}\n`);
  const run = new Running(world, ["script", "-qec", "sh script", "/dev/null"], "pipe");
  return {
    run,
    type: (text) => run.child.stdin!.write(text),
    signal: (name) => {
      process.kill(Number(readFileSync(join(folder, "pid"), "utf8")), name);
    },
    code: async () => {
      await run.ended;
      const [before, after] = ["before", "after"].map((name) =>
        readFileSync(join(folder, name), "utf8"),
      );
      assert.equal(after, before);
      assert.match(before!, /rows 33; columns 99/);
      return Number(readFileSync(join(folder, "code"), "utf8"));
    },
  };
}

test("keys go to the guest, Ctrl-C too; the escape key is announced and its help helps", {
  skip: !HAS_SCRIPT,
}, async (t) => {
  const { run, type, code } = await openConsole(t, "console");
  await run.says("the escape key is Ctrl-A");
  await run.says("console up");
  type("a\x03b\r");
  await run.says("<a\x03b\r>");
  type("\x01h");
  await run.says("Ctrl-A X   power off");
  type("\x01x");
  assert.equal(await code(), 0);
});

test("the terminal is itself again after each way out", { skip: !HAS_SCRIPT }, async (t) => {
  const ways: ReadonlyArray<
    readonly [part: string, leave: (session: Session) => void, code: number]
  > = [
    ["console", ({ type }) => type("q"), 0],
    ["console", ({ signal }) => signal("SIGTERM"), 143],
    ["console", ({ signal }) => signal("SIGHUP"), 129],
    ["console", ({ signal }) => signal("SIGINT"), 130],
    ["crash", () => {}, 125],
    ["triple-fault", () => {}, 125],
  ];
  for (const [part, leave, expected] of ways) {
    const session = await openConsole(t, part);
    if (part === "console") await session.run.says("console up");
    leave(session);
    assert.equal(await session.code(), expected, part);
  }
});
