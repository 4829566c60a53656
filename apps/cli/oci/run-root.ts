/**
 * `hypo run IMAGE`: from the image that a plan names to what the machine needs for it: a disk or an archive with its files, and the process.
 */
import { tmpdir } from "node:os";
import { HypolithError } from "../../../src/base/errors.ts";
import type { DiskConfig } from "../../../src/control/protocol.ts";
import { type GuestRoot, ROOT_FOLDER } from "../guest/root.ts";
import { defaultCacheRoot } from "../image/cache.ts";
import { Progress } from "../image/progress.ts";
import { Staging } from "../image/staging.ts";
import type { Messages } from "../messages.ts";
import type { RunOptions, RunPlan } from "../run-plan.ts";
import type { ImageContent } from "./image-content.ts";
import { type ImageProcess, planProcess } from "./process.ts";
import type { RootPlan } from "./root-plan.ts";
import { factsOf, type RootFacts } from "./root-store.ts";
import { withTree } from "./root-tree.ts";
import { type ImageShelf, openShelf, supplyImageContent } from "./supply.ts";
import { treeArchive } from "./tree-archive.ts";

export interface RunRoot {
  readonly guest: GuestRoot & { readonly process: ImageProcess };
  /** To be the machine's last. */
  readonly disk: DiskConfig | undefined;
  /** To be joined to the initramfs. */
  readonly archive: Uint8Array | undefined;
}

interface Context {
  readonly options: RunOptions;
  readonly messages: Messages;
  readonly signal: AbortSignal;
}

type Words = Pick<RunPlan, "job" | "mode" | "disks" | "memoryBytes">;

/** Of the guest's memory, what an archive may have: it is there twice while the kernel unpacks it. */
const MEMORY_SHARE = 0.4;
const FIRST_DISK = "a".charCodeAt(0);

export async function supplyRoot(root: RootPlan, words: Words, context: Context): Promise<RunRoot> {
  const run = root.form === "disk" ? onDisk : inMemory;
  const shelf = shelfOf(context.options);
  return withContent(root, shelf, context, (image) =>
    run({ ...context, root, words, shelf, image }),
  );
}

/** What can take long, for a machine that starts elsewhere. */
export async function prepareRoot(root: RootPlan, context: Context): Promise<void> {
  const shelf = shelfOf(context.options);
  const { messages, signal } = context;
  await withContent(root, shelf, context, async (image) => {
    if (root.form !== "disk") return;
    await shelf.roots.supply(image, { progress: new Progress(messages), signal });
  });
}

/** Layers in the store that have been damaged since they were pulled are fetched once more. */
async function withContent<T>(
  root: RootPlan,
  shelf: ImageShelf,
  context: Context,
  use: (image: ImageContent) => Promise<T>,
): Promise<T> {
  const image = await contentOf(root, shelf, context);
  try {
    return await use(image);
  } catch (error) {
    const isDamage = error instanceof HypolithError && DAMAGE.has(error.code);
    const named = shelf.names.list().find(({ digest }) => digest === image.digest);
    if (root.word.kind === "local" || !isDamage || !named) throw error;
    if (shelf.store.removeDamaged(named.blobs) === 0) throw error;
    return use(await contentOf(root, shelf, context));
  }
}

const DAMAGE = new Set(["digest-mismatch", "image-unsound"]);

interface Order extends Context {
  readonly root: RootPlan;
  readonly words: Words;
  readonly shelf: ImageShelf;
  readonly image: ImageContent;
}

async function onDisk({ shelf, image, messages, signal, ...order }: Order): Promise<RunRoot> {
  const stored = await shelf.roots.supply(image, { progress: new Progress(messages), signal });
  warnOfAttributes(stored, image, messages);
  const letter = String.fromCharCode(FIRST_DISK + order.words.disks.length);
  return {
    guest: { device: `/dev/vd${letter}`, process: processOf(order, image, stored) },
    disk: { path: stored.path, format: "raw", mode: "read" },
    archive: undefined,
  };
}

async function inMemory({ shelf, image, messages, signal, ...order }: Order): Promise<RunRoot> {
  const staging = shelf.roots.stage();
  const limit = order.words.memoryBytes * MEMORY_SHARE;
  try {
    const context = { folder: staging.path, progress: new Progress(messages), signal };
    const { facts, archive } = await withTree(image, context, (tree) => ({
      facts: factsOf(tree),
      archive: treeArchive(tree.root, ROOT_FOLDER, limit),
    }));
    warnOfAttributes(facts, image, messages);
    const process = processOf(order, image, facts);
    return { guest: { device: undefined, process }, disk: undefined, archive };
  } finally {
    staging.remove();
  }
}

function contentOf(
  root: RootPlan,
  shelf: ImageShelf,
  { options, messages, signal }: Context,
): Promise<ImageContent> {
  const { pull, mirror, insecure = false } = options;
  return supplyImageContent(root.word, {
    shelf,
    platform: root.platform,
    pull,
    insecure,
    mirror,
    messages,
    signal,
  });
}

/** Without the cache, one that is gone with this process. */
function shelfOf({ cache }: RunOptions): ImageShelf {
  return openShelf(cache ? defaultCacheRoot() : Staging.create(tmpdir()).path);
}

function processOf(
  { root, words }: Pick<Order, "root" | "words">,
  image: ImageContent,
  files: Omit<RootFacts, "size">,
): ImageProcess {
  const { argv = [], environment = {}, user, workdir } = words.job ?? {};
  const process = {
    command: argv,
    entrypoint: root.entrypoint,
    environment: Object.entries(environment).map(([name, value]) => `${name}=${value}`),
    ...{ user, workdir, hasTerminal: words.mode === "console" },
  };
  return planProcess(image.config, process, files, image.name);
}

function warnOfAttributes(
  { withAttributes }: Omit<RootFacts, "size">,
  { name }: ImageContent,
  messages: Messages,
): void {
  if (withAttributes === 0) return;
  const files = withAttributes === 1 ? "1 file" : `${withAttributes} files`;
  messages.log(
    "info",
    `${name}: extended attributes of ${files} (capabilities, labels) are left out`,
  );
}
