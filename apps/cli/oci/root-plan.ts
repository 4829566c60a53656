/** What `hypo run` shall do with an image that is not one of our own. */
import type { ImageWord } from "./image-word.ts";
import type { Platform } from "./manifest.ts";

/** "disk": read-only, with EROFS. "memory": in the initramfs, unpacked by the kernel. */
export const ROOT_FORMS = ["disk", "memory"] as const;
export type RootForm = (typeof ROOT_FORMS)[number];

export interface RootPlan {
  readonly word: Exclude<ImageWord, { kind: "own" }>;
  readonly platform: Platform;
  readonly form: RootForm;
  /** In place of the image's; "": none. */
  readonly entrypoint: string | undefined;
}
