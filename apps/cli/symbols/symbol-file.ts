/**
 * Reads what --symbols names. Whatever is wrong with a file is a mistake in the command line.
 */
import { readFileSync, statSync } from "node:fs";
import type { SymbolList } from "../../../src/control/protocol.ts";
import { UsageError } from "../usage-error.ts";
import { isElf, parseElfSymbols } from "./elf-symbols.ts";
import { type CodeSymbol, makeSymbolList, SymbolFileError } from "./symbol-list.ts";
import { parseSystemMap } from "./system-map.ts";

const HINT =
  "give a System.map, an ELF64 file with symbols, or what 'hypo run -- cat /proc/kallsyms' prints";

/** Throws UsageError. Without files: undefined. */
export function readSymbolFiles(paths: readonly string[]): SymbolList | undefined {
  if (paths.length === 0) return undefined;
  return makeSymbolList(paths.flatMap(readSymbolFile));
}

function readSymbolFile(path: string): CodeSymbol[] {
  const bytes = readRegularFile(path);
  try {
    return isElf(bytes) ? parseElfSymbols(bytes) : parseSystemMap(bytes.toString("latin1"));
  } catch (error) {
    if (!(error instanceof SymbolFileError)) throw error;
    throw new UsageError(`${path} is no use as a symbol file: ${error.message}`, HINT);
  }
}

function readRegularFile(path: string): Buffer {
  let why = "it is no regular file";
  try {
    if (statSync(path).isFile()) return readFileSync(path);
  } catch (cause) {
    const absent = (cause as NodeJS.ErrnoException).code === "ENOENT";
    why = absent ? "there is no such file" : (cause as Error).message;
  }
  throw new UsageError(`the symbol file ${path} cannot be read: ${why}`, HINT);
}
