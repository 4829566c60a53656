import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { INTEGER_BINARY } from "./fold.ts";
import { ModuleBuilder } from "./module.ts";

const MEMORY = { minimum: 1, maximum: 1, shared: false };

function instantiate(m: ModuleBuilder): Record<string, (...args: (number | bigint)[]) => never> {
  const memory = new WebAssembly.Memory({ initial: 1, maximum: 1 });
  const instance = new WebAssembly.Instance(new WebAssembly.Module(m.finish()), {
    env: { memory },
  });
  return instance.exports as Record<string, (...args: (number | bigint)[]) => never>;
}

test("every integer operation means in WebAssembly what the folder says", () => {
  const m = new ModuleBuilder(MEMORY);
  for (const name of Object.keys(INTEGER_BINARY)) {
    for (const type of ["i32", "i64"] as const) {
      const result = /^(eq|ne|lt|gt|le|ge)/.test(name) ? "i32" : type;
      m.function(
        `${type}.${name}`,
        [type, type],
        [result],
        (b) => b.return(b.param(0).bin(name, b.param(1))),
        true,
      );
    }
  }
  const e = instantiate(m);
  fc.assert(
    fc.property(
      fc.bigInt({ min: -(1n << 63n), max: (1n << 63n) - 1n }),
      fc.bigInt({ min: -(1n << 63n), max: (1n << 63n) - 1n }),
      (a, b) => {
        for (const [name, fold] of Object.entries(INTEGER_BINARY)) {
          const expected64 = fold(a, b, 64n);
          if (expected64 !== null && !(name === "div_s" && b === -1n)) {
            assert.equal(
              BigInt.asIntN(64, BigInt(e[`i64.${name}`]!(a, b))),
              BigInt.asIntN(64, expected64),
              `i64.${name}`,
            );
          }
          const x = BigInt.asIntN(32, a);
          const y = BigInt.asIntN(32, b);
          const expected32 = fold(x, y, 32n);
          if (expected32 !== null && !(name === "div_s" && y === -1n)) {
            assert.equal(
              BigInt(e[`i32.${name}`]!(Number(x), Number(y))),
              BigInt.asIntN(32, expected32),
              `i32.${name}`,
            );
          }
        }
      },
    ),
    { numRuns: 200 },
  );
});

test("values keep their meaning across variables, bodies, loops and switches", () => {
  const m = new ModuleBuilder(MEMORY);
  m.function(
    "sum",
    ["i32"],
    ["i32"],
    (b) => {
      const i = b.variable("i32", 0);
      const total = b.variable("i32", 0);
      b.while(
        () => i.read().ltU(b.param(0)),
        () => {
          const before = i.read();
          i.set(before.add(1));
          total.set(total.read().add(before.mul(before)));
        },
      );
      b.return(total.read());
    },
    true,
  );
  m.function(
    "pick",
    ["i32"],
    ["i32"],
    (b) => {
      const r = b.variable("i32", -1);
      b.switch(b.param(0), [() => r.set(10), () => r.set(20)], () => r.set(99));
      b.return(r.read());
    },
    true,
  );
  m.function(
    "swap",
    ["i32", "i32"],
    ["i32"],
    (b) => {
      const x = b.variable("i32", b.param(0));
      const y = b.variable("i32", b.param(1));
      const old = x.read();
      x.set(y.read());
      y.set(old);
      b.return(x.read().shl(8).or(y.read()));
    },
    true,
  );
  const e = instantiate(m);
  assert.equal(e.sum!(5), 30);
  assert.deepEqual(
    [0, 1, 2, 77].map((x) => e.pick!(x)),
    [10, 20, 99, 99],
  );
  assert.equal(e.swap!(1, 2), 0x201);
});

test("a value used outside the body that made it is refused", () => {
  const m = new ModuleBuilder(MEMORY);
  m.function("bad", ["i32"], ["i32"], (b) => {
    let inner = b.param(0);
    b.if(b.param(0), () => {
      inner = b.load("i32.load", b.param(0));
    });
    b.return(inner.add(inner));
  });
  assert.throws(() => m.finish(), /outside its body/);
});
