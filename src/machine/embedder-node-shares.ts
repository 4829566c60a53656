/** Folders of this computer for a guest, as a configuration names them. */
import { HypolithError } from "../base/errors.ts";
import type { ShareConfig } from "../control/protocol.ts";
import { MAX_TAG } from "../devices/virtio/file-device.ts";
import { FuseSession } from "../sharing/fuse/fuse-session.ts";
import { NinepSession } from "../sharing/ninep/ninep-session.ts";
import { NodeFolder } from "./embedder-node-folder.ts";
import type { MachineShare } from "./virtio-devices.ts";

const ROOT = { uid: 0, gid: 0 };

/** Throws HypolithError "share-...". */
export function openShares(configs: readonly ShareConfig[]): MachineShare[] {
  const tags = new Set<string>();
  return configs.map(({ path, tag, protocol, readOnly, owner = ROOT }) => {
    if (!/^[\x21-\x7e]+$/.test(tag) || tag.length > MAX_TAG || tags.has(tag))
      throw new HypolithError("share-tag", `'${tag}' cannot be the tag of a folder`, {
        hint: `each folder needs its own, of at most ${MAX_TAG} letters`,
      });
    tags.add(tag);
    const folder = new NodeFolder(path);
    const options = { readOnly, owner, now: () => Date.now() };
    const session =
      protocol === "fs" ? new FuseSession(folder, options) : new NinepSession(folder, options);
    return { tag, protocol, session };
  });
}
