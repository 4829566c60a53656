/**
 * The entropy device: fills buffers with random bytes.
 * Spec: virtio 1.2, "Entropy Device".
 *
 * Randomness is asked of the world in portions of PORTION bytes, one at a time, and only while a driver waits for it.
 */
import { restoreState, saveState } from "../state.ts";
import { DeviceType, type VirtioDevice, type VirtioLink } from "./virtio-device.ts";

const QUEUE_SIZE = 8;
const PORTION = 256;

export interface EntropyWires {
  /** Asks for random bytes: answered by `deliver`, at once or later. */
  ask(count: number): void;
}

export class EntropyDevice implements VirtioDevice {
  readonly type = DeviceType.ENTROPY;
  readonly classCode = 0x00_ff00;
  readonly features = [];
  readonly queueSizes = [QUEUE_SIZE];
  readonly config = new Uint8Array(0);
  readonly #wires: EntropyWires;
  readonly #state = { isWaiting: false };
  #link: VirtioLink | undefined;

  constructor(wires: EntropyWires) {
    this.#wires = wires;
  }

  connect(link: VirtioLink): void {
    this.#link = link;
  }

  activate(): void {}

  notify(): void {
    const queue = this.#link?.queues[0];
    if (!queue || this.#state.isWaiting || !queue.setNotify(true)) return;
    this.#state.isWaiting = true;
    this.#wires.ask(PORTION);
  }

  /** Random bytes; those that no buffer wants are forgotten. */
  deliver(bytes: Uint8Array): void {
    const queue = this.#link?.queues[0];
    this.#state.isWaiting = false;
    if (!queue || !this.#link?.isActive) return;
    for (let at = 0; at < bytes.length; ) {
      const chain = queue.pop();
      if (!chain) break;
      const part = bytes.subarray(at, at + chain.writableBytes);
      queue.push(chain, chain.write(0, part) ? part.length : 0);
      at += part.length;
      // Without room for a byte it comes back empty, and the next has its turn.
      if (part.length === 0) continue;
    }
    queue.flush();
    this.notify();
  }

  reset(): void {
    this.#state.isWaiting = false;
  }

  save(): unknown {
    return saveState(this.#state);
  }

  restore(state: unknown): void {
    restoreState(this.#state, state);
  }
}
