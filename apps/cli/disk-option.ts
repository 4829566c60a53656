/**
 * `--disk IMAGE[,read|write][,overlay=FILE][,format=raw|qcow2]`: a disk of the guest's. Without more words the image is never changed: writes
 * go to an overlay that is gone afterwards.
 */
import { resolve } from "node:path";
import { DISK_FORMATS, type DiskConfig } from "../../src/control/protocol.ts";
import { closest } from "./closest.ts";
import { UsageError } from "./usage-error.ts";

const WORDS = ["read", "write", "overlay", "format"];
const SYNTAX = "write it like --disk IMAGE, --disk IMAGE,write or --disk IMAGE,overlay=FILE";

export function parseDisk(text: string): DiskConfig {
  const [image = "", ...words] = text.split(",");
  if (image === "") throw new UsageError("--disk needs an image", SYNTAX);
  let disk: DiskConfig = { path: resolve(image), mode: "scratch" };
  const isSet = new Set<string>();
  for (const word of words) {
    const [key = "", value] = splitAt(word, "=");
    disk = { ...disk, ...settingOf(key, value, word) };
    isSet.add(key);
  }
  if (isSet.size < words.length) throw new UsageError(`--disk ${text} says a thing twice`, SYNTAX);
  if (["read", "write", "overlay"].filter((key) => isSet.has(key)).length > 1)
    throw new UsageError("read, write and overlay exclude each other", SYNTAX);
  return disk;
}

function settingOf(key: string, value: string | undefined, word: string): Partial<DiskConfig> {
  if (key === "read" && value === undefined) return { mode: "read" };
  if (key === "write" && value === undefined) return { mode: "write" };
  if (key === "overlay" && value) return { overlay: resolve(value) };
  const format = DISK_FORMATS.find((name) => name === value);
  if (key === "format" && format) return { format };
  const near = key === "format" ? undefined : closest(key, WORDS);
  const hint = near && near !== key ? `did you mean ${near}?` : SYNTAX;
  throw new UsageError(`'${word}' says nothing about a disk`, hint);
}

function splitAt(text: string, separator: string): [string, string | undefined] {
  const at = text.indexOf(separator);
  return at < 0 ? [text, undefined] : [text.slice(0, at), text.slice(at + 1)];
}
