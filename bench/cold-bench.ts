/** The first command after boot: nothing translated, nothing cached, as a user meets a machine. A machine booted anew for each sample. */
import { guestKernel } from "../conformance/harness/kernels.ts";
import { bootGuests, machineStarters } from "./guests.ts";
import { imageFiles } from "./image-bench.ts";
import { realImage } from "./images.ts";
import type { BenchOptions } from "./options.ts";
import type { ProcessSample } from "./process-sample.ts";
import { add } from "./statistics.ts";

const COMMAND = "python3 -c 'print(1)'";
const EXPECTED = "1\n";
const COMMAND_SECONDS = 300;

export interface ColdResult {
  readonly command: string;
  readonly samples: Record<string, ProcessSample[]>;
  readonly failures: Record<string, string>;
}

export async function benchCold(options: BenchOptions): Promise<ColdResult> {
  const files = imageFiles(await guestKernel("cloud"), await realImage(), options);
  const result: ColdResult = { command: COMMAND, samples: {}, failures: {} };
  for (let round = 1; round <= options.rounds; round++) {
    for (const [name, start] of Object.entries(machineStarters(options))) {
      options.progress(`python-cold, round ${round} of ${options.rounds} on ${name}`);
      try {
        const { [name]: guest } = await bootGuests({ [name]: start }, files);
        const ran = await guest!.run(COMMAND, COMMAND_SECONDS).finally(() => guest!.kill());
        if (ran.output !== EXPECTED) throw new Error(`it printed: ${ran.output}`);
        add(result.samples, name, { cpu: ran.cpuSeconds, wall: ran.wallSeconds });
      } catch (error) {
        result.failures[name] = (error as Error).message;
      }
    }
  }
  return result;
}
