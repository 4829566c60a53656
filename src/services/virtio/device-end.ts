/**
 * The devices' other ends: what a device model asks of the world becomes bytes on a stream, and what comes back is given to it.
 *
 * Everything a message may put is bounded by its room: what does not fit is asked again after the next message, or by a timer.
 */
import { BalloonDevice } from "../../devices/virtio/balloon-device.ts";
import { BlockDevice, type BlockOperation } from "../../devices/virtio/block-device.ts";
import {
  decodeAnswers as decodeBlockAnswers,
  encodeRequest,
} from "../../devices/virtio/block-message.ts";
import { ConsoleDevice } from "../../devices/virtio/console-device.ts";
import { EntropyDevice } from "../../devices/virtio/entropy-device.ts";
import { FileDevice, type FileRequest } from "../../devices/virtio/file-device.ts";
import { decodeFileAnswers, encodeFileHeader } from "../../devices/virtio/file-message.ts";
import {
  encodeTag,
  FrameFlag,
  type FrameTag,
  getTag,
  TAG_BYTES,
} from "../../devices/virtio/frame-tag.ts";
import { NetworkDevice } from "../../devices/virtio/network-device.ts";
import { SocketDevice } from "../../devices/virtio/socket-device.ts";
import { SOCKET_HEADER_BYTES, socketPacketBytes } from "../../devices/virtio/socket-packet.ts";
import type { VirtioDevice } from "../../devices/virtio/virtio-device.ts";
import { moveBytes } from "../../hypervisor/abi/effects.ts";
import type { Hypercalls } from "../../hypervisor/abi/service.ts";
import { Status } from "../../hypervisor/abi/status.ts";
import type { VirtioDeviceOptions } from "./options.ts";

export interface DeviceEnd {
  readonly device: VirtioDevice;
  /** Bytes from the stream; answers how many were taken. */
  receive(bytes: Uint8Array): number;
  /** After each message. True: call again soon, something waits for room. */
  settle(): boolean;
  /** The VM goes on from a snapshot. */
  resumed?(): void;
}

const NO_MEMORY = { addresses: [], lengths: [] };
const NO_HEADER = new Uint8Array(0);

/** Room that stays for what else a message may cause: used rings, a completion's status. */
const RESERVE_BYTES = 12 << 10;
/** Before an effect's payload. */
const RECORD_BYTES = 8;

export function createDeviceEnd(options: VirtioDeviceOptions, hypercalls: Hypercalls): DeviceEnd {
  if (options.kind === "block") return blockEnd(options, hypercalls);
  if (options.kind === "entropy") return entropyEnd(options.stream, hypercalls);
  if (options.kind === "socket") return socketEnd(options, hypercalls);
  if (options.kind === "balloon") return balloonEnd(options.stream, hypercalls);
  if (options.kind === "console") return consoleEnd(options.stream, hypercalls);
  if (options.kind === "files") return filesEnd(options, hypercalls);
  return networkEnd(options, hypercalls);
}

function blockEnd(
  options: Extract<VirtioDeviceOptions, { kind: "block" }>,
  hypercalls: Hypercalls,
): DeviceEnd {
  const { stream } = options;
  const submit = (tag: number, operation: BlockOperation): boolean => {
    const header = encodeRequest(tag, operation);
    const memory = "memory" in operation ? operation.memory : NO_MEMORY;
    if (hypercalls.putRoom() < moveBytes(header.length, memory.addresses.length) + RESERVE_BYTES)
      return false;
    const toMemory = operation.kind === "read";
    return hypercalls.move({ stream, toMemory, header, segments: memory }) === Status.OK;
  };
  const device = new BlockDevice({ submit }, options);
  return {
    device,
    receive(bytes) {
      device.completeAll(decodeBlockAnswers(bytes));
      return bytes.length;
    },
    settle() {
      // What waits for room goes on with the answer to what has it.
      device.resume();
      return false;
    },
  };
}

function entropyEnd(stream: number, hypercalls: Hypercalls): DeviceEnd {
  const device = new EntropyDevice({
    ask: (count) => hypercalls.put(stream, Uint8Array.of(count & 0xff, count >> 8)),
  });
  return {
    device,
    receive(bytes) {
      device.deliver(bytes);
      return bytes.length;
    },
    settle: () => false,
  };
}

/** What one message may have moved. What goes beyond stays as it is, which the guest has to expect of any page. */
const DISCARD_BYTES = 128 << 20;
const DISCARD_HEADER = new Uint8Array(0);

function balloonEnd(stream: number, hypercalls: Hypercalls): DeviceEnd {
  let left = DISCARD_BYTES;
  const device = new BalloonDevice({
    discard(address, length) {
      const hasRoom = hypercalls.putRoom() >= moveBytes(0, 1) + RESERVE_BYTES;
      if (length > left || !hasRoom) return;
      const segments = { addresses: [address], lengths: [length] };
      const move = { stream, toMemory: true, header: DISCARD_HEADER, segments };
      if (hypercalls.move(move) === Status.OK) left -= length;
    },
  });
  return {
    device,
    receive(bytes) {
      if (bytes.length >= 4)
        device.setTarget(new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true));
      return bytes.length;
    },
    settle() {
      left = DISCARD_BYTES;
      return false;
    },
  };
}

/** Of one buffer: Linux sends a page from a terminal, and up to 32 KiB from a program. More is cut off. */
const CONSOLE_BYTES = 32 << 10;

function consoleEnd(stream: number, hypercalls: Hypercalls): DeviceEnd {
  const device = new ConsoleDevice({
    output: (_, bytes) => hypercalls.put(stream, bytes),
    canOutput: () => hypercalls.putRoom() >= CONSOLE_BYTES + RESERVE_BYTES,
  });
  return {
    device,
    receive: (bytes) => device.input(0, bytes),
    settle() {
      if (device.isHeldBack) device.resume();
      return device.isHeldBack;
    },
  };
}

function filesEnd(
  { stream, protocol, tag }: Extract<VirtioDeviceOptions, { kind: "files" }>,
  hypercalls: Hypercalls,
): DeviceEnd {
  const submit = (request: FileRequest): boolean => {
    const header = encodeFileHeader(request);
    const parts = [request.request, request.reply];
    const size = parts.reduce(
      (sum, { addresses }) => sum + RECORD_BYTES + moveBytes(header.length, addresses.length),
      0,
    );
    if (hypercalls.putRoom() < size + RESERVE_BYTES) return false;
    hypercalls.move({ stream, toMemory: false, header, segments: request.request });
    if (request.room > 0)
      hypercalls.move({ stream, toMemory: true, header, segments: request.reply });
    return true;
  };
  const device = new FileDevice({ submit }, { kind: protocol, tag });
  return {
    device,
    receive(bytes) {
      for (const answer of decodeFileAnswers(bytes)) device.complete(answer.tag, answer.written);
      device.resume();
      return bytes.length;
    },
    settle() {
      if (device.isHeldBack) device.resume();
      return device.isHeldBack;
    },
  };
}

/** Of a chain: more make a queue broken. */
const MAX_PIECES = 1024;

function networkEnd(
  options: Extract<VirtioDeviceOptions, { kind: "network" }>,
  hypercalls: Hypercalls,
): DeviceEnd {
  const { stream } = options;
  const hasRoom = (pieces: number): boolean =>
    hypercalls.putRoom() >= moveBytes(TAG_BYTES, pieces) + RESERVE_BYTES;
  const device = new NetworkDevice(
    {
      transmit(tag, segments) {
        hypercalls.move({ stream, toMemory: false, header: encodeTag(tag), segments });
      },
      canTransmit: () => hasRoom(MAX_PIECES),
      place(segments) {
        hypercalls.move({ stream, toMemory: true, header: NO_HEADER, segments });
      },
      canPlace: hasRoom,
    },
    { ...options, mac: Uint8Array.from(options.mac) },
  );
  return {
    device,
    /** Tags of frames that the stream has, or one about the link. */
    receive(bytes) {
      const tags: FrameTag[] = [];
      for (let at = 0; at + TAG_BYTES <= bytes.length; at += TAG_BYTES)
        tags.push(getTag(bytes, at));
      const isAboutLink = tags[0]?.length === 0;
      if (!isAboutLink) return device.receive(tags) * TAG_BYTES;
      device.setLinkUp((tags[0]!.flags & FrameFlag.LINK_UP) !== 0);
      return bytes.length;
    },
    settle() {
      if (device.isTransmitting) device.resume();
      return device.isTransmitting || device.isReceiving;
    },
  };
}

/** The most that credit lets a driver send in one packet (socket-host.ts). One that sends more loses it. */
const SOCKET_DATA_BYTES = 32 << 10;

function socketEnd(
  { stream, cid }: Extract<VirtioDeviceOptions, { kind: "socket" }>,
  hypercalls: Hypercalls,
): DeviceEnd {
  const device = new SocketDevice(
    {
      transmit: (packet) => hypercalls.put(stream, packet),
      canTransmit: () =>
        hypercalls.putRoom() >= SOCKET_HEADER_BYTES + SOCKET_DATA_BYTES + RESERVE_BYTES,
    },
    cid,
  );
  return {
    device,
    receive(bytes) {
      const packets: Uint8Array[] = [];
      const ends: number[] = [0];
      for (let at = 0; at + SOCKET_HEADER_BYTES <= bytes.length; ) {
        const end = at + socketPacketBytes(bytes, at);
        packets.push(bytes.subarray(at, end));
        ends.push(end);
        at = end;
      }
      const taken = device.receive(packets);
      return taken === packets.length ? bytes.length : ends[taken];
    },
    resumed: () => device.resetTransport(),
    settle() {
      if (device.isTransmitting) device.resume();
      return device.isTransmitting;
    },
  };
}
