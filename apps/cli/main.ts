/**
 * The `hypo` command. Understands the words, does the verb, ends with its exit code; every failure is reported here.
 *
 * bin/hypo starts this file under a Node that can run it.
 */
import { HypolithError } from "../../src/base/errors.ts";
import { ExitCode } from "./exit-code.ts";
import { Messages } from "./messages.ts";
import { parseArguments, type Request } from "./program.ts";
import { StoppedError, StopRequests } from "./terminal/stop-requests.ts";
import { packageVersion } from "./version.ts";

/** Replaced as soon as --quiet and --log-level are known. */
let messages = new Messages({ quiet: false, level: "warn" });
const stops = new StopRequests();

async function main(argv: readonly string[]): Promise<number> {
  try {
    return await perform(parseArguments(argv, packageVersion()));
  } catch (error) {
    return report(error);
  }
}

async function perform(request: Request): Promise<number> {
  switch (request.verb) {
    case "none":
      return request.exitCode;
    case "version":
      process.stdout.write(`hypo ${packageVersion()}\n`);
      return ExitCode.OK;
    case "doctor": {
      const { doctor } = await import("./doctor.ts");
      return doctor(request.options, stops.signal);
    }
    case "services": {
      const { services } = await import("./vms/verbs.ts");
      return services(request.vm, request.options);
    }
    case "service": {
      const { drillService } = await import("./vms/verbs.ts");
      return drillService(request.drill, request.service, request.vm);
    }
    case "image": {
      const { request: asked } = request;
      if (asked.verb === "pull" && asked.options.quiet)
        messages = new Messages({ quiet: true, level: "error" });
      const { performImageVerb } = await import("./oci/verbs.ts");
      return performImageVerb(asked, messages, stops.signal);
    }
    case "snapshot": {
      const { performSnapshotVerb } = await import("./snapshots/verbs.ts");
      return performSnapshotVerb(request.request, messages, stops);
    }
    case "web": {
      const { quiet = false } = request.options;
      messages = new Messages({ quiet, level: quiet ? "error" : "warn" });
      const { web } = await import("./web.ts");
      return web(request.image, request.options, messages, stops);
    }
    case "completion": {
      const [{ completionScript }, { describeCommands }] = await Promise.all([
        import("./vms/completion.ts"),
        import("./program.ts"),
      ]);
      process.stdout.write(completionScript(request.shell, describeCommands()));
      return ExitCode.OK;
    }
    case "run": {
      const { quiet = false, logLevel } = request.words.options;
      messages = new Messages({ quiet, level: logLevel ?? (quiet ? "error" : "warn") });
      const { run } = await import("./run.ts");
      return run(request.words, messages, stops);
    }
    default: {
      const { performVmVerb } = await import("./vms/verbs.ts");
      return performVmVerb(request, messages, stops);
    }
  }
}

function report(error: unknown): number {
  if (error instanceof StoppedError) return stops.exitCode ?? ExitCode.FAILED;
  messages.failure(error);
  const isUsage = error instanceof HypolithError && error.code === "usage";
  return isUsage ? ExitCode.USAGE : ExitCode.FAILED;
}

/** Whatever has been written must have left before the process ends. */
function flush(stream: NodeJS.WriteStream): Promise<void> {
  return new Promise((resolve) => {
    if (stream.destroyed || !stream.writable) resolve();
    else stream.write("", () => resolve());
  });
}

// The exit hooks restore the terminal and remove half-done work.
process.on("uncaughtException", (error) => process.exit(report(error)));
process.on("unhandledRejection", (error) => process.exit(report(error)));
process.stderr.on("error", () => {});

const code = await main(process.argv.slice(2));
await Promise.all([flush(process.stdout), flush(process.stderr)]);
process.exit(code);
