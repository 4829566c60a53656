/**
 * A service's saved state as bytes: a tree of numbers, strings, booleans, bigints, Uint8Arrays, arrays, plain objects, null and undefined.
 *
 * One tag byte each, then f64, or a u32 length and content. Read by the service itself, so a bad one hurts nobody else.
 */
const Tag = {
  NULL: 0,
  UNDEFINED: 1,
  FALSE: 2,
  TRUE: 3,
  NUMBER: 4,
  STRING: 5,
  BYTES: 6,
  ARRAY: 7,
  OBJECT: 8,
  BIGINT: 9,
} as const;

/** Writes `value` at `from`; answers where it ends, or -1 if there is no room. */
export function encodeState(value: unknown, target: Uint8Array, from: number): number {
  const writer = new Writer(target, from);
  writer.value(value);
  return writer.at <= target.length ? writer.at : -1;
}

/** The same as bytes of their own. */
export function packState(value: unknown): Uint8Array {
  const counter = new Writer(new Uint8Array(0), 0);
  counter.value(value);
  const bytes = new Uint8Array(counter.at);
  encodeState(value, bytes, 0);
  return bytes;
}

export function decodeState(source: Uint8Array): unknown {
  return new Reader(source).value();
}

class Writer {
  at: number;
  readonly #target: Uint8Array;
  readonly #view: DataView;

  constructor(target: Uint8Array, from: number) {
    this.#target = target;
    this.#view = new DataView(target.buffer, target.byteOffset, target.byteLength);
    this.at = from;
  }

  /** Past the end nothing is written, but counted. */
  #take(bytes: number): number {
    const at = this.at;
    this.at += bytes;
    return this.at <= this.#target.length ? at : -1;
  }

  #tag(tag: number): void {
    const at = this.#take(1);
    if (at >= 0) this.#target[at] = tag;
  }

  #length(n: number): void {
    const at = this.#take(4);
    if (at >= 0) this.#view.setUint32(at, n, true);
  }

  #text(tag: number, text: string): void {
    this.#tag(tag);
    this.#length(text.length);
    const at = this.#take(2 * text.length);
    if (at < 0) return;
    for (let i = 0; i < text.length; i++)
      this.#view.setUint16(at + 2 * i, text.charCodeAt(i), true);
  }

  value(value: unknown): void {
    if (value === null) this.#tag(Tag.NULL);
    else if (value === undefined) this.#tag(Tag.UNDEFINED);
    else if (typeof value === "boolean") this.#tag(value ? Tag.TRUE : Tag.FALSE);
    else if (typeof value === "number") {
      this.#tag(Tag.NUMBER);
      const at = this.#take(8);
      if (at >= 0) this.#view.setFloat64(at, value, true);
    } else if (typeof value === "string") this.#text(Tag.STRING, value);
    else if (typeof value === "bigint") this.#text(Tag.BIGINT, value.toString());
    else if (value instanceof Uint8Array) {
      this.#tag(Tag.BYTES);
      this.#length(value.length);
      const at = this.#take(value.length);
      if (at >= 0) this.#target.set(value, at);
    } else if (Array.isArray(value)) {
      this.#tag(Tag.ARRAY);
      this.#length(value.length);
      for (const item of value) this.value(item);
    } else this.#object(value as object);
  }

  #object(value: object): void {
    const entries = Object.entries(value);
    this.#tag(Tag.OBJECT);
    this.#length(entries.length);
    for (const [key, item] of entries) {
      this.#text(Tag.STRING, key);
      this.value(item);
    }
  }
}

class Reader {
  #at = 0;
  readonly #source: Uint8Array;
  readonly #view: DataView;

  constructor(source: Uint8Array) {
    this.#source = source;
    this.#view = new DataView(source.buffer, source.byteOffset, source.byteLength);
  }

  #take(bytes: number): number {
    const at = this.#at;
    this.#at += bytes;
    if (this.#at > this.#source.length) throw new RangeError("a saved state ends too early");
    return at;
  }

  #length(): number {
    return this.#view.getUint32(this.#take(4), true);
  }

  #text(): string {
    const length = this.#length();
    const at = this.#take(2 * length);
    let text = "";
    for (let i = 0; i < length; i++)
      text += String.fromCharCode(this.#view.getUint16(at + 2 * i, true));
    return text;
  }

  value(): unknown {
    switch (this.#source[this.#take(1)]) {
      case Tag.NULL:
        return null;
      case Tag.UNDEFINED:
        return undefined;
      case Tag.FALSE:
        return false;
      case Tag.TRUE:
        return true;
      case Tag.NUMBER:
        return this.#view.getFloat64(this.#take(8), true);
      case Tag.STRING:
        return this.#text();
      case Tag.BIGINT:
        return BigInt(this.#text());
      case Tag.BYTES: {
        const length = this.#length();
        const at = this.#take(length);
        return this.#source.slice(at, at + length);
      }
      case Tag.ARRAY:
        return Array.from({ length: this.#length() }, () => this.value());
      case Tag.OBJECT: {
        const entries = Array.from({ length: this.#length() }, () => {
          this.#take(1);
          return [this.#text(), this.value()] as const;
        });
        return Object.fromEntries(entries);
      }
      default:
        throw new RangeError("a saved state has an unknown tag");
    }
  }
}
