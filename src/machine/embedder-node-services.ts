/** Where services run in Node: inline in a locked-down realm, or in worker threads. */
import { Worker } from "node:worker_threads";
import type { PlacementName } from "../control/protocol.ts";
import type { ServiceImage } from "../hypervisor/kernel/placement.ts";
import { serviceImage, threadScript } from "./embedder-node-images.ts";
import { lockedRealm } from "./embedder-node-realm.ts";
import { MAILBOX_BYTES } from "./placements/mailbox.ts";
import { OwnThread, type ServiceThread } from "./placements/own-thread.ts";
import { readCall, SameThread } from "./placements/same-thread.ts";
import type { ServiceThreadData } from "./placements/service-thread.ts";
import type { ServiceHost, ServiceOrder } from "./services.ts";

/** Of a service's heap; a thread that takes more is ended. */
const HEAP_MIB = 64;
const STACK_MIB = 1;
/** A program to be placed: its image, what it is told, its name. */
export interface NodeProgram {
  readonly image: string;
  /** {options, grants} as JSON. */
  readonly setup: string;
  readonly name: string;
}

export class NodeServiceHost implements ServiceHost {
  image(placement: PlacementName, order: ServiceOrder): ServiceImage | null {
    if (placement === "guest") return null;
    const { spec, options, grants } = order;
    const setup = JSON.stringify({ options, grants });
    const program = { image: serviceImage(spec.module), setup, name: spec.name };
    return placement === "inline" ? inlineImage(program) : workerImage(program);
  }
}

export function inlineImage({ image, setup, name }: NodeProgram): ServiceImage {
  const open = lockedRealm();
  return (port) => new SameThread("inline", open({ image, setup, name, read: readCall(port) }));
}

export function workerImage(program: NodeProgram): ServiceImage {
  const nowMs = (): number => performance.now();
  let lives = 0;
  let spare: ServiceThread | undefined;
  return (port) => {
    const thread = spare ?? spawn(program);
    // A service that has been restarted once is likely to be again: another thread gets ready meanwhile.
    spare = lives++ > 0 ? spawn(program) : undefined;
    return new OwnThread({ nowMs, thread }, port);
  };
}

/** The script is text, so that a thread starts without looking for files: it is what a restart waits for. */
function spawn(program: NodeProgram): ServiceThread {
  const buffer = new SharedArrayBuffer(MAILBOX_BYTES);
  const workerData: ServiceThreadData = { ...program, mailbox: buffer };
  const worker = new Worker(threadScript(), {
    eval: true,
    name: `service ${workerData.name}`,
    workerData,
    env: {},
    resourceLimits: { maxOldGenerationSizeMb: HEAP_MIB, stackSizeMb: STACK_MIB },
  });
  // Whatever ends the thread, the kernel learns it by the deadline.
  worker.on("error", () => {});
  worker.unref();
  return { buffer, terminate: () => void worker.terminate() };
}
