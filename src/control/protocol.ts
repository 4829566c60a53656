/**
 * The control protocol: what an application (main thread) and a machine (worker) say to each other.
 *
 * Messages are plain data for structured clone. Byte arrays may be transferred: who receives one owns it, who sent it must not touch
 * it again. Order is kept in each direction; in particular all output of a guest arrives before the `stopped` that ends it.
 *
 * A machine lives once: `start` is the first message it gets and comes once, `stopped` is the last it sends. A machine that cannot be
 * built (a kernel that is none, an unknown CPU model) answers `start` with `stopped` of kind "error" and never with `started`.
 *
 * Not here: transport (machine/embedder-*), and anything about what the guest runs.
 */

/** The four serial ports of a machine, and 4: its virtio console, if it has one. What a guest uses them for is between it and the application. */
export type SerialPort = 0 | 1 | 2 | 3 | 4;

/**
 * Serial ports by their use under the command line's own initramfs.
 * 0 = COM1 0x3F8 irq 4 (ttyS0) · 1 = COM2 0x2F8 irq 3 (ttyS1) · 2 = COM3 0x3E8 irq 10 (ttyS2) · 3 = COM4 0x2E8 irq 11 (ttyS3).
 */
export const SerialUse = {
  /** The guest's console: kernel messages, interactive shell. */
  CONSOLE: 0,
  /** Standard output of a command to us, its standard input to it. */
  JOB: 1,
  /** Standard error of a command. */
  JOB_ERROR: 2,
  /** Lines between the initramfs and us: exit status, window size, signals. */
  CONTROL: 3,
  /** The virtio console, hvc0: a terminal that takes many bytes at once. */
  VIRTIO_CONSOLE: 4,
} as const satisfies Record<string, SerialPort>;

/** "wall": guest time follows real time. "deterministic": guest time is a function of retired instructions. */
export type ClockMode = "wall" | "deterministic";

export type LogLevel = "error" | "warn" | "info" | "debug";

/**
 * "interpreter": decoded records, no code made for what the guest runs. "jit": all code becomes WebAssembly at once. "auto": code that has
 * proved hot does.
 */
export const ENGINES = ["auto", "interpreter", "jit"] as const;
export type EngineName = (typeof ENGINES)[number];

export interface MachineConfig {
  /** Go on from this snapshot instead of booting: `kernel` is empty, and the rest is as it was (SnapshotConfig), but for what is about a run. */
  readonly snapshot?: SnapshotPlace;
  /** bzImage, ELF with PVH or Multiboot entry: see machine/boot. */
  readonly kernel: Uint8Array;
  readonly initrd?: Uint8Array;
  /** The kernel command line, without terminator. */
  readonly cmdline: string;
  readonly memoryBytes: number;
  /** A named model and changes to it: "x86-64-v2", "x86-64-v2,-sse4_2,+rdrand". */
  readonly cpuModel: string;
  readonly clock: ClockMode;
  /** Default: "interpreter". */
  readonly engine?: EngineName;
  /** Send a `trace` message for every VM exit. */
  readonly traceExits: boolean;
  /** Send `jitStats` before `stopped`. Default: no. */
  readonly reportJit?: boolean;
  /** Sample what the guest executes, and send `profile` before `stopped`. */
  readonly profile?: ProfileConfig;
  /** Where services run, by name; "all" for those not named. Default: inline. A placement that the embedder lacks becomes inline. */
  readonly services?: Readonly<Record<string, PlacementName>>;
  /** Changes to the policy of restarts. */
  readonly servicePolicy?: ServicePolicyConfig;
  /** Give the guest a virtio entropy device. Default: no. */
  readonly entropyDevice?: boolean;
  /** For embedders that have files: in the order in which the guest finds them. */
  readonly disks?: readonly DiskConfig[];
  /** Folders that the guest can mount. For embedders that have files. */
  readonly shares?: readonly ShareConfig[];
  /** A virtio balloon with free page reporting: what the guest does not need is zero, and in no snapshot. Default: none. */
  readonly balloon?: boolean;
  /** A virtio console, whose bytes are port 4's. Default: none. */
  readonly virtioConsole?: boolean;
  /** A network card whose other end is our user-mode network. For embedders that have sockets. Default: none. */
  readonly network?: NetworkConfig;
  /** A virtio socket device, for `connect`. Default: none. */
  readonly sockets?: boolean;
  /** What the real-time clock shows at start, milliseconds since 1970 UTC. A constant in deterministic mode. */
  readonly rtcEpochMs: number;
}

/** A folder of the embedder's with a snapshot in it. */
export interface SnapshotPlace {
  readonly folder: string;
}

export type SnapshotOutcome =
  /** What is to be published; milliseconds in which the guest stood still. */
  | { readonly draft: string; readonly bytes: number; readonly ms: number }
  | { readonly problem: StopReason };

/** The user-mode network. */
export interface NetworkConfig {
  /** Bytes of an IP packet, 576 to 32,000. Default: 9000. */
  readonly mtu?: number;
  /** Where the guest may connect to: "open", "deny", NAME, "*.NAME", ADDRESS, ADDRESS/BITS, the last four with ":PORT" or not. Default: open. */
  readonly egress?: readonly string[];
  /** Ports of the embedder that lead into the guest: "[HOSTADDRESS:]HOSTPORT:GUESTPORT[/udp]". */
  readonly forwards?: readonly string[];
  /** Connections to the gateway reach the embedder's own loopback. Default: yes. */
  readonly hostAccess?: boolean;
  /** What DHCP calls the guest. */
  readonly hostName?: string;
  /** Six bytes. Default: a new one each time, or the snapshot's. */
  readonly mac?: readonly number[];
  /** A file for a capture of all frames, pcapng. */
  readonly capture?: string;
}

/** A folder of the embedder's, as a device that the guest mounts by its tag. */
export interface ShareConfig {
  readonly path: string;
  /** ASCII, at most 31 characters, each once. */
  readonly tag: string;
  /** "fs": virtio-fs. "9p": 9P2000.L over virtio. */
  readonly protocol: ShareProtocol;
  readonly readOnly: boolean;
  /** Who in the guest owns what is ours here. Default: root. An embedder that is root shows owners as they are. */
  readonly owner?: { readonly uid: number; readonly gid: number };
}

export const SHARE_PROTOCOLS = ["fs", "9p"] as const;
export type ShareProtocol = (typeof SHARE_PROTOCOLS)[number];

/** A disk image of the embedder's. */
export interface DiskConfig {
  readonly path: string;
  /** Default: what its first bytes show. */
  readonly format?: DiskFormat;
  /** What becomes of the guest's writes. */
  readonly mode: DiskMode;
  /** With "scratch": a file that keeps the overlay, made if it is not there. */
  readonly overlay?: string;
  /** With "scratch": what earlier lives of the machine have written, qcow2 overlays of the image, oldest first; they are only read. */
  readonly layers?: readonly string[];
  /** The image itself is a file of a snapshot's: the machine's that wrote to its own. */
  readonly isKeptImage?: boolean;
}

export const DISK_FORMATS = ["raw", "qcow2"] as const;
export type DiskFormat = (typeof DISK_FORMATS)[number];

/**
 * "scratch": they go to an overlay, which is gone with the machine unless it has a file. "write": into the image. "read": there are none, the disk is read-only.
 */
export const DISK_MODES = ["scratch", "write", "read"] as const;
export type DiskMode = (typeof DISK_MODES)[number];

/**
 * "inline": in the machine's thread, in a compartment without authority. "worker": in a thread of its own. "guest": as an x86 program in a
 * VM of its own, in ring 0; "guest:ring3": in ring 3 there.
 */
export const PLACEMENTS = ["inline", "worker", "guest", "guest:ring3"] as const;
export type PlacementName = (typeof PLACEMENTS)[number];

export interface ServicePolicyConfig {
  /** Wall time for one message, in ms. */
  readonly deadlineMs?: number;
  /** More restarts than this in `windowNs` of virtual time end the VM. */
  readonly maxRestarts?: number;
  readonly windowNs?: number;
  readonly maxForOneMessage?: number;
}

/**
 * "kill": the program is gone when its next message comes. "hang": it never answers its next message. "lose-reply": it is gone after its
 * next message, before its reply has been seen. "restart": it is ended in order and started again, now.
 */
export const DRILLS = ["kill", "hang", "lose-reply", "restart"] as const;
export type DrillName = (typeof DRILLS)[number];

export interface ServicesReport {
  /** Milliseconds since the machine's start in which it had its thread; the rest it was waiting. */
  readonly activeMs: number;
  readonly guestMs: number;
  readonly kernelMs: number;
  readonly services: readonly ServiceReport[];
}

export interface ServiceReport {
  readonly name: string;
  /** PlacementName, or "linked": trusted code in the machine's realm. "gone" between a kill and the next message. */
  readonly placement: string;
  /** Its capabilities, for a person. */
  readonly rights: readonly string[];
  readonly messages: number;
  readonly ms: number;
  /** Of `ms`, what vCPUs were charged for their exits; the VM for the rest. */
  readonly vcpuMs: number;
  readonly restarts: number;
  readonly lastFailure: string | null;
  /** Longest time that a restart has held up a message. */
  readonly longestStallMs: number;
  readonly checkpoints: number;
  /** Messages since the last checkpoint. */
  readonly journal: number;
}

export interface ProfileConfig {
  /** Retired instructions between two samples, 1 or more. The machine makes it larger when samples become too many. */
  readonly every: number;
  readonly symbols?: SymbolList;
}

/** Names of code: symbol i is at the addresses from starts[i] up to, but not including, ends[i]. Sorted by start. */
export interface SymbolList {
  readonly starts: BigUint64Array;
  readonly ends: BigUint64Array;
  readonly names: readonly string[];
}

/** What the region tier has done (processor/jit). */
export interface JitReport {
  /** Regions made, the guest instructions in them, the WebAssembly modules that hold them. */
  readonly regions: number;
  readonly instructions: number;
  readonly modules: number;
  /** Hot blocks that no region was made of. */
  readonly refused: number;
  /** Regions forgotten: their code was written, or room was needed. */
  readonly dropped: number;
  /** Regions whose code had changed when they were ready. */
  readonly stale: number;
  readonly flushes: number;
  /** Milliseconds of the machine's own thread. */
  readonly ownMs: number;
  /** Entries from the interpreter, entries from other regions, exits to the interpreter. */
  readonly entries: number;
  readonly links: number;
  readonly bails: number;
  /** Instructions retired inside regions. */
  readonly retired: number;
}

/** Of a connection by vsock, in both directions, in order. After `socketClosed` its id is forgotten; the other side may still name it. */
export type SocketTraffic =
  /** Bytes. At most SOCKET_WINDOW of them may be on their way unacknowledged by `socketTaken`. */
  | { readonly type: "socketData"; readonly id: number; readonly data: Uint8Array }
  | { readonly type: "socketTaken"; readonly id: number; readonly bytes: number }
  /** The sender of this will send no more. */
  | { readonly type: "socketEnded"; readonly id: number }
  | { readonly type: "socketClosed"; readonly id: number };

/** Bytes of one direction of a connection. */
export const SOCKET_WINDOW = 1 << 16;

export const TRACE_KINDS = ["syscalls", "exits", "interrupts", "transitions"] as const;
export type TraceKind = (typeof TRACE_KINDS)[number];

/** What to trace. `names`: only these calls, exit reasons or causes; `processes`: only these, by number or name. */
export interface TraceRequest {
  readonly kind: TraceKind;
  readonly names?: readonly string[];
  readonly processes?: readonly string[];
}

/**
 * A traced event: a line of JSON. Times are virtual ns since the machine's start; `d` is how long it took, or for an exit how long the guest
 * had run.
 */
export interface TraceEvent {
  readonly t: number;
  readonly d?: number;
  readonly name: string;
  /** Of system calls and transitions: process, thread, name of the program. 0: not known. */
  readonly pid?: number;
  readonly tid?: number;
  readonly comm?: string;
  /** Of system calls: as strace writes them. */
  readonly args?: string;
  readonly ret?: string;
  readonly err?: string;
  /** Of transitions: levels. */
  readonly from?: number;
  readonly to?: number;
  readonly vector?: number;
  /** Hexadecimal. */
  readonly rip?: string;
  readonly q?: string;
  readonly cpl?: number;
  /** Instructions since VM entry. */
  readonly n?: number;
}

/** Application to machine. */
export type ToMachine =
  | { readonly type: "start"; readonly config: MachineConfig }
  /** Bytes for a serial port's receiver, in order, any number: the machine holds what the guest has not taken yet. */
  | { readonly type: "input"; readonly port: SerialPort; readonly data: Uint8Array }
  /** Asks the guest to give that much memory, with `balloon`; 0 gives it back. */
  | { readonly type: "balloon"; readonly bytes: number }
  /** Press the ACPI power button. */
  | { readonly type: "powerButton" }
  /** Asks for `services` with the same id. */
  | { readonly type: "services"; readonly id: number }
  /** Does something to a service, to see the VM live through it. Answered by `drilled` with the same id. */
  | {
      readonly type: "drill";
      readonly id: number;
      readonly service: string;
      readonly drill: DrillName;
    }
  /** Begins a trace; `traced` messages with the same id follow until `untrace`, which is answered by the last, an empty one. */
  | { readonly type: "trace"; readonly id: number; readonly request: TraceRequest }
  | { readonly type: "untrace"; readonly id: number }
  /** A connection to a port that the guest listens on (vsock); the application chooses the id. */
  | { readonly type: "connect"; readonly id: number; readonly port: number }
  | SocketTraffic
  /**
   * Writes files of a snapshot of the machine, and of what it has written to its disks, to a folder of the embedder's. `about` is kept with it.
   * Answered by `snapshotTaken` with the same id; the guest stands still meanwhile. The files become a snapshot when somebody publishes
   * them, which can wait for the disk (machine/embedder-node-snapshots.ts).
   */
  | {
      readonly type: "snapshot";
      readonly id: number;
      readonly folder: string;
      readonly about: string;
    }
  /** No guest instruction is executed, and the guest's time stands still, until `resume`; twice is once. */
  | { readonly type: "pause" }
  | { readonly type: "resume" }
  /** Stop at the next instruction boundary; answered with `stopped` of kind "killed". */
  | { readonly type: "stop" };

/** Machine to application. */
export type FromMachine =
  /** The first vCPU is about to run. */
  | { readonly type: "started" }
  /** Bytes that the guest sent on a serial port. */
  | { readonly type: "output"; readonly port: SerialPort; readonly data: Uint8Array }
  | { readonly type: "stopped"; readonly reason: StopReason }
  /** The guest has accepted a `connect`; a refusal is `socketClosed`. */
  | { readonly type: "socketOpen"; readonly id: number }
  | SocketTraffic
  | { readonly type: "services"; readonly id: number; readonly report: ServicesReport }
  | { readonly type: "snapshotTaken"; readonly id: number; readonly outcome: SnapshotOutcome }
  /** `problem`: why it was not done. */
  | { readonly type: "drilled"; readonly id: number; readonly problem: string | null }
  /** Traced events, each a line of JSON (TraceEvent). */
  | { readonly type: "traced"; readonly id: number; readonly lines: string }
  /** Whole lines of the exit log and of the messages to services, each ended by a newline. */
  | { readonly type: "trace"; readonly data: string }
  /** Once, at the end, if asked for; `report` is null without a region tier. `retired`: instructions of the whole run. */
  | { readonly type: "jitStats"; readonly report: JitReport | null; readonly retired: number }
  /** Once, at the end, if asked for: a file in speedscope's format. */
  | { readonly type: "profile"; readonly data: string }
  | { readonly type: "log"; readonly level: LogLevel; readonly text: string };

export type StopKind =
  /** The guest turned the power off. */
  | "poweroff"
  /** The guest asked for a reset. */
  | "reset"
  /** A fault could not be delivered; real hardware would reset. */
  | "triple-fault"
  /** Stopped from outside. */
  | "killed"
  /** The machine could not be built, or our own code failed. */
  | "error";

export interface StopReason {
  readonly kind: StopKind;
  /** One sentence for a person. */
  readonly message?: string;
  /** Many lines for who looks for the cause: registers, last exits, stack. */
  readonly dump?: string;
  /** Of a HypolithError: its stable code, and what the user can do. */
  readonly code?: string;
  readonly hint?: string;
}
