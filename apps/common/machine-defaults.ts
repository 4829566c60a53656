/** What a machine is given when its user says nothing, and what it may be given: the same on the command line and in a page. */
import { HypolithError } from "../../src/base/errors.ts";
import type { EngineName } from "../../src/control/protocol.ts";
import { formatSize } from "./size.ts";

export const DEFAULT_MEMORY = "512m";
export const DEFAULT_CPU_MODEL = "x86-64-v2";
export const DEFAULT_ENGINE: EngineName = "interpreter";

/**
 * First words of a kernel's command line. panic=-1: a kernel that gives up resets at once, and the run ends instead of standing still.
 */
export const CONSOLE_COMMAND_LINE = "console=ttyS0 panic=-1";
export const VIRTIO_CONSOLE_COMMAND_LINE = "console=hvc0 panic=-1";

const SMALLEST_MEMORY = 64 * 2 ** 20;
const LARGEST_MEMORY = 3 * 2 ** 30;
const PAGE = 4096;

/** Whole pages, or why not. `option` is how the user writes a size, for the hint. */
export function checkMemorySize(bytes: number, option = ""): number {
  if (bytes < SMALLEST_MEMORY) {
    throw new HypolithError(
      "memory-too-small",
      `${formatSize(bytes)} of memory are too little: no kernel starts in less than ${formatSize(SMALLEST_MEMORY)}`,
      { hint: `use ${option}${DEFAULT_MEMORY}` },
    );
  }
  if (bytes > LARGEST_MEMORY) {
    throw new HypolithError(
      "memory-too-large",
      `${formatSize(bytes)} of memory are more than a machine can have: ${formatSize(LARGEST_MEMORY)}`,
      { hint: `use ${option}3g or less` },
    );
  }
  return bytes - (bytes % PAGE);
}
