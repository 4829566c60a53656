import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { DebugPort } from "./debug-port.ts";
import { I8042 } from "./i8042.ts";
import { ResetControl } from "./reset-control.ts";

test("0xCF9 resets on the rising edge of its reset bit, in Linux's and in ACPI's way", () => {
  let resets = 0;
  const control = new ResetControl({ reset: () => resets++ });
  control.writePort(0xcf9, 1, 2);
  assert.equal(control.readPort(0xcf9), 2);
  assert.equal(resets, 0);
  control.writePort(0xcf9, 1, 6);
  control.writePort(0xcf9, 1, 6);
  assert.equal(resets, 1);
});

test("port 0x92: A20 is on for ever, bit 0 is the fast reset", () => {
  let resets = 0;
  const control = new ResetControl({ reset: () => resets++ });
  control.writePort(0x92, 1, 0);
  assert.equal(control.readPort(0x92), 2);
  control.writePort(0x92, 1, 3);
  assert.equal(resets, 1);
});

test("the empty 8042 socket: one flush finds it dead, a reboot does not wait, 0xFE resets", () => {
  let resets = 0;
  const socket = new I8042({ reset: () => resets++ });
  let reads = 0;
  while (socket.readPort(0x64) & 1 && reads < 16) {
    assert.equal(socket.readPort(0x60), 0xff);
    reads++;
  }
  assert.equal(reads, 16, "Linux: i8042_flush gives up, 'No controller found'");
  assert.equal(socket.readPort(0x64) & 2, 0, "Linux: kb_wait returns at once");
  socket.writePort(0x64, 1, 0xae);
  socket.writePort(0x60, 1, 0xfe);
  assert.equal(resets, 0);
  socket.writePort(0x64, 1, 0xfe);
  assert.equal(resets, 1);
});

test("debug console at 0xE9, POST codes at 0x80", () => {
  const out: number[] = [];
  const port = new DebugPort({ output: (byte) => out.push(byte) });
  port.writePort(0xe9, 1, 0x148);
  port.writePort(0x80, 1, 0x33);
  assert.deepEqual(out, [0x48]);
  assert.equal(port.readPort(0xe9), 0xe9);
  assert.equal(new DebugPort().readPort(0xe9), 0xff);
});

test("any bytes at these ports: no throw, a reset only for a reset bit", () => {
  fc.assert(
    fc.property(fc.array(fc.nat(0xff)), (values) => {
      let resets = 0;
      const wires = { reset: () => resets++ };
      const devices = [new ResetControl(wires), new I8042(wires), new DebugPort()];
      for (const value of values) {
        for (const device of devices) {
          for (const port of [0x60, 0x64, 0x80, 0x92, 0xcf9]) {
            const before = resets;
            device.writePort(port, 1, value);
            assert.ok(resets - before <= 1);
            assert.ok(device.readPort(port) <= 0xff);
          }
        }
      }
    }),
    { numRuns: 30 },
  );
});
