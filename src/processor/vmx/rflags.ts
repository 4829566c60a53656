/**
 * RFLAGS of a state block as a number: the embedder-side reader and writer of the lazy flags that semantics/flags.ts defines.
 */
import { S } from "../state/layout.ts";

const PARITY_EVEN = Uint8Array.from({ length: 256 }, (_, n) => {
  let ones = 0;
  for (let rest = n; rest > 0; rest >>= 1) ones += rest & 1;
  return (ones & 1) ^ 1;
});
const ARITHMETIC = 0x8d5;
const WRITABLE = 0x3f_7fd5;

export function readRflags(state: DataView): number {
  const low = state.getUint32(S.FLAG_RESULT.at, true);
  const high = state.getInt32(S.FLAG_RESULT.at + 4, true);
  const carry = state.getInt32(S.FLAG_CARRY.at, true);
  const cf = carry >>> 31;
  const pf = PARITY_EVEN[(low ^ (carry >>> 8)) & 0xff]!;
  const af = (carry >>> 3) & 1;
  const zf = low === 0 && high === 0 ? 1 : 0;
  const sf = (high >>> 31) ^ (carry & 1);
  const of = (carry ^ (carry << 1)) >>> 31;
  const image = cf | (pf << 2) | (af << 4) | (zf << 6) | (sf << 7) | (of << 11);
  return (state.getUint32(S.RFLAGS_REST.at, true) | image) >>> 0;
}

export function writeRflags(state: DataView, value: number): void {
  const bit = (n: number): number => (value >>> n) & 1;
  const zf = bit(6);
  state.setBigUint64(S.FLAG_RESULT.at, BigInt(zf ^ 1), true);
  const carry =
    (bit(0) << 31) | ((bit(11) ^ bit(0)) << 30) | (bit(4) << 3) | ((zf ^ bit(2)) << 8) | bit(7);
  state.setInt32(S.FLAG_CARRY.at, carry, true);
  state.setUint32(S.RFLAGS_REST.at, ((value & WRITABLE & ~ARITHMETIC) | 2) >>> 0, true);
}
