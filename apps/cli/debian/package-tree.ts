/**
 * Packages unpacked into a tree as dpkg would unpack them, with dpkg's own record of it: all are "unpacked", none is configured.
 * Spec: deb(5), dpkg(1) "Package states", deb-triggers(5); the files of /var/lib/dpkg as dpkg 1.21 and 1.22 write them.
 *
 * Nothing of a package runs here. /bin, /lib and /sbin are links into /usr from the start.
 */
import { createHash } from "node:crypto";
import { closeSync, openSync, readSync } from "node:fs";
import { join } from "node:path";
import { pipeline } from "node:stream/promises";
import { extract } from "tar-stream";
import { HypolithError } from "../../../src/base/errors.ts";
import { openMember } from "../image/deb.ts";
import { parseStanza } from "../image/packages-index.ts";
import {
  type Attributes,
  type Directory,
  emptyDirectory,
  type Inode,
  lookUp,
} from "../oci/file-tree.ts";
import { applyLayer } from "../oci/layer.ts";
import { writeAll } from "../oci/layer-file.ts";
import { type FileRange, readTar } from "../oci/tar-file.ts";

const DPKG = "var/lib/dpkg";
const LARGEST_CONTROL = 1 << 24;
/** Beside those that every architecture has: where the loader of a 64-bit program is. */
const MERGED: Readonly<Record<string, readonly string[]>> = {
  amd64: ["bin", "lib", "lib64", "sbin"],
  i386: ["bin", "lib", "sbin"],
};

interface Unpacked {
  readonly name: string;
  /** As dpkg's files are called: with the architecture where a package may be there for several. */
  readonly label: string;
  readonly control: string;
  readonly members: ReadonlyMap<string, Buffer>;
  readonly data: FileRange;
}

/** Contents lie in a file of its own, which stays open until `close`. */
export class PackageTree {
  readonly root = emptyDirectory();
  readonly #descriptor: number;
  readonly #architecture: string;
  readonly #time: number;
  readonly #packages: Unpacked[] = [];
  #size = 0;

  /** `time`: of what is made here, seconds since 1970. */
  constructor(folder: string, architecture: string, time: number) {
    this.#descriptor = openSync(join(folder, "packages"), "w+", 0o600);
    this.#architecture = architecture;
    this.#time = time;
  }

  close(): void {
    closeSync(this.#descriptor);
  }

  /** Reads a package; its files come into the tree with `finish`. */
  async add(name: string, deb: Uint8Array, signal: AbortSignal): Promise<void> {
    const members = await controlMembers(deb, name);
    const control = members.get("control")?.toString("utf8").trim();
    const fields = control === undefined ? undefined : parseStanza(control);
    if (control === undefined || fields?.get("Package") !== name)
      throw unusable(name, "it is another package inside");
    const offset = this.#size;
    await pipeline(openMember(deb, "data"), async (chunks: AsyncIterable<Uint8Array>) => {
      for await (const chunk of chunks) {
        signal.throwIfAborted();
        this.#append(chunk);
      }
    });
    const isForSeveral = fields.get("Multi-Arch") === "same";
    const label = isForSeveral ? `${name}:${fields.get("Architecture")}` : name;
    const data = { descriptor: this.#descriptor, offset, size: this.#size - offset };
    this.#packages.push({ name, label, control, members, data });
  }

  /** Puts all of it together. Answers the packages that have a script to run before they are configured, by dpkg's label. */
  finish(): { readonly preinst: readonly string[]; readonly count: number } {
    for (const name of MERGED[this.#architecture] ?? []) {
      this.folder(`usr/${name}`);
      this.#put(name, {
        kind: "symlink",
        attributes: this.#attributes(0o777),
        target: `usr/${name}`,
      });
    }
    const packages = this.#packages.sort((a, b) => (a.name < b.name ? -1 : 1));
    for (const { data } of packages) applyLayer(this.root, 0, data, { keepsLinks: true });
    this.#writeDatabase(packages);
    const preinst = packages.filter(({ members }) => members.has("preinst"));
    return { preinst: preinst.map(({ label }) => label), count: packages.length };
  }

  file(path: string, content: string | Uint8Array, mode = 0o644): void {
    const bytes = Buffer.from(content);
    const offset = this.#size;
    this.#append(bytes);
    const range = { descriptor: this.#descriptor, offset, size: bytes.length };
    this.#put(path, { kind: "file", attributes: this.#attributes(mode), content: range });
  }

  folder(path: string, mode = 0o755): Directory {
    let at = this.root;
    const walked: string[] = [];
    for (const part of path.split("/").filter((word) => word !== "")) {
      walked.push(part);
      const found = lookUp(this.root, walked);
      if (typeof found === "string") {
        const made = emptyDirectory(this.#attributes(mode));
        at.entries.set(part, { inode: made, layer: 0 });
        at = made;
      } else if (found.kind === "directory") at = found;
      else throw new HypolithError("package-unusable", `/${walked.join("/")} is no directory`);
    }
    return at;
  }

  #put(path: string, inode: Inode): void {
    const parts = path.split("/");
    const name = parts.pop()!;
    this.folder(parts.join("/")).entries.set(name, { inode, layer: 0 });
  }

  #attributes(mode: number): Attributes {
    return { mode, uid: 0, gid: 0, mtime: this.#time };
  }

  #append(bytes: Uint8Array): void {
    writeAll(this.#descriptor, bytes);
    this.#size += bytes.length;
  }

  #writeDatabase(packages: readonly Unpacked[]): void {
    for (const folder of ["alternatives", "info", "parts", "triggers", "updates"])
      this.folder(`${DPKG}/${folder}`);
    this.file(`${DPKG}/available`, "");
    this.file(`${DPKG}/info/format`, "1\n");
    const status: string[] = [];
    for (const one of packages) {
      status.push(`${this.#statusOf(one)}\n`);
      this.file(`${DPKG}/info/${one.label}.list`, fileList(one.data));
      for (const [member, content] of one.members) {
        if (member === "control") continue;
        const isScript = ["preinst", "postinst", "prerm", "postrm", "config"].includes(member);
        this.file(`${DPKG}/info/${one.label}.${member}`, content, isScript ? 0o755 : 0o644);
      }
    }
    this.file(`${DPKG}/status`, `${status.join("\n")}`);
    for (const [path, content] of triggerFiles(packages))
      this.file(`${DPKG}/triggers/${path}`, content);
  }

  #statusOf({ control, members }: Unpacked): string {
    const lines = control.split("\n");
    const at = lines.findIndex((line) => line.startsWith("Package:"));
    lines.splice(at + 1, 0, "Status: install ok unpacked");
    const conffiles = (members.get("conffiles")?.toString("utf8") ?? "")
      .split("\n")
      .filter((line) => line.startsWith("/"));
    if (conffiles.length > 0) {
      // They are in their places already, so they are recorded as dpkg does after configuring.
      lines.push("Conffiles:", ...conffiles.map((path) => ` ${path} ${this.#md5(path)}`));
    }
    return lines.join("\n");
  }

  #md5(path: string): string {
    const found = lookUp(this.root, path.split("/"));
    if (typeof found === "string" || found.kind !== "file") return "newconffile";
    const { descriptor, offset, size } = found.content;
    const bytes = Buffer.alloc(size);
    readSync(descriptor, bytes, 0, size, offset);
    return createHash("md5").update(bytes).digest("hex");
  }
}

/** As dpkg writes them: "/." first, no slash at the end. */
function fileList(data: FileRange): string {
  const paths: string[] = [];
  for (const { name } of readTar(data)) {
    const path = name.replace(/^\.?\/*/, "").replace(/\/+$/, "");
    paths.push(path === "" ? "/." : `/${path}`);
  }
  return Buffer.from(`${paths.join("\n")}\n`, "latin1").toString("utf8");
}

/** Who is interested in which trigger: in paths in one file, in names in a file each. */
function triggerFiles(packages: readonly Unpacked[]): Map<string, string> {
  const files = new Map<string, string>();
  const add = (file: string, line: string): void => {
    files.set(file, `${files.get(file) ?? ""}${line}\n`);
  };
  for (const { label, members } of packages) {
    for (const line of (members.get("triggers")?.toString("utf8") ?? "").split("\n")) {
      const match = /^interest(?:-(await|noawait))?\s+(\S+)/.exec(line.trim());
      if (!match) continue;
      const who = match[1] === "noawait" ? `${label}/noawait` : label;
      if (match[2]!.startsWith("/")) add("File", `${match[2]} ${who}`);
      else add(match[2]!, who);
    }
  }
  return files;
}

async function controlMembers(deb: Uint8Array, name: string): Promise<Map<string, Buffer>> {
  const members = new Map<string, Buffer>();
  const tar = extract();
  let total = 0;
  tar.on("entry", (header, stream, next) => {
    const member = header.name.replace(/^\.?\/*/, "");
    total += header.size ?? 0;
    if (total > LARGEST_CONTROL) {
      next(unusable(name, "its control archive is too large"));
      return;
    }
    const parts: Buffer[] = [];
    stream.on("data", (part) => parts.push(part as Buffer));
    stream.on("end", () => {
      if (header.type === "file" && /^[a-z0-9]+$/.test(member))
        members.set(member, Buffer.concat(parts));
      next();
    });
  });
  await pipeline(openMember(deb, "control"), tar);
  return members;
}

function unusable(name: string, why: string): HypolithError {
  return new HypolithError("package-unusable", `the package ${name} cannot be used: ${why}`);
}
