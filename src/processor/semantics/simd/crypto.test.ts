import assert from "node:assert/strict";
import { test } from "node:test";
import { Driver, fromHex, toHex } from "./testing/driver.ts";
import { slot } from "./testing/harness.ts";
import { Rng, randomVector } from "./testing/values.ts";

const driver = new Driver([
  "AESENC",
  "AESENCLAST",
  "AESDEC",
  "AESDECLAST",
  "AESIMC",
  "AESKEYGENASSIST",
  "PCLMULQDQ",
  "CRC32",
]);

function apply(name: string, a: Uint8Array, b: Uint8Array, imm = 0): Uint8Array {
  driver.setXmm(1, a);
  driver.setXmm(2, b);
  assert.equal(driver.run(name, { imm }), -1);
  return driver.xmm(1);
}

const RCON = [1, 2, 4, 8, 0x10, 0x20, 0x40, 0x80, 0x1b, 0x36];
const EMPTY = new Uint8Array(16);

/** AES-128 key schedule by AESKEYGENASSIST. */
function schedule(key: Uint8Array): Uint8Array[] {
  const keys = [key];
  for (const rcon of RCON) {
    const last = keys[keys.length - 1]!;
    const assist = apply("AESKEYGENASSIST", EMPTY, last, rcon).subarray(12);
    const next = new Uint8Array(16);
    for (let i = 0; i < 16; i++) next[i] = last[i]! ^ (i < 4 ? assist[i]! : next[i - 4]!);
    keys.push(next);
  }
  return keys;
}

const xor = (a: Uint8Array, b: Uint8Array): Uint8Array => a.map((v, i) => v ^ b[i]!);

test("AES-128 encrypts and decrypts the example of FIPS 197, Appendix C.1", () => {
  driver.reset();
  const plain = fromHex("00112233445566778899aabbccddeeff");
  const cipher = "69c4e0d86a7b0430d8cdb78070b4c55a";
  const keys = schedule(fromHex("000102030405060708090a0b0c0d0e0f"));
  assert.equal(toHex(keys[10]!), "13111d7fe3944a17f307a78b4d2b30c5");
  let state = xor(plain, keys[0]!);
  for (let i = 1; i < 10; i++) state = apply("AESENC", state, keys[i]!);
  state = apply("AESENCLAST", state, keys[10]!);
  assert.equal(toHex(state), cipher);
  state = xor(state, keys[10]!);
  for (let i = 9; i > 0; i--) state = apply("AESDEC", state, apply("AESIMC", EMPTY, keys[i]!));
  assert.deepEqual(apply("AESDECLAST", state, keys[0]!), plain);
});

test("PCLMULQDQ multiplies polynomials over GF(2)", () => {
  const rng = new Rng(2);
  const half = (v: Uint8Array, high: boolean): bigint => {
    let n = 0n;
    for (let i = 7; i >= 0; i--) n = (n << 8n) | BigInt(v[i + (high ? 8 : 0)]!);
    return n;
  };
  for (let i = 0; i < 100; i++) {
    const [a, b] = [randomVector(rng, null), randomVector(rng, null)];
    const imm = rng.pick([0, 1, 0x10, 0x11]);
    const [x, y] = [half(a, (imm & 1) !== 0), half(b, (imm & 0x10) !== 0)];
    let product = 0n;
    for (let k = 0n; k < 64n; k++) if ((y >> k) & 1n) product ^= x << k;
    const r = apply("PCLMULQDQ", a, b, imm);
    assert.equal((half(r, true) << 64n) | half(r, false), product);
  }
});

test("CRC32 of '123456789' is the check value of CRC-32C, whatever the steps", () => {
  const text = Array.from("123456789", (c) => c.charCodeAt(0));
  driver.reset();
  driver.setGpr(1, 0xffff_ffffn);
  for (const byte of text) {
    driver.setGpr(2, BigInt(byte));
    assert.equal(driver.run("CRC32"), -1);
  }
  assert.equal(driver.bench.view.getUint32(slot.gpr(1), true) ^ -1, 0xe3069283 | 0);
});
