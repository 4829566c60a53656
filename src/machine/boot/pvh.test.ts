import assert from "node:assert/strict";
import { test } from "node:test";
import { loadKernel } from "./load-kernel.ts";
import { MIB, machineOptions, makeElf, refusal, TestRam } from "./testing/synthetic-kernels.ts";

const kernel = makeElf({ pvhEntry: 0x100_0001, memorySize: 0x5000 });

test("the processor is as the PVH ABI demands", () => {
  const state = loadKernel(machineOptions(kernel, 32));
  assert.equal(state.protocol, "pvh");
  assert.equal(state.mode, "protected32");
  assert.equal(state.rip, 0x100_0001);
  assert.deepEqual([state.cr0, state.cr4, state.efer, state.rflags], [0x11, 0, 0, 2]);
  const { cs, ds, es, tr } = state.segments;
  assert.deepEqual([cs.base, cs.limit, cs.accessRights], [0, 0xffff_ffff, 0xc09b]);
  for (const data of [ds, es]) {
    assert.deepEqual([data.base, data.limit, data.accessRights], [0, 0xffff_ffff, 0xc093]);
  }
  assert.deepEqual([tr.base, tr.limit, tr.accessRights], [0, 0x67, 0x8b]);
});

test("hvm_start_info carries command line, RSDP, memory map and the initrd as first module", () => {
  const initrd = Uint8Array.from({ length: 4097 }, (_, i) => i * 3);
  const options = machineOptions(kernel, 32, { initrd, cmdline: "a b=c", rsdpAddress: 0xe_0020 });
  const { rbx } = loadKernel(options);
  const { ram } = options;
  assert.equal(ram.u32(rbx), 0x336e_c578);
  assert.equal(ram.u32(rbx + 4), 1);
  assert.equal(ram.u32(rbx + 8), 0);
  assert.equal(ram.u32(rbx + 12), 1);
  const module = ram.u64(rbx + 16);
  assert.equal(ram.text(ram.u64(rbx + 24)), "a b=c");
  assert.equal(ram.u64(rbx + 32), 0xe_0020);
  const map = ram.u64(rbx + 40);
  assert.equal(ram.u32(rbx + 48), options.e820.length);
  options.e820.forEach(({ base, length, type }, i) => {
    const at = map + i * 24;
    assert.deepEqual([ram.u64(at), ram.u64(at + 8), ram.u64(at + 16)], [base, length, type]);
  });
  assert.equal(ram.u64(module + 8), 4097);
  const initrdAt = ram.u64(module);
  assert.deepEqual(ram.bytes.slice(initrdAt, initrdAt + 4097), initrd);
  assert.equal(ram.u64(module + 16), 0);
});

test("without an initrd there is no module", () => {
  const options = machineOptions(kernel, 32);
  const { rbx } = loadKernel(options);
  assert.deepEqual([options.ram.u32(rbx + 12), options.ram.u64(rbx + 16)], [0, 0]);
});

test("memory past a segment's file bytes is zeroed, even if used before", () => {
  const options = machineOptions(kernel, 32, { ram: new TestRam(32 * MIB, true) });
  loadKernel(options);
  const { bytes } = options.ram;
  assert.deepEqual([...bytes.subarray(0x100_0000, 0x100_0003)], [0xf4, 0xeb, 0xfd]);
  assert.ok(bytes.subarray(0x100_0003, 0x100_5000).every((byte) => byte === 0));
  assert.equal(bytes[0x100_5000], 0xa5);
});

test("kernels that leave memory or meet the loader's tables are refused", () => {
  const at = (physical: number, memorySize?: number) =>
    makeElf({ physical, pvhEntry: physical, ...(memorySize ? { memorySize } : {}) });
  refusal(machineOptions(at(32 * MIB), 32), "memory-too-small");
  refusal(machineOptions(at(31 * MIB, 2 * MIB), 32), "memory-too-small");
  refusal(machineOptions(at(0xe_0000), 32), "memory-reserved");
  refusal(machineOptions(at(0x9_f000, 0x1_0000), 32), "memory-reserved");
  const overlap = refusal(machineOptions(at(0x6f00), 32), "memory-overlap");
  assert.match(overlap.message, /start information at 0x6000-0x7000|kernel at 0x6f00/);
});

test("segments that overlap are damage, so that a file cannot ask for more work than memory", () => {
  const file = makeElf({ pvhEntry: 0x100_0000 });
  file.copyWithin(64 + 56, 64, 64 + 56); // the note's header becomes a second load segment
  refusal(machineOptions(file, 32), "kernel-damaged");
});

test("a PVH entry outside the image is damage", () => {
  refusal(machineOptions(makeElf({ pvhEntry: 0x200_0000 }), 64), "kernel-damaged");
});
