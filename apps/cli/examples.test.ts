/**
 * The examples that `--help` shows, as somebody would type them: every verb has one that is run here, on Debian's kernel, with one machine for
 * all. Needs the default image in the user's cache; without it only the table is checked.
 */
import assert from "node:assert/strict";
import { type ChildProcess, execFileSync, spawn, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import type { AddressInfo } from "node:net";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { defaultCacheRoot, ImageCache } from "./image/cache.ts";
import { FLAVORS } from "./image/flavors.ts";
import { serveRegistry } from "./oci/testing/fake-registry.ts";
import { makeImage } from "./oci/testing/image-maker.ts";
import { describeCommands } from "./program.ts";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));
const HYPO = join(ROOT, "bin/hypo");
const [flavor] = FLAVORS;
const image = new ImageCache(defaultCacheRoot()).load(flavor!.image, flavor!.modules);
const skip = image.state === "found" ? false : "the default image is not in the cache";

interface Example {
  /** "snapshot save". */
  readonly verb: string;
  /** As the help has it. */
  readonly line: string;
  /** In standard output. */
  readonly says?: RegExp;
  /** Default: 0. */
  readonly code?: number;
  /** It goes on until the machine ends: its end is looked at last. */
  readonly lasts?: boolean;
  /** The images of a home of the test's own, not the user's. */
  readonly ownImages?: boolean;
}

/** In the order in which they are run: the machine "web" lives from one to another. */
const EXAMPLES: readonly Example[] = [
  { verb: "version", line: "hypo version", says: /^hypo \d/ },
  { verb: "help", line: "hypo help run", says: /Usage: hypo run/ },
  { verb: "doctor", line: "hypo doctor --json", says: /"status": "ok"/ },
  { verb: "completion", line: "source <(hypo completion bash)" },
  { verb: "web", line: "hypo web --export public" },
  { verb: "run", line: "hypo run --quiet -- uname -srm", says: /^Linux \S+ x86_64\n$/ },
  {
    verb: "run",
    line: "hypo run -d --name web -p 8080:80 -- httpd -f -p 80 -h /etc",
    says: /^web\n$/,
  },
  { verb: "exec", line: "hypo exec web ls -l /", says: / etc\n/ },
  { verb: "exec", line: "hypo exec -u nobody -w /tmp -e A=1 web env", says: /^A=1$/m },
  { verb: "exec", line: "tar c src | hypo exec -i web tar x -C /tmp" },
  { verb: "attach", line: "hypo attach web", lasts: true, code: 143 },
  { verb: "wait", line: "hypo wait web", lasts: true, says: /^143\n$/ },
  { verb: "trace", line: "hypo trace -c syscalls web", lasts: true, says: /execve/ },
  { verb: "ps", line: "hypo ps", says: /^web +running /m },
  { verb: "ps", line: "hypo ps -q", says: /^web\n$/ },
  { verb: "logs", line: "hypo logs -t web" },
  { verb: "inspect", line: "hypo inspect web", says: /"httpd"/ },
  { verb: "stats", line: "hypo stats --no-stream web", says: /^web +[\d.]+ %/m },
  { verb: "trace", line: "hypo trace -n 5 exits web", says: /^(?:.+\n){5}$/ },
  { verb: "services", line: "hypo services", says: /console/ },
  { verb: "service", line: "hypo service restart pci" },
  { verb: "cp", line: "hypo cp web:/etc/passwd ." },
  { verb: "cp", line: "hypo cp src web:/root" },
  { verb: "cp", line: "hypo cp web:/etc - | tar t", says: /^etc\/passwd$/m },
  { verb: "pause", line: "hypo pause web", says: /^web\n$/ },
  { verb: "unpause", line: "hypo unpause web", says: /^web\n$/ },
  { verb: "snapshot save", line: "hypo snapshot save web clean", says: /clean/ },
  { verb: "snapshot", line: "hypo snapshot ls", says: /^clean /m },
  { verb: "snapshot ls", line: "hypo snapshot ls -q", says: /^clean\n$/ },
  { verb: "stop", line: "hypo stop web", says: /^web\n$/ },
  { verb: "rm", line: "hypo rm web", says: /^web\n$/ },
  { verb: "snapshot restore", line: "hypo snapshot restore clean --name web2", says: /^web2\n$/ },
  { verb: "exec", line: "hypo exec web2 ls /root", says: /^src$/m },
  { verb: "kill", line: "hypo kill web2", says: /^web2\n$/ },
  { verb: "rm", line: "hypo rm web2", says: /^web2\n$/ },
  { verb: "snapshot fork", line: "hypo snapshot fork clean -n 2 --json", says: /"clean-2"/ },
  { verb: "rm", line: "hypo rm -f clean-1 clean-2", says: /^clean-1\nclean-2\n$/ },
  { verb: "snapshot rm", line: "hypo snapshot rm clean" },
  { verb: "pull", line: "hypo pull localhost:5000/team/app", ownImages: true, says: /team\/app/ },
  { verb: "images", line: "hypo images -q", ownImages: true, says: /team\/app/ },
  { verb: "system df", line: "hypo system df", ownImages: true, says: /pulled images +1/ },
  { verb: "rmi", line: "hypo rmi localhost:5000/team/app", ownImages: true, says: /team\/app/ },
  { verb: "system prune", line: "hypo system prune", ownImages: true, says: /removed/ },
  { verb: "system", line: "hypo system df", ownImages: true, says: /pulled images +0/ },
];

/** Of the lines above, those that are for this test alone. */
const NOT_IN_HELP = /^hypo (?:exec web2 ls \/root|kill web2|rm web2|rm -f clean-1 clean-2)$/;

test("every verb has an example that is run, and every one that is run is in its help", () => {
  const verbs = describeCommands().map(({ name }) => name);
  const missing = verbs.filter((name) => !EXAMPLES.some(({ verb }) => verb === name));
  assert.deepEqual(missing, []);
  const help = allHelp([...new Set(EXAMPLES.map(({ verb }) => verb))]);
  for (const { verb, line } of EXAMPLES) {
    if (NOT_IN_HELP.test(line)) continue;
    assert.ok(help.get(verb)!.includes(`  ${line}`), `hypo ${verb} --help does not say: ${line}`);
  }
});

/** The help of all verbs, by one process. */
function allHelp(verbs: readonly string[]): Map<string, string> {
  const program = new URL("./program.ts", import.meta.url).href;
  const script = `const { parseArguments } = await import(${JSON.stringify(program)});
    for (const verb of ${JSON.stringify(verbs)}) {
      process.stdout.write("\\0");
      parseArguments([...verb.split(" "), "--help"], "1");
    }`;
  const argv = ["--input-type=module", "-e", script];
  const [, ...texts] = execFileSync(process.execPath, argv, { encoding: "utf8" }).split("\0");
  return new Map(verbs.map((verb, index) => [verb, texts[index] ?? ""]));
}

test("the examples do what they say", { skip }, async (t) => {
  const folder = mkdtempSync(join(tmpdir(), "hypo-examples-"));
  const { HYPO_HOME: _, ...env } = process.env;
  const bin = join(folder, "bin");
  mkdirSync(join(folder, "src"), { recursive: true });
  mkdirSync(bin);
  writeFileSync(join(folder, "src/file"), "content\n");
  symlinkSync(HYPO, join(bin, "hypo"));
  const registry = await serveRegistry({
    images: { "team/app:latest": makeImage({ layers: [[]] }) },
  });
  const port = String(await freePort());
  if (!existsSync(join(ROOT, "dist/web/index.html")))
    execFileSync(process.execPath, [join(ROOT, "tools/build.ts"), "web"], { stdio: "ignore" });
  const here = {
    ...{ ...env, PATH: `${bin}:${dirname(process.execPath)}:${env.PATH}` },
    ...{ XDG_RUNTIME_DIR: folder, XDG_STATE_HOME: folder },
  };
  const start = ({ line, ownImages }: Example): ChildProcess => {
    const typed = line.replace("8080", port).replace("localhost:5000", registry.host);
    const home = ownImages ? { HYPO_HOME: join(folder, "home") } : {};
    return spawn("bash", ["-c", `set -o pipefail; ${typed}`], {
      ...{ cwd: folder, env: { ...here, ...home }, stdio: ["ignore", "pipe", "pipe"] },
    });
  };
  t.after(() => {
    const names = ["web", "web2", "clean-1", "clean-2"];
    spawnSync("bash", ["-c", `hypo rm -f ${names.join(" ")}`], { env: here, cwd: folder });
    registry.close();
    rmSync(folder, { recursive: true, force: true });
  });
  const lasting: { readonly example: Example; readonly ended: Promise<Outcome> }[] = [];
  for (const example of EXAMPLES) {
    if (example.lasts) {
      lasting.push({ example, ended: outcomeOf(start(example)) });
      continue;
    }
    await t.test(example.line, async () => check(example, await outcomeOf(start(example))));
    if (example.verb !== "stop") continue;
    for (const { example: one, ended } of lasting)
      await t.test(`${one.line}, until it was stopped`, async () => check(one, await ended));
  }
});

interface Outcome {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

function check({ code = 0, says }: Example, outcome: Outcome): void {
  assert.equal(outcome.code, code, outcome.stderr);
  if (says) assert.match(outcome.stdout, says);
}

function outcomeOf(child: ChildProcess): Promise<Outcome> {
  let [stdout, stderr] = ["", ""];
  child.stdout!.on("data", (part) => {
    stdout += part;
  });
  child.stderr!.on("data", (part) => {
    stderr += part;
  });
  return new Promise((resolve) => child.on("close", (code) => resolve({ code, stdout, stderr })));
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}
