/**
 * The kernel command line as bytes: UTF-8, NUL-terminated, and never longer than the kernel will read.
 *
 * A kernel cuts a longer line silently, usually losing `init=` or `root=` from its end; refusing is kinder.
 */
import { HypolithError } from "../../base/errors.ts";
import { COMMAND_LINE } from "./low-memory.ts";

/** COMMAND_LINE_SIZE of Linux on x86 less its terminator, for images that do not state their own limit. */
export const LINUX_COMMAND_LINE_LIMIT = 2047;

/** What the loader's own area holds. */
const AREA_LIMIT = COMMAND_LINE.end - COMMAND_LINE.start - 1;

/** Encodes with a terminating NUL. `kernelLimit` counts bytes without it. */
export function encodeCommandLine(text: string, kernelLimit = AREA_LIMIT): Uint8Array {
  const limit = Math.min(kernelLimit, AREA_LIMIT);
  if (text.includes("\0")) {
    throw new HypolithError("command-line-invalid", "the kernel command line contains a NUL byte");
  }
  const bytes = utf8(text);
  if (bytes.length > limit) {
    throw new HypolithError(
      "command-line-too-long",
      `the kernel command line has ${bytes.length} bytes, this kernel accepts ${limit}`,
      { hint: "shorten it, or move settings into the initramfs" },
    );
  }
  return Uint8Array.from([...bytes, 0]);
}

function utf8(text: string): number[] {
  const out: number[] = [];
  for (const character of text) {
    // A lone surrogate has no encoding; it becomes the replacement character.
    const raw = character.codePointAt(0)!;
    const c = raw >= 0xd800 && raw <= 0xdfff ? 0xfffd : raw;
    if (c < 0x80) out.push(c);
    else if (c < 0x800) out.push(0xc0 | (c >> 6), tail(c));
    else if (c < 0x1_0000) out.push(0xe0 | (c >> 12), tail(c >> 6), tail(c));
    else out.push(0xf0 | (c >> 18), tail(c >> 12), tail(c >> 6), tail(c));
  }
  return out;
}

function tail(bits: number): number {
  return 0x80 | (bits & 0x3f);
}
