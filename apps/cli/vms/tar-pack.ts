/** A file or folder of ours as a tar stream. In the guest all is root's, as docker has it. */
import {
  createReadStream,
  lstatSync,
  readdirSync,
  readlinkSync,
  type Stats,
  statSync,
} from "node:fs";
import { join } from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { type Header, type Pack, pack } from "tar-stream";

/** `name`: what `path` is called in the stream. What is neither file, folder nor link is left out. */
export function packTree(path: string, name: string): Readable {
  const tar = pack();
  add(tar, path, name, true).then(
    () => tar.finalize(),
    (error: Error) => tar.destroy(error),
  );
  // streamx is iterable, but brings no types.
  return Readable.from(tar as unknown as AsyncIterable<Buffer>, { objectMode: false });
}

type Headers = Partial<Header> & Pick<Header, "name">;

async function add(tar: Pack, path: string, name: string, isTop: boolean): Promise<void> {
  // A link that was named is followed, one that is found is copied.
  const stat = isTop ? statSync(path) : lstatSync(path);
  const header = headerOf(stat, name);
  if (stat.isDirectory()) {
    await entry(tar, { ...header, type: "directory", size: 0 });
    for (const child of readdirSync(path).sort())
      await add(tar, join(path, child), name === "." ? child : `${name}/${child}`, false);
  } else if (stat.isSymbolicLink()) {
    await entry(tar, { ...header, type: "symlink", size: 0, linkname: readlinkSync(path) });
  } else if (stat.isFile()) {
    const into = tar.entry({ ...header, type: "file", size: stat.size });
    const sink = into as unknown as NodeJS.WritableStream;
    // A file that grows meanwhile is copied as long as it was.
    if (stat.size > 0) await pipeline(createReadStream(path, { end: stat.size - 1 }), sink);
    else sink.end();
  }
}

function headerOf(stat: Stats, name: string): Headers {
  return { name, mode: stat.mode & 0o7777, mtime: stat.mtime, uid: 0, gid: 0 };
}

function entry(tar: Pack, header: Headers): Promise<void> {
  return new Promise((resolve, reject) => {
    tar.entry(header, (error) => (error ? reject(error) : resolve()));
  });
}
