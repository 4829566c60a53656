/**
 * Programs of a Debian userland at their usual work, about 0.1 s of it natively. A row is a workload; its text comes from the userland
 * itself, so all contestants have the same.
 */
import type { Workload } from "./workload.ts";

/** Python source: text as programs compress it. */
const SOURCE = "/usr/lib/python3.*/*.py";
const KEY = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
const VECTOR = "000102030405060708090a0b0c0d0e0f";
export const RSA_KEY = "lab/key.pem";
const RSA_BITS = 4096;

const text = (bytes: number): string => `cat ${SOURCE} | head -c ${bytes} >/tmp/text`;
const repeat = (times: number, command: string): string =>
  `for i in ${Array.from({ length: times }, (_, i) => i + 1).join(" ")}; do ${command}; done`;

export const REAL: readonly Workload[] = [
  {
    name: "gzip",
    description: "2 MB packed and unpacked",
    prepare: text(2_000_000),
    command: "gzip -6 -n -c /tmp/text >/tmp/text.gz && gzip -t /tmp/text.gz",
    result: "cksum </tmp/text.gz",
  },
  {
    name: "xz",
    description: "300 kB packed and unpacked",
    prepare: text(300_000),
    command: "xz -6 -c /tmp/text >/tmp/text.xz && xz -t /tmp/text.xz",
    result: "cksum </tmp/text.xz",
  },
  {
    name: "openssl-sha256",
    description: "SHA-256 of 16 MB",
    prepare: `${text(4_000_000)}; cat /tmp/text /tmp/text /tmp/text /tmp/text >/tmp/data`,
    command: "openssl dgst -sha256 -r /tmp/data",
  },
  {
    name: "openssl-aes",
    description: "AES-256-CBC of 16 MB",
    prepare: `${text(4_000_000)}; cat /tmp/text /tmp/text /tmp/text /tmp/text >/tmp/data`,
    command: `openssl enc -aes-256-cbc -K ${KEY} -iv ${VECTOR} -in /tmp/data -out /tmp/data.enc`,
    result: "cksum </tmp/data.enc",
  },
  {
    name: "openssl-rsa",
    description: `5 signatures, RSA of ${RSA_BITS} bits`,
    command: repeat(5, `openssl dgst -sha256 -sign /${RSA_KEY} -out /tmp/signature /${RSA_KEY}`),
    result: "cksum </tmp/signature",
  },
  {
    name: "python-start",
    description: "python3 -c pass, 5 times",
    prepare: "python3 -c pass",
    command: `${repeat(5, "python3 -c pass")}; echo done`,
  },
  {
    name: "python-run",
    description: "a pure Python program, three passes",
    prepare: "python3 -c pass",
    command: "python3 /lab/python.py",
  },
  {
    name: "sqlite",
    description: "SQL on 30000 rows in memory",
    command: "sqlite3 :memory: </lab/sqlite.sql",
  },
  { name: "shell", description: "arithmetic and builtins in dash", command: "dash /lab/shell.sh" },
].map((row): Workload => ({ ...row, group: "real" }));

/** In bench/scripts; in the guest's /lab. */
export const SCRIPTS: readonly string[] = ["python.py", "sqlite.sql", "shell.sh"];
export { RSA_BITS };
