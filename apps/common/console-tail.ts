/**
 * The last of what a guest wrote on its console: for whoever has to know why it stopped.
 */
const KEPT = 16_384;
const LINES = 12;

export class ConsoleTail {
  #text = "";
  /** A character may be cut by a message's end. */
  readonly #decoder = new TextDecoder();

  add(data: Uint8Array): void {
    this.#text = (this.#text + this.#decoder.decode(data, { stream: true })).slice(-KEPT);
  }

  /** What a Linux kernel says when it gives up, or undefined. */
  get panic(): string | undefined {
    const found = /Kernel panic - not syncing: ([^\r\n]*)/.exec(this.#text);
    return found?.[1]?.trim();
  }

  lastLines(): string {
    const lines = this.#text.split(/\r?\n/).filter((line) => line.trim() !== "");
    // Nothing of it may move the cursor of the terminal that it is shown on.
    return lines
      .slice(-LINES)
      .join("\n")
      .replaceAll(/[^\P{Cc}\n\t]/gu, "");
  }
}
