/**
 * For embedder-node-files.test.ts, as a process of its own: writes numbered blocks through an overlay and says on standard output which are
 * acknowledged, until it is killed. Arguments: image, overlay, seed.
 */
import { argv, stdout } from "node:process";
import { runNow } from "../../storage/block-port.ts";
import { openDisk } from "../embedder-node-files.ts";

export const BLOCK_BYTES = 4096;

/** Block `index` as its write number `count` left it. */
export function blockContent(index: number, count: number): Uint8Array {
  const bytes = new Uint8Array(BLOCK_BYTES);
  const view = new DataView(bytes.buffer);
  for (let at = 0; at < BLOCK_BYTES; at += 8) {
    view.setUint32(at, index, true);
    view.setUint32(at + 4, count, true);
  }
  return bytes;
}

if (import.meta.main) {
  const [path = "", overlay = "", seed = "1"] = argv.slice(2);
  const disk = openDisk({ path, mode: "scratch", overlay });
  const blocks = disk.size / BLOCK_BYTES;
  let random = Number(seed);
  for (let count = 1; ; count++) {
    random = (Math.imul(random, 1_103_515_245) + 12_345) >>> 0;
    const index = (random >>> 8) % blocks;
    runNow(disk.write(index * BLOCK_BYTES, blockContent(index, count)));
    if (count % 50 === 0) runNow(disk.flush());
    stdout.write(`${index} ${count}\n`);
  }
}
