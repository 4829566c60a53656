/** Interrupt messages to local APICs: how a device writes one, and who gets it. */
import type { Vcpu } from "./vcpu.ts";

/** SDM Vol. 3A, "Message Address Register Format", "Message Data Register Format". */
export interface ApicMessage {
  readonly vector: number;
  readonly deliveryMode: number;
  readonly destMode: 0 | 1;
  readonly dest: number;
  readonly level: boolean;
  readonly trigger: 0 | 1;
}

const MESSAGE_AREA = 0xfee;
const LOWEST_PRIORITY = 1;
const [NMI, EXTINT] = [4, 7];

/** What a write of `data` to `address` means, or null if it is no interrupt message that a device may send. */
export function decodeMessage(address: number, data: number): ApicMessage | null {
  if (address >>> 20 !== MESSAGE_AREA) return null;
  const deliveryMode = (data >>> 8) & 7;
  if (deliveryMode > LOWEST_PRIORITY && deliveryMode !== NMI && deliveryMode !== EXTINT)
    return null;
  return {
    vector: data & 0xff,
    deliveryMode,
    // With or without the redirection hint: Linux writes logical destinations without it, and chipsets deliver them so.
    destMode: ((address >>> 2) & 1) as 0 | 1,
    dest: (address >>> 12) & 0xff,
    level: (data & (1 << 14)) !== 0,
    trigger: ((data >>> 15) & 1) as 0 | 1,
  };
}

/** Routes an interrupt message to the local APICs it names. */
export function deliverInterrupt(vcpus: readonly Vcpu[], message: ApicMessage): boolean {
  const { vector, deliveryMode, destMode, dest, trigger } = message;
  let delivered = false;
  for (const vcpu of vcpus) {
    if (!vcpu.apic.matches(destMode, dest)) continue;
    delivered = vcpu.apic.deliver(deliveryMode, vector, trigger) || delivered;
    if (delivered && deliveryMode === LOWEST_PRIORITY) break;
  }
  return delivered;
}
