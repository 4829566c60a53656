/**
 * Which task of a Linux guest runs, without help of the guest: found by the kernel's own description of its types, in its memory. A kernel
 * without one has tasks that are told apart by address space and thread pointer, and named by what they execute.
 */
import { Field } from "../../processor/isa/vmcs-fields.ts";
import { S, SEG_BASE, Seg, segmentAt } from "../../processor/state/layout.ts";
import type { Vmcs } from "../../processor/vmx/vmcs.ts";
import { isBtf, type TaskLayout, taskLayout } from "./btf.ts";
import type { GuestReader } from "./guest-reader.ts";

export interface Task {
  /** Tells tasks apart. */
  readonly key: bigint;
  /** 0: not known. */
  pid: number;
  tid: number;
  comm: string;
}

/** Where Linux has its image. */
const IMAGE_START = 0xffff_ffff_8000_0000n;
const IMAGE_END = 0xffff_ffff_c000_0000n;
const LARGE_PAGE = 0x20_0000n;
const PAGE = 4096;
const COMM_BYTES = 16;
const ROOT = ~0xfffn;
/** Page-table isolation: the user's half of a pair of roots. */
const USER_ROOT = 0x1000;
const KERNEL_HALF = 1n << 63n;
/** Looks for the types that found none are repeated after so many tasks asked for. */
const RETRY = 10_000;

export class LinuxTasks {
  readonly #reader: GuestReader;
  #layout: TaskLayout | null = null;
  #asked = 0;
  readonly #tasks = new Map<bigint, Task>();

  constructor(reader: GuestReader) {
    this.#reader = reader;
  }

  /** Whether tasks have their own names and numbers. */
  get isExact(): boolean {
    return this.#layout !== null;
  }

  /** At a transition between levels: the kernel's per-processor base is not in GS. */
  current(vmcs: Vmcs): Task {
    if (this.#layout === null && this.#asked++ % RETRY === 0) this.#search(rootOf(vmcs));
    return this.#running(vmcs) ?? this.#byAddressSpace(vmcs);
  }

  /** Host address of something of the kernel's, with either root of a pair. */
  #kernel(root: number, linear: bigint): number {
    const reader = this.#reader;
    const host = reader.kernelHost(root, linear);
    return host >= 0 ? host : reader.kernelHost(root - (root & USER_ROOT), linear);
  }

  #running(vmcs: Vmcs): Task | null {
    const layout = this.#layout;
    if (!layout) return null;
    const { view } = this.#reader.ram;
    const root = rootOf(vmcs);
    const base = vmcs.state.getBigUint64(S.KERNEL_GS_BASE.at, true);
    if ((base & KERNEL_HALF) === 0n) return null;
    const slot = this.#kernel(root, base + BigInt(layout.current));
    if (slot < 0) return null;
    const pointer = view.getBigUint64(slot, true);
    if ((pointer & KERNEL_HALF) === 0n) return null;
    const pidAt = this.#kernel(root, pointer + BigInt(layout.pid));
    const tgidAt = this.#kernel(root, pointer + BigInt(layout.tgid));
    const commAt = this.#kernel(root, pointer + BigInt(layout.comm));
    if (pidAt < 0 || tgidAt < 0 || commAt < 0) return null;
    const tid = view.getUint32(pidAt, true);
    let task = this.#tasks.get(pointer);
    if (task?.tid !== tid) {
      task = { key: pointer, pid: 0, tid, comm: "" };
      this.#tasks.set(pointer, task);
    }
    task.pid = view.getUint32(tgidAt, true);
    task.comm = this.#name(commAt);
    return task;
  }

  #name(host: number): string {
    const { view } = this.#reader.ram;
    let text = "";
    for (let i = 0; i < COMM_BYTES; i++) {
      const byte = view.getUint8(host + i);
      if (byte === 0) break;
      // Whatever a guest calls itself, it must not speak to the terminal of who traces it.
      text += byte > 32 && byte < 127 ? String.fromCharCode(byte) : "?";
    }
    return text;
  }

  #byAddressSpace(vmcs: Vmcs): Task {
    const root = rootOf(vmcs);
    const thread = vmcs.state.getBigUint64(segmentAt(Seg.FS) + SEG_BASE, true);
    const key = (BigInt(root) << 64n) | thread;
    let task = this.#tasks.get(key);
    if (!task) {
      task = { key, pid: 0, tid: 0, comm: `cr3:${root.toString(16)}` };
      this.#tasks.set(key, task);
    }
    return task;
  }

  /** A task without a name of its own executes a file. */
  executes(task: Task, path: string): void {
    if (!this.isExact) task.comm = path.slice(path.lastIndexOf("/") + 1, path.length);
  }

  /** Looks through the pages of the kernel's image. */
  #search(root: number): void {
    const { view } = this.#reader.ram;
    const roots = new Set([root, root - (root & USER_ROOT)]);
    for (const [from, to] of [...roots].flatMap((r) => this.#image(r))) {
      for (let at = from; at < to; at += 8) {
        if (!isBtf(view, at, to)) continue;
        this.#layout = taskLayout(view, at);
        if (this.#layout) return;
      }
    }
  }

  /** Runs of memory that the kernel's image is in: host addresses. Its pages are next to each other in memory as well. */
  #image(root: number): [number, number][] {
    const runs: [number, number][] = [];
    const add = (host: number, bytes: number): void => {
      const last = runs[runs.length - 1];
      if (last && last[1] === host) last[1] = host + bytes;
      else runs.push([host, host + bytes]);
    };
    for (let linear = IMAGE_START; linear < IMAGE_END; linear += LARGE_PAGE) {
      // All of it may be one large page, or none of it may be there.
      const first = this.#reader.host(root, linear);
      const last = this.#reader.host(root, linear + LARGE_PAGE - BigInt(PAGE));
      if (first >= 0 && last === first + Number(LARGE_PAGE) - PAGE) add(first, Number(LARGE_PAGE));
      else if (first >= 0 || last >= 0 || runs.length > 0)
        for (let page = 0n; page < LARGE_PAGE; page += BigInt(PAGE)) {
          const host = this.#reader.host(root, linear + page);
          if (host >= 0) add(host, PAGE);
        }
    }
    return runs;
  }
}

function rootOf(vmcs: Vmcs): number {
  return Number(vmcs.big(Field.GUEST_CR3) & ROOT & 0x000f_ffff_ffff_ffffn);
}
