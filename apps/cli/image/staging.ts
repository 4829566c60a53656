/**
 * Folders for half-done work, gone on every way out of the process.
 *
 * A folder's name carries the process id, so that what a killed process left behind is found and removed by the next one.
 */
import { mkdirSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";

const PREFIX = "hypo";
const open = new Set<string>();
process.on("exit", () => {
  for (const path of open) remove(path);
});

export class Staging {
  readonly path: string;

  private constructor(path: string) {
    this.path = path;
  }

  /** A new empty folder below `parent`. Throws what the file system says if it cannot be made. */
  static create(parent: string): Staging {
    mkdirSync(parent, { recursive: true });
    const path = mkdtempSync(join(parent, `${PREFIX}-${process.pid}-`));
    open.add(path);
    return new Staging(path);
  }

  remove(): void {
    remove(this.path);
    open.delete(this.path);
  }
}

/** Removes folders of processes that no longer live. */
export function sweepStaging(parent: string): void {
  let names: string[];
  try {
    names = readdirSync(parent);
  } catch {
    return;
  }
  for (const name of names) {
    const pid = Number(new RegExp(`^${PREFIX}-(\\d+)-`).exec(name)?.[1]);
    if (pid > 0 && !isAlive(pid)) remove(join(parent, name));
  }
}

export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}

function remove(path: string): void {
  try {
    rmSync(path, { recursive: true, force: true });
  } catch {
    // On the way out there is nobody left to tell.
  }
}
