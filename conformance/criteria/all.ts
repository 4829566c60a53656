/** Every criterion there is a test for, in the order of the mechanisms. */
import type { Criterion } from "./criterion.ts";
import { exitLog } from "./p1-a1-exit-log.ts";
import { privilegeProof } from "./p1-a2-privilege.ts";
import { replyFuzz } from "./p1-a3-reply-fuzz.ts";
import { killedConsole } from "./p1-a4-killed-console.ts";
import { bootWithServices } from "./p1-a5-boot.ts";
import { ledgerSums } from "./p1-a6-ledger.ts";
import { hangLeavesOthersAlone } from "./p1-a7-hang.ts";
import { nestedDevices } from "./p1-a8-nested.ts";
import { shadowPaging } from "./p5-a8-shadow-paging.ts";
import { accessedHarvest, pagingPermutations, tablePoison } from "./p5-paging.ts";
import { transitionMatrix } from "./p6-a1-matrix.ts";
import { levelAtEntry } from "./p6-a2-at-entry.ts";
import { injectedIncrease } from "./p6-a3-injection.ts";
import { transitionCollisions } from "./p6-a4-collisions.ts";
import { declineMask } from "./p6-a6-decline.ts";
import { nothingWhileOff } from "./p6-a7-off.ts";
import { timerUnit } from "./p7-a1-timer.ts";
import { timerRates } from "./p7-a2-rates.ts";
import { wedgedGuests } from "./p7-a3-wedged.ts";
import { savedQuantum } from "./p7-a4-quantum.ts";
import { noInterrupt } from "./p7-a5-no-interrupt.ts";
import { emptyNotification } from "./p8-a5-empty-notification.ts";
import { virtualBoundaries } from "./p8-a6-boundaries.ts";
import { apicVirtualization } from "./p8-a8-apicv.ts";
import { interruptUnit } from "./p9-a1-interrupts.ts";
import { controllerOracle } from "./p9-a2-controllers.ts";
import { hostIdt } from "./p9-a3-host-idt.ts";
import { spuriousInterrupts } from "./p9-a4-spurious.ts";
import { deliveryExit } from "./p9-a5-delivery-exit.ts";
import { stockKvm } from "./p9-a6-stock-kvm.ts";
import { twoPasses } from "./p9-a7-two-passes.ts";
import {
  assignedDevice,
  directDelivery,
  exactlyOnce,
  executeFallback,
  kvmTimer,
  pagingBoots,
  pagingCorners,
  pagingExits,
  realTimeGuest,
  slices,
  spuriousFaults,
  twoVcpus,
  virtualApicUnit,
} from "./untried.ts";

export const CRITERIA: readonly Criterion[] = [
  exitLog,
  privilegeProof,
  replyFuzz,
  killedConsole,
  bootWithServices,
  ledgerSums,
  hangLeavesOthersAlone,
  nestedDevices,
  pagingPermutations,
  pagingBoots,
  accessedHarvest,
  spuriousFaults,
  pagingExits,
  tablePoison,
  pagingCorners,
  shadowPaging,
  transitionMatrix,
  levelAtEntry,
  injectedIncrease,
  transitionCollisions,
  twoVcpus,
  declineMask,
  nothingWhileOff,
  executeFallback,
  timerUnit,
  timerRates,
  wedgedGuests,
  savedQuantum,
  noInterrupt,
  kvmTimer,
  slices,
  virtualApicUnit,
  directDelivery,
  assignedDevice,
  exactlyOnce,
  emptyNotification,
  virtualBoundaries,
  realTimeGuest,
  apicVirtualization,
  stockKvm,
  interruptUnit,
  controllerOracle,
  hostIdt,
  spuriousInterrupts,
  deliveryExit,
  twoPasses,
];
