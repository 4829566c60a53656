/**
 * Memory sizes as people write them: "512m", "1g", "1.5GiB", "268435456". As in docker, every unit is a power of 1024.
 */
const UNITS: Readonly<Record<string, number>> = { "": 0, k: 1, m: 2, g: 3, t: 4 };

/** Bytes, or undefined if the text is no size. */
export function parseSize(text: string): number | undefined {
  const found = /^(\d+(?:\.\d+)?)\s*([kmgt]?)(i?b)?$/i.exec(text.trim());
  if (!found) return undefined;
  const bytes = Number(found[1]) * 1024 ** UNITS[found[2]!.toLowerCase()]!;
  return Number.isSafeInteger(Math.floor(bytes)) ? Math.floor(bytes) : undefined;
}

export function formatSize(bytes: number): string {
  if (bytes >= 2 ** 30) return `${trim(bytes / 2 ** 30)} GiB`;
  if (bytes >= 2 ** 20) return `${trim(bytes / 2 ** 20)} MiB`;
  if (bytes >= 2 ** 10) return `${trim(bytes / 2 ** 10)} KiB`;
  return `${bytes} bytes`;
}

function trim(value: number): string {
  return value.toFixed(1).replace(/\.0$/, "");
}
