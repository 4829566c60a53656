/**
 * The order of versions.
 * Spec: Debian Policy, "Version" (5.6.12): [EPOCH:]UPSTREAM[-REVISION]; letters before other characters, "~" before everything, even the end.
 */

/** Negative: `a` is the lower one. */
export function compareVersions(a: string, b: string): number {
  const [one, other] = [split(a), split(b)];
  return (
    one.epoch - other.epoch ||
    compareParts(one.upstream, other.upstream) ||
    compareParts(one.revision, other.revision)
  );
}

function split(version: string): { epoch: number; upstream: string; revision: string } {
  const colon = version.indexOf(":");
  const rest = version.slice(colon + 1);
  const hyphen = rest.lastIndexOf("-");
  return {
    epoch: colon < 0 ? 0 : Number(version.slice(0, colon)) || 0,
    upstream: hyphen < 0 ? rest : rest.slice(0, hyphen),
    revision: hyphen < 0 ? "" : rest.slice(hyphen + 1),
  };
}

function compareParts(a: string, b: string): number {
  let [i, j] = [0, 0];
  while (i < a.length || j < b.length) {
    while ((i < a.length && !isDigit(a[i]!)) || (j < b.length && !isDigit(b[j]!))) {
      const difference = weight(a[i]) - weight(b[j]);
      if (difference !== 0) return difference;
      i++;
      j++;
    }
    const [one, other] = [digits(a, i), digits(b, j)];
    i += one.length;
    j += other.length;
    const difference = BigInt(one || "0") - BigInt(other || "0");
    if (difference !== 0n) return difference < 0n ? -1 : 1;
  }
  return 0;
}

/** Of what is no number; the end, and where a number begins, weigh nothing. */
function weight(character: string | undefined): number {
  if (character === undefined || isDigit(character)) return 0;
  if (character === "~") return -1;
  const code = character.charCodeAt(0);
  return /[A-Za-z]/.test(character) ? code : code + 256;
}

function digits(text: string, at: number): string {
  return /^\d*/.exec(text.slice(at))![0];
}

function isDigit(character: string): boolean {
  return character >= "0" && character <= "9";
}
