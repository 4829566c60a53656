/**
 * What the page shall start: put together from the form or from the page's address, with every mistake found that can be seen before
 * anything is downloaded.
 *
 * Words of an address: kernel and initrd (addresses of files), image (of a description), append, memory, cpu, engine; start (boot at
 * once what is served beside the page). An address with a kernel boots at once. Words that are not known are left to others.
 */

import { HypolithError } from "../../src/base/errors.ts";
import type { EngineName } from "../../src/control/protocol.ts";
import { ENGINES } from "../../src/control/protocol.ts";
import {
  CONSOLE_COMMAND_LINE,
  checkMemorySize,
  DEFAULT_CPU_MODEL,
  DEFAULT_ENGINE,
  DEFAULT_MEMORY,
} from "../common/machine-defaults.ts";
import { parseSize } from "../common/size.ts";
import { BootFile } from "./boot-file.ts";
import type { ServedImage } from "./served-image.ts";

/** As the user wrote it. */
export interface StartWishes {
  readonly kernel: BootFile | undefined;
  readonly initrd: BootFile | undefined;
  readonly append: string;
  readonly memory: string;
  readonly cpuModel: string;
  readonly engine: string;
}

export interface StartPlan {
  readonly title: string;
  readonly kernel: BootFile;
  readonly initrd: BootFile | undefined;
  readonly cmdline: string;
  readonly memoryBytes: number;
  readonly cpuModel: string;
  readonly engine: EngineName;
  readonly hasSession: boolean;
}

const CPU_MODEL = /^[\w.-]+(?:,[+-][\w.]+)*$/;

export const NO_WISHES: StartWishes = {
  kernel: undefined,
  initrd: undefined,
  append: "",
  memory: DEFAULT_MEMORY,
  cpuModel: DEFAULT_CPU_MODEL,
  engine: DEFAULT_ENGINE,
};

/** A kernel of the user's own is booted alone; an initrd of the user's own takes the place of the image's. */
export function planStart(wishes: StartWishes, image: ServedImage | undefined): StartPlan {
  const kernel = wishes.kernel ?? image?.kernel;
  if (!kernel) {
    throw new HypolithError("kernel-absent", "there is no kernel to boot", {
      hint: "choose a Linux bzImage (vmlinuz) or a Multiboot kernel, or drop it on the page",
    });
  }
  const used = wishes.kernel ? undefined : image;
  const initrd = wishes.initrd ?? used?.initrd;
  const words = [CONSOLE_COMMAND_LINE, used?.append ?? "", wishes.append.trim()];
  return {
    title: used?.title ?? kernel.name,
    kernel,
    initrd,
    cmdline: words.filter((word) => word !== "").join(" "),
    memoryBytes: checkMemory(wishes.memory),
    cpuModel: checkCpuModel(wishes.cpuModel),
    engine: checkEngine(wishes.engine),
    hasSession: used?.hasSession === true && !wishes.initrd,
  };
}

export interface AddressWishes extends StartWishes {
  /** Where a description of an image is said to be. */
  readonly image: string | undefined;
  readonly startsAtOnce: boolean;
}

/** `base` is the page's own address. */
export function wishesOf(parameters: URLSearchParams, base: URL): AddressWishes {
  const file = (role: "kernel" | "initrd"): BootFile | undefined => {
    const address = parameters.get(role);
    if (!address) return undefined;
    return new BootFile(role, addressOf(address, base, role), address);
  };
  const kernel = file("kernel");
  return {
    kernel,
    initrd: file("initrd"),
    append: parameters.get("append") ?? NO_WISHES.append,
    memory: parameters.get("memory") || NO_WISHES.memory,
    cpuModel: parameters.get("cpu") || NO_WISHES.cpuModel,
    engine: parameters.get("engine") || NO_WISHES.engine,
    image: parameters.get("image") || undefined,
    startsAtOnce: kernel !== undefined || parameters.has("start"),
  };
}

export function addressOf(address: string, base: URL, what: string): URL {
  const url = URL.canParse(address, base.href) ? new URL(address, base) : undefined;
  if (url && ["http:", "https:", "blob:"].includes(url.protocol)) return url;
  throw new HypolithError("address-invalid", `the ${what} '${address}' is no address of a file`, {
    hint: "write one like https://example.org/vmlinuz, or relative to the page",
  });
}

function checkMemory(text: string): number {
  const bytes = parseSize(text);
  if (bytes !== undefined) return checkMemorySize(bytes);
  throw new HypolithError("memory-invalid", `'${text}' is no memory size`, {
    hint: "write it like 512m or 1g",
  });
}

function checkCpuModel(text: string): string {
  if (CPU_MODEL.test(text)) return text;
  throw new HypolithError("cpu-model-invalid", `'${text}' is no CPU model`, {
    hint: "write a name and changes to it, like x86-64-v2,-sse4_2,+rdrand",
  });
}

function checkEngine(text: string): EngineName {
  const found = ENGINES.find((engine) => engine === text);
  if (found) return found;
  throw new HypolithError("engine-unknown", `there is no engine '${text}'`, {
    hint: `one of ${ENGINES.join(", ")}`,
  });
}
