/** The parts of index.html, by id and by what they are. Throws if the document and the scripts do not fit together. */
export function element<T extends HTMLElement>(id: string, kind: new () => T): T {
  const found = document.getElementById(id);
  if (found instanceof kind) return found;
  throw new Error(`index.html has no ${kind.name} '${id}'`);
}
