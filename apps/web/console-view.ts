/** The terminal in the page: xterm.js, as large as there is room for. */
import { FitAddon } from "@xterm/addon-fit";
import { Terminal } from "@xterm/xterm";
import type { WindowSize } from "../common/control-line.ts";
import { TerminalFeed } from "./terminal-feed.ts";

export interface ConsoleEvents {
  /** Keys, pasted text, and the terminal's answers to what the guest asks it. */
  typed(bytes: Uint8Array): void;
  resized(size: WindowSize): void;
}

const SCROLLBACK_LINES = 10_000;

export class ConsoleView {
  readonly #place: HTMLElement;
  readonly #terminal: Terminal;
  readonly #fit = new FitAddon();
  #feed: TerminalFeed;

  constructor(place: HTMLElement, events: ConsoleEvents) {
    this.#place = place;
    this.#terminal = new Terminal({
      scrollback: SCROLLBACK_LINES,
      fontSize: 14,
      // At 1 the underscores of common fonts fall out of their line.
      lineHeight: 1.15,
      fontFamily: "ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace",
      // Blinking makes the browser draw frame after frame: a tenth of a processor for a guest that does nothing.
      cursorBlink: false,
      theme: { background: "#0d0f12", foreground: "#e4e7ec", cursor: "#7cc4a4" },
    });
    this.#feed = new TerminalFeed(this.#terminal);
    this.#terminal.loadAddon(this.#fit);
    const encoder = new TextEncoder();
    this.#terminal.onData((text) => events.typed(encoder.encode(text)));
    this.#terminal.onBinary((text) =>
      events.typed(Uint8Array.from(text, (byte) => byte.charCodeAt(0))),
    );
    this.#terminal.onResize(({ rows, cols }) => events.resized({ rows, columns: cols }));
    new ResizeObserver(() => this.#fitIn()).observe(place);
  }

  get size(): WindowSize {
    return { rows: this.#terminal.rows, columns: this.#terminal.cols };
  }

  /** Shows it, empty, for a new machine. */
  open(): void {
    this.#place.hidden = false;
    if (!this.#terminal.element) this.#terminal.open(this.#place);
    this.#terminal.reset();
    // What the last machine said and nobody has seen goes with it.
    this.#feed = new TerminalFeed(this.#terminal);
    this.#terminal.options.disableStdin = false;
    this.#fitIn();
    this.#terminal.focus();
  }

  /** The machine has ended; what it said stays. */
  freeze(): void {
    this.#terminal.options.disableStdin = true;
    this.#terminal.blur();
  }

  hide(): void {
    this.#place.hidden = true;
  }

  focus(): void {
    this.#terminal.focus();
  }

  write(data: Uint8Array): void {
    this.#feed.write(data);
  }

  #fitIn(): void {
    if (!this.#place.hidden) this.#fit.fit();
  }
}
