/** The peer in JavaScript: v86 in a process of its own (v86-entry.ts), with the same kernel, initramfs and memory as ours. */
import { fileURLToPath } from "node:url";
import { ChildMachine, type TextMessage } from "../conformance/harness/child-machine.ts";
import type { BootFiles } from "../conformance/harness/guest-machine.ts";
import type { StopReason } from "../src/control/protocol.ts";
import type { V86Config, V86Message } from "./v86-entry.ts";
import type { V86Package } from "./v86-package.ts";

const ENTRY = fileURLToPath(new URL("v86-entry.ts", import.meta.url));

export class V86Machine extends ChildMachine<V86Message> {
  readonly stopped: Promise<StopReason>;

  constructor(files: BootFiles, v86: V86Package) {
    const config: V86Config = { ...files, v86 };
    super([ENTRY, JSON.stringify(config)]);
    this.stopped = new Promise((resolve) => {
      this.child.once("error", ({ message }) => resolve({ kind: "error", message }));
      this.child.once("close", () => resolve({ kind: "error", message: "v86's process ended" }));
    });
  }

  protected textOf(message: V86Message): TextMessage {
    return message;
  }
}
