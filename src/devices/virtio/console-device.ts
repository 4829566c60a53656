/**
 * The console device: ports of bytes in both directions, some of them consoles with a size, some named channels.
 * Spec: virtio 1.2, "Console Device".
 *
 * Port 0 is a console that works without negotiation; with MULTIPORT the control queues add ports, names and open states. Messages of control
 * to the guest wait, a bounded number of them, until it gives buffers; while they are many its own control messages wait in their queue.
 */
import { HypolithError } from "../../base/errors.ts";
import { DeviceType, type VirtioDevice, type VirtioLink } from "./virtio-device.ts";

/** Feature bits. */
export const ConsoleFeature = { SIZE: 0, MULTIPORT: 1, EMERGENCY_WRITE: 2 } as const;

export const ConsoleEvent = {
  DEVICE_READY: 0,
  DEVICE_ADD: 1,
  DEVICE_REMOVE: 2,
  PORT_READY: 3,
  CONSOLE_PORT: 4,
  RESIZE: 5,
  PORT_OPEN: 6,
  PORT_NAME: 7,
} as const;

export interface ConsolePort {
  /** With a name a channel, /dev/virtio-ports/NAME; without one a console, /dev/hvcN. */
  readonly name?: string;
}

export interface ConsoleWires {
  output(port: number, bytes: Uint8Array): void;
  /** Whether more output can be taken now; `resume` is called when it can again. Absent: always. */
  canOutput?(): boolean;
  /** The guest has buffers for input again. */
  inputReady?(port: number): void;
  /** The guest has opened or closed a port. */
  opened?(port: number, isOpen: boolean): void;
}

const QUEUE_SIZE = 64;
const CONTROL_IN = 2;
const CONTROL_OUT = 3;
const CONTROL_BYTES = 8;
const MAX_WAITING = 64;
/** Of one chain's output that is taken at a time. */
const OUTPUT_BYTES = 4096;
const ConfigAt = { COLUMNS: 0, ROWS: 2, PORTS: 4, EMERGENCY: 8, END: 12 } as const;

const receiveQueue = (port: number): number => (port === 0 ? 0 : 2 * port + 2);

interface PortState {
  isReady: boolean;
  isGuestOpen: boolean;
  isHostOpen: boolean;
  /** wants to hear of buffers */
  isStarved: boolean;
}

interface SavedConsole {
  readonly ports: readonly PortState[];
  readonly waiting: readonly Uint8Array[];
  readonly isHeldBack: boolean;
  readonly columns: number;
  readonly rows: number;
}

export class ConsoleDevice implements VirtioDevice {
  readonly type = DeviceType.CONSOLE;
  readonly classCode = 0x07_8000;
  readonly features = [
    ConsoleFeature.SIZE,
    ConsoleFeature.MULTIPORT,
    ConsoleFeature.EMERGENCY_WRITE,
  ];
  readonly queueSizes: readonly number[];
  readonly config = new Uint8Array(ConfigAt.END);
  readonly #view = new DataView(this.config.buffer);
  readonly #wires: ConsoleWires;
  readonly #ports: readonly ConsolePort[];
  #states: PortState[];
  /** control messages that the guest has no buffer for yet */
  #waiting: Uint8Array[] = [];
  #isHeldBack = false;
  #link: VirtioLink | undefined;

  /** At least one port; the first is a console. */
  constructor(wires: ConsoleWires, ports: readonly ConsolePort[] = [{}]) {
    this.#wires = wires;
    this.#ports = ports;
    this.#states = ports.map(() => freshPort(true));
    this.queueSizes = new Array<number>(2 * ports.length + 2).fill(QUEUE_SIZE);
    this.#view.setUint32(ConfigAt.PORTS, ports.length, true);
  }

  connect(link: VirtioLink): void {
    this.#link = link;
  }

  /** The size of all consoles, in characters. */
  resize(columns: number, rows: number): void {
    this.#view.setUint16(ConfigAt.COLUMNS, columns, true);
    this.#view.setUint16(ConfigAt.ROWS, rows, true);
    this.#link?.configChanged();
    for (const [port, { isReady }] of this.#states.entries())
      if (isReady && this.#ports[port].name === undefined) this.#sendSize(port);
    this.#sendControl();
  }

  /** Whether somebody is at our end of a port. */
  setOpen(port: number, isOpen: boolean): void {
    const state = this.#states[port];
    if (!state || state.isHostOpen === isOpen) return;
    state.isHostOpen = isOpen;
    if (state.isReady) this.#control(port, ConsoleEvent.PORT_OPEN, isOpen ? 1 : 0);
    this.#sendControl();
  }

  /** Bytes for the guest; answers how many found room. */
  input(port: number, bytes: Uint8Array): number {
    const queue = this.#link?.queues[receiveQueue(port)];
    const state = this.#states[port];
    if (!queue || !state || !this.#link?.isActive) return 0;
    let taken = 0;
    while (taken < bytes.length) {
      const chain = queue.pop();
      if (!chain) break;
      const part = bytes.subarray(taken, taken + chain.writableBytes);
      const written = chain.write(0, part) ? part.length : 0;
      queue.push(chain, written);
      taken += written;
    }
    state.isStarved = taken < bytes.length && !queue.setNotify(true);
    if (!state.isStarved) queue.setNotify(false);
    queue.flush();
    return taken;
  }

  /** The wire had no room: output may wait, and the driver was not asked to tell of more. Only `resume` ends it. */
  get isHeldBack(): boolean {
    return this.#isHeldBack && this.#link?.isActive === true;
  }

  /** The wire takes output again. */
  resume(): void {
    this.#isHeldBack = false;
    for (const port of this.#ports.keys()) this.#transmit(port);
  }

  writeConfig(offset: number, size: number, value: number): void {
    if (offset !== ConfigAt.EMERGENCY || size !== 4) return;
    this.#wires.output(0, Uint8Array.of(value & 0xff));
  }

  activate(): void {}

  notify(index: number): void {
    if (index === CONTROL_IN || index === CONTROL_OUT) {
      this.#sendControl();
      this.#takeControl();
      return;
    }
    const port = index < CONTROL_IN ? 0 : (index >> 1) - 1;
    if (index !== receiveQueue(port)) this.#transmit(port);
    else if (this.#states[port]?.isStarved) {
      this.#states[port].isStarved = false;
      this.#wires.inputReady?.(port);
    }
  }

  reset(): void {
    for (const [port, { isGuestOpen }] of this.#states.entries())
      if (isGuestOpen) this.#wires.opened?.(port, false);
    this.#states = this.#states.map(({ isHostOpen }) => freshPort(isHostOpen));
    this.#waiting = [];
    this.#isHeldBack = false;
  }

  save(): SavedConsole {
    return {
      ports: this.#states.map((state) => ({ ...state })),
      waiting: this.#waiting.map((bytes) => bytes.slice()),
      isHeldBack: this.#isHeldBack,
      columns: this.#view.getUint16(ConfigAt.COLUMNS, true),
      rows: this.#view.getUint16(ConfigAt.ROWS, true),
    };
  }

  restore(state: unknown): void {
    const { ports, waiting, isHeldBack, columns, rows } = (state ?? {}) as Partial<SavedConsole>;
    const isFit =
      Array.isArray(ports) &&
      ports.length === this.#ports.length &&
      ports.every(isPortState) &&
      Array.isArray(waiting) &&
      waiting.length <= 2 * MAX_WAITING &&
      waiting.every((bytes) => bytes instanceof Uint8Array) &&
      typeof isHeldBack === "boolean" &&
      Number.isInteger(columns) &&
      Number.isInteger(rows);
    if (!isFit) throw new HypolithError("snapshot-shape", "a saved console does not fit");
    this.#states = ports.map((port) => ({ ...port }));
    this.#waiting = waiting.map((bytes) => bytes.slice());
    this.#isHeldBack = isHeldBack;
    this.#view.setUint16(ConfigAt.COLUMNS, columns!, true);
    this.#view.setUint16(ConfigAt.ROWS, rows!, true);
  }

  #transmit(port: number): void {
    const queue = this.#link?.queues[receiveQueue(port) + 1];
    if (!queue || !this.#link?.isActive) return;
    const canOutput = (): boolean => this.#wires.canOutput?.() ?? true;
    do {
      while (canOutput()) {
        const chain = queue.pop();
        if (!chain) break;
        for (let at = 0; at < chain.readableBytes; at += OUTPUT_BYTES) {
          const bytes = chain.take(at, Math.min(OUTPUT_BYTES, chain.readableBytes - at));
          if (bytes) this.#wires.output(port, bytes);
        }
        queue.push(chain, 0);
      }
    } while (canOutput() && queue.setNotify(true));
    if (!canOutput()) this.#isHeldBack = true;
    queue.flush();
  }

  // ---- control ----

  #control(port: number, event: number, value: number, name = ""): void {
    const bytes = new Uint8Array(CONTROL_BYTES + name.length);
    const view = new DataView(bytes.buffer);
    view.setUint32(0, port, true);
    view.setUint16(4, event, true);
    view.setUint16(6, value, true);
    for (let i = 0; i < name.length; i++) bytes[CONTROL_BYTES + i] = name.charCodeAt(i);
    if (this.#waiting.length < 2 * MAX_WAITING) this.#waiting.push(bytes);
  }

  #sendSize(port: number): void {
    // Rows and columns follow the header as two words, rows first: so Linux reads them.
    const { ROWS, COLUMNS } = ConfigAt;
    const at = this.#waiting.length;
    this.#control(port, ConsoleEvent.RESIZE, 0, "\0\0\0\0");
    const message = this.#waiting[at];
    if (!message) return;
    const view = new DataView(message.buffer, CONTROL_BYTES);
    view.setUint16(0, this.#view.getUint16(ROWS, true), true);
    view.setUint16(2, this.#view.getUint16(COLUMNS, true), true);
  }

  #hasControl(): boolean {
    return this.#link?.isActive === true && this.#link.hasFeature(ConsoleFeature.MULTIPORT);
  }

  #sendControl(): void {
    const queue = this.#link?.queues[CONTROL_IN];
    if (!queue || !this.#hasControl()) return;
    while (this.#waiting.length > 0) {
      const chain = queue.pop();
      if (!chain) break;
      const message = this.#waiting[0];
      // A buffer that is too small for it comes back empty.
      const isSent = chain.write(0, message);
      queue.push(chain, isSent ? message.length : 0);
      if (isSent || chain.writableBytes < message.length) this.#waiting.shift();
    }
    queue.setNotify(this.#waiting.length > 0);
    queue.flush();
  }

  #takeControl(): void {
    const queue = this.#link?.queues[CONTROL_OUT];
    if (!queue || !this.#hasControl()) return;
    do {
      while (this.#waiting.length < MAX_WAITING) {
        const chain = queue.pop();
        if (!chain) break;
        const bytes = chain.take(0, CONTROL_BYTES);
        if (bytes) this.#follow(new DataView(bytes.buffer));
        queue.push(chain, 0);
        this.#sendControl();
      }
    } while (this.#waiting.length < MAX_WAITING && queue.setNotify(true));
    queue.flush();
  }

  #follow(message: DataView): void {
    const port = message.getUint32(0, true);
    const event = message.getUint16(4, true);
    const value = message.getUint16(6, true);
    if (event === ConsoleEvent.DEVICE_READY) {
      if (value === 1)
        for (const id of this.#ports.keys()) this.#control(id, ConsoleEvent.DEVICE_ADD, 0);
      return;
    }
    const state = this.#states[port];
    if (!state) return;
    if (event === ConsoleEvent.PORT_READY && value === 1) this.#introduce(port, state);
    else if (event === ConsoleEvent.PORT_OPEN) {
      state.isGuestOpen = value === 1;
      this.#wires.opened?.(port, state.isGuestOpen);
    }
  }

  #introduce(port: number, state: PortState): void {
    state.isReady = true;
    const { name } = this.#ports[port];
    if (name === undefined) {
      this.#control(port, ConsoleEvent.CONSOLE_PORT, 1);
      if (this.#view.getUint16(ConfigAt.COLUMNS, true) > 0) this.#sendSize(port);
    } else this.#control(port, ConsoleEvent.PORT_NAME, 1, name);
    if (state.isHostOpen) this.#control(port, ConsoleEvent.PORT_OPEN, 1);
  }
}

function freshPort(isHostOpen: boolean): PortState {
  return { isReady: false, isGuestOpen: false, isHostOpen, isStarved: false };
}

function isPortState(state: PortState | null): boolean {
  const { isReady, isGuestOpen, isHostOpen, isStarved } = (state ?? {}) as Partial<PortState>;
  return [isReady, isGuestOpen, isHostOpen, isStarved].every((flag) => typeof flag === "boolean");
}
