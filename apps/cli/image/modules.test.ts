import assert from "node:assert/strict";
import { test } from "node:test";
import { gzipSync } from "node:zlib";
import { isModulePath, selectModules, withDependencies } from "./modules.ts";

const BASE = "lib/modules/6.1.0/kernel/drivers";
const module = (depends: string): Buffer => Buffer.from(`ELF\0license=GPL\0depends=${depends}\0x`);

test("modules come with what they need, each once and after it", async () => {
  const files = new Map<string, Uint8Array>([
    [`${BASE}/virtio/virtio_pci.ko`, module("virtio,virtio-ring")],
    [`${BASE}/virtio/virtio.ko`, module("")],
    [`${BASE}/virtio/virtio_ring.ko`, module("virtio")],
    [`${BASE}/rng/virtio-rng.ko.gz`, gzipSync(module("virtio"))],
    [`${BASE}/other.ko`, module("")],
  ]);
  const selected = await selectModules(files, ["virtio-rng", "virtio_pci", "built_in"]);
  const names = selected.map(({ name }) => name);
  assert.deepEqual(names, ["virtio.ko", "virtio_rng.ko", "virtio_ring.ko", "virtio_pci.ko"]);
  assert.deepEqual(selected[1]!.content, module("virtio"));
});

test("a run takes of an image's modules those that its devices need, in their order", () => {
  const modules = ["virtio", "virtio_ring", "virtio_pci", "virtio_blk", "virtio_net"].map(
    (name) => ({
      name: `${name}.ko`,
      content: module(
        name === "virtio" ? "" : name === "virtio_ring" ? "virtio" : "virtio,virtio-ring",
      ),
    }),
  );
  const names = (wanted: string[]) => withDependencies(modules, wanted).map(({ name }) => name);
  assert.deepEqual(names(["virtio-blk", "built_in"]), [
    "virtio.ko",
    "virtio_ring.ko",
    "virtio_blk.ko",
  ]);
  assert.deepEqual(names([]), []);
});

test("only files below the kernel's own folder are modules", () => {
  assert.ok(isModulePath(`usr/${BASE}/a.ko.xz`));
  assert.ok(!isModulePath("lib/modules/6.1.0/modules.builtin"));
});
