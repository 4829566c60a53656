import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { HypolithError } from "../../base/errors.ts";
import type { BootRegion } from "./boot-state.ts";
import { type BootMode, loadKernel } from "./load-kernel.ts";
import {
  lz4Payload,
  MIB,
  machineOptions,
  makeBzImage,
  makeElf,
  PAYLOAD_AT,
  refusal,
  TestRam,
} from "./testing/synthetic-kernels.ts";

const vmlinux = makeElf({ pvhEntry: 0x100_0001 });
const withPayload = (elf: Uint8Array) => makeBzImage({ payload: lz4Payload(elf) });
/** Only the magic is real: decompressors in these tests look no further. */
const gzipPayload = (size: number) => Uint8Array.of(0x1f, 0x8b, 8, 0, size, size >> 8, 0, 0);

test("auto unpacks a payload it can decode and enters it by PVH", () => {
  const options = machineOptions(withPayload(vmlinux), 32);
  const state = loadKernel(options);
  assert.equal(state.protocol, "pvh");
  assert.equal(state.rip, 0x100_0001);
  assert.deepEqual([...options.ram.bytes.subarray(0x100_0000, 0x100_0003)], [0xf4, 0xeb, 0xfd]);
  assert.deepEqual(state.notes, []);
});

test("auto enters an unpacked kernel without a PVH entry as its own unpacker would", () => {
  const options = machineOptions(withPayload(makeElf()), 32);
  const state = loadKernel(options);
  assert.equal(state.protocol, "direct");
  assert.equal(state.mode, "long64");
  assert.equal(options.ram.u16(0x7000 + 0x206), 0x20f, "with the bzImage's setup header");
  assert.deepEqual(state.notes, ["it has no PVH entry"]);
});

test("auto leaves what it cannot decode to the kernel itself, and says so", () => {
  const state = loadKernel(machineOptions(makeBzImage({ payload: gzipPayload(500) }), 32));
  assert.equal(state.protocol, "linux64");
  assert.match(state.notes[0]!, /gzip payload/);
  assert.match(loadKernel(machineOptions(makeBzImage(), 32)).notes[0]!, /no payload/);
});

test("a passed-in decompressor gives the fast path to its format", () => {
  const payload = gzipPayload(vmlinux.length);
  const options = machineOptions(makeBzImage({ payload }), 32, {
    decompressors: {
      gzip: (stream, size) => {
        assert.deepEqual(stream, payload);
        assert.equal(size, vmlinux.length);
        return vmlinux;
      },
    },
  });
  assert.equal(loadKernel(options).protocol, "pvh");
});

test("a decompressor that fails, or gives no ELF, means a damaged kernel", () => {
  const load = (gzip: () => Uint8Array) =>
    refusal(
      machineOptions(makeBzImage({ payload: gzipPayload(500) }), 32, { decompressors: { gzip } }),
      "kernel-damaged",
    );
  const cause = new Error("incorrect data check");
  const failed = load(() => {
    throw cause;
  });
  assert.equal(failed.cause, cause);
  assert.match(failed.message, /gzip payload is damaged: incorrect data check/);
  load(() => new Uint8Array(500));
  load(() => vmlinux);
});

test("a damaged payload is refused rather than left to hang in the guest", () => {
  const kernel = withPayload(vmlinux);
  kernel[5 * 512 + PAYLOAD_AT + 4] = 0;
  refusal(machineOptions(kernel, 32), "kernel-damaged");
  assert.equal(loadKernel(machineOptions(kernel, 32, { mode: "bzimage" })).protocol, "linux64");
});

test("modes force a way or refuse", () => {
  const image = withPayload(vmlinux);
  assert.equal(loadKernel(machineOptions(image, 32, { mode: "bzimage" })).protocol, "linux64");
  assert.equal(loadKernel(machineOptions(image, 32, { mode: "pvh" })).protocol, "pvh");
  assert.equal(loadKernel(machineOptions(vmlinux, 32, { mode: "pvh" })).protocol, "pvh");
  const refused = (kernel: Uint8Array, mode: "bzimage" | "pvh", code: string) =>
    refusal(machineOptions(kernel, 32, { mode }), code).message;
  assert.match(refused(makeBzImage(), "pvh", "kernel-unsupported"), /no payload/);
  assert.match(refused(withPayload(makeElf()), "pvh", "kernel-unsupported"), /no PVH entry/);
  assert.match(refused(makeElf(), "pvh", "kernel-unsupported"), /no PVH entry note/);
  assert.match(refused(vmlinux, "bzimage", "kernel-unsupported"), /ELF image, not a Linux bzImage/);
  refused(new Uint8Array(64), "pvh", "kernel-unrecognized");
});

test("the kernel's init_size also binds when it is unpacked here", () => {
  const kernel = makeBzImage({ payload: lz4Payload(vmlinux), initSize: 20 * MIB });
  refusal(machineOptions(kernel, 32), "memory-too-small");
});

test("a payload said to be larger than memory is not unpacked", () => {
  const payload = lz4Payload(vmlinux);
  new DataView(payload.buffer).setUint32(payload.length - 4, 0xffff_ffff, true);
  const state = loadKernel(machineOptions(makeBzImage({ payload }), 32));
  assert.match(state.notes[0]!, /larger than memory/);
});

test("an empty kernel file is refused", () => {
  refusal(machineOptions(new Uint8Array(0), 32), "kernel-empty");
});

test("no machine is too small to get a coded answer", () => {
  for (const kernel of [makeBzImage(), vmlinux, makeElf()]) {
    for (const mib of [0.25, 0.5, 1, 1.5, 2, 16]) {
      refusal(machineOptions(kernel, mib), "memory-too-small");
    }
  }
});

test("damaged kernels give a BootState inside RAM or a coded refusal", () => {
  const ram = new TestRam(4 * MIB);
  let entered = 0;
  const check = (kernel: Uint8Array, mode: BootMode) => {
    try {
      const options = { ram, mode, initrd: kernel.subarray(0, 64) };
      const state = loadKernel(machineOptions(kernel, 4, options));
      const holds = (r: BootRegion) => state.rip >= r.start && state.rip < r.start + r.size;
      assert.ok(state.regions.some((r) => r.name === "kernel" && holds(r)));
      for (const { start, size } of state.regions) assert.ok(start + size <= 4 * MIB);
      entered++;
    } catch (error) {
      if (!(error instanceof HypolithError)) throw error;
    }
  };
  fc.assert(fc.property(damagedKernel(), fc.constantFrom("auto", "bzimage", "pvh"), check), {
    numRuns: 3000,
  });
  assert.ok(entered > 300 && entered < 2700, `${entered} of 3000 were entered`);
});

/** Kernels of all kinds with a few header bytes changed or the end cut off. */
function damagedKernel(): fc.Arbitrary<Uint8Array> {
  const multiboot = [0x02, 0xb0, 0xad, 0x1b, 0, 0, 1, 0, 0xfe, 0x4f, 0x51, 0xe4];
  const addresses = [0, 0, 0x20, 0, 0, 0, 0x20, 0, 0, 0, 0, 0, 0, 0x10, 0x20, 0, 0x20, 0, 0x20, 0];
  const place = { physical: 2 * MIB, pvhEntry: 2 * MIB };
  const subjects = [
    makeBzImage({ prefAddress: 2 * MIB, initSize: MIB }),
    makeBzImage({ prefAddress: 2 * MIB, initSize: MIB, xloadflags: 0, relocatable: false }),
    makeBzImage({ prefAddress: 2 * MIB, initSize: MIB, payload: lz4Payload(makeElf(place)) }),
    makeElf(place),
    makeElf({ physical: 2 * MIB, bits: 32 }),
    Uint8Array.from([...multiboot, ...addresses, 0xf4]),
  ];
  const byte = fc.oneof(fc.constantFrom(0, 1, 0x7f, 0x80, 0xff), fc.nat(255));
  // Mostly the boot sector and program headers, the bzImage's fields, and the payload's first bytes.
  const at = fc.oneof(fc.nat(0x200), fc.integer({ min: 0x1f0, max: 0x270 }), fc.nat(0x1400));
  const edit = fc.tuple(at, fc.array(byte, { minLength: 1, maxLength: 8 }));
  const length = fc.option(fc.integer({ min: 1, max: 0x1c00 }), { freq: 4 });
  return fc
    .tuple(fc.constantFrom(...subjects), fc.array(edit, { maxLength: 3 }), length)
    .map(([file, edits, cut]) => {
      const kernel = file.slice(0, cut ?? file.length);
      for (const [start, bytes] of edits) {
        if (start < kernel.length) kernel.set(bytes.slice(0, kernel.length - start), start);
      }
      return kernel;
    });
}
