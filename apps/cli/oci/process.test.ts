import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { test } from "node:test";
import { rootJob, rootSetup } from "../guest/root.ts";
import { type ImageConfig, parseConfig } from "./manifest.ts";
import { type ImageProcess, type ProcessWords, planProcess } from "./process.ts";
import { json } from "./testing/image-maker.ts";
import { resolveUser } from "./users.ts";

const FILES = {
  passwd:
    "root:x:0:0:root:/root:/bin/sh\nbob:x:1000:1001::/var/bob:/bin/sh\nbad line\n77:x:5:6::/odd:\n",
  group: "root:x:0:\nbob:x:1001:\nvideo:x:44:alice,bob\nwheel:x:10:root\n",
};
const WORDS: ProcessWords = {
  command: [],
  entrypoint: undefined,
  environment: [],
  user: undefined,
  workdir: undefined,
  hasTerminal: false,
};

function configOf(config: object): ImageConfig {
  return parseConfig(
    json({ os: "linux", architecture: "amd64", config, rootfs: { diff_ids: [] } }),
    "x",
  );
}

function plan(config: object, words: Partial<ProcessWords> = {}): ImageProcess {
  return planProcess(configOf(config), { ...WORDS, ...words }, FILES, "the image");
}

test("a user is found by name or number, and has the groups that it is a member of", () => {
  const user = (spec: string) => resolveUser(spec, FILES);
  assert.deepEqual(user(""), { uid: 0, gid: 0, groupsOf: "root", home: "/root" });
  assert.deepEqual(user("bob"), { uid: 1000, gid: 1001, groupsOf: "bob", home: "/var/bob" });
  assert.deepEqual(user("1000"), user("bob"));
  assert.deepEqual(user("bob:video"), {
    uid: 1000,
    gid: 44,
    groupsOf: undefined,
    home: "/var/bob",
  });
  assert.deepEqual(user("4711"), { uid: 4711, gid: 0, groupsOf: undefined, home: "/" });
  assert.deepEqual(user("4711:22"), { uid: 4711, gid: 22, groupsOf: undefined, home: "/" });
  // A name of digits is a name first.
  assert.equal(user("77").uid, 5);
  assert.throws(() => user("eve"), { code: "user-unknown" });
  assert.throws(() => user("bob:none"), { code: "group-unknown" });
  assert.throws(() => user("99999999999"), { code: "user-unknown" });
  assert.deepEqual(resolveUser("", { passwd: "", group: "" }), {
    uid: 0,
    gid: 0,
    groupsOf: undefined,
    home: "/",
  });
});

test("entrypoint and command follow docker's rules", () => {
  const config = { Entrypoint: ["/entry", "-x"], Cmd: ["a", "b"] };
  assert.deepEqual(plan(config).argv, ["/entry", "-x", "a", "b"]);
  assert.deepEqual(plan(config, { command: ["c"] }).argv, ["/entry", "-x", "c"]);
  assert.deepEqual(plan(config, { entrypoint: "sh" }).argv, ["sh"]);
  assert.deepEqual(plan(config, { entrypoint: "sh", command: ["-c"] }).argv, ["sh", "-c"]);
  assert.deepEqual(plan(config, { entrypoint: "", command: ["c"] }).argv, ["c"]);
  assert.throws(() => plan({}), { code: "command-missing" });
});

test("the environment is the image's with ours on top, and HOME that of the user", () => {
  const config = { Cmd: ["x"], Env: ["PATH=/p", "A=1", "odd.name=ü = x"], User: "bob" };
  const environment = Object.fromEntries(plan(config, { environment: ["A=2"] }).environment);
  assert.deepEqual(environment, {
    PATH: "/p",
    HOSTNAME: "hypolith",
    A: "2",
    "odd.name": "ü = x",
    HOME: "/var/bob",
  });
  assert.ok("TERM" in Object.fromEntries(plan(config, { hasTerminal: true }).environment));
  assert.equal(plan({ ...config, WorkingDir: "place" }).workdir, "/place");
  assert.equal(plan(config, { workdir: "/w" }).workdir, "/w");
});

test("the signal that asks it to end is the image's, if it is one", () => {
  const signal = (StopSignal?: string) => plan({ Cmd: ["x"], StopSignal }).stopSignal;
  assert.deepEqual(["SIGQUIT", "INT", "3", "SIGRTMIN+3"].map(signal), [
    "QUIT",
    "INT",
    "3",
    "RTMIN+3",
  ]);
  for (const bad of [undefined, "", "TERM; rm -rf /", "A\npoweroff"])
    assert.equal(signal(bad), "TERM");
});

test("a configuration with other types than the specification's is refused", () => {
  for (const config of [{ Cmd: "x" }, { Env: [1] }, { Entrypoint: {} }]) {
    assert.throws(() => configOf(config), { code: "image-unsound" });
  }
});

/** The job with the guest's tools replaced by ones that print what they would become. */
function play(process: ImageProcess, prelude = ""): string {
  const stubs = [
    `exec_shim() { printf '<%s>' "$@"; exit 0; }`,
    `nsenter() { exec_shim nsenter "$@"; }`,
    `start-stop-daemon() { exec_shim ssd "$@"; }`,
    `chown() { :; }`,
    prelude,
  ];
  const script = rootJob(process).replaceAll(/^ {2}exec /gm, "  ");
  return execFileSync("bash", ["-c", `${stubs.join("\n")}\n${script}`], {
    encoding: "utf8",
    stdio: ["ignore", "pipe", "pipe"],
  });
}

test("the guest's script passes every word as it is, whatever is in it", () => {
  const words = ["sh", "-c", "echo 'a'\n\"$HOME\" `x` \\", "", "*", "ü"];
  const process = plan({ Cmd: words, Env: ["X.Y=it's $PATH\n"], User: "bob" }, { workdir: "/tmp" });
  const out = play(process);
  assert.ok(
    out.startsWith(
      "<ssd><-S><-q><-p></proc/self/no-such-file><-c><bob:1001><-x></proc/self/exe><-a><env><--><-i>",
    ),
  );
  assert.ok(out.includes("<X.Y=it's $PATH\n>"));
  assert.match(out, /<\/(?:usr\/)?bin\/sh>/);
  assert.ok(out.endsWith("<-c><echo 'a'\n\"$HOME\" `x` \\><><*><ü>"));
  assert.match(
    play(plan({ Cmd: ["/bin/sh"] }, { user: "5:6", workdir: "/tmp" })),
    /^<nsenter><-S><5><-G><6><--><env><-i>/,
  );
});

test("a command that cannot be started ends with 126 or 127, as with docker", () => {
  const code = (...argv: string[]): number => {
    try {
      play(plan({ Cmd: argv, User: "5:6" }, { workdir: "/tmp" }));
      return 0;
    } catch (error) {
      return (error as { status: number }).status;
    }
  };
  assert.equal(code("no-such-command"), 127);
  assert.equal(code("/no/such/file"), 127);
  assert.equal(code(""), 127);
  assert.equal(code("/etc"), 126);
  assert.equal(code("/etc/passwd"), 126);
});

test("what sets up the root is sound shell, with a disk and without", () => {
  const process = plan({ Cmd: ["x"] });
  for (const device of ["/dev/vdb", undefined]) {
    const script = rootSetup({ device, process });
    execFileSync("bash", ["-n", "-c", script]);
    assert.equal(
      script.includes("mount -t erofs -o ro /dev/vdb /hypo/image"),
      device !== undefined,
    );
  }
});
