/** The parts of the verbs that need no machine. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import {
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { Readable } from "node:stream";
import { test } from "node:test";
import fc from "fast-check";
import { type Header, pack } from "tar-stream";
import { describeCommands } from "../program.ts";
import { scratchFolder } from "../testing/scratch.ts";
import { completionScript } from "./completion.ts";
import { landing, parsePlace } from "./copy.ts";
import { DetachKeys, parseDetachKeys } from "./detach-keys.ts";
import { findUser } from "./guest-user.ts";
import { LogReader, lastLines, OutputLog } from "./output-log.ts";
import { signalName, signalNumber } from "./signals.ts";
import { packTree } from "./tar-pack.ts";
import { unpackTree } from "./tar-unpack.ts";

// ---- keys, signals, users ----

test("detach keys are taken out, all other bytes pass in order", () => {
  const keys = parseDetachKeys("ctrl-p,ctrl-q");
  assert.deepEqual([...keys], [16, 17]);
  assert.equal(new DetachKeys(keys).filter(Buffer.from("ab\x10\x11")), null);
  const held = new DetachKeys(keys);
  assert.equal(held.filter(Buffer.from("a\x10"))?.toString(), "a");
  assert.equal(held.filter(Buffer.from("b"))?.toString(), "\x10b");
  assert.equal(held.filter(Buffer.from("\x10\x10"))?.toString(), "\x10");
  assert.equal(held.filter(Buffer.from("\x11")), null);
  for (const bad of ["", "ctrl-", "ab", "ctrl-p,"]) assert.throws(() => parseDetachKeys(bad));
});

test("a sequence is found wherever it begins, in whatever pieces it comes", () => {
  const letter = fc.constantFrom(0x61, 0x62);
  const bytes = fc.array(letter, { minLength: 0, maxLength: 12 });
  fc.assert(
    fc.property(
      fc.array(letter, { minLength: 1, maxLength: 4 }),
      fc.array(bytes),
      (keys, pieces) => {
        const filter = new DetachKeys(Buffer.from(keys));
        const typed = Buffer.from(pieces.flat());
        const at = typed.indexOf(Buffer.from(keys));
        let passed = Buffer.alloc(0);
        let isOver = false;
        for (const piece of pieces) {
          const out = filter.filter(Buffer.from(piece));
          if (out === null) {
            isOver = true;
            break;
          }
          passed = Buffer.concat([passed, out]);
        }
        assert.equal(isOver, at >= 0);
        // What passed is a beginning of what was typed, and lacks less than the keys.
        assert.ok(typed.subarray(0, passed.length).equals(passed));
        if (!isOver) assert.ok(typed.length - passed.length < keys.length);
      },
    ),
  );
});

test("signals by name and number", () => {
  for (const word of ["KILL", "sigkill", "9", "SigKill"]) assert.equal(signalNumber(word), 9, word);
  for (const word of ["", "0", "65", "NONE", "-9", "toString"])
    assert.equal(signalNumber(word), undefined, word);
  assert.equal(signalName(15), "TERM");
  assert.equal(signalName(40), "40");
});

test("users as docker takes them", () => {
  const passwd = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34::/var/www:/bin/sh\n";
  const group = "root:x:0:\nwww:x:34:\nmore:x:50:web,root\n";
  assert.deepEqual(findUser("web", passwd, group), {
    uid: 33,
    gid: 34,
    name: "web",
    home: "/var/www",
    groups: [50],
  });
  assert.deepEqual(findUser("33:more", passwd, group), {
    uid: 33,
    gid: 50,
    name: "web",
    home: "/var/www",
    groups: [],
  });
  assert.deepEqual(findUser("1000", passwd, group), {
    uid: 1000,
    gid: 0,
    name: "1000",
    home: "/",
    groups: [],
  });
  assert.equal(findUser("1000:1000", passwd, group).gid, 1000);
  assert.throws(() => findUser("ghost", passwd, group), { code: "no-such-user" });
  assert.throws(() => findUser("web:ghost", passwd, group), { code: "no-such-user" });
});

// ---- log ----

test("a log is read as it was written, on and on, over the turn of its files", (t) => {
  const folder = scratchFolder(t);
  const log = new OutputLog(folder, 200);
  const reader = new LogReader(folder);
  let heard = "";
  const listen = (): void => {
    for (const { stream, bytes } of reader.next()) heard += `${stream}${bytes} `;
  };
  log.add(1, Buffer.from("a\n"));
  listen();
  for (let i = 0; i < 40; i++) {
    log.add(i % 2 === 0 ? 1 : 2, Buffer.from(`${i}`));
    if (i % 5 === 0) listen();
  }
  listen();
  const expected = Array.from({ length: 40 }, (_, i) => `${i % 2 === 0 ? 1 : 2}${i} `).join("");
  assert.equal(heard, `1a\n ${expected}`);
  log.close();
  reader.close();
  const late = new LogReader(folder).next();
  assert.equal(late.at(-1)?.bytes.toString(), "39");
  assert.ok(late.length < 41, "what is oldest is forgotten");
});

test("a chunk that was cut off ends the log", (t) => {
  const folder = scratchFolder(t);
  const log = new OutputLog(folder);
  log.add(1, Buffer.from("whole"));
  log.add(1, Buffer.from("cut off"));
  log.close();
  const path = join(folder, "output.log");
  writeFileSync(path, readFileSync(path).subarray(0, -3));
  assert.deepEqual(
    new LogReader(folder).next().map(({ bytes }) => bytes.toString()),
    ["whole"],
  );
});

test("the last lines are those that tail would print", () => {
  fc.assert(
    fc.property(
      fc.array(fc.stringMatching(/^[a\n]{0,4}$/)),
      fc.integer({ min: 0, max: 6 }),
      (parts, count) => {
        const chunks = parts
          .filter((part) => part !== "")
          .map((part) => ({ stream: 1 as const, time: 0, bytes: Buffer.from(part) }));
        const text = parts.join("");
        const lines = text.split(/(?<=\n)/).filter((line) => line !== "");
        const expected = count === 0 ? "" : lines.slice(-count).join("");
        const kept = lastLines(chunks, count).map(({ bytes }) => bytes.toString());
        assert.equal(kept.join(""), expected);
      },
    ),
  );
});

// ---- copies ----

test("places: a machine's name before the first colon, and no slash in it", () => {
  assert.deepEqual(parsePlace("web:/etc"), { vm: "web", path: "/etc" });
  assert.deepEqual(parsePlace("web:etc"), { vm: "web", path: "/etc" });
  assert.deepEqual(parsePlace("./a:b"), { vm: undefined, path: "./a:b" });
  assert.deepEqual(parsePlace("file"), { vm: undefined, path: "file" });
  for (const bad of ["", "web:"]) assert.throws(() => parsePlace(bad), { code: "usage" });
});

test("where a copy goes, as docker has it", () => {
  const file = { name: "f", kind: "file", isContent: false } as const;
  const folder = { name: "d", kind: "folder", isContent: false } as const;
  const content = { name: "d", kind: "folder", isContent: true } as const;
  const at = (
    kind: "folder" | "file" | "absent",
    path = "/x/t",
    parent: "folder" | "absent" = "folder",
  ) => ({ path, kind, parent });
  assert.deepEqual(landing(file, at("folder")), { folder: "/x/t", name: "f" });
  assert.deepEqual(landing(file, at("absent")), { folder: "/x", name: "t" });
  assert.deepEqual(landing(file, at("file")), { folder: "/x", name: "t" });
  assert.deepEqual(landing(folder, at("folder")), { folder: "/x/t", name: "d" });
  assert.deepEqual(landing(folder, at("absent")), { folder: "/x", name: "t" });
  assert.deepEqual(landing(content, at("folder")), { folder: "/x/t", name: "" });
  assert.deepEqual(landing(content, at("absent")), { folder: "/x", name: "t" });
  for (const [source, target] of [
    [folder, at("file")],
    [file, at("absent", "/x/t/")],
    [file, at("absent", "/x/t", "absent")],
  ] as const)
    assert.throws(() => landing(source, target), { code: "copy-target" });
});

test("a tree packed and unpacked is the same tree", async (t) => {
  const folder = scratchFolder(t);
  const [from, to] = [join(folder, "from"), join(folder, "to")];
  mkdirSync(join(from, "sub/empty"), { recursive: true });
  mkdirSync(to);
  writeFileSync(join(from, "run.sh"), "#!/bin/sh\n", { mode: 0o755 });
  writeFileSync(join(from, "sub/none"), "");
  writeFileSync(join(from, "sub/big"), Buffer.alloc(300_000, 7));
  symlinkSync("../run.sh", join(from, "sub/link"));
  await unpackTree(packTree(from, "top"), "top", { folder: to, name: "new" });
  assert.deepEqual(readdirSync(join(to, "new/sub")).sort(), ["big", "empty", "link", "none"]);
  assert.equal(statSync(join(to, "new/run.sh")).mode & 0o777, 0o755);
  assert.equal(readlinkSync(join(to, "new/sub/link")), "../run.sh");
  assert.ok(readFileSync(join(to, "new/sub/big")).equals(Buffer.alloc(300_000, 7)));
});

type Member = Partial<Header> & Pick<Header, "name"> & { readonly content?: string };

function tarOf(members: readonly Member[]): Readable {
  const tar = pack();
  for (const { content, ...header } of members) tar.entry(header, content ?? "");
  tar.finalize();
  return Readable.from(tar as unknown as AsyncIterable<Buffer>, { objectMode: false });
}

test("a hostile guest writes nothing outside the target", async (t) => {
  const folder = scratchFolder(t);
  const outside = join(folder, "outside");
  const target = join(folder, "target");
  mkdirSync(outside);
  mkdirSync(target);
  writeFileSync(join(outside, "secret"), "kept");
  const refused: Member[][] = [
    [{ name: "top/../../outside/x", content: "x" }],
    [{ name: "other/x", content: "x" }],
    [{ name: "../outside/x", content: "x" }],
    [{ name: "top/l", type: "link", linkname: "../outside/secret" }],
    [{ name: "top/l", type: "link", linkname: outside }],
  ];
  for (const members of refused)
    await assert.rejects(unpackTree(tarOf(members), "top", { folder: target, name: "top" }), {
      code: "copy-hostile",
    });
  // A link, and then something below it: the link gives way to a folder.
  await unpackTree(
    tarOf([
      { name: "top/way", type: "symlink", linkname: outside },
      { name: "top/way/secret", content: "overwritten" },
      { name: "top/file", type: "symlink", linkname: join(outside, "secret") },
      { name: "top/file", content: "overwritten" },
      { name: "top/null", type: "character-device", devmajor: 1, devminor: 3 },
    ]),
    "top",
    { folder: target, name: "top" },
  );
  assert.equal(readFileSync(join(outside, "secret"), "utf8"), "kept");
  assert.deepEqual(readdirSync(outside), ["secret"]);
  assert.deepEqual(readdirSync(join(target, "top")).sort(), ["file", "way"]);
});

// ---- completion ----

const table = describeCommands();
const has = (shell: string): boolean => spawnSync(shell, ["-c", "true"]).status === 0;

test("the command table has every verb, and completion every verb and option of it", () => {
  const names = table.map(({ name }) => name);
  for (const verb of ["run", "ps", "exec", "cp", "logs", "completion"])
    assert.ok(names.includes(verb), verb);
  for (const shell of ["bash", "zsh", "fish"] as const) {
    const script = completionScript(shell, table);
    for (const { name, options } of table) {
      assert.ok(script.includes(name), `${shell} ${name}`);
      for (const { words } of options)
        for (const word of words) {
          const written = shell === "fish" ? word.replace(/^--?/, "") : word;
          assert.ok(script.includes(written), `${shell} ${name} ${word}`);
        }
    }
    assert.ok(!script.includes("in-background"));
  }
});

/** What bash would offer behind `words`, of which the last is begun. */
function offered(words: readonly string[]): string[] {
  const script = `${completionScript("bash", table)}
hypo() { printf '%s\\n' web db; }
COMP_WORDS=(${words.map((word) => `'${word}'`).join(" ")})
COMP_CWORD=${words.length - 1}
_hypo
printf '%s\\n' "\${COMPREPLY[@]}"`;
  const { stdout, stderr } = spawnSync("bash", ["-c", script], { encoding: "utf8" });
  assert.equal(stderr, "");
  return stdout.split("\n").filter((word) => word !== "");
}

test("bash completes verbs, options, values and machines", { skip: !has("bash") }, () => {
  assert.deepEqual(offered(["hypo", "unp"]), ["unpause"]);
  assert.deepEqual(offered(["hypo", "run", "--net"]), ["--network"]);
  assert.deepEqual(offered(["hypo", "run", "--network", ""]), ["user", "none"]);
  assert.deepEqual(offered(["hypo", "stop", ""]), ["web", "db"]);
  assert.deepEqual(offered(["hypo", "exec", "w"]), ["web"]);
  assert.ok(offered(["hypo", "cp", "w"]).includes("web:"));
  assert.deepEqual(offered(["hypo", "completion", "z"]), ["zsh"]);
});

for (const [shell, flags] of [
  ["zsh", ["-n"]],
  ["fish", ["--no-execute"]],
] as const)
  test(`${shell} can read its script`, {
    skip: has(shell) ? false : `${shell} is not installed`,
  }, (t) => {
    const path = join(scratchFolder(t), "script");
    writeFileSync(path, completionScript(shell, table));
    const { status, stderr } = spawnSync(shell, [...flags, path], { encoding: "utf8" });
    assert.deepEqual([status, stderr], [0, ""]);
  });
