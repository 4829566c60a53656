import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { parseArguments, type Request } from "./program.ts";
import { UsageError } from "./usage-error.ts";

const parse = (...argv: string[]): Request => parseArguments(argv, "1.2.3");

function runOf(...argv: string[]) {
  const request = parse("run", ...argv);
  assert.equal(request.verb, "run");
  return request.verb === "run" ? request.words : assert.fail();
}

/** What is printed while `action` runs. */
function printedBy(test: TestContext, stream: NodeJS.WriteStream, action: () => void): string {
  const write = test.mock.method(stream, "write", () => true);
  action();
  write.mock.restore();
  return write.mock.calls.map(({ arguments: [text] }) => String(text)).join("");
}

test("what follows -- is the guest's, whatever it looks like", () => {
  const { image, command, options } = runOf(
    "-m",
    "1g",
    "--",
    "sh",
    "-c",
    "echo hi",
    "--memory",
    "--",
    "-q",
  );
  assert.equal(image, undefined);
  assert.deepEqual(command, ["sh", "-c", "echo hi", "--memory", "--", "-q"]);
  assert.equal(options.memory, "1g");
  assert.equal(options.quiet, undefined);
});

test("what follows the image is the guest's too, as with docker", () => {
  const { image, command } = runOf("-it", "debian", "ls", "-l", "--quiet", "--", "x");
  assert.equal(image, "debian");
  assert.deepEqual(command, ["ls", "-l", "--quiet", "--", "x"]);
  assert.deepEqual(runOf("debian", "--", "ls").command, ["ls"]);
});

test("an option behind the image is an option in the wrong place, not a command", () => {
  assert.throws(() => runOf("debian", "--memory", "1g"), /'--memory' comes after the image/);
});

test("defaults come from the environment, options come before it", (t) => {
  const before = { ...process.env };
  t.after(() => {
    process.env = before;
  });
  process.env.HYPO_MEMORY = "2g";
  process.env.HYPO_DEBIAN_MIRROR = "http://m/debian";
  assert.equal(runOf().options.memory, "2g");
  assert.equal(runOf("--memory", "1g").options.memory, "1g");
  assert.equal(runOf().options.mirror, "http://m/debian");
});

test("web takes an image, and listens where nobody else can hear", () => {
  const request = parse("web", "debian:rt-amd64", "--pull", "never");
  assert.ok(request.verb === "web");
  assert.equal(request.image, "debian:rt-amd64");
  const { host, port, pull } = request.options;
  assert.deepEqual([host, port, pull], ["127.0.0.1", "8080", "never"]);
});

test("a drill names what, which service and which machine", () => {
  const request = parse("service", "hang", "console", "--vm", "web");
  const expected = { verb: "service", drill: "hang", service: "console", vm: "web" };
  assert.deepEqual(request, expected);
  assert.deepEqual(parse("services", "web", "--json"), {
    verb: "services",
    vm: "web",
    options: { json: true },
  });
});

test("a word that is none is answered with the nearest one", () => {
  const cases: ReadonlyArray<readonly [argv: string[], hint: RegExp]> = [
    [["rnu"], /did you mean run\?/],
    [["docter"], /did you mean doctor\?/],
    [["help", "docter"], /did you mean doctor\?/],
    [["run", "--memry", "1g"], /did you mean --memory\?/],
    [["run", "--kernal=x"], /did you mean --kernel\?/],
    [["doctor", "--jsn"], /did you mean --json\?/],
    [["frobnicate"], /hypo help/],
    [["run", "--clock", "real"], /hypo help/],
    [["run", "--memory"], /hypo help/],
    [["doctor", "--", "ls"], /leave out/],
    [["service", "kil", "console"], /did you mean kill\?/],
    [["service", "kill"], /hypo help/],
    [["web", "--prot", "1"], /did you mean --port\?/],
    [["web", "--", "ls"], /leave out/],
  ];
  for (const [argv, hint] of cases) {
    assert.throws(
      () => parse(...argv),
      (error: unknown) => {
        assert.ok(error instanceof UsageError);
        assert.match(error.hint!, hint, argv.join(" "));
        return true;
      },
    );
  }
});

test("help has examples for every verb, and goes to standard output", (t) => {
  for (const argv of [
    ["--help"],
    ["help"],
    ["help", "run"],
    ["help", "web"],
    ["help", "doctor"],
    ["help", "ps"],
    ["help", "services"],
    ["help", "service"],
    ["help", "pull"],
    ["help", "images"],
    ["help", "rmi"],
    ["help", "system"],
    ["help", "version"],
    ["help", "help"],
  ]) {
    const text = printedBy(t, process.stdout, () => {
      assert.deepEqual(parse(...argv), { verb: "none", exitCode: 0 });
    });
    assert.match(text, /Examples:\n {2}hypo/, argv.join(" "));
  }
  const text = printedBy(t, process.stdout, () => parse("run", "-h"));
  for (const option of [
    "--kernel",
    "--initrd",
    "--append",
    "--memory",
    "--cpu-model",
    "--clock",
    "--engine",
    "--trace",
    "--quiet",
    "--log-level",
    "--mirror",
  ]) {
    assert.ok(text.includes(option), option);
  }
});

test("the verbs about images", () => {
  assert.deepEqual(parse("pull", "--platform", "linux/386", "a", "b"), {
    verb: "image",
    request: { verb: "pull", images: ["a", "b"], options: { platform: "linux/386" } },
  });
  assert.deepEqual(parse("images", "--json"), {
    verb: "image",
    request: { verb: "images", options: { json: true } },
  });
  assert.deepEqual(parse("system", "prune", "-a"), {
    verb: "image",
    request: { verb: "prune", options: { all: true } },
  });
  assert.throws(() => parse("rmi"), UsageError);
  assert.throws(() => parse("run", "--root", "tape", "alpine"), UsageError);
});

test("no verb at all is a mistake that is answered with help", (t) => {
  const text = printedBy(t, process.stderr, () => {
    assert.deepEqual(parse(), { verb: "none", exitCode: 2 });
  });
  assert.match(text, /Usage: hypo/);
});

test("--version prints it", (t) => {
  const text = printedBy(t, process.stdout, () => parse("--version"));
  assert.equal(text, "hypo 1.2.3\n");
  assert.deepEqual(parse("version"), { verb: "version" });
});
