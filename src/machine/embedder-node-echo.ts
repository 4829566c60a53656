/**
 * Echo requests to the outside by the computer's own ping program: Node opens no ICMP sockets, and ping has the right to one where a plain process has not.
 *
 * What the guest asks is whether an address answers, and when: size is kept, identifiers and contents are not. A computer without ping has no echo.
 */
import { execFile } from "node:child_process";
import { existsSync } from "node:fs";

const PROGRAMS = ["/usr/bin/ping", "/bin/ping", "/sbin/ping"];
/** At once: a guest could ask for any number. */
const MAX_RUNNING = 8;
const TIMEOUT_SECONDS = 5;
const MAX_DATA = 8000;
/** Of the program: nobody answered. All else but 0 says that it could not ask. */
const NO_ANSWER = 1;

export interface EchoAnswers {
  answered(query: number): void;
  /** It could not be asked at all; told once. */
  failed(why: string): void;
}

export class NodeEcho {
  readonly #program: string;
  readonly #answers: EchoAnswers;
  #running = 0;
  #hasFailed = false;

  private constructor(program: string, answers: EchoAnswers) {
    this.#program = program;
    this.#answers = answers;
  }

  /** Undefined where there is no such program. `programs`: where to look. */
  static find(answers: EchoAnswers, programs = PROGRAMS): NodeEcho | undefined {
    const program = programs.find((path) => existsSync(path));
    return program === undefined ? undefined : new NodeEcho(program, answers);
  }

  /** `address`: dotted IPv4. Unanswered if there are too many, or the data is too long. */
  ask(query: number, address: string, length: number): void {
    if (this.#running >= MAX_RUNNING || length > MAX_DATA) return;
    this.#running++;
    const words = ["-n", "-q", "-c", "1", "-W", `${TIMEOUT_SECONDS}`, "-s", `${length}`, address];
    const options = { timeout: (TIMEOUT_SECONDS + 5) * 1000, env: {} };
    execFile(this.#program, words, options, (error, _, complaint) => {
      this.#running--;
      if (!error) this.#answers.answered(query);
      else if (error.code !== NO_ANSWER) this.#fail(complaint.trim() || error.message);
    });
  }

  #fail(why: string): void {
    if (this.#hasFailed) return;
    this.#hasFailed = true;
    this.#answers.failed(why);
  }
}
