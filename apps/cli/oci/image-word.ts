/**
 * What a word on the command line names: one of our own images, files on this machine, or an image in a registry.
 *
 * The rule, in this order: a name that `hypo help run` lists ("debian", "debian:cloud-amd64") is ours, a kernel with BusyBox; "oci:PATH[:TAG]" and "docker-archive:PATH[:TAG]" are files;
 * so is what begins with "./", "../" or "/" or ends in ".tar", ".tar.gz" or ".tgz"; all else names an image in a registry, "debian:bookworm" and "docker.io/library/debian" included.
 */
import { HypolithError } from "../../../src/base/errors.ts";
import { closest } from "../closest.ts";
import { FLAVORS } from "../image/flavors.ts";
import { type ImageReference, parseReference } from "./reference.ts";

export type ImageWord =
  | { readonly kind: "own"; readonly name: string }
  | { readonly kind: "local"; readonly path: string; readonly tag: string | undefined }
  | { readonly kind: "registry"; readonly reference: ImageReference };

export function readImageWord(word: string): ImageWord {
  if (word === "debian" || FLAVORS.some(({ image }) => image === word))
    return { kind: "own", name: word };
  const transport = /^(?:oci|oci-archive|docker-archive):(.+)$/.exec(word)?.[1];
  if (transport !== undefined) return { kind: "local", ...splitTag(transport) };
  const isPath =
    /^\.{0,2}\//.test(word) ||
    word === "." ||
    word === ".." ||
    /\.(?:tar|tar\.gz|tgz|tar\.zst)$/.test(word);
  if (isPath) return { kind: "local", path: word, tag: undefined };
  refuseTypo(word);
  return { kind: "registry", reference: parseReference(word) };
}

/** Nobody should ask a registry for "debain" by accident. */
function refuseTypo(word: string): void {
  if (/[/:@]/.test(word) || closest(word, ["debian"]) === undefined) return;
  throw new HypolithError("image-unknown", `there is no image '${word}' of ours`, {
    hint: `did you mean 'debian'?\nan image of that name in a registry: docker.io/library/${word}`,
  });
}

/** A colon in the last part of the path begins a name. */
function splitTag(text: string): { readonly path: string; readonly tag: string | undefined } {
  const match = /^(.*?[^/:]):([^/]+(?:\/.*)?)$/.exec(text);
  return match ? { path: match[1]!, tag: match[2]! } : { path: text, tag: undefined };
}
