/** A tree as a tar archive: one layer with all of it. */
import { type Directory, type Inode, sortedNames } from "./file-tree.ts";
import { TarWriter } from "./tar-writer.ts";

/** Writes the archive; answers its bytes. The same tree gives the same archive. */
export function writeTree(root: Directory, write: (bytes: Uint8Array) => void): number {
  const tar = new TarWriter(write);
  /** Where an inode was first. */
  const first = new Map<Inode, string>();
  const visit = (inode: Inode, name: string): void => {
    const before = first.get(inode);
    const { attributes } = inode;
    if (before !== undefined) {
      tar.add({ name, type: "hardlink", attributes, target: before });
      return;
    }
    first.set(inode, name);
    switch (inode.kind) {
      case "directory":
        tar.add({ name: name === "" ? "." : name, type: "directory", attributes });
        for (const child of sortedNames(inode)) {
          visit(inode.entries.get(child)!.inode, name === "" ? child : `${name}/${child}`);
        }
        break;
      case "file":
        tar.add({ name, type: "file", attributes, content: inode.content });
        break;
      case "symlink":
        tar.add({ name, type: "symlink", attributes, target: inode.target });
        break;
      default:
        tar.add({ name, type: inode.kind, attributes, device: inode.device });
    }
  };
  visit(root, "");
  return tar.end();
}
