import assert from "node:assert/strict";
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { NodeEcho } from "./embedder-node-echo.ts";

const folder = mkdtempSync(join(tmpdir(), "hypolith-echo-"));
process.once("exit", () => rmSync(folder, { recursive: true }));

/** A ping that notes its arguments and ends with a status. */
function ping(status: number): { program: string; noted: () => string } {
  const program = join(folder, `ping${status}`);
  writeFileSync(
    program,
    `#!/bin/sh\nprintf "%s " "$@" >>${program}.args; echo >>${program}.args\necho complaint >&2\nexit ${status}\n`,
  );
  chmodSync(program, 0o755);
  return { program, noted: () => readFileSync(`${program}.args`, "utf8") };
}

function ask(program: string, queries: readonly number[]): Promise<string[]> {
  const told: string[] = [];
  return new Promise((resolve) => {
    const tell = (text: string): void => {
      told.push(text);
      resolve(told);
    };
    const answers = {
      answered: (query: number) => tell(`answered ${query}`),
      failed: (why: string) => tell(`failed ${why}`),
    };
    const echo = NodeEcho.find(answers, [join(folder, "nothing"), program])!;
    for (const query of queries) echo.ask(query, "192.0.2.1", 56);
  });
}

test("an answer is an answer, with the size that was asked for", async () => {
  const { program, noted } = ping(0);
  assert.deepEqual(await ask(program, [4]), ["answered 4"]);
  assert.equal(noted(), "-n -q -c 1 -W 5 -s 56 192.0.2.1 \n");
});

test("a program that may not ask is complained of once", async () => {
  const { program, noted } = ping(2);
  const told = await ask(program, [2, 4, 6]);
  while (noted().split("\n").length < 4) await new Promise((resolve) => setTimeout(resolve, 20));
  assert.deepEqual(told, ["failed complaint"]);
});

test("without a program there is no echo", () => {
  const answers = { answered() {}, failed() {} };
  assert.equal(NodeEcho.find(answers, [join(folder, "nothing")]), undefined);
});
