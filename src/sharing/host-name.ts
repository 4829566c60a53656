/**
 * Names of files: bytes on both sides, strings here. Bytes that are no UTF-8 become lone surrogates (0xDC00 + byte), which no UTF-8 does, so
 * every name comes back as it was.
 */
const ESCAPE = 0xdc00;
const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const encoder = new TextEncoder();

export function decodeName(bytes: Uint8Array): string {
  let text = "";
  for (const byte of bytes) {
    if (byte >= 0x80) return decodeOther(bytes);
    text += String.fromCharCode(byte);
  }
  return text;
}

function decodeOther(bytes: Uint8Array): string {
  try {
    return utf8.decode(bytes);
  } catch {
    let text = "";
    for (const byte of bytes) text += String.fromCharCode(byte < 0x80 ? byte : ESCAPE + byte);
    return text;
  }
}

export function encodeName(name: string): Uint8Array {
  return isEscaped(name)
    ? Uint8Array.from(name, (character) => character.charCodeAt(0) & 0xff)
    : encoder.encode(name);
}

/** Whether the name has bytes that no string of Unicode stands for. */
export function isEscaped(name: string): boolean {
  return /(?<![\ud800-\udbff])[\udc80-\udcff]/.test(name);
}

export const MAX_NAME_BYTES = 255;

/** Whether it names an entry of a directory and leads nowhere else. */
export function isEntryName(name: string): boolean {
  return (
    name !== "" && name !== "." && name !== ".." && !name.includes("/") && !name.includes("\0")
  );
}
