/**
 * The upper directory of an overlay as a layer: what was deleted is a whiteout.
 * Spec: Linux Documentation/filesystems/overlayfs.rst, "whiteouts and opaque directories"; OCI Image Specification, "Whiteouts".
 */
import { openSync } from "node:fs";
import { type FileRange, readTar } from "../oci/tar-file.ts";
import { TarWriter } from "../oci/tar-writer.ts";

/** Written to a new file; its caller closes the descriptor. */
export function asLayer(changes: FileRange, path: string): FileRange {
  const descriptor = openSync(path, "w+", 0o600);
  const tar = TarWriter.intoFile(descriptor);
  for (const entry of readTar(changes)) {
    const name = entry.name.replace(/^\.?\/*/, "").replace(/\/+$/, "");
    const attributes = { mode: entry.mode, uid: entry.uid, gid: entry.gid, mtime: entry.mtime };
    const isWhiteout = entry.type === "character" && entry.device.every((part) => part === 0);
    if (isWhiteout) {
      const at = name.lastIndexOf("/") + 1;
      const hidden = `${name.slice(0, at)}.wh.${name.slice(at)}`;
      tar.add({ name: hidden, type: "file", attributes, content: new Uint8Array(0) });
      continue;
    }
    const { descriptor: from, offset } = changes;
    tar.add({
      name: name === "" ? "." : name,
      ...{
        type: entry.type,
        attributes,
        target: entry.target.replace(/^\.\//, ""),
        device: entry.device,
      },
      ...(entry.type === "file" && {
        content: { descriptor: from, offset: offset + entry.offset, size: entry.size },
      }),
    });
  }
  return { descriptor, offset: 0, size: tar.end() };
}
