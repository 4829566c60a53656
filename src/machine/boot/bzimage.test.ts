import assert from "node:assert/strict";
import { test } from "node:test";
import { isBzImage, parseBzImage } from "./bzimage.ts";
import { makeBzImage } from "./testing/synthetic-kernels.ts";

test("header fields are read (boot.rst, Details of Header Fields)", () => {
  const file = makeBzImage({ prefAddress: 0x20_0000, initSize: 0x12_3450, cmdlineSize: 255 });
  assert.ok(isBzImage(file));
  const image = parseBzImage(file);
  assert.equal(image.version, 0x20f);
  assert.equal(image.preferredAddress, 0x20_0000);
  assert.equal(image.initSize, 0x12_3450);
  assert.equal(image.commandLineLimit, 255);
  assert.equal(image.entry64, true);
  assert.equal(image.header.length, 0x26c - 0x1f1);
  assert.equal(image.protectedCode.length, 0x1000);
});

test("setup_sects 0 means 4", () => {
  assert.equal(parseBzImage(makeBzImage({ setupSectors: 0 })).protectedCode[0], 0x90);
  assert.equal(parseBzImage(makeBzImage({ setupSectors: 0 })).protectedCode.length, 0x1000);
});

test("fields newer than the protocol version are not believed", () => {
  const image = parseBzImage(makeBzImage({ version: 0x207, payload: Uint8Array.of(0x1f, 0x8b) }));
  assert.equal(image.payload.length, 0);
  assert.equal(image.preferredAddress, 0);
  assert.equal(image.initSize, 0);
  assert.equal(image.entry64, false);
});

test("the initrd's limit is initrd_addr_max, or 4 GiB for kernels that may lie above it", () => {
  const max = { initrdMax: 0x37ff_ffff };
  assert.equal(parseBzImage(makeBzImage({ ...max, xloadflags: 1 })).initrdLimit, 0x3800_0000);
  assert.equal(parseBzImage(makeBzImage({ ...max, xloadflags: 3 })).initrdLimit, 2 ** 32);
});

test("a file shorter than its header says is cut off, with both sizes named", () => {
  const file = makeBzImage();
  assert.equal(file.length, 6656);
  assert.doesNotThrow(() => parseBzImage(file.subarray(0, 6656 - 15)));
  for (const length of [0x206, 0x280, 2559, 2560, 6640]) {
    assert.throws(() => parseBzImage(file.subarray(0, length)), {
      code: "kernel-truncated",
      message: new RegExp(`the file has ${length}`),
    });
  }
});

test("kernels that this loader cannot enter are named", () => {
  const refuse = (file: Uint8Array, message: RegExp) =>
    assert.throws(() => parseBzImage(file), { code: "kernel-unsupported", message });
  refuse(makeBzImage({ version: 0x205 }), /boot protocol 2\.05/);
  refuse(makeBzImage({ loadflags: 0 }), /zImage/);
  refuse(makeBzImage({ prefAddress: 2 ** 32 }), /above 4 GiB/);
});

test("headers that contradict themselves are damage", () => {
  const damaged = (file: Uint8Array, message: RegExp) =>
    assert.throws(() => parseBzImage(file), { code: "kernel-damaged", message });
  damaged(makeBzImage({ alignment: 0x30_0000 }), /not a power of two/);
  damaged(makeBzImage({ codeBytes: 0 }), /no protected-mode code/);
  const shortHeader = makeBzImage();
  shortHeader[0x201] = 0x10;
  damaged(shortHeader, /setup header ends/);
  const payload = makeBzImage({ payload: new Uint8Array(64) });
  new DataView(payload.buffer).setUint32(0x24c, 0xffff_fff0, true);
  damaged(payload, /its payload of/);
});
