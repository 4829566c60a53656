/** The parts of tracing that need no guest. A whole one is traced in apps/cli/vms/real-machine.test.ts. */
import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { syscallNames, syscallRow } from "../../control/syscall-table.ts";
import { isBtf, taskLayout } from "./btf.ts";
import { GuestReader } from "./guest-reader.ts";
import { SyscallText } from "./syscall-text.ts";

const RAM = 0x1_0000;
const BYTES = 0x8_0000;
const [PML4, PDPT, DIRECTORY, TABLE] = [0x1000, 0x2000, 0x3000, 0x4000];
const DATA = 0x1_0000;
const LINEAR = 0x7f00_1234_5000n;

function guest(): { view: DataView; reader: GuestReader; root: number } {
  const view = new DataView(new ArrayBuffer(RAM + BYTES));
  const entry = (table: number, level: bigint, value: number): void => {
    const index = Number((LINEAR >> (12n + 9n * level)) & 511n);
    view.setBigUint64(RAM + table + 8 * index, BigInt(value | 1), true);
  };
  entry(PML4, 3n, PDPT);
  entry(PDPT, 2n, DIRECTORY);
  entry(DIRECTORY, 1n, TABLE);
  entry(TABLE, 0n, DATA);
  const ram = { view, base: RAM, bytes: BYTES, ensure: () => {} };
  return { view, reader: new GuestReader(ram), root: PML4 };
}

test("guest memory is read by its page tables, up to where it ends", () => {
  const { view, reader, root } = guest();
  new Uint8Array(view.buffer).set(Buffer.from("hello\0"), RAM + DATA + 0x10);
  assert.deepEqual(reader.text(root, LINEAR + 0x10n, 100), { text: "hello", isCut: false });
  assert.deepEqual(reader.text(root, LINEAR + 0x10n, 3), { text: "hel", isCut: true });
  assert.equal(reader.bytes(root, LINEAR + 0xff0n, 100).length, 16);
  assert.equal(reader.text(root, LINEAR - 1n, 10), null);
});

test("page tables of any content lead nowhere outside RAM", () => {
  const { view, reader } = guest();
  const tables = new Uint8Array(view.buffer, RAM, 0x5000);
  fc.assert(
    fc.property(fc.infiniteStream(fc.bigInt(0n, (1n << 64n) - 1n)), fc.bigInt(), (words, at) => {
      for (let i = 0; i < tables.length; i += 8 * 64)
        view.setBigUint64(RAM + i, words.next().value as bigint, true);
      for (const root of [PML4, 0, BYTES - 4096, 2 ** 40]) {
        const host = reader.host(root, at);
        assert.ok(host === -1 || (host >= RAM && host < RAM + BYTES), String(host));
      }
    }),
    { numRuns: 200 },
  );
});

test("the table of calls has the numbers of Linux", () => {
  const known: [number, string][] = [
    ...([
      [0, "read"],
      [59, "execve"],
      [89, "readlink"],
      [157, "prctl"],
      [202, "futex"],
    ] as const),
    ...([
      [231, "exit_group"],
      [257, "openat"],
      [262, "newfstatat"],
      [334, "rseq"],
    ] as const),
    ...([
      [424, "pidfd_send_signal"],
      [435, "clone3"],
      [452, "fchmodat2"],
      [462, "mseal"],
    ] as const),
  ].map(([n, name]) => [n, name]);
  for (const [number, name] of known) assert.equal(syscallRow(number)?.name, name);
  const names = syscallNames();
  assert.equal(new Set(names).size, names.length);
});

test("calls are written as strace does, with texts and buffers from memory", () => {
  const { view, reader, root } = guest();
  const bytes = new Uint8Array(view.buffer);
  bytes.set(Buffer.from("/etc/x\n\0"), RAM + DATA);
  bytes.set(Buffer.from([2, 0, 0x1f, 0x90, 127, 0, 0, 1]), RAM + DATA + 64);
  const text = new SyscallText(reader);
  const write = (number: number, args: readonly bigint[], result: bigint): string => {
    const call = { number, root, args: [...args, 0n, 0n, 0n, 0n, 0n, 0n].slice(0, 6) };
    const entry = text.atEntry(call);
    return `${text.name(number)}(${text.atReturn(call, entry, result)}) = ${text.result(call, result).text}`;
  };
  const AT_FDCWD = BigInt.asUintN(64, -100n);
  assert.equal(
    write(257, [AT_FDCWD, LINEAR, 0x8_0042n, 0o644n], 3n),
    'openat(AT_FDCWD, "/etc/x\\n", O_RDWR|O_CREAT|O_CLOEXEC, 0644) = 3',
  );
  assert.equal(write(0, [3n, LINEAR, 4096n], 4n), 'read(3, "/etc", 4096) = 4');
  assert.equal(write(1, [1n, LINEAR, 4n], 4n), 'write(1, "/etc", 4) = 4');
  const minusTwo = BigInt.asUintN(64, -2n);
  assert.equal(write(0, [3n, LINEAR, 9n], minusTwo), "read(3, 0x7f0012345000, 9) = -1 ENOENT");
  assert.equal(
    write(9, [0n, 4096n, 3n, 0x22n, BigInt.asUintN(64, -1n), 0n], 0x7f00_0000n),
    "mmap(NULL, 4096, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0x0) = 0x7f000000",
  );
  assert.equal(
    write(42, [5n, LINEAR + 64n, 8n], 0n),
    "connect(5, {AF_INET, 127.0.0.1:8080}, 8) = 0",
  );
  bytes.set(Buffer.from("\x1b[2J\u009b1m\0"), RAM + DATA + 128);
  assert.equal(write(80, [LINEAR + 128n], 0n), 'chdir("\\33[2J\\2331m") = 0');
  assert.equal(write(62, [7n, 9n], 0n), "kill(7, SIGKILL) = 0");
  assert.match(write(999, [1n], 0n), /^syscall_0x3e7\(0x1, 0x0/);
});

/** A small BTF: task_struct with its three members, and current_task among the per-processor data. */
function btf(): DataView {
  const strings = "\0task_struct\0comm\0pid\0tgid\0.data..percpu\0current_task\0";
  const nameOf = (name: string): number => strings.indexOf(`\0${name}\0`) + 1;
  const words: number[] = [];
  const type = (name: string, kind: number, count: number, size: number): void => {
    words.push(nameOf(name), (kind << 24) | count, size);
  };
  type("task_struct", 4, 3, 64);
  for (const [name, at] of [
    ["comm", 32],
    ["pid", 8],
    ["tgid", 12],
  ] as const)
    words.push(nameOf(name), 0, 8 * at);
  type("current_task", 14, 0, 1);
  words.push(0);
  type(".data..percpu", 15, 1, 8);
  words.push(2, 0x1fc0, 8);
  const bytes = words.length * 4;
  const view = new DataView(new ArrayBuffer(24 + bytes + strings.length));
  for (const [i, word] of [0x0001_eb9f, 24, 0, bytes, bytes, strings.length].entries())
    view.setUint32(4 * i, word, true);
  for (const [i, word] of words.entries()) view.setUint32(24 + 4 * i, word, true);
  new Uint8Array(view.buffer).set(Buffer.from(strings, "latin1"), 24 + bytes);
  return view;
}

test("the running task is found by the kernel's own types", () => {
  const view = btf();
  assert.ok(isBtf(view, 0, view.byteLength));
  assert.deepEqual(taskLayout(view, 0), { current: 0x1fc0, comm: 32, pid: 8, tgid: 12 });
});

test("types of any content are refused or read, never beyond their end", () => {
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.nat(), fc.nat(255)), { maxLength: 30 }), (changes) => {
      const view = btf();
      for (const [at, byte] of changes) view.setUint8(at % view.byteLength, byte);
      if (isBtf(view, 0, view.byteLength)) taskLayout(view, 0);
    }),
  );
});
