/**
 * Our end of the control line to the initramfs's session (the words are listed in apps/cli/guest/scripts.ts).
 *
 * Nothing is sent before the guest has said "ready": until then its line still echoes. The guest is not trusted: unknown words are
 * ignored, and a line without end is dropped when it gets long.
 */

/** Of a terminal, in characters. */
export interface WindowSize {
  readonly rows: number;
  readonly columns: number;
}

const LONGEST_LINE = 256;

export interface ControlEvents {
  /** The job is about to start. */
  ready(): void;
  /** The guest wants the next block of standard input. */
  inputWanted(): void;
}

export class ControlLine {
  readonly #send: (text: string) => void;
  readonly #events: ControlEvents;
  #partial = "";
  #ready = false;
  #size: WindowSize | undefined;
  #exitStatus: number | undefined;

  /** `isReady`: the guest goes on from where it was ready long ago. */
  constructor(send: (text: string) => void, events: ControlEvents, isReady = false) {
    this.#send = send;
    this.#ready = isReady;
    this.#events = events;
  }

  get isReady(): boolean {
    return this.#ready;
  }

  /** How the job ended, once the guest has told. */
  get exitStatus(): number | undefined {
    return this.#exitStatus;
  }

  receive(data: Uint8Array): void {
    const lines = (this.#partial + latin1(data)).split("\n");
    this.#partial = lines.pop()!.slice(0, LONGEST_LINE);
    for (const line of lines) this.#understand(line.trim());
  }

  /** The latest size is kept until the guest is ready for it. */
  resize(size: WindowSize): void {
    this.#size = size;
    if (this.#ready) this.#send(`size ${size.rows} ${size.columns}\n`);
  }

  /** A signal for the job, "INT"; answers whether there is one that could get it. */
  signal(name: string): boolean {
    return this.#sendIfReady(`signal ${name}\n`);
  }

  powerOff(): boolean {
    return this.#sendIfReady("poweroff\n");
  }

  #sendIfReady(line: string): boolean {
    if (this.#ready) this.#send(line);
    return this.#ready;
  }

  #understand(line: string): void {
    const [word, value = ""] = line.split(" ");
    if (word === "ready") {
      this.#ready = true;
      if (this.#size) this.resize(this.#size);
      this.#events.ready();
    } else if (word === "in") {
      this.#events.inputWanted();
    } else if (word === "exit" && /^\d{1,3}$/.test(value)) {
      this.#exitStatus = Number(value) & 0xff;
    } else if (word === "off") {
      // Somebody in the guest turned it off on purpose.
      this.#exitStatus ??= 0;
    }
  }
}

function latin1(bytes: Uint8Array): string {
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte);
  return text;
}
