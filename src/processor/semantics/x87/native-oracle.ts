/**
 * The x87 FPU of the machine this runs on, as an oracle: compiles native-oracle.c with the C compiler and runs one instruction on many
 * states. By-hand tests only.
 */
import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Rec } from "./test-records.ts";

let program = "";

export function compileOracle(): void {
  program = join(mkdtempSync(join(tmpdir(), "x87-oracle-")), "oracle");
  execFileSync("gcc", ["-O1", "-o", program, new URL("native-oracle.c", import.meta.url).pathname]);
}

export function runOracle(code: readonly number[], records: Uint8Array): Uint8Array {
  const head = Buffer.alloc(32);
  head.writeUInt32LE(records.length / Rec.BYTES, 0);
  head.writeUInt32LE(code.length, 4);
  head.set(code, 8);
  const r = spawnSync(program, { input: Buffer.concat([head, records]), maxBuffer: 1 << 30 });
  if (r.status !== 0) throw new Error(`oracle: status ${r.status} ${r.signal}`);
  return r.stdout;
}
