import assert from "node:assert/strict";
import { test } from "node:test";
import { loadKernel } from "./load-kernel.ts";
import { MIB, machineOptions, makeElf, refusal, TestRam } from "./testing/synthetic-kernels.ts";

/** A Multiboot header (flags, then its address fields), followed by HLT. */
function header(flags: number, addresses: readonly number[] = []): Uint8Array {
  const view = new DataView(new ArrayBuffer(33));
  view.setUint32(0, 0x1bad_b002, true);
  view.setUint32(4, flags, true);
  view.setUint32(8, -(0x1bad_b002 + flags), true);
  addresses.forEach((address, i) => void view.setUint32(12 + i * 4, address, true));
  view.setUint8(32, 0xf4);
  return new Uint8Array(view.buffer);
}

/** header_addr, load_addr, load_end_addr, bss_end_addr, entry_addr of an image at 2 MiB. */
const ADDRESSES = [0x20_0000, 0x20_0000, 0, 0x20_1000, 0x20_0020];

test("an ELF kernel is entered with the loader's magic and information (Machine state)", () => {
  for (const bits of [32, 64] as const) {
    const initrd = new Uint8Array(100).fill(7);
    const kernel = makeElf({ bits, contents: header(3), entry: 0x100_0020n });
    const options = machineOptions(kernel, 32, { initrd, cmdline: "test=1" });
    const state = loadKernel(options);
    const { ram } = options;
    assert.equal(state.protocol, "multiboot");
    assert.equal(state.mode, "protected32");
    assert.equal(state.rip, 0x100_0020);
    assert.equal(state.rax, 0x2bad_b002);
    const info = state.rbx;
    assert.equal(ram.u32(info), 1 | 4 | 8 | 0x40 | 0x200);
    assert.equal(ram.u32(info + 4), 639);
    assert.equal(ram.u32(info + 8), 31 * 1024);
    assert.equal(ram.text(ram.u32(info + 16)), "test=1");
    assert.equal(ram.u32(info + 20), 1);
    const module = ram.u32(info + 24);
    assert.equal(ram.u32(module + 4) - ram.u32(module), 100);
    assert.equal(ram.u8(ram.u32(module)), 7);
    assert.equal(ram.text(ram.u32(module + 8)), "");
    assert.equal(ram.u32(info + 44), options.e820.length * 24);
    const map = ram.u32(info + 48);
    options.e820.forEach(({ base, length, type }, i) => {
      const at = map + i * 24;
      assert.deepEqual([ram.u32(at), ram.u64(at + 4), ram.u64(at + 12)], [20, base, length]);
      assert.equal(ram.u32(at + 20), type);
    });
    assert.equal(ram.text(ram.u32(info + 64)), "hypolith");
  }
});

test("an image with load addresses in its header is loaded as they say", () => {
  const kernel = Uint8Array.from([...Array(64).fill(0xcc), ...header(0x1_0000, ADDRESSES)]);
  const options = machineOptions(kernel, 16, { ram: new TestRam(16 * MIB, true) });
  const state = loadKernel(options);
  assert.equal(state.rip, 0x20_0020);
  assert.equal(options.ram.u32(0x20_0000), 0x1bad_b002);
  assert.equal(options.ram.u8(0x20_0020), 0xf4);
  assert.ok(options.ram.bytes.subarray(0x20_0021, 0x20_1000).every((byte) => byte === 0));
  assert.equal(options.ram.u8(0x20_1000), 0xa5);
});

test("the PVH entry is preferred to the Multiboot header", () => {
  const kernel = makeElf({ contents: header(0), pvhEntry: 0x100_0020 });
  assert.equal(loadKernel(machineOptions(kernel, 32)).protocol, "pvh");
});

test("requirements that cannot be met are refused", () => {
  const video = machineOptions(makeElf({ contents: header(4) }), 32);
  assert.match(refusal(video, "kernel-unsupported").message, /video mode/);
  const unknown = machineOptions(makeElf({ contents: header(0x100) }), 32);
  assert.match(refusal(unknown, "kernel-unsupported").message, /flags 0x100/);
});

test("contradicting addresses are damage; addresses outside memory are refused", () => {
  const [at, load, , bss, entry] = ADDRESSES as [number, number, number, number, number];
  const bad: readonly (readonly number[])[] = [
    [load - 4, load, 0, bss, entry],
    [load + 0x1000, load, 0, bss, entry],
    [at, load, load + 0x1_0000, bss, entry],
    [at, load, load - 1, bss, entry],
    [at, load, 0, bss, load + 0x1000],
    [at, load, 0, bss, load - 1],
  ];
  for (const addresses of bad) {
    refusal(machineOptions(header(0x1_0000, addresses), 16), "kernel-damaged");
  }
  const far = header(0x1_0000, [at, load, 0, 17 * MIB, entry]);
  refusal(machineOptions(far, 16), "memory-too-small");
  refusal(machineOptions(header(0x1_0000, ADDRESSES).subarray(0, 20), 16), "kernel-damaged");
});

test("a header without load addresses needs an ELF file around it", () => {
  refusal(machineOptions(header(0), 16), "kernel-damaged");
});
