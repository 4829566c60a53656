/**
 * `hypo web`: the page of apps/web with an image beside it, on a server of this machine or in a folder for somebody else's.
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { HypolithError } from "../../src/base/errors.ts";
import { ExitCode } from "./exit-code.ts";
import { flavorOfImage, flavorOfShortName } from "./image/flavors.ts";
import { type PullPolicy, supplyAsAsked } from "./image/supply.ts";
import type { Messages } from "./messages.ts";
import type { StopRequests } from "./terminal/stop-requests.ts";
import { UsageError } from "./usage-error.ts";
import { imageFiles, type PageFiles, pageFiles } from "./web/page-files.ts";
import { PageServer } from "./web/page-server.ts";

/** Options as commander hands them over. */
export interface WebOptions {
  readonly port: string;
  readonly host: string;
  readonly export?: string;
  readonly flavor?: string;
  readonly mirror?: string;
  readonly pull: PullPolicy;
  readonly cache: boolean;
  readonly quiet?: boolean;
}

const LARGEST_PORT = 65_535;

export async function web(
  name: string | undefined,
  options: WebOptions,
  messages: Messages,
  stops: StopRequests,
): Promise<number> {
  const port = portOf(options.port);
  // The page first: that it is missing should not cost a download.
  const page = pageFiles();
  const files = new Map([...page, ...(await supply(name, options, messages, stops))]);
  if (options.export !== undefined) {
    writeFolder(options.export, files);
    messages.notice(`wrote ${files.size} files into ${options.export}`);
    return ExitCode.OK;
  }
  const server = new PageServer(files);
  const address = await server.listen(port, options.host);
  messages.notice("the page is at this address until Ctrl-C:");
  process.stdout.write(`${address}\n`);
  await new Promise<void>((resolve) => stops.handle(() => resolve()));
  await server.close();
  return stops.exitCode ?? ExitCode.OK;
}

async function supply(
  name: string | undefined,
  options: WebOptions,
  messages: Messages,
  stops: StopRequests,
): Promise<PageFiles> {
  if (name !== undefined && options.flavor !== undefined) {
    throw new UsageError("--flavor and IMAGE both choose the image", "leave one of them out");
  }
  const { flavor } = options;
  const chosen = flavor === undefined ? flavorOfImage(name ?? "debian") : flavorOfShortName(flavor);
  return imageFiles(await supplyAsAsked(chosen, options, messages, stops.signal));
}

function portOf(text: string): number {
  const port = Number(text);
  if (/^\d+$/.test(text) && port <= LARGEST_PORT) return port;
  throw new UsageError(`'${text}' is no port`, `write a number from 0 to ${LARGEST_PORT}`);
}

function writeFolder(folder: string, files: PageFiles): void {
  try {
    for (const [path, content] of files) {
      const target = join(folder, path);
      mkdirSync(dirname(target), { recursive: true });
      writeFileSync(target, content);
    }
  } catch (cause) {
    throw new HypolithError("export-failed", `the page cannot be written into ${folder}`, {
      cause,
      hint: "choose a folder that you may write to",
    });
  }
}
