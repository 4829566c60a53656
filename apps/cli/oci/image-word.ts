/**
 * What a word on the command line names: one of our own images, files on this machine, or an image in a registry.
 *
 * The rule, in this order: "debian" and "debian:SUITE" ("debian:trixie", "debian:stable") are made of Debian's packages here; a kernel that `hypo help run` lists
 * ("debian:cloud-amd64") is ours, with BusyBox; "oci:PATH[:TAG]" and "docker-archive:PATH[:TAG]" are files; so is what begins with "./", "../" or "/" or ends in ".tar",
 * ".tar.gz" or ".tgz"; all else names an image in a registry, "debian:12-slim" and "docker.io/library/debian" included.
 */
import { HypolithError } from "../../../src/base/errors.ts";
import { closest } from "../closest.ts";
import { readDebianWord, SUITES } from "../debian/suites.ts";
import { FLAVORS } from "../image/flavors.ts";
import { type ImageReference, parseReference } from "./reference.ts";

export type ImageWord =
  | { readonly kind: "own"; readonly name: string }
  | { readonly kind: "debian"; readonly suite: string }
  | { readonly kind: "local"; readonly path: string; readonly tag: string | undefined }
  | { readonly kind: "registry"; readonly reference: ImageReference };

export function readImageWord(word: string): ImageWord {
  if (FLAVORS.some(({ image }) => image === word)) return { kind: "own", name: word };
  const debian = readDebianWord(word);
  if (debian) return { kind: "debian", ...debian };
  const transport = /^(?:oci|oci-archive|docker-archive):(.+)$/.exec(word)?.[1];
  if (transport !== undefined) return { kind: "local", ...splitTag(transport) };
  const isPath =
    /^\.{0,2}\//.test(word) ||
    word === "." ||
    word === ".." ||
    /\.(?:tar|tar\.gz|tgz|tar\.zst)$/.test(word);
  if (isPath) return { kind: "local", path: word, tag: undefined };
  refuseTypo(word);
  refuseSuiteTypo(word);
  return { kind: "registry", reference: parseReference(word) };
}

/** Nobody should ask a registry for "debain" by accident. */
function refuseTypo(word: string): void {
  if (/[/:@]/.test(word) || closest(word, ["debian"]) === undefined) return;
  throw new HypolithError("image-unknown", `there is no image '${word}' of ours`, {
    hint: `did you mean 'debian'?\nan image of that name in a registry: docker.io/library/${word}`,
  });
}

/** A suite that is none is rarely a tag: those have digits or hyphens. */
function refuseSuiteTypo(word: string): void {
  const tag = /^debian:([a-z]+)$/.exec(word)?.[1];
  if (tag === undefined || OLD_TAGS.has(tag)) return;
  const near = closest(tag, SUITES);
  throw new HypolithError("image-unknown", `there is no Debian suite '${tag}' of ours`, {
    hint: `${near ? `did you mean 'debian:${near}'?` : `there are: ${SUITES.join(", ")}`}\nan image of that name in a registry: docker.io/library/${word}`,
  });
}

/** Releases that mirrors have no more, and docker.io's other words. */
const OLD_TAGS = new Set(["latest", "bullseye", "buster", "stretch", "jessie", "experimental"]);

/** A colon in the last part of the path begins a name. */
function splitTag(text: string): { readonly path: string; readonly tag: string | undefined } {
  const match = /^(.*?[^/:]):([^/]+(?:\/.*)?)$/.exec(text);
  return match ? { path: match[1]!, tag: match[2]! } : { path: text, tag: undefined };
}
