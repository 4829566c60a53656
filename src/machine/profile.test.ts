import assert from "node:assert/strict";
import { test } from "node:test";
import type { SymbolList } from "../control/protocol.ts";
import { findSymbol, MAX_SAMPLES, Profile } from "./profile.ts";

const SYMBOLS: SymbolList = {
  starts: BigUint64Array.of(0x40_1000n, 0x40_1100n, 0xffff_ffff_8100_0000n),
  ends: BigUint64Array.of(0x40_1080n, 0x40_1200n, 0xffff_ffff_8100_0040n),
  names: ["main", "work", "startup_64"],
};

/** What speedscope reads of a file, as frame names. */
function read(json: string) {
  const file = JSON.parse(json);
  const [profile] = file.profiles;
  const frames: { name: string }[] = file.shared.frames;
  const stacks = profile.samples.map((stack: number[]) =>
    stack.map((frame) => frames[frame]!.name).join(" "),
  );
  return { file, profile, stacks };
}

test("an address has the symbol that covers it, or none", () => {
  const cases: [bigint, string | undefined][] = [
    [0n, undefined],
    [0x40_0fffn, undefined],
    [0x40_1000n, "main"],
    [0x40_107fn, "main"],
    [0x40_1080n, undefined],
    [0x40_1100n, "work"],
    [0xffff_ffff_8100_003fn, "startup_64"],
    [0xffff_ffff_ffff_ffffn, undefined],
  ];
  for (const [address, name] of cases)
    assert.equal(findSymbol(SYMBOLS, address), name, address.toString(16));
  const none = { starts: new BigUint64Array(0), ends: new BigUint64Array(0), names: [] };
  assert.equal(findSymbol(none, 5n), undefined);
});

test("the file is speedscope's, type sampled, weighted by instructions, as its name says", () => {
  const profile = new Profile({ every: 50, symbols: SYMBOLS });
  profile.take(0xffff_ffff_8100_0010n, 0);
  profile.take(0x40_1010n, 3);
  profile.take(0x40_1020n, 3);
  profile.take(0xffff_ffff_81a1_8123n, 0);
  const { file, profile: body, stacks } = read(profile.toJson());
  assert.equal(file.$schema, "https://www.speedscope.app/file-format-schema.json");
  assert.deepEqual(stacks, [
    "kernel startup_64",
    "user main",
    "user main",
    "kernel 0xffffffff81a18000",
  ]);
  assert.deepEqual([body.type, body.unit], ["sampled", "none"]);
  assert.deepEqual(body.weights, [50, 50, 50, 50]);
  assert.deepEqual([body.startValue, body.endValue], [0, 200]);
  assert.match(body.name, /every 50 instructions .*not time/);
  const names = file.shared.frames.map(({ name }: { name: string }) => name);
  assert.equal(new Set(names).size, names.length);
});

test("names of any characters stay what they are", () => {
  const name = '"}\\\n\u2028\u0000';
  const symbols = { starts: BigUint64Array.of(1n), ends: BigUint64Array.of(2n), names: [name] };
  const profile = new Profile({ every: 1, symbols });
  profile.take(1n, 0);
  assert.deepEqual(read(profile.toJson()).stacks, [`kernel ${name}`]);
});

test("a run without a sample is a file, too", () => {
  const { profile, stacks } = read(new Profile({ every: 1000 }).toJson());
  assert.deepEqual([stacks, profile.weights, profile.endValue], [[], [], 0]);
});

test("when samples become too many the interval doubles, and the whole run stays covered", () => {
  const profile = new Profile({ every: 10 });
  let retired = 0;
  // Sample n is at page n: which ones are kept can be seen.
  for (let n = 1; retired < 10 * MAX_SAMPLES; n++) {
    retired += profile.every;
    profile.take(BigInt(n) << 12n, 0);
  }
  assert.deepEqual([profile.every, profile.samples], [20, MAX_SAMPLES / 2]);
  const { file, profile: body, stacks } = read(profile.toJson());
  assert.equal(body.endValue, retired);
  assert.deepEqual(stacks.slice(0, 2), ["kernel 0x2000", "kernel 0x4000"]);
  assert.equal(stacks.at(-1), `kernel 0x${(MAX_SAMPLES * 4096).toString(16)}`);
  assert.match(file.name, /every 20 instructions/);
});

test("an interval that is none is our own mistake", () => {
  for (const every of [0, -1, 0.5, Number.NaN, Infinity])
    assert.throws(() => new Profile({ every }), /interval/);
});
