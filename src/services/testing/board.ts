/**
 * The services of a machine without a guest: accesses, time and bytes go in as messages, effects are carried out on real interrupt
 * controllers and kept for tests to look at. No checks: what the kernel refuses is tested there.
 */
import {
  AddressSpace,
  EffectKind,
  EffectReader,
  NO_DEADLINE,
  StopNumber,
} from "../../hypervisor/abi/effects.ts";
import { ExitReasons } from "../../hypervisor/abi/exit-reasons.ts";
import { DeviceAccess, EventKind, HEADER_BYTES, Message } from "../../hypervisor/abi/message.ts";
import { createRuntime } from "../../hypervisor/abi/runtime.ts";
import { Status } from "../../hypervisor/abi/status.ts";
import type { ApicMessage } from "../../hypervisor/kernel/apic-message.ts";
import { InterruptControllers } from "../../hypervisor/kernel/interrupt-controllers.ts";
import { SERVICES, type ServiceSpec } from "../../machine/service-table.ts";

export interface BoardService {
  readonly spec: ServiceSpec;
  readonly number: number;
  message: Message;
  handle: () => void;
  deadline: number;
}

type PortSize = 1 | 2 | 4;
type MmioSize = 1 | 2 | 4 | 8;

export class Board {
  time = 0;
  readonly services: readonly BoardService[];
  readonly controllers: InterruptControllers;
  readonly sent: ApicMessage[] = [];
  readonly output: [stream: number, bytes: number[]][] = [];
  readonly events: string[] = [];
  readonly #config: { rtcEpochMs: number };

  constructor(config = { rtcEpochMs: Date.parse("2026-11-24T12:00:00Z") }) {
    this.#config = config;
    this.controllers = new InterruptControllers((message) => this.sent.push(message));
    this.services = SERVICES.map((spec, number) => ({
      ...{ spec, number, deadline: Number.POSITIVE_INFINITY },
      ...this.#life(spec),
    }));
    for (const service of this.services) this.send(service, EventKind.START);
  }

  #life(spec: ServiceSpec): { message: Message; handle: () => void } {
    const message = new Message();
    const { buffer } = message.view;
    const { capabilities, factory } = spec;
    const options = spec.options?.(this.#config);
    const read = (): number => Status.DENIED;
    return {
      message,
      handle: createRuntime({ buffer, factory, options, grants: capabilities, read }),
    };
  }

  named(name: string): BoardService {
    return this.services.find(({ spec }) => spec.name === name)!;
  }

  /** Ends every service and goes on with new ones that have the old ones' state. */
  restart(): void {
    for (const service of this.services) {
      service.message.kind = EventKind.SAVE;
      service.handle();
      if (service.message.status !== Status.OK) throw new Error("the state does not fit");
      const state = service.message.bytes.slice(0, HEADER_BYTES + service.message.dataBytes);
      Object.assign(service, this.#life(service.spec));
      service.message.bytes.set(state);
      service.message.kind = EventKind.RESTORE;
      service.handle();
    }
  }

  send(service: BoardService, kind: number): Status {
    const { message } = service;
    message.kind = kind;
    message.time = this.time;
    service.handle();
    this.#effects(service);
    return message.status as Status;
  }

  readPort(port: number, size: PortSize): number {
    if (this.controllers.ownsPort(port)) return this.controllers.readPort(port, size);
    const service = this.#at("ports", port);
    if (!service) return 2 ** (8 * size) - 1;
    const { message } = service;
    message.reason = ExitReasons.IO;
    message.qualification = port * 0x1_0000 + 8 + size - 1;
    message.setRegister(0, 0, 0);
    this.send(service, EventKind.EXIT);
    return message.registerLow(0);
  }

  writePort(port: number, size: PortSize, value: number): void {
    if (this.controllers.ownsPort(port)) {
      this.controllers.writePort(port, size, value);
      return;
    }
    const service = this.#at("ports", port);
    if (!service) return;
    const { message } = service;
    message.reason = ExitReasons.IO;
    message.qualification = port * 0x1_0000 + size - 1;
    message.setRegister(0, value, 0);
    this.send(service, EventKind.EXIT);
  }

  readMemory(address: number, size: MmioSize): bigint {
    if (this.controllers.ownsMemory(address))
      return BigInt(this.controllers.readMemory(address, size));
    const service = this.#at("memory", address);
    if (!service) return (1n << BigInt(8 * size)) - 1n;
    this.#access(service, address, size, DeviceAccess.READ);
    return service.message.deviceData;
  }

  writeMemory(address: number, size: MmioSize, value: bigint | number): void {
    if (this.controllers.ownsMemory(address)) {
      this.controllers.writeMemory(address, size, value);
      return;
    }
    const service = this.#at("memory", address);
    if (!service) return;
    service.message.deviceData = BigInt(value);
    this.#access(service, address, size, DeviceAccess.WRITE);
  }

  #access(service: BoardService, address: number, size: number, access: number): void {
    const { message } = service;
    message.reason = ExitReasons.EPT_VIOLATION;
    message.physical = address;
    message.deviceSize = size;
    message.deviceAccess = access;
    this.send(service, EventKind.EXIT);
  }

  #at(space: "ports" | "memory", address: number): BoardService | undefined {
    return this.services.find(({ spec }) =>
      spec[space].some(([from, to]) => address >= from && address <= to),
    );
  }

  input(stream: number, bytes: readonly number[]): number {
    const service = this.services.find(({ spec }) => spec.input.includes(stream))!;
    const { message } = service;
    message.bytes.set(bytes, HEADER_BYTES);
    message.dataBytes = bytes.length;
    message.stream = stream;
    this.send(service, EventKind.INPUT);
    return message.argument;
  }

  signal(service: BoardService, signal: number): void {
    service.message.argument = signal;
    this.send(service, EventKind.SIGNAL);
  }

  /** Lets time pass, timers at their time. */
  run(until: number): void {
    for (;;) {
      const next = Math.min(...this.services.map(({ deadline }) => deadline));
      if (next > until) break;
      this.jump(Math.max(this.time, next));
    }
    this.time = until;
  }

  /** As after a late wake-up: everything that was due meanwhile is handled at once. */
  jump(time: number): void {
    this.time = time;
    for (const service of this.services) {
      if (service.deadline > time) continue;
      service.deadline = Number.POSITIVE_INFINITY;
      this.send(service, EventKind.TIMER);
    }
  }

  #effects(service: BoardService): void {
    const reader = new EffectReader(service.message);
    if (!reader.open()) throw new Error("effects of an impossible length");
    for (let more = reader.next(); more !== 0; more = reader.next()) {
      if (more < 0) throw new Error("malformed effects");
      switch (reader.kind) {
        case EffectKind.TIMER:
          service.deadline =
            reader.word(1) === NO_DEADLINE ? Number.POSITIVE_INFINITY : reader.wide(0);
          break;
        case EffectKind.LINE:
          this.controllers.setLine(reader.word(0), service.number, reader.word(1) === 1);
          break;
        case EffectKind.PUT:
          this.output.push([reader.word(0), [...reader.bytes(8)]]);
          break;
        case EffectKind.STOP:
          this.events.push(reader.word(0) === StopNumber.RESET ? "reset" : "off");
          break;
        default:
          throw new Error(`effect ${reader.kind} of ${AddressSpace.PORTS}`);
      }
    }
  }
}
