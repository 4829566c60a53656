/**
 * A service in a thread of its own: with its own heap, whose limits are the thread's, and an end that can be put to it whatever it does.
 * The kernel's thread waits for the reply: a VM exit is not over before that.
 */
import { Message } from "../../hypervisor/abi/message.ts";
import {
  Outcome,
  type Placement,
  type PlacementPort,
  restoreByMessage,
  saveByMessage,
} from "../../hypervisor/kernel/placement.ts";
import { Mailbox, Turn } from "./mailbox.ts";
import { SpinChoice } from "./spin-choice.ts";

/** A thread that runs serveService (service-thread.ts) over the mailbox in `buffer`. */
export interface ServiceThread {
  readonly buffer: SharedArrayBuffer;
  /** Ends it, at once or soon. */
  terminate(): void;
}

export interface OwnThreadOptions {
  readonly thread: ServiceThread;
  /** Monotonic clock, ms. */
  readonly nowMs: () => number;
}

const WORD = 0x1_0000_0000;
/** The first message finds the thread starting. */
const START_MS = 20_000;

export class OwnThread implements Placement {
  readonly kind = "worker";
  readonly message = new Message();
  failure = "";
  readonly #options: OwnThreadOptions;
  readonly #port: PlacementPort;
  readonly #mailbox: Mailbox;
  readonly #thread: ServiceThread;
  readonly #choice = new SpinChoice();
  #hasAnswered = false;
  #isDead = false;

  constructor(options: OwnThreadOptions, port: PlacementPort) {
    this.#options = options;
    this.#port = port;
    this.#thread = options.thread;
    this.#mailbox = new Mailbox(options.thread.buffer);
  }

  call(deadlineMs: number): Outcome {
    if (this.#isDead) return this.#failed("it has ended");
    const mailbox = this.#mailbox;
    const started = this.#options.nowMs();
    mailbox.put(this.message);
    mailbox.spins = this.#choice.spins;
    mailbox.pass(Turn.SERVICE);
    const outcome = this.#await(this.#hasAnswered ? deadlineMs : Math.max(deadlineMs, START_MS));
    if (outcome === Outcome.REPLIED) {
      this.#hasAnswered = true;
      mailbox.take(this.message);
      this.#choice.took(this.#options.nowMs() - started);
    }
    return outcome;
  }

  #await(deadlineMs: number): Outcome {
    const mailbox = this.#mailbox;
    const { nowMs } = this.#options;
    const { spins } = this.#choice;
    let waited: number = Turn.SERVICE;
    let turn = mailbox.wait(waited, spins, 0);
    if (turn === Turn.KERNEL) return Outcome.REPLIED;
    const end = nowMs() + deadlineMs;
    for (;;) {
      switch (turn) {
        case Turn.KERNEL:
          return Outcome.REPLIED;
        case Turn.FAILED:
          return this.#failed(mailbox.takeText());
        case Turn.READ:
          waited = Turn.ANSWER;
          this.#read();
          break;
      }
      const left = end - nowMs();
      if (left <= 0) return Outcome.LATE;
      turn = mailbox.wait(waited, spins, left);
    }
  }

  #read(): void {
    const mailbox = this.#mailbox;
    const { low, high, length } = mailbox.asked;
    mailbox.status = this.#port.read(low + high * WORD, length);
    if (mailbox.status === 0) mailbox.putEnd(this.message, length);
    mailbox.pass(Turn.ANSWER);
  }

  #failed(why: string): Outcome {
    this.failure = why;
    return Outcome.FAILED;
  }

  save(deadlineMs: number): unknown {
    return saveByMessage(this, deadlineMs);
  }

  restore(state: unknown, deadlineMs: number): boolean {
    return restoreByMessage(this, state as Uint8Array, deadlineMs);
  }

  kill(): void {
    if (!this.#isDead) this.#thread.terminate();
    this.#isDead = true;
  }
}
