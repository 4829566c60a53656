/** Every criterion there is a test for, in the order of the mechanisms. */
import type { Criterion } from "./criterion.ts";
import { exitLog } from "./p1-a1-exit-log.ts";
import { privilegeProof } from "./p1-a2-privilege.ts";
import { replyFuzz } from "./p1-a3-reply-fuzz.ts";
import { killedConsole } from "./p1-a4-killed-console.ts";
import { bootWithServices } from "./p1-a5-boot.ts";
import { ledgerSums } from "./p1-a6-ledger.ts";
import { hangLeavesOthersAlone } from "./p1-a7-hang.ts";

export const CRITERIA: readonly Criterion[] = [
  exitLog,
  privilegeProof,
  replyFuzz,
  killedConsole,
  bootWithServices,
  ledgerSums,
  hangLeavesOthersAlone,
];
