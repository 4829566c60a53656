/** Tar archives as tests want them, hostile ones included: nothing is checked. */
export interface TarItem {
  readonly name: string;
  /** ustar's type flag; default "0", a file. */
  readonly flag?: string;
  readonly content?: string | Uint8Array;
  readonly target?: string;
  readonly mode?: number;
  readonly uid?: number;
  readonly gid?: number;
  readonly mtime?: number;
  readonly device?: readonly [major: number, minor: number];
  /** What the header says instead of the content's length. */
  readonly size?: number;
}

export function makeTar(items: readonly TarItem[], trailer = 1024): Buffer {
  return Buffer.concat([...items.flatMap(itemBlocks), Buffer.alloc(trailer)]);
}

/** An extended header for the item that follows. */
export function pax(records: Readonly<Record<string, string>>, flag = "x"): TarItem {
  const content = Object.entries(records).map(([key, value]) => paxRecord(key, value));
  return { name: "pax", flag, content: Buffer.concat(content) };
}

function paxRecord(key: string, value: string): Buffer {
  const rest = Buffer.from(` ${key}=${value}\n`);
  let length = rest.length;
  while (String(length).length + rest.length !== length)
    length = String(length).length + rest.length;
  return Buffer.concat([Buffer.from(String(length)), rest]);
}

function itemBlocks(item: TarItem): Buffer[] {
  const content = Buffer.from(item.content ?? "");
  const header = Buffer.alloc(512);
  const octal = (value: number, at: number, length: number): void => {
    header.write(`${value.toString(8).padStart(length - 1, "0")}\0`, at, "latin1");
  };
  header.write(item.name, 0, 100);
  octal(item.mode ?? 0o644, 100, 8);
  octal(item.uid ?? 0, 108, 8);
  octal(item.gid ?? 0, 116, 8);
  octal(item.size ?? content.length, 124, 12);
  octal(item.mtime ?? 0, 136, 12);
  header.fill(0x20, 148, 156);
  header.write(item.flag ?? "0", 156, "latin1");
  header.write(item.target ?? "", 157, 100);
  header.write("ustar\x0000", 257, "latin1");
  octal(item.device?.[0] ?? 0, 329, 8);
  octal(item.device?.[1] ?? 0, 337, 8);
  const sum = header.reduce((total, byte) => total + byte, 0);
  header.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148, "latin1");
  return [header, content, Buffer.alloc((512 - (content.length % 512)) % 512)];
}
