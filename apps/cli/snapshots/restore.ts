/** `hypo snapshot restore` in the process that runs the machine: its run, as it was, goes on from the snapshot. */
import type { Messages } from "../messages.ts";
import { runMachine } from "../run-machine.ts";
import type { StopRequests } from "../terminal/stop-requests.ts";
import { resumedConfig } from "../vm-client.ts";
import type { RestoreOptions } from "./commands.ts";
import { loadSnapshot } from "./snapshot-store.ts";

export function restoreHere(
  folder: string,
  name: string,
  { publish, rm }: RestoreOptions,
  messages: Messages,
  stops: StopRequests,
): Promise<number> {
  const stored = loadSnapshot(folder);
  const config = resumedConfig(stored, folder);
  const { network } = config;
  const run = {
    ...stored.run,
    user: stored.run.user,
    name,
    config: {
      ...config,
      ...(network && publish && { network: { ...network, forwards: publish } }),
    },
    settings: { ...stored.run.settings, snapshot: stored.machine },
    resumed: stored.session,
    showConsole: false,
    trace: undefined,
    profile: undefined,
    isBackground: true,
    isKept: !rm,
  };
  return runMachine(run, messages, stops);
}
