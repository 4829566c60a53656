import assert from "node:assert/strict";
import { test } from "node:test";
import { MachineClient } from "./machine-client.ts";
import type { MachineConfig, ToMachine } from "./protocol.ts";

const CONFIG: Omit<MachineConfig, "kernel"> = {
  cmdline: "",
  memoryBytes: 1,
  cpuModel: "x",
  clock: "wall",
  traceExits: false,
  rtcEpochMs: 0,
};

function open() {
  const posted: ToMachine[] = [];
  const transferred: ArrayBuffer[] = [];
  const heard: unknown[] = [];
  const post = (message: ToMachine, transfer: ArrayBuffer[]): void => {
    posted.push(message);
    transferred.push(...transfer);
  };
  const client = new MachineClient(post, {
    started: () => heard.push("started"),
    output: (port, data) => heard.push([port, ...data]),
    trace: (lines) => heard.push(lines),
    jitStats: (report, retired) => heard.push([report, retired]),
    profile: (data) => heard.push(data),
    log: (level, text) => heard.push([level, text]),
    stopped: (reason) => heard.push(reason),
  });
  return { client, posted, transferred, heard };
}

test("what the machine says is delivered in order, up to its end", () => {
  const { client, heard } = open();
  client.receive({ type: "started" });
  client.receive({ type: "output", port: 1, data: Uint8Array.of(5) });
  client.receive({ type: "log", level: "info", text: "t" });
  client.receive({ type: "trace", data: "exit\n" });
  client.receive({ type: "jitStats", report: null, retired: 3 });
  client.receive({ type: "profile", data: "{}" });
  client.receive({ type: "stopped", reason: { kind: "poweroff" } });
  client.receive({ type: "output", port: 1, data: Uint8Array.of(6) });
  const before = ["started", [1, 5], ["info", "t"], "exit\n", [null, 3], "{}"];
  assert.deepEqual(heard, [...before, { kind: "poweroff" }]);
});

test("a machine ends once, for the first reason, and nothing is sent to it afterwards", () => {
  const { client, posted, heard } = open();
  client.lost({ kind: "error", message: "first" });
  client.lost({ kind: "killed" });
  client.receive({ type: "stopped", reason: { kind: "poweroff" } });
  client.stop();
  client.input(0, Uint8Array.of(1));
  assert.deepEqual(heard, [{ kind: "error", message: "first" }]);
  assert.deepEqual(posted, []);
});

test("a whole array is handed over, a window of a larger one is copied, and nothing is no message", () => {
  const { client, posted, transferred } = open();
  const kernel = new Uint8Array(8);
  const initrd = new Uint8Array(8).subarray(1, 3);
  client.start({ ...CONFIG, kernel, initrd });
  client.input(0, new Uint8Array(0));
  client.pressPowerButton();
  assert.deepEqual(transferred, [kernel.buffer]);
  assert.deepEqual(
    posted.map((m) => m.type),
    ["start", "powerButton"],
  );
});

test("connections are told apart, and end with the machine", () => {
  const { client, posted } = open();
  const said: unknown[] = [];
  const connect = (name: string) =>
    client.connect(5, {
      opened: () => said.push([name, "opened"]),
      data: (bytes) => said.push([name, ...bytes]),
      taken: (bytes) => said.push([name, "taken", bytes]),
      ended: () => said.push([name, "ended"]),
      closed: () => said.push([name, "closed"]),
    });
  const [a, b] = [connect("a"), connect("b")];
  const [first, second] = posted.map((message) => (message as { id: number }).id);
  client.receive({ type: "socketOpen", id: second! });
  client.receive({ type: "socketData", id: first!, data: Uint8Array.of(4) });
  client.receive({ type: "socketTaken", id: second!, bytes: 3 });
  client.receive({ type: "socketEnded", id: second! });
  a.close();
  client.receive({ type: "socketData", id: first!, data: Uint8Array.of(5) });
  a.write(Uint8Array.of(1));
  b.write(Uint8Array.of(2));
  client.lost({ kind: "killed" });
  client.receive({ type: "socketData", id: second!, data: Uint8Array.of(6) });
  assert.deepEqual(said, [
    ["b", "opened"],
    ["a", 4],
    ["b", "taken", 3],
    ["b", "ended"],
    ["b", "closed"],
  ]);
  assert.deepEqual(posted.slice(2), [
    { type: "socketClosed", id: first },
    { type: "socketData", id: second, data: Uint8Array.of(2) },
  ]);
});
