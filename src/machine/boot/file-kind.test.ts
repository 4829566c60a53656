import assert from "node:assert/strict";
import { test } from "node:test";
import { describeFile } from "./file-kind.ts";
import { machineOptions, refusal } from "./testing/synthetic-kernels.ts";

const latin1 = (text: string, at = 0, length = 4096) => {
  const file = new Uint8Array(Math.max(length, at + text.length)).fill(1);
  file.set(Buffer.from(text, "latin1"), at);
  return file;
};

const SAMPLES: readonly (readonly [Uint8Array, RegExp])[] = [
  [latin1("\x1f\x8b\x08"), /gzip/],
  [latin1("\xfd7zXZ\0"), /an xz-compressed/],
  [latin1("070701000"), /cpio archive \(an initramfs\)/],
  [latin1("ARM\x64", 0x38), /arm64 Linux kernel/],
  [latin1("!<arch>\ndebian-binary"), /Debian package/],
  [latin1("MZ\x90"), /EFI program/],
  [latin1("QFI\xfb"), /qcow2/],
  [latin1("CD001", 0x8001), /ISO 9660/],
  [latin1("\x55\xaa", 0x1fe), /MBR/],
  [Buffer.from("#!/bin/sh\necho hi\n"), /a script/],
  [
    Buffer.from("<html><body>404 Not Found</body></html>"),
    /text file \("<html><body>404 Not Found/,
  ],
  [new Uint8Array(100), /begins with zeros/],
  [latin1("\x03\x02\x01"), /unknown format/],
];

test("what is not a kernel is named, with advice", () => {
  for (const [file, expected] of SAMPLES) {
    const error = refusal(machineOptions(file, 16), "kernel-unrecognized");
    assert.match(error.message, expected);
    assert.ok(error.hint);
  }
});

test("files of any length are described", () => {
  for (let length = 0; length < 80; length++) assert.ok(describeFile(new Uint8Array(length)).what);
});
