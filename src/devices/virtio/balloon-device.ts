/**
 * The memory balloon: the guest gives pages back, when asked to (inflate) and when it does not need them (free page reporting).
 * Spec: virtio 1.2, "Traditional Memory Balloon Device".
 *
 * What is given back goes out on a wire as ranges of guest-physical memory, whole pages inside granted memory; whether they are really
 * discarded is the world's business. A page counts as returned to the guest when the guest says so, and needs nothing done.
 *
 * Queue numbers count only queues whose features are offered, as Linux and QEMU do: statistics and free page hints are not.
 */
import { restoreState, saveState } from "../state.ts";
import type { DescriptorChain } from "./descriptor-chain.ts";
import { DeviceType, type VirtioDevice, type VirtioLink } from "./virtio-device.ts";
import type { Virtqueue } from "./virtqueue.ts";

/** Feature bits. */
export const BalloonFeature = { DEFLATE_ON_OOM: 2, PAGE_REPORTING: 5 } as const;

export interface BalloonWires {
  /** The guest does not need the contents of these bytes any more: it will find them zero, or as they were. */
  discard(gpa: number, length: number): void;
}

export const BALLOON_PAGE = 4096;
const QUEUE_SIZE = 128;
const INFLATE = 0;
const DEFLATE = 1;
const REPORT = 2;
const PAGE_NUMBER_BYTES = 4;
/** Page numbers of one buffer that are looked at together. */
const BATCH = 1024;
const ConfigAt = { TARGET: 0, ACTUAL: 4, END: 16 } as const;

export class BalloonDevice implements VirtioDevice {
  readonly type = DeviceType.BALLOON;
  readonly classCode = 0x00_ff00;
  readonly features = [BalloonFeature.DEFLATE_ON_OOM, BalloonFeature.PAGE_REPORTING];
  readonly queueSizes = [QUEUE_SIZE, QUEUE_SIZE, QUEUE_SIZE];
  readonly config = new Uint8Array(ConfigAt.END);
  readonly #view = new DataView(this.config.buffer);
  readonly #wires: BalloonWires;
  /** pages that the guest shall give, and that it says it has given */
  readonly #state = { target: 0, actual: 0 };
  #link: VirtioLink | undefined;

  constructor(wires: BalloonWires) {
    this.#wires = wires;
  }

  connect(link: VirtioLink): void {
    this.#link = link;
  }

  /** Asks the guest to give that many pages, or to take back what is beyond. */
  setTarget(pages: number): void {
    this.#state.target = Math.min(Math.max(0, Math.floor(pages)), 0xffff_ffff);
    this.#describe();
    this.#link?.configChanged();
  }

  /** Pages given, by the guest's word. */
  get actual(): number {
    return this.#state.actual;
  }

  writeConfig(offset: number, size: number, value: number): void {
    if (offset !== ConfigAt.ACTUAL || size !== 4) return;
    this.#state.actual = value;
    this.#describe();
  }

  activate(): void {}

  notify(index: number): void {
    const queue = this.#link?.queues[index];
    if (!queue) return;
    do {
      for (let chain = queue.pop(); chain; chain = queue.pop()) this.#take(queue, index, chain);
    } while (queue.setNotify(true));
    queue.flush();
  }

  reset(): void {
    this.#state.actual = 0;
    this.#describe();
  }

  save(): unknown {
    return saveState(this.#state);
  }

  restore(state: unknown): void {
    restoreState(this.#state, state);
    this.#describe();
  }

  #take(queue: Virtqueue, index: number, chain: DescriptorChain): void {
    if (index === INFLATE) this.#inflate(chain);
    else if (index === REPORT) this.#report(chain);
    else if (index !== DEFLATE) return;
    queue.push(chain, 0);
  }

  /** An array of page numbers; neighbours go out as one range. */
  #inflate(chain: DescriptorChain): void {
    const count = Math.floor(chain.readableBytes / PAGE_NUMBER_BYTES);
    let from = 0;
    let to = 0;
    for (let first = 0; first < count; first += BATCH) {
      const length = Math.min(BATCH, count - first);
      const bytes = chain.take(first * PAGE_NUMBER_BYTES, length * PAGE_NUMBER_BYTES);
      if (!bytes) return;
      const view = new DataView(bytes.buffer);
      for (let i = 0; i < length; i++) {
        const gpa = view.getUint32(i * PAGE_NUMBER_BYTES, true) * BALLOON_PAGE;
        if (gpa === to) to += BALLOON_PAGE;
        else if (gpa + BALLOON_PAGE === from) from = gpa;
        else {
          this.#discard(from, to);
          from = gpa;
          to = gpa + BALLOON_PAGE;
        }
      }
    }
    this.#discard(from, to);
  }

  /** The buffers themselves are the free pages. */
  #report(chain: DescriptorChain): void {
    for (const [i, address] of chain.addresses.entries()) {
      const from = Math.ceil(address / BALLOON_PAGE) * BALLOON_PAGE;
      const end = address + chain.lengths[i];
      this.#discard(from, end - (end % BALLOON_PAGE));
    }
  }

  #discard(from: number, to: number): void {
    if (to > from) this.#wires.discard(from, to - from);
  }

  #describe(): void {
    this.#view.setUint32(ConfigAt.TARGET, this.#state.target, true);
    this.#view.setUint32(ConfigAt.ACTUAL, this.#state.actual, true);
  }
}
