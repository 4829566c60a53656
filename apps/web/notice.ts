/** The strip above the terminal: how the machine ended, or what went wrong, and what to do. */
import { element } from "./elements.ts";
import type { Verdict } from "./verdict.ts";

export class Notice {
  readonly #strip = element("notice", HTMLDivElement);
  readonly #message = element("notice-message", HTMLParagraphElement);
  readonly #hint = element("notice-hint", HTMLParagraphElement);
  readonly #details = element("notice-details", HTMLDetailsElement);
  readonly #dump = element("notice-dump", HTMLPreElement);

  show({ tone, message, hint, dump }: Verdict): void {
    this.#strip.className = tone;
    this.#message.textContent = message;
    this.#hint.textContent = hint === undefined ? "" : `Try: ${hint}`;
    this.#hint.hidden = hint === undefined;
    this.#dump.textContent = dump ?? "";
    this.#details.hidden = dump === undefined;
    this.#details.open = false;
    this.#strip.hidden = false;
  }

  hide(): void {
    this.#strip.hidden = true;
  }
}
