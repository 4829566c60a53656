/**
 * A digest of a VM's registers and RAM (FNV-1a over 32-bit words, two lanes), to tell whether two runs are equal. Not cryptographic.
 */
const STATE_FROM = 0x100;
const STATE_TO = 0x5b0;
const PRIME = 0x0100_0193;

export function hashState(view: DataView, ramBase: number): string {
  const words = new Uint32Array(view.buffer, 0, view.byteLength >>> 2);
  let a = 0x811c_9dc5;
  let b = 0x1234_5678;
  const add = (from: number, to: number): void => {
    for (let i = from >>> 2; i < to >>> 2; i++) {
      const w = words[i]!;
      a = Math.imul(a ^ w, PRIME);
      b = Math.imul(b ^ (w + i), PRIME) ^ (b >>> 15);
    }
  };
  add(STATE_FROM, STATE_TO);
  add(ramBase, view.byteLength);
  const hex = (n: number): string => (n >>> 0).toString(16).padStart(8, "0");
  return hex(a) + hex(b);
}
