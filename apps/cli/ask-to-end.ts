/** How a guest is asked to end: the end of a job is the machine's, and a guest without one hears the power button. */

import type { MachineClient } from "../../src/control/machine-client.ts";
import type { ControlLine } from "../common/control-line.ts";
import type { MachineRun } from "./run-machine.ts";

/** Answers whether there was somebody to ask. */
export function askToEnd(
  run: Pick<MachineRun, "hasSession" | "mode" | "stopSignal">,
  control: ControlLine,
  client: Pick<MachineClient, "pressPowerButton">,
): boolean {
  if (!run.hasSession) {
    client.pressPowerButton();
    return true;
  }
  return run.mode === "pipes" ? control.signal(run.stopSignal ?? "TERM") : control.powerOff();
}
