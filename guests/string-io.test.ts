/** INS and OUTS through the micro-hypervisor. SDM Vol. 2, "INS", "OUTS". */
import assert from "node:assert/strict";
import { test } from "node:test";
import { imm } from "../src/processor/isa/assemble.ts";
import { al, dx, ecx, edi, esi } from "../src/processor/isa/registers.ts";
import { powerOff, runHosted } from "./hosted.ts";

const COM1 = 0x3f8;
const SCRATCH = COM1 + 7;
const BUFFER = 0x20_0ffd;

test("REP OUTSB sends every byte of a string, across a page end", () => {
  const r = runHosted((a) => {
    a.emit("mov", edi, imm(BUFFER));
    for (const c of "hello\n") {
      a.emit("mov", al, imm(c.charCodeAt(0)));
      a.emit("stosb");
    }
    a.emit("mov", esi, imm(BUFFER));
    a.emit("mov", dx, imm(COM1));
    a.emit("mov", ecx, imm(6));
    a.emit("rep outsb");
    powerOff(a);
  });
  assert.deepEqual([r.output, r.end], ["hello\n", "poweroff"]);
});

test("REP INSB stores what the device answers and leaves the count at zero", () => {
  const r = runHosted((a) => {
    a.emit("mov", dx, imm(SCRATCH));
    a.emit("mov", al, imm(0x2a));
    a.emit("out", dx, al);
    a.emit("mov", edi, imm(BUFFER));
    a.emit("mov", ecx, imm(5));
    a.emit("rep insb");
    a.emit("mov", esi, imm(BUFFER));
    a.emit("mov", dx, imm(COM1));
    a.emit("mov", ecx, imm(5));
    a.emit("rep outsb");
    powerOff(a);
  });
  assert.deepEqual([r.output, r.end], ["*****", "poweroff"]);
});

test("a guest that triple-faults ends with a report, not with a hang", () => {
  const r = runHosted((a) => {
    a.emit("ud2");
  });
  assert.equal(r.end, "triple-fault");
  assert.match(r.machine.describe(), /RIP=0*100020/);
});
