/** `hypo web` as its user has it: a process that serves the built page and prints its address. */
import { type ChildProcess, spawn } from "node:child_process";
import { join } from "node:path";
import { HypolithError } from "../../src/base/errors.ts";
import { CHECKOUT } from "./cache.ts";

const START_SECONDS = 60;

export class WebCommand {
  readonly #child: ChildProcess;
  #said = "";

  constructor() {
    const options = ["web", "--port", "0", "--pull", "never", "--quiet"];
    this.#child = spawn(join(CHECKOUT, "bin/hypo"), options, { stdio: ["ignore", "pipe", "pipe"] });
    this.#child.stderr!.on("data", (data: Buffer) => {
      this.#said += data.toString();
    });
  }

  /** The page's address. */
  address(): Promise<string> {
    return new Promise((resolve, reject) => {
      const fail = (why: string): void => reject(new HypolithError("web-failed", why));
      const timer = setTimeout(
        () => fail(`hypo web: no address; ${this.#said}`),
        START_SECONDS * 1000,
      );
      this.#child.once("exit", (code) => fail(`hypo web: exit status ${code}; ${this.#said}`));
      this.#child.stdout!.once("data", (data: Buffer) => {
        clearTimeout(timer);
        resolve(data.toString().trim());
      });
    });
  }

  kill(): void {
    this.#child.kill("SIGKILL");
  }
}
