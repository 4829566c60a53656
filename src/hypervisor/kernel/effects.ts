/**
 * The effects of a reply: all checked against the service's capabilities before any is carried out.
 */

import { RAM_BASE } from "../../processor/state/layout.ts";
import type { Engine } from "../../processor/vmx/engine-port.ts";
import {
  AddressSpace,
  EffectKind,
  EffectReader,
  MoveDirection,
  NO_DEADLINE,
  StopNumber,
} from "../abi/effects.ts";
import type { Message } from "../abi/message.ts";
import { decodeMessage, deliverInterrupt } from "./apic-message.ts";
import type { Capabilities, ServiceDomain } from "./service-domain.ts";
import type { Vm } from "./vm.ts";

export interface EffectPorts {
  /** Virtual time in ns. */
  now(): number;
  /** Bytes for a stream of the embedder; a copy. */
  put(stream: number, bytes: Uint8Array): void;
  /**
   * Bytes between guest memory and a stream of the embedder. `segments` are guest memory itself, to be read or written during the call only; `header` is
   * the service's word for what to do.
   */
  move(stream: number, toMemory: boolean, header: Uint8Array, segments: Uint8Array[]): void;
  log(text: string): void;
}

/** A flood of small effects is no way to hold up the kernel. */
const MAX_RECORDS = 4096;
/** Of guest memory that one message may have moved. */
const MAX_MOVED_BYTES = 128 << 20;
const MAX_LOG_BYTES = 4096;
const MAX_LOG_LINES_PER_SECOND = 200;
/** Between two timer messages a guest gets this much, whatever its services ask for. */
export const MIN_TIMER_NS = 10_000;
const PAGE = 4096;

export class EffectGate {
  readonly #vm: Vm;
  readonly #engine: Engine;
  readonly #ports: EffectPorts;
  #movedBytes = 0;

  constructor(vm: Vm, engine: Engine, ports: EffectPorts) {
    this.#vm = vm;
    this.#engine = engine;
    this.#ports = ports;
  }

  /** Why the effects in `message` cannot be carried out, or null. */
  check(service: ServiceDomain, message: Message): string | null {
    if (message.dataBytes === 0) return null;
    const reader = new EffectReader(message);
    if (!reader.open()) return "effects of an impossible length";
    this.#movedBytes = 0;
    for (let records = 0; ; records++) {
      const more = reader.next();
      if (more === 0) return null;
      if (more < 0) return "malformed effects";
      if (records === MAX_RECORDS) return "too many effects";
      const refusal = this.#refusal(service, reader);
      if (refusal !== null) return refusal;
    }
  }

  #refusal(service: ServiceDomain, r: EffectReader): string | null {
    const { capabilities } = service;
    const { kind, length } = r;
    switch (kind) {
      case EffectKind.TIMER:
        return length === 8 ? null : "malformed timer";
      case EffectKind.LINE:
        if (length !== 8 || r.word(1) > 1) return "malformed line level";
        return capabilities.lines.includes(r.word(0))
          ? null
          : `line ${r.word(0)} is not a capability`;
      case EffectKind.INTERRUPT:
        if (length !== 8 || decodeMessage(r.word(0), r.word(1)) === null)
          return "no interrupt message";
        return capabilities.messages ? null : "interrupt messages are not a capability";
      case EffectKind.PUT:
        if (length < 8) return "malformed output";
        return capabilities.streams.includes(r.word(0))
          ? null
          : `stream ${r.word(0)} is not a capability`;
      case EffectKind.STOP: {
        const stop = length === 8 ? stopOf(r.word(0)) : null;
        if (stop === null) return "malformed stop";
        return capabilities.stops.includes(stop) ? null : `${stop} is not a capability`;
      }
      case EffectKind.LOG:
        return length <= MAX_LOG_BYTES ? null : "a log line of more than 4 KiB";
      case EffectKind.WRITE:
        if (length < 8) return "malformed write";
        return hasWindow(capabilities, r.wide(0), length - 8, true)
          ? null
          : "write outside the memory windows";
      case EffectKind.DECODE:
        return this.#refuseDecode(service, r);
      case EffectKind.MOVE:
        return this.#refuseMove(service, r);
      default:
        return `unknown effect ${kind}`;
    }
  }

  #refuseDecode({ capabilities, decodePortals }: ServiceDomain, r: EffectReader): string | null {
    if (r.length !== 24 || r.word(1) > AddressSpace.PORTS) return "malformed decoding";
    const space = spaceOf(r.word(1));
    const [base, size] = [r.wide(2), r.wide(4)];
    if (!capabilities.decodes || r.word(0) >= capabilities.decodes.slots)
      return "decoding is not a capability";
    const isIn = capabilities.decodeRights.some(
      (right) => right.space === space && base >= right.from && base + size <= right.to,
    );
    return size === 0 || (isIn && decodePortals[space]) ? null : "decoding outside the capability";
  }

  #refuseMove({ capabilities }: ServiceDomain, r: EffectReader): string | null {
    const start = r.moveSegments();
    if (start < 0 || r.word(1) > MoveDirection.TO_MEMORY) return "malformed move";
    if (!capabilities.streams.includes(r.word(0))) return `stream ${r.word(0)} is not a capability`;
    const toMemory = r.word(1) === MoveDirection.TO_MEMORY;
    for (let i = 0; i < r.word(3); i++) {
      const at = start + 4 * i;
      this.#movedBytes += r.word(at + 2);
      if (!hasWindow(capabilities, r.wide(at), r.word(at + 2), toMemory))
        return "move outside the memory windows";
    }
    return this.#movedBytes <= MAX_MOVED_BYTES ? null : "moves of too much memory";
  }

  /** Carries out effects that check() has found good. */
  commit(service: ServiceDomain, message: Message): void {
    if (message.dataBytes === 0) return;
    const reader = new EffectReader(message);
    reader.open();
    while (reader.next() === 1) this.#apply(service, reader);
  }

  #apply(service: ServiceDomain, r: EffectReader): void {
    const vm = this.#vm;
    switch (r.kind) {
      case EffectKind.TIMER:
        service.deadline =
          r.word(1) === NO_DEADLINE
            ? Number.POSITIVE_INFINITY
            : Math.max(r.wide(0), service.timerFloor);
        break;
      case EffectKind.LINE:
        vm.controllers.setLine(r.word(0), service.number, r.word(1) === 1);
        break;
      case EffectKind.INTERRUPT:
        deliverInterrupt(vm.vcpus, decodeMessage(r.word(0), r.word(1))!);
        break;
      case EffectKind.PUT:
        this.#ports.put(r.word(0), r.bytes(8).slice());
        break;
      case EffectKind.STOP: {
        const kind = stopOf(r.word(0))!;
        const message =
          kind === "poweroff" ? "the guest turned the power off" : "the guest asked for a reset";
        vm.end ??= { kind, message };
        break;
      }
      case EffectKind.LOG:
        this.#log(service, r.bytes(0));
        break;
      case EffectKind.WRITE:
        this.#write(r.wide(0), r.bytes(8));
        break;
      case EffectKind.MOVE:
        this.#move(r);
        break;
      case EffectKind.DECODE: {
        const space = spaceOf(r.word(1));
        vm.routes.decode({
          owner: service.number,
          slot: r.word(0),
          space,
          base: r.wide(2),
          size: r.wide(4),
          portal: service.decodePortals[space],
        });
        break;
      }
    }
  }

  /** In device space, like a device's: what is there that is not RAM is not written. */
  #write(address: number, bytes: Uint8Array): void {
    this.#noticeWrite(address, bytes.length);
    new Uint8Array(this.#engine.view.buffer).set(bytes, RAM_BASE + address);
  }

  #noticeWrite(address: number, bytes: number): void {
    this.#vm.pager?.ensure(address, bytes);
    const host = RAM_BASE + address;
    for (let at = 0; at < bytes; ) {
      const length = Math.min(bytes - at, PAGE - ((host + at) & (PAGE - 1)));
      this.#engine.noticeWrite(host + at, length);
      at += length;
    }
  }

  #move(r: EffectReader): void {
    const start = r.moveSegments();
    const toMemory = r.word(1) === MoveDirection.TO_MEMORY;
    const { buffer } = this.#engine.view;
    const segments: Uint8Array[] = [];
    for (let i = 0; i < r.word(3); i++) {
      const address = r.wide(start + 4 * i);
      const length = r.word(start + 4 * i + 2);
      if (toMemory) this.#noticeWrite(address, length);
      else this.#vm.pager?.ensure(address, length);
      segments.push(new Uint8Array(buffer, RAM_BASE + address, length));
    }
    this.#ports.move(r.word(0), toMemory, r.moveHeader().slice(), segments);
  }

  /** A flood is cut off, with a note: the log is the user's. */
  #log(service: ServiceDomain, bytes: Uint8Array): void {
    const second = Math.floor(this.#ports.now() / 1e9);
    if (service.logSecond !== second) {
      service.logSecond = second;
      service.logLines = 0;
    }
    service.logLines++;
    if (service.logLines > MAX_LOG_LINES_PER_SECOND) return;
    const isLast = service.logLines === MAX_LOG_LINES_PER_SECOND;
    this.#ports.log(`${service.name}: ${isLast ? "(more log lines dropped)" : printable(bytes)}`);
  }
}

function stopOf(n: number): "poweroff" | "reset" | null {
  return n === StopNumber.POWEROFF ? "poweroff" : n === StopNumber.RESET ? "reset" : null;
}

function spaceOf(n: number): "memory" | "ports" {
  return n === AddressSpace.PORTS ? "ports" : "memory";
}

export function hasWindow(
  { windows }: Capabilities,
  address: number,
  length: number,
  write: boolean,
): boolean {
  return windows.some(
    ({ from, to, write: writable }) =>
      address >= from && address + length <= to && (writable || !write),
  );
}

/** A service's text reaches a terminal: what is not printable ASCII does not. */
function printable(bytes: Uint8Array): string {
  let text = "";
  for (const byte of bytes) text += byte >= 32 && byte < 127 ? String.fromCharCode(byte) : "?";
  return text;
}
