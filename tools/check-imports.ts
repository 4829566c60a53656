/**
 * Repository check: which room may import which, and what code below the embedder must never touch.
 *
 *   node tools/check-imports.ts [ROOT]     prints one line per breach (file:line rule: what), status 1 if there is any
 *
 * Rules: `direction` imports point down only (ROOMS), `cycle` no cycle between rooms, `room` every folder of src/ is a known room,
 * `embedder` src/ takes no Node builtin and no package, `ambient` nor a global of an embedder (clock, entropy, timers, console), `browser`
 * code that runs in a page takes no builtin and no global of Node's, `package` what ships is in "dependencies" or bundled, `test` product code takes nothing from test code, `outside` no import leaves the repository,
 * `path` no file names a folder of the machine it was written on, `link` relative links of Markdown files lead somewhere.
 *
 * Test code (isTestCode) may import anything in the repository: tests drive whole machines. Embedder adapters (isEmbedder) are exempt from
 * `embedder` and `ambient`; those for browsers, and the apps' code that reaches a page, keep `browser` instead. Files are read as text (scan-source.ts).
 */
import { existsSync, readdirSync, readFileSync, realpathSync } from "node:fs";
import { isBuiltin } from "node:module";
import { homedir } from "node:os";
import { dirname, join, relative, resolve, sep } from "node:path";
import { argv, exit, stderr, stdout } from "node:process";
import { BUNDLED_PACKAGES } from "./bundled-packages.ts";
import { blank, lineAt, type Scanned, scan } from "./scan-source.ts";

export interface Breach {
  readonly file: string;
  readonly line: number;
  readonly rule: string;
  readonly text: string;
}

/** A file by its path from the root, with "/" as separator. */
interface SourceFile {
  readonly path: string;
  readonly text: string;
}

// ---- rooms ----

/**
 * Rooms from the bottom up, and the rooms each may import besides itself. Every room may import base. A name ending in "/*" stands for one
 * room per folder (or file) at that place, so that neighbours there may not import each other.
 */
const ROOMS: ReadonlyMap<string, readonly string[]> = new Map(
  Object.entries({
    base: [],
    isa: [],
    ir: ["isa"],
    state: ["isa"],
    semantics: ["isa", "ir", "state"],
    memory: ["isa", "ir", "state", "semantics"],
    core: ["isa", "ir", "state", "semantics", "memory"],
    vmx: ["isa", "ir", "state", "memory", "core"],
    interpreter: ["isa", "ir", "state", "semantics", "memory", "core", "vmx"],
    jit: ["isa", "ir", "state", "semantics", "memory", "core", "vmx", "interpreter"],
    abi: [],
    devices: [],
    storage: [],
    sharing: [],
    paging: ["isa", "state", "vmx"],
    kernel: ["isa", "state", "memory", "core", "vmx", "abi"],
    network: [],
    "services/*": ["abi", "devices"],
    control: [],
    machine: [
      ...["isa", "ir", "state", "semantics", "memory", "core", "vmx", "interpreter", "jit"],
      ...["abi", "kernel", "devices", "storage", "sharing", "network", "services/*", "control"],
    ],
    "apps/common": ["control"],
    "apps/*": ["control", "machine", "apps/common"],
  }),
);

const LEVELS = [...ROOMS.keys()];

/**
 * Single files that a room or a place may import beside its rooms. The kernel's are the interrupt controllers, the only device models in root
 * mode, and what says where they are. Services in x86 are written for the assembler.
 */
const DOORS: ReadonlyMap<string, readonly string[]> = new Map([
  [
    "kernel",
    ["ioapic", "pic-8259", "platform-map"].map((name) => `src/devices/platform/${name}.ts`),
  ],
  // The agent in the guest is a program of ours.
  [
    "apps/cli",
    ["assemble", "instruction", "registers"].map((name) => `src/processor/isa/${name}.ts`),
  ],
  [
    "src/services/guest",
    ["assemble", "instruction", "registers"].map((name) => `src/processor/isa/${name}.ts`),
  ],
]);

const OWN_NAME = "hypolith";

/** Folders beside src/ and apps/ whose code may import anything: it is not part of the product. */
const WORKSHOPS = new Set(["conformance", "bench", "tools", "guests", "examples"]);

/** The room of a file, by its key in ROOMS; a workshop's name; or undefined for a folder nobody knows. */
function roomOf(path: string): string | undefined {
  const [top = "", second = "", third = ""] = path.split("/");
  if (WORKSHOPS.has(top)) return top;
  if (top === "apps") return second === "common" ? "apps/common" : "apps/*";
  if (top !== "src") return undefined;
  if (second === "services") return "services/*";
  const name = second === "processor" || second === "hypervisor" ? third : second;
  return ROOMS.has(name) ? name : undefined;
}

/** Where one room ends and its neighbour of the same kind begins. */
function placeOf(path: string): string {
  const parts = path.split("/");
  if (parts[0] === "apps") return parts.slice(0, 2).join("/");
  if (parts[1] === "services") return parts.slice(0, 3).join("/");
  return roomOf(path) ?? path;
}

/** The key in ROOMS of a place. */
function keyOf(place: string): string {
  if (ROOMS.has(place)) return place;
  return place.includes("/") ? `${place.replace(/^src\//, "").split("/")[0]}/*` : place;
}

export function isTestCode(path: string): boolean {
  if (WORKSHOPS.has(path.split("/")[0]!)) return true;
  return (
    /\.(test|native)\.ts$/.test(path) ||
    /(^|\/)testing\//.test(path) ||
    /(^|\/)(test|native)-[^/]*\.ts$/.test(path)
  );
}

function isEmbedder(path: string): boolean {
  return /^src\/machine\/embedder-/.test(path);
}

/** Product code outside the rooms below the embedder that runs in a page. */
function isForBrowsers(path: string): boolean {
  const places = ["apps/web/", "apps/common/", "src/machine/embedder-browser-"];
  return places.some((place) => path.startsWith(place)) && !isTestCode(path);
}

/** Bundled into the page, so that the packages it imports are part of it and nobody has to install them. */
function isBundled(path: string): boolean {
  return path.startsWith("apps/web/");
}

// ---- rules about imports ----

interface Manifest {
  readonly dependencies: ReadonlySet<string>;
  readonly devDependencies: ReadonlySet<string>;
}

/** An import from one place (placeOf) to another, in product code. */
interface RoomEdge {
  readonly from: string;
  readonly to: string;
  readonly file: string;
  readonly line: number;
}

function checkImport(file: string, target: string): [rule: string, text: string] | null {
  const from = roomOf(file);
  const to = roomOf(target);
  if (isTestCode(file)) return null;
  if (isTestCode(target)) return ["test", `product code imports ${target}, which is test code`];
  if (!from || !to || from === to) {
    const neighbours = from === to && placeOf(file) !== placeOf(target);
    return neighbours ? ["direction", `${placeOf(file)} may not import ${placeOf(target)}`] : null;
  }
  if (to === "base" || ROOMS.get(from)?.includes(to)) return null;
  if ([from, placeOf(file)].some((key) => DOORS.get(key)?.includes(target))) return null;
  return ["direction", `${from} may not import ${to} (${target})`];
}

function packageName(specifier: string): string {
  const parts = specifier.split("/");
  return specifier.startsWith("@") ? parts.slice(0, 2).join("/") : parts[0]!;
}

function checkForeign(
  file: string,
  specifier: string,
  manifest: Manifest,
): [string, string] | null {
  const isProduct = !isTestCode(file);
  const builtin = isBuiltin(specifier);
  if (isProduct && file.startsWith("src/") && !isEmbedder(file)) {
    return ["embedder", `${specifier}: code below the embedder gets everything through ports`];
  }
  if (builtin && isForBrowsers(file)) return ["browser", `${specifier}: no browser has it`];
  if (builtin) {
    const isPrefixed = specifier.startsWith("node:");
    return isPrefixed ? null : ["package", `write node:${specifier}, not ${specifier}`];
  }
  const name = packageName(specifier);
  const isInPage = isBundled(file) && BUNDLED_PACKAGES.includes(name);
  const mayBeDevelopments = !isProduct || isInPage;
  if (manifest.dependencies.has(name)) return null;
  // The package itself, as its users have it.
  if (!isProduct && name === OWN_NAME) return null;
  if (mayBeDevelopments && manifest.devDependencies.has(name)) return null;
  return ["package", `${name} is not in ${isProduct ? "" : "devDependencies or "}dependencies`];
}

const isUpward = ({ from, to }: RoomEdge): boolean =>
  LEVELS.indexOf(keyOf(from)) < LEVELS.indexOf(keyOf(to));

/** One app starts the machine in one file; the rest of it knows only the control protocol. */
function checkMachineStarters(edges: readonly RoomEdge[]): Breach[] {
  const starters = new Map<string, string>();
  const breaches: Breach[] = [];
  for (const { from, to, file, line } of edges) {
    if (!from.startsWith("apps/") || to !== "machine") continue;
    const first = starters.get(from) ?? file;
    starters.set(from, first);
    if (first === file) continue;
    breaches.push({
      file,
      line,
      rule: "direction",
      text: `only one file of an app may import machine, and ${first} does`,
    });
  }
  return breaches;
}

/** Each ring of rooms once, at the import in it that points up. */
function checkCycles(edges: readonly RoomEdge[]): Breach[] {
  const next = new Map<string, Map<string, RoomEdge>>();
  for (const edge of edges) {
    const targets = next.get(edge.from) ?? new Map<string, RoomEdge>();
    next.set(edge.from, targets);
    if (!targets.has(edge.to) || isUpward(edge)) targets.set(edge.to, edge);
  }
  const rings = new Map<string, Breach>();
  const done = new Set<string>();
  const visit = (room: string, path: readonly RoomEdge[]): void => {
    done.add(room);
    for (const edge of next.get(room)?.values() ?? []) {
      const longer = [...path, edge];
      const start = longer.findIndex((e) => e.from === edge.to);
      if (start < 0) {
        if (!done.has(edge.to)) visit(edge.to, longer);
        continue;
      }
      const ring = longer.slice(start);
      const { file, line } = ring.find(isUpward) ?? edge;
      const text = [...ring.map((e) => e.from), edge.to].join(" -> ");
      rings.set(text, { file, line, rule: "cycle", text });
    }
  };
  for (const room of next.keys()) if (!done.has(room)) visit(room, []);
  return [...rings.values()];
}

// ---- rules about the text ----

/** Globals that give code below the embedder a clock, entropy, timers or an embedder's services. */
const AMBIENT = [
  String.raw`Date\s*\.\s*now\b|new\s+Date\s*\(\s*\)|Math\s*\.\s*random\b`,
  String.raw`(?:performance|crypto|process|console|globalThis|window|document|navigator|Buffer)\s*[.[]`,
  String.raw`(?:setTimeout|setInterval|setImmediate|queueMicrotask|fetch|require|postMessage|eval|Function)\s*\(`,
];
const AMBIENT_PATTERN = new RegExp(`(?<![.#\\w])(?:${AMBIENT.join("|")})`, "g");

/** Does the file itself declare the name (as a variable, function or parameter)? */
function declares(code: string, name: string): boolean {
  return new RegExp(`\\b(?:const|let|var|function|class)\\s+${name}\\b|\\b${name}\\??:`).test(code);
}

/** Globals that Node has and browsers have not. */
const NODE_PATTERN =
  /(?<![.#\w])(?:(?:process|Buffer|global|__dirname|__filename)\s*[.[(]|new\s+Buffer\b|(?:require|setImmediate|clearImmediate)\s*\()/g;

function checkBrowser(file: SourceFile, { code }: Scanned): Breach[] {
  return [...code.matchAll(NODE_PATTERN)].flatMap((match) => {
    const name = match[0].replace(/\s*[.[(]$/, "");
    if (declares(code, name)) return [];
    const text = `${name}: no browser has it`;
    return [{ file: file.path, line: lineAt(code, match.index), rule: "browser", text }];
  });
}

function checkAmbient(file: SourceFile, { code, opaque }: Scanned): Breach[] {
  const breach = (line: number, text: string): Breach => ({
    file: file.path,
    line,
    rule: "ambient",
    text,
  });
  const breaches = opaque.map((line) =>
    breach(line, "import() of something that is not a plain string"),
  );
  for (const match of code.matchAll(AMBIENT_PATTERN)) {
    const name = match[0].replace(/\s*[.[(]$/, "");
    if (declares(code, name)) continue;
    breaches.push(breach(lineAt(code, match.index), `${name}: pass it in by a port`));
  }
  return breaches;
}

/** Folders that every machine has, so that naming them says nothing about the one the file was written on. */
const COMMON_FOLDERS = new Set([
  "",
  "home",
  "root",
  "tmp",
  "usr",
  "opt",
  "srv",
  "var",
  "mnt",
  "media",
  "build",
]);

function forbiddenPaths(root: string): RegExp[] {
  const literal = (path: string): RegExp =>
    new RegExp(`(?<![\\w.~-])${path.replaceAll(/[.*+?^$(){}|[\]\\]/g, "\\$&")}(?![\\w-])`, "g");
  const machine = [root, dirname(root), homedir()].filter((path) => {
    const parts = path.split(sep).filter((part) => part !== "");
    return parts.length > 1 || !COMMON_FOLDERS.has(parts[0] ?? "");
  });
  // Spelled in pieces: this file is checked, too.
  const personal = [
    String.raw`(?<![\w.~-])\/${"home"}\/[a-z_]`,
    String.raw`\/${"Users"}\/[A-Za-z]`,
    String.raw`[A-Z]:\\+${"Users"}\\`,
  ];
  return [...new Set(machine)].map(literal).concat(personal.map((p) => new RegExp(p, "g")));
}

function checkPaths(file: SourceFile, patterns: readonly RegExp[]): Breach[] {
  return patterns.flatMap((pattern) =>
    [...file.text.matchAll(pattern)].map((match) => ({
      file: file.path,
      line: lineAt(file.text, match.index),
      rule: "path",
      text: `${match[0]}: a path of one machine`,
    })),
  );
}

function checkLinks(root: string, file: SourceFile): Breach[] {
  const breaches: Breach[] = [];
  const text = file.text.replaceAll(/```[\s\S]*?```|`[^`\n]*`/g, blank);
  for (const match of text.matchAll(/\]\(([^()\s]+)\)/g)) {
    const target = match[1]!.split("#")[0]!;
    if (target === "" || /^[a-z]+:/.test(target)) continue;
    const path = resolve(root, dirname(file.path), decodeURI(target));
    const isInside = !relative(root, path).startsWith("..");
    if (isInside && existsSync(path)) continue;
    breaches.push({
      file: file.path,
      line: lineAt(text, match.index),
      rule: "link",
      text: `${target} leads nowhere`,
    });
  }
  return breaches;
}

// ---- the repository ----

const SKIPPED = new Set(["node_modules", "dist", "package-lock.json"]);

function* filesOf(root: string, folder = ""): Generator<SourceFile> {
  for (const entry of readdirSync(join(root, folder), { withFileTypes: true })) {
    if (SKIPPED.has(entry.name) || (entry.name.startsWith(".") && entry.name !== ".ci")) continue;
    const path = folder === "" ? entry.name : `${folder}/${entry.name}`;
    if (entry.isDirectory()) yield* filesOf(root, path);
    else if (entry.isFile()) {
      const text = readFileSync(join(root, path), "utf8");
      if (!text.includes("\0")) yield { path, text };
    }
  }
}

function readManifest(root: string): Manifest {
  const path = join(root, "package.json");
  const json = existsSync(path) ? JSON.parse(readFileSync(path, "utf8")) : {};
  const names = (part: string): Set<string> => new Set(Object.keys(json[part] ?? {}));
  return { dependencies: names("dependencies"), devDependencies: names("devDependencies") };
}

function checkSource(
  root: string,
  file: SourceFile,
  manifest: Manifest,
  edges: RoomEdge[],
): Breach[] {
  const breaches: Breach[] = [];
  const add = (line: number, found: readonly [string, string] | null): void => {
    if (found) breaches.push({ file: file.path, line, rule: found[0], text: found[1] });
  };
  const scanned = scan(file.text);
  if (roomOf(file.path) === undefined)
    add(1, ["room", "no rule knows this folder; add it to ROOMS"]);
  for (const { line, specifier } of scanned.imports) {
    if (!/^\.\.?\//.test(specifier)) {
      add(line, checkForeign(file.path, specifier, manifest));
      continue;
    }
    const target = relative(root, resolve(root, dirname(file.path), specifier))
      .split(sep)
      .join("/");
    if (target.startsWith("..")) add(line, ["outside", `${specifier} is not in the repository`]);
    else {
      add(line, checkImport(file.path, target));
      const from = placeOf(file.path);
      const isRoomToRoom =
        !isTestCode(file.path) && !isTestCode(target) && from !== placeOf(target);
      if (isRoomToRoom) edges.push({ from, to: placeOf(target), file: file.path, line });
    }
  }
  if (file.path.startsWith("src/") && !isTestCode(file.path) && !isEmbedder(file.path)) {
    breaches.push(...checkAmbient(file, scanned));
  }
  if (isForBrowsers(file.path)) breaches.push(...checkBrowser(file, scanned));
  return breaches;
}

/** Every breach in the repository at `root`, by file and line. */
export function checkRepository(root: string): { breaches: Breach[]; files: number } {
  const manifest = readManifest(root);
  const paths = forbiddenPaths(root);
  const edges: RoomEdge[] = [];
  const breaches: Breach[] = [];
  let files = 0;
  for (const file of filesOf(root)) {
    files++;
    breaches.push(...checkPaths(file, paths));
    if (file.path.endsWith(".md")) breaches.push(...checkLinks(root, file));
    if (/(?<!\.d)\.[cm]?[jt]sx?$/.test(file.path)) {
      breaches.push(...checkSource(root, file, manifest, edges));
    }
  }
  breaches.push(...checkMachineStarters(edges), ...checkCycles(edges));
  breaches.sort((a, b) => (a.file < b.file ? -1 : a.file > b.file ? 1 : a.line - b.line));
  return { breaches, files };
}

if (import.meta.main) {
  const root = realpathSync(argv[2] ?? join(import.meta.dirname, ".."));
  const { breaches, files } = checkRepository(root);
  for (const { file, line, rule, text } of breaches)
    stderr.write(`${file}:${line} ${rule}: ${text}\n`);
  stdout.write(`check-imports: ${files} files, ${breaches.length} breaches\n`);
  exit(breaches.length === 0 ? 0 : 1);
}
