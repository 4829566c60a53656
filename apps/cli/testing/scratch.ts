import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TestContext } from "node:test";
import { Messages } from "../messages.ts";

/** A folder for one test. */
export function scratchFolder(test: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), "hypo-test-"));
  test.after(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

/** Messages that are kept. */
export function recordedMessages(): { readonly messages: Messages; readonly lines: () => string } {
  let text = "";
  const write = (part: string | Uint8Array): boolean => {
    text += part;
    return true;
  };
  return {
    messages: new Messages({ quiet: false, level: "debug" }, { write }),
    lines: () => text,
  };
}
