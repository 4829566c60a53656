/** What a snapshot keeps of a folder's tree. */
import { HypolithError } from "../base/errors.ts";
import { isEntryName } from "./host-name.ts";

interface SavedNode {
  readonly id: number;
  readonly dev: bigint;
  readonly ino: bigint;
  readonly type: number;
  readonly references: number;
  readonly parent: number;
  readonly name: string;
}

interface SavedFile {
  readonly open: number;
  readonly node: number;
  readonly read: boolean;
  readonly write: boolean;
  readonly append: boolean;
}

export interface SavedTree {
  readonly nodes: readonly SavedNode[];
  readonly files: readonly SavedFile[];
  readonly nextNode: number;
  readonly nextFile: number;
}

/** Throws HypolithError "snapshot-shape". */
export function checkedTree(state: unknown): SavedTree {
  const { nodes, files, nextNode, nextFile } = (state ?? {}) as Partial<SavedTree>;
  const isFit =
    Array.isArray(nodes) &&
    Array.isArray(files) &&
    isCount(nextNode) &&
    isCount(nextFile) &&
    nodes.every(
      ({ id, dev, ino, type, references, parent, name }: Partial<SavedNode>) =>
        [id, type, references, parent].every(isCount) &&
        typeof dev === "bigint" &&
        typeof ino === "bigint" &&
        typeof name === "string" &&
        isEntryName(name),
    ) &&
    files.every(
      ({ open, node, read, write, append }: Partial<SavedFile>) =>
        isCount(open) &&
        isCount(node) &&
        [read, write, append].every((flag) => typeof flag === "boolean"),
    );
  if (!isFit) throw new HypolithError("snapshot-shape", "a saved folder does not fit");
  return { nodes, files, nextNode: nextNode!, nextFile: nextFile! };
}

function isCount(value: unknown): boolean {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}
