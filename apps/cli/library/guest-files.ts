/** Files of a running guest. Paths in it are absolute. */
import { Readable, Writable } from "node:stream";
import { HypolithError } from "../../../src/base/errors.ts";
import { copyIn, copyOut } from "../vms/copy.ts";
import { type OwnGuest, runTool } from "../vms/guest-program.ts";

export class GuestFiles {
  readonly #guest: OwnGuest;

  constructor(guest: OwnGuest) {
    this.#guest = guest;
  }

  async read(path: string): Promise<Buffer> {
    const parts: Buffer[] = [];
    const stdout = new Writable({
      write: (bytes: Buffer, _, done) => {
        parts.push(bytes);
        done();
      },
    });
    const { code, stderr } = await runTool(this.#guest, ["cat", "--", path], { stdout });
    if (code !== 0) throw failure(path, stderr);
    return Buffer.concat(parts);
  }

  /** Makes the file, or replaces what is in it; its folder is there. */
  async write(path: string, content: string | Uint8Array, mode = 0o644): Promise<void> {
    const script = 'cat >"$1" && chmod "$2" "$1"';
    const argv = ["sh", "-c", script, "sh", path, mode.toString(8)];
    const stdin = Readable.from([Buffer.from(content)]);
    const { code, stderr } = await runTool(this.#guest, argv, { stdin });
    if (code !== 0) throw failure(path, stderr);
  }

  /** A file or folder of this computer into the guest, by the rules of `hypo cp`. */
  copyIn(path: string, target: string): Promise<void> {
    return copyIn(path, this.#guest, target);
  }

  /** A file or folder of the guest's to this computer; nothing is written outside the target. */
  copyOut(path: string, target: string): Promise<void> {
    return copyOut(this.#guest, path, target);
  }
}

function failure(path: string, stderr: string): HypolithError {
  const why = stderr.trim().split("\n").at(-1) || "it cannot be read";
  return new HypolithError("guest-file", `${path} in the guest: ${why}`);
}
