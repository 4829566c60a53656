/**
 * Progress of downloads: a bar on a terminal, else one plain line at the start of each; nothing with --quiet.
 */
import cliProgress from "cli-progress";
import type { Messages } from "../messages.ts";

export interface Bar {
  update(done: number): void;
  /** Call on every way out: a bar left running hides the cursor. */
  end(): void;
}

export class Progress {
  readonly #messages: Messages;

  constructor(messages: Messages) {
    this.#messages = messages;
  }

  step(text: string): void {
    this.#messages.notice(text);
  }

  /** Progress of something with `total` bytes. */
  bar(label: string, total: number): Bar {
    return this.#bar(label, total, `${megabytes(total)} MB`);
  }

  /** Progress of `total` things. */
  count(label: string, total: number): Bar {
    return this.#bar(label, total, String(total));
  }

  #bar(label: string, total: number, size: string): Bar {
    if (!this.#messages.isInteractive) {
      this.#messages.notice(`${label} (${size})`);
      return { update: () => {}, end: () => {} };
    }
    const bar = new cliProgress.SingleBar({
      format: "{label} [{bar}] {percentage}% of {size}",
      stream: process.stderr,
      barCompleteChar: "=",
      barIncompleteChar: " ",
      hideCursor: true,
      clearOnComplete: false,
      // Signals are ours to handle; the bar is ended on every way out.
      gracefulExit: false,
    });
    bar.start(total, 0, { label, size });
    return { update: (done) => bar.update(Math.min(done, total)), end: () => bar.stop() };
  }
}

function megabytes(bytes: number): string {
  return (bytes / 1e6).toFixed(1);
}
