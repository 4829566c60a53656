/**
 * Is a value shaped like a sample? Numbers are finite; an array of the sample stands for any number of elements like its first; what an empty
 * one holds is not looked at.
 */
export function isShapedLike(sample: unknown, value: unknown): boolean {
  if (sample instanceof Uint8Array) return value instanceof Uint8Array;
  if (Array.isArray(sample)) {
    if (!Array.isArray(value)) return false;
    return sample.length === 0 || value.every((element) => isShapedLike(sample[0], element));
  }
  if (typeof sample === "number") return Number.isFinite(value);
  if (typeof sample !== "object" || sample === null) return typeof sample === typeof value;
  if (typeof value !== "object" || value === null) return false;
  return Object.entries(sample).every(([key, part]) =>
    isShapedLike(part, (value as Record<string, unknown>)[key]),
  );
}
