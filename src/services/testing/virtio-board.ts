/**
 * The pci service and one virtio service, without a kernel: a driver's accesses go in as messages, effects are carried out on memory and kept for
 * tests to look at. Nothing is checked here that the kernel checks.
 */
import assert from "node:assert/strict";
import { MemoryMap } from "../../devices/platform/platform-map.ts";
import type { TestBus } from "../../devices/virtio/test-driver.ts";
import {
  AddressSpace,
  EffectKind,
  EffectReader,
  MoveDirection,
} from "../../hypervisor/abi/effects.ts";
import { ExitReasons } from "../../hypervisor/abi/exit-reasons.ts";
import { DeviceAccess, EventKind, HEADER_BYTES, Message } from "../../hypervisor/abi/message.ts";
import { createRuntime } from "../../hypervisor/abi/runtime.ts";
import { Status } from "../../hypervisor/abi/status.ts";
import { type ServiceSpec, servicesOf } from "../../machine/service-table.ts";
import type { VirtioDeviceOptions } from "../virtio/options.ts";

const RAM_BYTES = 16 << 20;
const MESSAGE_BYTES = 1 << 16;
const SLOT = 1;

interface Life {
  readonly spec: ServiceSpec;
  message: Message;
  handle: () => void;
}

type MmioSize = 1 | 2 | 4 | 8;

export class VirtioBoard implements TestBus {
  readonly ram = new Uint8Array(RAM_BYTES);
  readonly messages: number[] = [];
  readonly output: Uint8Array[] = [];
  /** In the order in which they were asked for. `memory` is the driver's. */
  readonly moves: {
    readonly toMemory: boolean;
    readonly header: Uint8Array;
    readonly memory: Uint8Array[];
  }[] = [];
  readonly logs: string[] = [];
  /** Effect bytes of the largest reply. */
  largest = 0;
  level = false;
  deadline = Number.POSITIVE_INFINITY;
  /** Each message finds a program that has just been restored. */
  restarts = false;
  #decoded = { base: 0, size: 0 };
  readonly #pci: Life;
  readonly #virtio: Life;

  constructor(device: VirtioDeviceOptions) {
    const specs = servicesOf([{ name: "device0", device, memoryBytes: RAM_BYTES }]);
    this.#pci = this.#start(specs.find(({ name }) => name === "pci")!);
    this.#virtio = this.#start(specs.find(({ name }) => name === "device0")!);
  }

  readConfig(register: number, size: 1 | 2 | 4): number {
    return Number(this.#access(configAddress(register), size, undefined));
  }

  writeConfig(register: number, size: 1 | 2 | 4, value: number): void {
    this.#access(configAddress(register), size, BigInt(value));
  }

  readMemory(address: number, size: MmioSize): bigint {
    return this.#access(address, size, undefined);
  }

  writeMemory(address: number, size: MmioSize, value: number | bigint): void {
    this.#access(address, size, BigInt(value));
  }

  /** Bytes on the device's stream; answers how many were taken. */
  input(bytes: Uint8Array): number {
    const { message } = this.#virtio;
    assert.ok(bytes.length <= message.capacity, "fits into a message");
    message.bytes.set(bytes, HEADER_BYTES);
    message.dataBytes = bytes.length;
    this.#send(this.#virtio, EventKind.INPUT);
    return this.#virtio.message.argument;
  }

  timer(): void {
    this.deadline = Number.POSITIVE_INFINITY;
    this.#send(this.#virtio, EventKind.TIMER);
  }

  #access(address: number, size: MmioSize, value: bigint | undefined): bigint {
    const { base, size: length } = this.#decoded;
    const isConfig = address >= MemoryMap.ECAM_BASE;
    if (!isConfig && (address < base || address >= base + length))
      return (1n << BigInt(8 * size)) - 1n;
    let life = isConfig ? this.#pci : this.#virtio;
    let argument = 0;
    for (;;) {
      const { message } = life;
      Object.assign(message, { reason: ExitReasons.EPT_VIOLATION, physical: address, argument });
      message.deviceSize = size;
      message.deviceAccess = value === undefined ? DeviceAccess.READ : DeviceAccess.WRITE;
      message.deviceData = value ?? 0n;
      const status = this.#send(life, EventKind.EXIT);
      if (status !== Status.FORWARD) return life.message.deviceData;
      assert.equal(life, this.#pci, "only the bus passes events on");
      argument = life.message.argument;
      life = this.#virtio;
    }
  }

  #start(spec: ServiceSpec): Life {
    const message = new Message(new ArrayBuffer(MESSAGE_BYTES));
    const options = spec.options?.({ rtcEpochMs: 0 });
    const read = (low: number, high: number, length: number): number => {
      const address = low + high * 2 ** 32;
      message.bytes.set(this.ram.subarray(address, address + length), MESSAGE_BYTES - length);
      return Status.OK;
    };
    const { factory, capabilities: grants } = spec;
    const { buffer } = message.view;
    return { spec, message, handle: createRuntime({ buffer, factory, options, grants, read }) };
  }

  /** Ends a program and goes on with a new one that has its state. */
  #restart(life: Life): void {
    const { message } = life;
    const open = message.bytes.slice();
    message.kind = EventKind.SAVE;
    life.handle();
    assert.equal(message.status, Status.OK, "the state fits");
    const state = message.bytes.slice(0, HEADER_BYTES + message.dataBytes);
    Object.assign(life, this.#start(life.spec));
    life.message.bytes.set(state);
    life.message.kind = EventKind.RESTORE;
    life.handle();
    assert.equal(life.message.dataBytes, 0, "a restore has no effects");
    life.message.bytes.set(open);
  }

  #send(life: Life, kind: number): Status {
    if (this.restarts) this.#restart(life);
    const { message } = life;
    message.kind = kind;
    life.handle();
    this.largest = Math.max(this.largest, message.dataBytes);
    const reader = new EffectReader(message);
    assert.ok(reader.open());
    while (reader.next() === 1) this.#carryOut(reader);
    return message.status as Status;
  }

  #carryOut(reader: EffectReader): void {
    switch (reader.kind) {
      case EffectKind.WRITE:
        this.ram.set(reader.bytes(8), reader.wide(0));
        break;
      case EffectKind.INTERRUPT:
        this.messages.push(reader.word(1));
        break;
      case EffectKind.PUT:
        this.output.push(reader.bytes(8).slice());
        break;
      case EffectKind.MOVE:
        this.#move(reader);
        break;
      case EffectKind.LINE:
        this.level = reader.word(1) === 1;
        break;
      case EffectKind.TIMER:
        this.deadline = reader.wide(0);
        break;
      case EffectKind.LOG:
        this.logs.push(String.fromCharCode(...reader.bytes(0)));
        break;
      case EffectKind.DECODE:
        assert.equal(reader.word(1), AddressSpace.MEMORY);
        this.#decoded = { base: reader.wide(2), size: reader.wide(4) };
        break;
      default:
        assert.fail(`effect ${reader.kind}`);
    }
  }

  #move(reader: EffectReader): void {
    const start = reader.moveSegments();
    assert.ok(start >= 0);
    const memory = Array.from({ length: reader.word(3) }, (_, i) => {
      const address = reader.wide(start + 4 * i);
      return this.ram.subarray(address, address + reader.word(start + 4 * i + 2));
    });
    const toMemory = reader.word(1) === MoveDirection.TO_MEMORY;
    this.moves.push({ toMemory, header: reader.moveHeader().slice(), memory });
  }
}

const configAddress = (register: number): number => MemoryMap.ECAM_BASE + SLOT * 0x8000 + register;
