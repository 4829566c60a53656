import assert from "node:assert/strict";
import { test } from "node:test";
import { loadKernel } from "./load-kernel.ts";
import {
  MIB,
  machineOptions,
  makeBzImage,
  makeElf,
  refusal,
  type TestRam,
} from "./testing/synthetic-kernels.ts";

const PARAMS = 0x7000;

test("a 64-bit bzImage is entered at startup_64 with an identity map (64-bit BOOT PROTOCOL)", () => {
  const options = machineOptions(makeBzImage(), 32);
  const state = loadKernel(options);
  const { ram } = options;
  assert.equal(state.protocol, "linux64");
  assert.equal(state.mode, "long64");
  assert.equal(state.rip, 0x100_0200);
  assert.equal(state.rsi, PARAMS);
  assert.equal(state.rflags, 2);
  assert.equal(state.cr0, 0x8000_0011);
  assert.equal(state.cr4, 0x20);
  assert.equal(state.efer, 0x500);
  assert.deepEqual(state.segments.cs, {
    selector: 0x10,
    base: 0,
    limit: 0xffff_ffff,
    accessRights: 0xa09b,
  });
  assert.deepEqual(state.segments.ss, {
    selector: 0x18,
    base: 0,
    limit: 0xffff_ffff,
    accessRights: 0xc093,
  });
  assert.equal(ram.u64(state.gdtr.base + 0x10), Number(0x00af_9b00_0000_ffffn));
  for (const address of [0, 0x12_3456, 0x100_0200, 0xbfff_ffff, 0xffff_ffff]) {
    assert.equal(translate(ram, state.cr3, address), address);
  }
  assert.equal(ram.u8(0x100_0000), 0x90);
});

test("a bzImage without XLF_KERNEL_64 is entered flat at code32_start (32-bit BOOT PROTOCOL)", () => {
  const options = machineOptions(makeBzImage({ xloadflags: 0 }), 32);
  const state = loadKernel(options);
  assert.equal(state.protocol, "linux32");
  assert.equal(state.mode, "protected32");
  assert.equal(state.rip, 0x100_0000);
  assert.equal(state.rsi, PARAMS);
  assert.deepEqual([state.rbx, state.rax], [0, 0]);
  assert.deepEqual([state.cr0, state.cr3, state.cr4, state.efer], [0x11, 0, 0, 0]);
  assert.equal(state.segments.cs.selector, 0x10);
  assert.equal(state.segments.cs.accessRights, 0xc09b);
  assert.equal(state.segments.ds.selector, 0x18);
  assert.equal(options.ram.u64(state.gdtr.base + 0x10), Number(0x00cf_9b00_0000_ffffn));
});

test("boot_params carry the setup header, command line, initrd, memory map and RSDP", () => {
  const initrd = Uint8Array.from({ length: 5000 }, (_, i) => i);
  const cmdline = "console=ttyS0 init=/ä";
  const options = machineOptions(makeBzImage(), 64, { initrd, cmdline, rsdpAddress: 0xe_0010 });
  loadKernel(options);
  const { ram } = options;
  assert.equal(ram.u32(PARAMS + 0x202), 0x5372_6448);
  assert.equal(ram.u16(PARAMS + 0x206), 0x20f);
  assert.equal(ram.u16(PARAMS + 0x1fa), 0xffff);
  assert.equal(ram.u8(PARAMS + 0x210), 0xff);
  assert.equal(ram.u8(PARAMS + 0x211), 0x81);
  assert.equal(ram.u32(PARAMS + 0x214), 0x100_0000);
  assert.equal(ram.u32(PARAMS + 0x23c), 0);
  assert.equal(ram.u64(PARAMS + 0x70), 0xe_0010);

  const commandLineAt = ram.u32(PARAMS + 0x228);
  assert.equal(Buffer.from(ram.text(commandLineAt), "latin1").toString("utf8"), cmdline);

  const initrdAt = ram.u32(PARAMS + 0x218);
  assert.equal(ram.u32(PARAMS + 0x21c), 5000);
  assert.equal(initrdAt, 64 * MIB - 0x2000, "as high as possible, on a page");
  assert.deepEqual(ram.bytes.slice(initrdAt, initrdAt + 5000), initrd);

  assert.equal(ram.u8(PARAMS + 0x1e8), options.e820.length);
  options.e820.forEach(({ base, length, type }, i) => {
    const at = PARAMS + 0x2d0 + i * 20;
    assert.deepEqual([ram.u64(at), ram.u64(at + 8), ram.u32(at + 16)], [base, length, type]);
  });
});

test("everything else in boot_params is zero: no sentinel, screen, EFI or APM", () => {
  const options = machineOptions(makeBzImage(), 32);
  loadKernel(options);
  const { ram } = options;
  const isZero = (from: number, to: number) =>
    ram.bytes.subarray(PARAMS + from, PARAMS + to).every((byte) => byte === 0);
  assert.ok(isZero(0, 0x70) && isZero(0x78, 0x1e8) && isZero(0x1e9, 0x1f1));
  assert.ok(isZero(0x26c, 0x2d0) && isZero(0x2d0 + options.e820.length * 20, 0x1000));
});

test("a kernel that is not relocatable is loaded at 1 MiB, and its own place is kept free", () => {
  const initrd = new Uint8Array(11 * MIB);
  const image = makeBzImage({ relocatable: false, prefAddress: 2 * MIB, initSize: 2 * MIB });
  const state = loadKernel(machineOptions(image, 16, { initrd }));
  assert.equal(state.rip, 0x10_0200);
  const kernel = state.regions.find((r) => r.name === "kernel" && r.start === 2 * MIB);
  assert.equal(kernel?.size, 2 * MIB);
  refusal(machineOptions(image, 14, { initrd }), "initrd-too-large");
});

test("a preferred address off the kernel's alignment is rounded up", () => {
  const image = makeBzImage({ prefAddress: 0x100_0000 - 4096 });
  assert.equal(loadKernel(machineOptions(image, 32)).rip, 0x100_0200);
});

test("the initrd stays below initrd_addr_max", () => {
  const initrd = new Uint8Array(4096);
  const image = makeBzImage({ initrdMax: 0x13f_ffff, xloadflags: 1 });
  const options = machineOptions(image, 64, { initrd });
  loadKernel(options);
  assert.equal(options.ram.u32(PARAMS + 0x218), 0x13f_f000);
});

test("memory below init_size is refused with need and gift named", () => {
  const image = makeBzImage({ initSize: 53 * MIB });
  const error = refusal(machineOptions(image, 64), "memory-too-small");
  assert.match(error.message, /up to 69\.0 MiB \(0x4500000\), the machine has 64\.0 MiB/);
  assert.match(error.hint!, /at least 69 MiB/);
});

test("an initrd that does not fit is refused with sizes named", () => {
  const initrd = new Uint8Array(20 * MIB);
  const error = refusal(machineOptions(makeBzImage(), 32, { initrd }), "initrd-too-large");
  assert.match(error.message, /initrd of 20\.0 MiB .* of 32\.0 MiB of memory, 15\.0 MiB are free/);
  assert.match(error.hint!, /at least 37 MiB/);
  const below = machineOptions(makeBzImage({ initrdMax: 0xffff, xloadflags: 1 }), 32, { initrd });
  assert.match(refusal(below, "initrd-too-large").message, /below 0x10000/);
});

test("an empty initrd is refused", () => {
  const options = machineOptions(makeBzImage(), 32, { initrd: new Uint8Array(0) });
  refusal(options, "initrd-empty");
});

test("a command line past the kernel's limit is refused with the limit named", () => {
  const image = makeBzImage({ cmdlineSize: 100 });
  assert.doesNotThrow(() => loadKernel(machineOptions(image, 32, { cmdline: "x".repeat(100) })));
  const tooLong = machineOptions(image, 32, { cmdline: "x".repeat(101) });
  assert.match(refusal(tooLong, "command-line-too-long").message, /101 bytes.* accepts 100/);
  refusal(machineOptions(image, 32, { cmdline: "a\0b" }), "command-line-invalid");
  const absurd = makeBzImage({ cmdlineSize: 0xffff_ffff });
  const huge = machineOptions(absurd, 32, { cmdline: "x".repeat(70_000) });
  assert.match(refusal(huge, "command-line-too-long").message, /accepts 65535/);
});

test("an unpacked Linux kernel without a PVH entry is entered with boot_params in (R|E)SI", () => {
  for (const bits of [32, 64] as const) {
    const options = machineOptions(makeElf({ bits }), 32);
    const state = loadKernel(options);
    assert.equal(state.protocol, "direct");
    assert.equal(state.mode, bits === 64 ? "long64" : "protected32");
    assert.equal(state.rip, 0x100_0000);
    assert.equal(state.rsi, PARAMS);
    assert.equal(options.ram.u32(PARAMS + 0x202), 0x5372_6448);
    assert.equal(options.ram.u16(PARAMS + 0x1fe), 0xaa55);
    assert.equal(options.ram.u8(PARAMS + 0x1e8), options.e820.length);
  }
});

/** Walks the loader's 4-level tables of 2 MiB pages. */
function translate(ram: TestRam, cr3: number, address: number): number {
  const pdpt = ram.u64(cr3 + Math.floor(address / 2 ** 39) * 8);
  const directory = ram.u64((pdpt & ~0xfff) + Math.floor(address / 2 ** 30) * 8);
  const entry = ram.u64((directory & ~0xfff) + (Math.floor(address / 2 ** 21) % 512) * 8);
  assert.equal(pdpt & 3, 3);
  assert.equal(directory & 3, 3);
  assert.equal(entry % 0x1000, 0x83);
  return entry - 0x83 + (address % 2 ** 21);
}
