/**
 * Deadlines of many things, the next one at hand: a binary heap that knows where each of its entries is. Of two that are due together the
 * older comes first, so that the order does not depend on the heap's history.
 */
export interface Timed {
  readonly serial: number;
  /** Set by the queue: index in the heap, -1 when not in it. */
  heapIndex: number;
  /** Set by the queue. */
  dueAt: number;
}

export class TimerQueue<T extends Timed> {
  readonly #heap: T[] = [];

  /** The earliest deadline, or Infinity. */
  next(): number {
    return this.#heap[0]?.dueAt ?? Infinity;
  }

  /** Moves `item` to a deadline; Number.MAX_SAFE_INTEGER or more takes it out. */
  schedule(item: T, dueAt: number): void {
    if (item.heapIndex >= 0 && item.dueAt === dueAt) return;
    if (dueAt >= Number.MAX_SAFE_INTEGER) {
      this.remove(item);
      return;
    }
    item.dueAt = dueAt;
    if (item.heapIndex < 0) {
      item.heapIndex = this.#heap.length;
      this.#heap.push(item);
    }
    this.#up(item.heapIndex);
    this.#down(item.heapIndex);
  }

  remove(item: T): void {
    const index = item.heapIndex;
    if (index < 0) return;
    item.heapIndex = -1;
    const last = this.#heap.pop()!;
    if (last === item) return;
    this.#put(last, index);
    this.#up(index);
    this.#down(last.heapIndex);
  }

  /** Takes out an item that is due; undefined if there is none. */
  takeDue(now: number): T | undefined {
    const first = this.#heap[0];
    if (!first || first.dueAt > now) return undefined;
    this.remove(first);
    return first;
  }

  #put(item: T, index: number): void {
    this.#heap[index] = item;
    item.heapIndex = index;
  }

  #up(index: number): void {
    const item = this.#heap[index]!;
    while (index > 0) {
      const parent = (index - 1) >> 1;
      const above = this.#heap[parent]!;
      if (isBefore(above, item)) break;
      this.#put(above, index);
      index = parent;
    }
    this.#put(item, index);
  }

  #down(index: number): void {
    const item = this.#heap[index]!;
    for (;;) {
      let child = 2 * index + 1;
      const [left, right] = [this.#heap[child], this.#heap[child + 1]];
      if (!left) break;
      if (right && isBefore(right, left)) child++;
      const below = this.#heap[child]!;
      if (isBefore(item, below)) break;
      this.#put(below, index);
      index = child;
    }
    this.#put(item, index);
  }
}

const isBefore = (a: Timed, b: Timed): boolean =>
  a.dueAt < b.dueAt || (a.dueAt === b.dueAt && a.serial < b.serial);
