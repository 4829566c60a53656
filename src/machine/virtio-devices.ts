/**
 * The virtio devices of a VM: what each service is told, and what serves its stream.
 *
 * A stream's server gets what the service puts, and answers by bytes on the same stream, at once or later. Streams 0 to 3 are the serial
 * ports', 4 is the virtio console's; those of other virtio devices begin at FIRST_STREAM, in the order of the devices.
 */
import { HypolithError } from "../base/errors.ts";
import { SerialUse, type ShareProtocol } from "../control/protocol.ts";
import { type FrameTag, getTag, TAG_BYTES } from "../devices/virtio/frame-tag.ts";
import type { SocketHost } from "../devices/virtio/socket-host.ts";
import { joinBytes } from "../network/packet/bytes.ts";
import type { VirtioDeviceOptions } from "../services/virtio/options.ts";
import type { ShareSession } from "../sharing/share-session.ts";
import type { Disk } from "../storage/disk.ts";
import { DiskStream } from "./disk-stream.ts";
import { lengthOf } from "./scattered.ts";
import type { VirtioDevicePlan } from "./service-table.ts";
import { ShareStream } from "./share-stream.ts";
import type { StreamServer } from "./stream-server.ts";

export interface MachineDisk {
  readonly disk: Disk;
  /** At most 20 characters: /dev/disk/by-id/virtio-SERIAL in the guest. */
  readonly serial: string;
}

/** A folder that the guest can mount. */
export interface MachineShare {
  readonly tag: string;
  readonly protocol: ShareProtocol;
  readonly session: ShareSession;
}

/** The other end of a network card. */
export interface MachineNetwork {
  /** six bytes */
  readonly mac: Uint8Array;
  readonly mtu: number;
  /** A frame of the guest's, in pieces of its memory. */
  send(tag: FrameTag, memory: readonly Uint8Array[]): void;
  /** Tags of more frames for the guest, or one tag about its link; null if there is nothing new. */
  announce(): Uint8Array | null;
  readonly hasNews: boolean;
  /** Puts the next of the announced frames there, as much of it as there is room for. */
  take(memory: readonly Uint8Array[]): void;
}

/** What one message to a service can hold. */
export const MAX_RECEIVED_BYTES = 60 << 10;

export interface VirtioParts {
  readonly disks: readonly MachineDisk[];
  readonly shares: readonly MachineShare[];
  /** 64 random bits; undefined: no entropy device. */
  readonly entropy: (() => bigint) | undefined;
  readonly network: MachineNetwork | undefined;
  readonly sockets: SocketHost | undefined;
  readonly balloon: StreamServer | undefined;
  /** hvc0, whose other end is the application's. */
  readonly hasConsole: boolean;
  readonly memoryBytes: number;
  readonly log: (text: string) => void;
}

export interface VirtioDevices {
  readonly plans: readonly VirtioDevicePlan[];
  /** By stream. */
  readonly servers: ReadonlyMap<number, StreamServer>;
}

const FIRST_STREAM = 16;
/** Slots of bus 0 beside the host bridge. */
const MAX_DEVICES = 31;

/** `answer`: bytes for the service at the other end of a stream. */
export function createVirtioDevices(
  { disks, shares, entropy, network, sockets, balloon, hasConsole, memoryBytes, log }: VirtioParts,
  answer: (stream: number, bytes: Uint8Array) => void,
): VirtioDevices {
  const plans: VirtioDevicePlan[] = [];
  const servers = new Map<number, StreamServer>();
  const add = (name: string, device: VirtioDeviceOptions, server?: StreamServer): void => {
    plans.push({ name, device, memoryBytes });
    if (server) servers.set(device.stream, server);
  };
  const next = (): number => FIRST_STREAM + plans.length;
  for (const [i, { disk, serial }] of disks.entries()) {
    const stream = next();
    const { size, readOnly } = disk;
    const name = `disk${i}`;
    const server = new DiskStream(disk, (text) => log(`${name}: ${text}`));
    add(name, { kind: "block", stream, size, readOnly, serial }, server);
  }
  if (entropy) {
    const stream = next();
    const send = (bytes: Uint8Array): void => answer(stream, bytes);
    add("entropy", { kind: "entropy", stream }, entropyServer(entropy, send));
  }
  if (network) {
    const { mac, mtu } = network;
    const settings = { mac: [...mac], mtu };
    const device = { kind: "network", stream: next(), ...settings } as const;
    add("net0", device, networkServer(network));
  }
  if (sockets)
    add("vsock", { kind: "socket", stream: next(), cid: GUEST_CID }, socketServer(sockets));
  for (const [i, { tag, protocol, session }] of shares.entries()) {
    const device = { kind: "files", stream: next(), protocol, tag } as const;
    add(`share${i}`, device, new ShareStream(session));
  }
  if (balloon) add("balloon", { kind: "balloon", stream: next() }, balloon);
  if (hasConsole) add("hvc0", { kind: "console", stream: SerialUse.VIRTIO_CONSOLE });
  if (plans.length > MAX_DEVICES)
    throw new HypolithError("too-many-devices", `a machine has room for ${MAX_DEVICES} devices`);
  return { plans, servers };
}

function networkServer(network: MachineNetwork): StreamServer {
  return {
    take() {},
    move(toMemory, header, memory) {
      if (toMemory) network.take(memory);
      else if (header.length === TAG_BYTES) {
        // A frame is what was moved, whatever the service says.
        network.send({ ...getTag(header, 0), length: lengthOf(memory) }, memory);
      }
    },
    give: () => network.announce(),
    isForgetful: true,
    get hasMore() {
      return network.hasNews;
    },
  };
}

/** The context of a machine's only guest. */
export const GUEST_CID = 3;

/** Its connections end with a snapshot: the device tells the guest (socket-device.ts). */
function socketServer(sockets: SocketHost): StreamServer {
  return {
    isForgetful: true,
    take: (packet) => sockets.receive(packet),
    give() {
      const packets: Uint8Array[] = [];
      let length = 0;
      for (let next = sockets.peek(); next; next = sockets.peek()) {
        if (length + next.length > MAX_RECEIVED_BYTES) break;
        packets.push(next);
        length += next.length;
        sockets.taken(1);
      }
      return length === 0 ? null : joinBytes(packets);
    },
    get hasMore() {
      return sockets.peek() !== undefined;
    },
  };
}

const WORD_BYTES = 8;

/** A question is a count of bytes, 16 bits. */
function entropyServer(entropy: () => bigint, send: (bytes: Uint8Array) => void): StreamServer {
  return {
    take(question) {
      const words = Math.ceil(((question[0] ?? 0) + (question[1] ?? 0) * 256) / WORD_BYTES);
      const bytes = new Uint8Array(words * WORD_BYTES);
      const view = new DataView(bytes.buffer);
      for (let i = 0; i < words; i++) view.setBigUint64(i * WORD_BYTES, entropy());
      send(bytes);
    },
  };
}
