/** The two queues of a device that carries packets, as the network and the socket device have them. */
import type { DescriptorChain } from "./descriptor-chain.ts";
import type { Virtqueue } from "./virtqueue.ts";

/** Hands over what waits, as far as the wire takes it. Answers whether the wire had no room: then more may wait, and the driver was not asked to tell. */
export function transmitWaiting(
  queue: Virtqueue,
  canTransmit: () => boolean,
  transmit: (chain: DescriptorChain) => void,
): boolean {
  do {
    while (canTransmit()) {
      const chain = queue.pop();
      if (!chain) break;
      transmit(chain);
      queue.push(chain, 0);
    }
  } while (canTransmit() && queue.setNotify(true));
  const isHeldBack = !canTransmit();
  queue.flush();
  return isHeldBack;
}

/** Ends a round of receiving. Only a receiver that ran dry needs to hear of new buffers; answers whether it did. */
export function endReceiving(queue: Virtqueue, ranDry: boolean): boolean {
  const isFull = ranDry && !queue.setNotify(true);
  if (!isFull) queue.setNotify(false);
  queue.flush();
  return isFull;
}
