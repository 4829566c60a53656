import assert from "node:assert/strict";
import { test } from "node:test";
import { HypolithError } from "../../src/base/errors.ts";
import { parseEnvironment, planRun, type RunOptions, type RunPlan } from "./run-plan.ts";

const DEFAULTS: RunOptions = {
  memory: "512m",
  cpuModel: "x86-64-v2",
  clock: "wall",
  pull: "missing",
  cache: true,
};

interface Words {
  readonly image?: string;
  readonly command?: readonly string[];
  readonly terminal?: boolean;
}

function plan(
  options: Partial<RunOptions>,
  { image, command = [], terminal = true }: Words = {},
): RunPlan {
  const words = { image, command, stdinIsTerminal: terminal };
  return planRun({ ...words, options: { ...DEFAULTS, ...options } });
}

const hasCode = (code: string) => (error: unknown) =>
  error instanceof HypolithError && error.code === code;

test("without words: Debian, a login shell on our terminal, the boot to be seen", () => {
  const { flavor, job, mode, showBoot, memoryBytes } = plan({});
  assert.equal(flavor?.image, "debian:cloud-amd64");
  assert.deepEqual(job, { argv: ["sh", "-l"], inForeignInitrd: false });
  assert.deepEqual([mode, showBoot, memoryBytes], ["console", true, 2 ** 29]);
});

test("without a terminal the shell reads our standard input by a pipe", () => {
  assert.equal(plan({}, { terminal: false }).mode, "pipes");
  assert.deepEqual(plan({ quiet: true }, { terminal: false }).job?.argv, ["sh"]);
});

test("services are placed by name, mistakes are found before anything starts", () => {
  const { placements } = plan({ service: ["console=worker", "all=inline"] });
  assert.deepEqual(placements, { console: "worker", all: "inline" });
  for (const word of ["console", "=worker", "console=wroker", "console="])
    assert.throws(() => plan({ service: [word] }), hasCode("usage"), word);
  assert.throws(() => plan({ name: "../x" }), hasCode("usage"));
});

test("a network is there unless the run shall repeat exactly; ports are checked", () => {
  assert.deepEqual(plan({}).network, { egress: [], forwards: [] });
  assert.equal(plan({ clock: "deterministic" }).network, undefined);
  assert.ok(plan({ clock: "deterministic", network: "user" }).network);
  assert.equal(plan({ network: "none" }).network, undefined);
  const { network } = plan({
    publish: ["8080:80", "[::1]:53:53/udp"],
    pcap: "f",
    egress: ["deny"],
  });
  assert.deepEqual(network?.forwards, ["8080:80", "[::1]:53:53/udp"]);
  assert.deepEqual([network?.capture, network?.egress], ["f", ["deny"]]);
  for (const word of ["80", "a:b", "80:80/sctp", "80:"])
    assert.throws(() => plan({ publish: [word] }), hasCode("usage"), word);
  for (const more of [{ publish: ["80:80"] }, { egress: ["deny"] }, { pcap: "f" }])
    assert.throws(() => plan({ network: "none", ...more }), hasCode("usage"));
});

test("a command runs by pipes, with --tty on the console", () => {
  const command = ["ls", "-l"];
  const { job, mode, showBoot } = plan({}, { command });
  assert.deepEqual([job?.argv, mode, showBoot], [command, "pipes", false]);
  assert.equal(plan({ tty: true }, { command }).mode, "console");
});

test("a kernel of the user's own is booted alone, unless an image or a command asks for more", () => {
  const alone = plan({ kernel: "k", initrd: "i" });
  assert.deepEqual([alone.flavor, alone.job, alone.mode], [undefined, undefined, "console"]);
  assert.equal(plan({ kernel: "k" }).flavor, undefined);
  assert.deepEqual(plan({ kernel: "k" }, { command: ["ls"] }).job, {
    argv: ["ls"],
    inForeignInitrd: false,
  });
  const own = { image: "debian:cloud-amd64" };
  assert.deepEqual(plan({ kernel: "k" }, own).job?.argv, ["sh", "-l"]);
});

test("an initrd of the user's own keeps its init, and runs our command if there is one", () => {
  const own = plan({ initrd: "i" });
  assert.deepEqual([own.flavor?.short, own.job], ["cloud", undefined]);
  assert.deepEqual(plan({ initrd: "i" }, { command: ["ls"] }).job, {
    argv: ["ls"],
    inForeignInitrd: true,
  });
});

test("images and flavors name the same kernels", () => {
  assert.equal(plan({}, { image: "debian:686-pae" }).flavor?.architecture, "i386");
  assert.equal(plan({ flavor: "rt" }).flavor?.metaPackage, "linux-image-rt-amd64");
  assert.throws(() => plan({ flavor: "rt" }, { image: "debian:amd64" }), hasCode("usage"));
});

test("an image that is not there is answered with the nearest one", () => {
  assert.throws(
    () => plan({}, { image: "debain" }),
    (error: HypolithError) => {
      assert.equal(error.code, "image-unknown");
      assert.match(error.hint!, /^did you mean 'debian'\?/);
      return true;
    },
  );
  assert.throws(() => plan({}, { image: "Uname" }), hasCode("reference-invalid"));
});

test("an image from elsewhere runs its own process, on a kernel of ours", () => {
  const words = { image: "alpine", terminal: false };
  const { root, flavor, job, mode, showBoot } = plan({}, words);
  assert.deepEqual(root?.platform, { os: "linux", architecture: "amd64" });
  assert.equal(root?.form, "disk");
  assert.equal(flavor?.image, "debian:cloud-amd64");
  assert.deepEqual([job?.argv, mode, showBoot], [[], "pipes", false]);
  assert.deepEqual(plan({}, { ...words, command: ["ls"] }).job?.argv, ["ls"]);
  const pae = plan({ flavor: "686-pae" }, words);
  assert.deepEqual([pae.flavor?.image, pae.root?.platform.architecture], ["debian:686-pae", "386"]);
  assert.equal(plan({ platform: "linux/386" }, words).root?.platform.architecture, "386");
  assert.equal(plan({ clock: "deterministic" }, words).root?.form, "memory");
  assert.equal(plan({}, { image: "debian:amd64" }).root, undefined);
  const debian = plan({ flavor: "rt" }, { image: "debian:trixie" });
  assert.deepEqual(debian.root?.word, { kind: "debian", suite: "trixie" });
  assert.equal(debian.flavor?.image, "debian:rt-amd64");
});

test("options for images from elsewhere need one, and one that can be", () => {
  const words = { image: "alpine" };
  assert.throws(() => plan({ entrypoint: "sh" }), hasCode("usage"));
  assert.throws(() => plan({ root: "disk" }, { image: "debian:amd64" }), hasCode("usage"));
  assert.throws(() => plan({ initrd: "x" }, words), hasCode("usage"));
  assert.throws(() => plan({ platform: "linux/arm64" }, words), hasCode("usage"));
  assert.throws(
    () => plan({ platform: "linux/amd64", flavor: "686-pae" }, words),
    hasCode("usage"),
  );
  assert.throws(() => plan({ root: "disk", clock: "deterministic" }, words), hasCode("usage"));
});

test("memory has a syntax, a least and a most", () => {
  assert.throws(() => plan({ memory: "lots" }), hasCode("usage"));
  assert.throws(() => plan({ memory: "63m" }), hasCode("memory-too-small"));
  assert.throws(() => plan({ memory: "4g" }), hasCode("memory-too-large"));
  assert.equal(plan({ memory: "64m" }).memoryBytes, 2 ** 26);
  // Whole pages.
  assert.equal(plan({ memory: "100000001" }).memoryBytes % 4096, 0);
});

test("CPU models and traces are checked for their form", () => {
  assert.equal(plan({ nested: true }).cpuModel, "x86-64-v2,+vmx");
  assert.equal(
    plan({ cpuModel: "x86-64-v2,-sse4_2,+rdrand" }).cpuModel,
    "x86-64-v2,-sse4_2,+rdrand",
  );
  for (const cpuModel of ["", ",x", "a,b", "a,+", "a b"]) {
    assert.throws(() => plan({ cpuModel }), hasCode("usage"), cpuModel);
  }
  assert.equal(plan({ trace: "exits=a=b" }).tracePath, "a=b");
  for (const trace of ["", "exits", "exits=", "=x"]) {
    assert.throws(() => plan({ trace }), hasCode("usage"), trace);
  }
  assert.throws(
    () => plan({ trace: "exit=x" }),
    (error: HypolithError) => error.hint === "did you mean exits=FILE?",
  );
});

test("a profile has a file, an interval and symbols; its options need it", () => {
  assert.equal(plan({}).profile, undefined);
  assert.deepEqual(plan({ profile: "p" }).profile, {
    path: "p",
    every: 100_000,
    symbolPaths: [],
  });
  const { profile } = plan({ profile: "p", profileEvery: "7", symbols: ["a", "b"] });
  assert.deepEqual(profile, { path: "p", every: 7, symbolPaths: ["a", "b"] });
  for (const profileEvery of ["", "0", "-1", "1.5", "1e3", "x", "9".repeat(30)]) {
    assert.throws(() => plan({ profile: "p", profileEvery }), hasCode("usage"), profileEvery);
  }
  assert.throws(() => plan({ profile: "" }), hasCode("usage"));
  assert.throws(() => plan({ symbols: ["a"] }), hasCode("usage"));
  assert.throws(() => plan({ profileEvery: "7" }), hasCode("usage"));
});

test("in the background: always a terminal for a shell, kept unless --rm, and its name from who started it", () => {
  const detached = plan({ detach: true }, { terminal: false });
  assert.deepEqual(
    [detached.isDetached, detached.isBackground, detached.isKept],
    [true, false, true],
  );
  assert.deepEqual([detached.mode, detached.job?.argv], ["console", ["sh", "-l"]]);
  const there = plan(
    { detach: true, inBackground: "vm-1", interactive: true },
    { terminal: false },
  );
  assert.deepEqual([there.isDetached, there.isBackground, there.name], [false, true, "vm-1"]);
  assert.equal(there.takesInput, true);
  assert.equal(plan({ detach: true, rm: true }).isKept, false);
  assert.equal(plan({ name: "a" }).isKept, true);
  assert.equal(plan({}).isKept, false);
  assert.equal(plan({ detach: true }, { command: ["x"] }).mode, "pipes");
});

test("environment, folder and user of the command are checked", () => {
  const { job } = plan(
    { env: ["A=1=2", "B="], workdir: "/tmp", user: "web:1000" },
    { command: ["x"] },
  );
  assert.deepEqual(job?.environment, { A: "1=2", B: "" });
  assert.deepEqual([job?.workdir, job?.user], ["/tmp", "web:1000"]);
  assert.deepEqual(parseEnvironment(["OURS", "NOT_OURS"], { OURS: "o" }), { OURS: "o" });
  for (const options of [
    { env: ["1=2"] },
    { env: ["=x"] },
    { workdir: "tmp" },
    { user: "a b" },
    { user: "" },
  ])
    assert.throws(
      () => plan(options, { command: ["x"] }),
      hasCode("usage"),
      JSON.stringify(options),
    );
  assert.throws(() => plan({ kernel: "k", user: "web" }), hasCode("usage"));
});
